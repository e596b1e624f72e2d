"""The example whose events a person approves, in Airflow's own pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_ropo.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("ropo_default")

DAG_ID = "ropo_usageplace_events_approved"
#: The day after the warehouse's first: its look-back has that day's nine events.
DATE = "2026-01-12T03:00:00Z"
WAITING = {"awaiting_input", "deferred"}


@pytest.fixture
def start(airflow: Any, warehouse: Path) -> Callable[[str], None]:
    """Return a shorthand that starts a run whose ledger knows nothing, and waits until its approval is asked for."""

    def start(run_id: str) -> None:
        with closing(sqlite3.connect(warehouse, timeout=60)) as database:
            database.execute("DROP TABLE IF EXISTS ropo_ledger")
        airflow.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
        airflow.ask(f"dags/{DAG_ID}/dagRuns", "POST", dag_run_id=run_id, logical_date=DATE)
        approve = f"dags/{DAG_ID}/dagRuns/{quote(run_id)}/taskInstances/approve"
        airflow.wait_for(lambda: airflow.ask(approve)["state"] in WAITING, "the question")

    return start


def approve(page: Page, airflow: Any, run_id: str) -> Page:
    page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id)}/tasks/approve/required_actions")
    button = page.get_by_role("button", name="Approve")
    expect(button).to_be_enabled()
    return page


def posted(sandbox: Sandbox) -> list[str]:
    return sorted(arrival.payload["id"] for arrival in sandbox.arrivals)


def test_what_is_approved_is_reported(
    page: Page, airflow: Any, sandbox: Sandbox, start: Callable[[str], None], take: Callable[[Page, str], None]
) -> None:
    """The question shows the counts and the first events; after *Approve*, just these are posted."""
    before = len(sandbox.arrivals)
    start("approved")
    approve(page, airflow, "approved")
    expect(page.get_by_text("Would be posted")).to_be_visible()
    expect(page.get_by_text("643007572062443672")).to_be_visible()
    take(page, "approval")

    page.get_by_role("button", name="Approve").click()

    assert "success" == airflow.wait_for_end(DAG_ID, "approved")
    assert 9 == len(sandbox.arrivals) - before


def test_what_was_not_approved_is_refused(
    page: Page, airflow: Any, sandbox: Sandbox, warehouse: Path, start: Callable[[str], None]
) -> None:
    """If an event has come in since the preview, nothing is posted, and the report says what differs."""
    before = len(sandbox.arrivals)
    start("changed")
    copy = "SELECT 'LATE', place_code, result, done_at, customer_no, contract_no, remark, invoice_no, ropo_jobid"
    with closing(sqlite3.connect(warehouse, timeout=60)) as database:
        database.execute(
            f"INSERT INTO field_work_outcome {copy}, recorded_at, load_no FROM field_work_outcome "
            "WHERE work_order_no = 'WO-0112-01'"
        )
        database.commit()
    approve(page, airflow, "changed").get_by_role("button", name="Approve").click()

    assert "failed" == airflow.wait_for_end(DAG_ID, "changed")

    with closing(sqlite3.connect(warehouse, timeout=60)) as database:
        database.execute("DELETE FROM field_work_outcome WHERE work_order_no = 'LATE'")
        database.commit()
    page.goto(airflow.report_page("changed", dag_id=DAG_ID))
    frame = page.frame_locator("iframe[title='Ropo One']")
    expect(frame.get_by_text("this is not what was approved: 1 event more")).to_be_visible()
    assert before == len(sandbox.arrivals)
