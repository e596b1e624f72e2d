"""The page of the latest runs, and what a viewer without access to a DAG sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.usefixtures("ropo_default")

DAG_ID, TASK_ID = "ropo_usageplace_events_daily", "report_usageplace_events"
ADDRESS = f"dag_id={DAG_ID}&task_id={TASK_ID}&map_index=-1&run_id={{run_id}}"
#: Texts that occur only in a report of the example's day with bad rows.
TELLING = ("of 11 events", "UNKNOWN-7781", "WO-0113-09")

Take = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def runs(airflow: Any, ropo_default: None) -> dict[str, str]:
    """Run both DAGs once: one run that the visitor may see, and one that only the chief may."""
    for dag_id, run_id, date in ((DAG_ID, "hidden", "2026-01-14T11:00:00Z"), ("trials", "seen", None)):
        airflow.ask(f"dags/{dag_id}", "PATCH", is_paused=False)
        airflow.ask(f"dags/{dag_id}/dagRuns", "POST", dag_run_id=run_id, logical_date=date)
        airflow.wait_for_end(dag_id, run_id)
    return {DAG_ID: "hidden", "trials": "seen"}


def test_the_latest_runs_are_listed(page: Page, runs: dict[str, str], take: Take) -> None:
    """The page "Ropo One" lists runs with their counts; each leads to its report."""
    page.get_by_role("link", name="Ropo One").click()
    frame = page.frame_locator("iframe[title='Ropo One']")

    row = frame.get_by_role("row").filter(has_text=runs[DAG_ID])
    expect(row).to_contain_text("of 11 events are at Ropo One")
    expect(row.get_by_role("cell").nth(5)).to_have_text("1")
    trials = frame.get_by_role("row").filter(has_text=runs["trials"])
    expect(trials).to_have_count(3)
    take(page, "runs-light")

    row.get_by_role("link").click()

    expect(page.frame_locator("iframe[title='Ropo One']").get_by_text("UNKNOWN-7781")).to_be_visible()
    assert page.url.endswith(f"/dags/{DAG_ID}/runs/{runs[DAG_ID]}/tasks/{TASK_ID}/plugin/ropo-report")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_list_fits_a_narrow_screen(page: Page, airflow: Any, runs: dict[str, str], take: Take, theme: str) -> None:
    """At a width of 400 pixels nothing is cut off, and the result is still there."""
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    page.set_viewport_size({"width": 400, "height": 900})

    page.goto(f"{airflow.url}/ropo-one/runs.html")

    row = page.get_by_role("row").filter(has_text=runs[DAG_ID])
    expect(row).to_contain_text("of 11 events are at Ropo One")
    assert 0 == page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    take(page, f"runs-narrow-{theme}")


def test_a_viewer_without_access_to_a_dag_sees_nothing_of_its_report(
    sign_in: Callable[..., Page], airflow: Any, runs: dict[str, str]
) -> None:
    """A hidden DAG is shown to a visitor neither by the tab, the static page or the list, nor by any response."""
    page = sign_in("visitor")
    ids = f"{DAG_ID}/dagRuns/{runs[DAG_ID]}/taskInstances/{TASK_ID}"
    shown = []

    page.goto(f"{airflow.url}/ropo-one/report.html?{ADDRESS.format(run_id=quote(runs[DAG_ID]))}")
    expect(page.get_by_role("heading", level=1)).to_have_text("You do not have access")
    shown.append(page.content())
    page.goto(airflow.report_page(runs[DAG_ID]))
    frame = page.frame_locator("iframe[title='Ropo One']")
    expect(frame.get_by_role("heading", level=1)).to_have_text("You do not have access")
    shown += [frame.content() for frame in page.frames]
    page.goto(f"{airflow.url}/plugin/ropo-one")
    expect(frame.get_by_role("row").filter(has_text=runs["trials"]).first).to_be_visible()
    expect(frame.get_by_role("row").filter(has_text=DAG_ID)).to_have_count(0)
    shown += [frame.content() for frame in page.frames]

    assert [] == [word for word in TELLING for text in shown if word in text]
    asked = [page.request.get(f"{airflow.url}/api/v2/dags/{path}") for path in (ids, f"{ids}/xcomEntries/ropo_report")]
    assert [403, 403] == [answer.status for answer in asked]


def test_a_signed_out_viewer_sees_nothing(sign_in: Callable[..., Page], airflow: Any, runs: dict[str, str]) -> None:
    """Without a session, both pages tell the viewer to sign in and show nothing else."""
    page = sign_in(None)

    for name in ("runs.html", f"report.html?{ADDRESS.format(run_id=quote(runs[DAG_ID]))}"):
        page.goto(f"{airflow.url}/ropo-one/{name}")
        expect(page.get_by_role("heading")).to_have_text("You are signed out")


STATUS = """
async ([report, states]) => {
  const { runStatus } = await import("./words.js");
  return Object.fromEntries(states.map((state) => [state, runStatus(report, state, state !== "running").tone]));
}
"""


@pytest.mark.parametrize(
    ("missing", "tones"),
    [
        pytest.param(
            0, {"success": "good", "failed": "bad", "up_for_retry": "wait", "running": "quiet"}, id="all there"
        ),
        pytest.param(2, {"success": "wait", "failed": "bad", "up_for_retry": "wait", "running": "wait"}, id="not all"),
    ],
)
def test_green_is_only_a_success_with_everything_there(
    page: Page, airflow: Any, missing: int, tones: dict[str, str]
) -> None:
    """A run is not green before the task ends, nor if it was marked as a success while events are missing."""
    counts = {"rows": 11, "events": 11, "delivered": 11 - missing, "already_delivered": 0, "rejected": missing}
    counts |= dict.fromkeys(("invalid", "changed", "undelivered", "unconfirmed", "held", "closed"), 0)
    page.goto(f"{airflow.url}/ropo-one/runs.html")

    seen = page.evaluate(STATUS, [{"state": "ended", "preview": False, "stopped": None, "counts": counts}, [*tones]])

    assert tones == seen
