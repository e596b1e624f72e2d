"""Tries of a run that sends a file, each in a process of its own that may be killed at any moment.

Reads what to do from standard input, one line of JSON a try; forks, so that what takes a second to import is imported
once; and writes to standard output which process it is, and how that ended. A try counts what it does to the ledger and
to the destination, and kills itself at the step that it is told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.formats import format_of
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.ledger.table import LedgerTable
from file_runs import NAME, FileRuns, StoreOf
from file_runs import rows as make_rows
from forked_tries import make_tries


class Steps:
    """Counts steps, and kills this process at one of them.

    :param kill_at: the step, counted from one; 0: none.
    """

    def __init__(self, kill_at: int) -> None:
        self.count = 0
        self._kill_at = kill_at

    def step(self) -> None:
        self.count += 1
        if self.count == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Counted(StoreOf):
    """A store whose every call has a step before it, and one after."""

    def __init__(self, store: FileStore, steps: Steps) -> None:
        super().__init__(store)
        self.can_rename = store.can_rename  # type: ignore[misc]
        self._steps = steps

    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        self._steps.step()
        # Half a file under its final name is left to a person: that is another test's matter.
        source = Halved(file, self._steps) if replace else file
        super().put(source, name, replace=replace)  # type: ignore[arg-type]
        self._steps.step()

    def publish(self, temporary: str, name: str) -> None:
        self._steps.step()
        super().publish(temporary, name)
        self._steps.step()

    def remove(self, name: str) -> None:
        self._steps.step()
        super().remove(name)
        self._steps.step()


class Halved:
    """A file that is read in two halves, with a step between them."""

    def __init__(self, file: BinaryIO, steps: Steps) -> None:
        self._steps = steps
        content = file.read()
        middle = len(content) // 2
        self._halves = [content[:middle], content[middle:]]

    def read(self, _size: int = -1) -> bytes:
        if len(self._halves) == 1:
            self._steps.step()
        return self._halves.pop(0) if self._halves else b""


def try_once(job: dict[str, Any]) -> dict[str, Any]:
    """Make a try; return how it ended."""
    steps = Steps(job.get("kill_at", 0))
    insert = LedgerTable.insert

    def counted(self: LedgerTable, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
        if not rows:
            return {}
        steps.step()
        refused = insert(self, rows)
        steps.step()
        return refused

    LedgerTable.insert = counted  # type: ignore[method-assign]
    ended = FileRuns(job["database"]).run(
        make_rows(job["rows"], places=job["places"], first=job.get("first", 0)),
        Counted(store_of(job), steps),
        run_id=job["run"],
        try_number=job["try"],
        name=job.get("name", NAME),
        paths=FilePaths(job.get("folder", ""), job.get("temporary", ".part")),
        format=format_of(job.get("format", "jsonl")),
    )
    summary = ended.summary
    return {"well": ended.stopped is None and not summary.failed, "said": str(ended.stopped), "steps": steps.count}


def store_of(job: dict[str, Any]) -> FileStore:
    """Return the store: a folder, or what an Airflow connection leads to."""
    if "path" in job:
        return FolderStore(Path(job["path"]))
    from airflow_provider_ropo.task.storage import open_store

    os.environ["AIRFLOW_CONN_FILES"] = json.dumps(job["connection"])
    return open_store("files")


def main() -> None:
    """Make one try after another."""
    if "--airflow" in sys.argv:
        import airflow.providers.sftp.hooks.sftp  # noqa: F401 - once, not in every process
        import boto3

        import airflow_provider_ropo.task.storage  # noqa: F401 - as above

        # Its models are read from the disk once, not by every process.
        boto3.client("s3", region_name="eu-north-1", aws_access_key_id="a", aws_secret_access_key="b")
    make_tries(try_once)


if __name__ == "__main__":
    main()
