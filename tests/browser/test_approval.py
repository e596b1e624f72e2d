"""The example whose events a person approves, in Airflow's own pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_ropo.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("ropo_default")

DAG_ID = "ropo_usageplace_events_approved"
#: A day on which nobody else's rows landed, nor in the week before it.
DAY = "2026-02-03"
#: A run's logical date: no two runs may share one. Both runs look back from the same moment before it.
DATES = {"approved": "2026-02-04T04:00:00Z", "changed": "2026-02-04T05:00:00Z"}
WAITING = {"awaiting_input", "deferred"}
COPY = """
INSERT INTO field_work_outcome
SELECT ?, place_code, result, done_at, customer_no, contract_no, remark, invoice_no, ropo_jobid, ?, load_no
FROM field_work_outcome WHERE work_order_no = 'WO-0112-01'
"""


@pytest.fixture
def add_row(warehouse: Path) -> Iterator[Callable[[str], None]]:
    """Return a shorthand that lets an outcome land in the warehouse on that day; none is left behind."""

    def change(sql: str, *parameters: str) -> None:
        with closing(sqlite3.connect(warehouse, timeout=60)) as database:
            database.execute(sql, parameters)
            database.commit()

    yield lambda event_id: change(COPY, event_id, f"{DAY} 10:00:00")
    change("DELETE FROM field_work_outcome WHERE recorded_at LIKE ?", f"{DAY}%")


@pytest.fixture(scope="module")
def unpaused(airflow: Any, ropo_default: None) -> None:
    """Unpause the DAG, and end the scheduled run that is due then: it would be the one active run."""
    airflow.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
    runs = f"dags/{DAG_ID}/dagRuns"
    run = airflow.wait_for(lambda: airflow.ask(runs)["dag_runs"], "the scheduled run")[0]
    airflow.ask(f"{runs}/{quote(run['dag_run_id'])}", "PATCH", state="success")


@pytest.fixture
def ask(airflow: Any, page: Page, unpaused: None) -> Callable[[str], None]:
    """Return a shorthand that starts a run, and opens the page on which its approval is asked for."""

    def ask(run_id: str) -> None:
        airflow.ask(f"dags/{DAG_ID}/dagRuns", "POST", dag_run_id=run_id, logical_date=DATES[run_id])
        approve = f"dags/{DAG_ID}/dagRuns/{quote(run_id)}/taskInstances/approve"
        airflow.wait_for(lambda: airflow.ask(approve)["state"] in WAITING, "the question")
        page.goto(f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id)}/tasks/approve/required_actions")

    return ask


def test_what_is_approved_is_reported(
    page: Page,
    airflow: Any,
    sandbox: Sandbox,
    add_row: Callable[[str], None],
    ask: Callable[[str], None],
    take: Callable[[Page, str], None],
) -> None:
    """The question shows the counts and the first events; after *Approve*, just these are posted."""
    add_row("APPROVED-1")
    ask("approved")
    expect(page.get_by_text("Would be posted")).to_be_visible()
    expect(page.get_by_text("APPROVED-1")).to_be_visible()
    take(page, "approval")

    page.get_by_role("button", name="Approve").click()

    assert "success" == airflow.wait_for_end(DAG_ID, "approved")
    assert ["APPROVED-1"] == posted(sandbox)


def test_what_was_not_approved_is_refused(
    page: Page, airflow: Any, sandbox: Sandbox, add_row: Callable[[str], None], ask: Callable[[str], None]
) -> None:
    """If an event has come in since the preview, nothing is posted, and the report says what differs."""
    add_row("REFUSED-1")
    ask("changed")
    add_row("REFUSED-2")

    page.get_by_role("button", name="Approve").click()

    assert "failed" == airflow.wait_for_end(DAG_ID, "changed")
    page.goto(airflow.report_page("changed", dag_id=DAG_ID))
    frame = page.frame_locator("iframe[title='Ropo One']")
    expect(frame.get_by_text("this is not what was approved: 1 event more")).to_be_visible()
    assert not [event_id for event_id in posted(sandbox) if "REFUSED" in event_id]


def posted(sandbox: Sandbox) -> list[str]:
    ids = [str(arrival.payload["id"]) for arrival in sandbox.arrivals]
    return [event_id for event_id in ids if event_id.startswith(("APPROVED", "REFUSED"))]
