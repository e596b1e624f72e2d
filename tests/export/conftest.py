"""What the tests of files share: runs with a ledger, and a folder that files go to."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ropo.export.folder import FolderStore
from file_runs import FileRuns


@pytest.fixture
def runs(tmp_path: Path) -> FileRuns:
    """Return runs that share a ledger in a SQLite file."""
    return FileRuns(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


@pytest.fixture
def store(folder: Path) -> FolderStore:
    """Return the store of that folder."""
    return FolderStore(folder)
