"""The sandbox's page, and the files that arrive in its SFTP drop folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from airflow_provider_ropo.sandbox import Sandbox

HEADING = "Files in the SFTP drop folder"


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """Return the drop folder."""
    return tmp_path


@pytest.fixture
def sandbox_page(browser: Browser, drop: Path) -> Iterator[tuple[Page, str]]:
    """Open the page of a sandbox with a drop folder; return the connection that it prints, too."""
    command = [sys.executable, "-m", "airflow_provider_ropo.sandbox", "--port", "0", "--sftp-port", "0"]
    command += ["--sftp-folder", str(drop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, browser.new_context() as context:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[5]
            connection = process.stdout.readline().partition(": ")[2].strip()
            page = context.new_page()
            page.goto(url)
            yield page, connection
        finally:
            process.terminate()


def test_files_arrive(sandbox_page: tuple[Page, str], drop: Path) -> None:
    """A file is listed, with its size and lines, when it has its final name, and not when it has been collected."""
    page, connection = sandbox_page
    section = page.locator("section").filter(has=page.get_by_role("heading", name=HEADING))
    rows = section.locator("tbody tr")
    expect(section).to_contain_text("AIRFLOW_CONN_ROPO_SFTP")
    expect(section.locator("code")).to_contain_text(json.loads(connection)["extra"]["host_key"])
    expect(rows).to_have_count(0)

    upload = drop / "in" / "<i>events_20260114T030000Z_3f9c2a71b0de.jsonl.part"
    upload.write_bytes(b"1\n2\n")
    (drop / "other.csv").write_bytes(b"id\r\n")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("other.csv")
    upload.rename(upload.with_suffix(""))

    row = rows.filter(has_text="in/<i>events_20260114T030000Z_3f9c2a71b0de.jsonl")
    expect(row.get_by_role("cell")).to_contain_text(["", "in/", "4", "2"])
    upload.with_suffix("").unlink()
    expect(rows).to_have_count(1)


def test_without_a_drop_folder(browser: Browser) -> None:
    """The section is not there where no drop folder runs."""
    with Sandbox() as running, browser.new_context() as context:
        page = context.new_page()
        page.goto(running.url)

        expect(page.get_by_text("Sign-ins", exact=False).first).to_be_attached()
        expect(page.get_by_role("heading", name=HEADING)).to_be_hidden()
