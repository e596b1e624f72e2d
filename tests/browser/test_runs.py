"""The page of the latest runs, and what a viewer without access to a DAG sees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Locator, Page, expect

from airflow_provider_ropo.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("ropo_default")

DAG_ID, TASK_ID = "ropo_usageplace_events_daily", "report_usageplace_events"
ADDRESS = f"dag_id={DAG_ID}&task_id={TASK_ID}&map_index=-1&run_id={{run_id}}"
#: Texts that occur only in a report of the example's day with bad rows.
TELLING = ("of 29 events", "UNKNOWN-7781", "WO-0114-09")

Take = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def runs(airflow: Any, ropo_default: None) -> dict[str, str]:
    """Run each DAG once; the visitor may not see the first."""
    runs = {DAG_ID: "hidden", "trials": "seen", "elsewhere": "afar", "rehearsal": "rehearsed"}
    for dag_id, run_id in runs.items():
        airflow.ask(f"dags/{dag_id}", "PATCH", is_paused=False)
        date = "2026-01-15T11:00:00Z" if dag_id == DAG_ID else None
        airflow.ask(f"dags/{dag_id}/dagRuns", "POST", dag_run_id=run_id, logical_date=date)
    for dag_id, run_id in runs.items():
        airflow.wait_for_end(dag_id, run_id)
    return runs


def cell(row: Locator, column: str) -> Locator:
    """Return a row's cell in a column of numbers."""
    return row.locator(f"[data-name='{column}']")


def test_the_latest_runs_are_listed(page: Page, sandbox: Sandbox, runs: dict[str, str], take: Take) -> None:
    """The page "Ropo One" lists runs with their counts; each leads to its report."""
    page.get_by_role("link", name="Ropo One").click()
    frame = page.frame_locator("iframe[title='Ropo One']")

    row = frame.get_by_role("row").filter(has_text=runs[DAG_ID])
    expect(row).to_contain_text("of 29 events are at Ropo One")
    expect(row).to_contain_text(f"to {sandbox.url} {sandbox.cid}")
    expect(cell(row, "Rejected")).to_have_text("1")
    expect(cell(row, "Open now")).to_have_text("2")
    trials = frame.get_by_role("row").filter(has_text=runs["trials"])
    expect(trials).to_have_count(3)
    take(page, "runs-light")

    row.get_by_role("link").click()

    expect(page.frame_locator("iframe[title='Ropo One']").get_by_text("UNKNOWN-7781")).to_be_visible()
    assert page.url.endswith(f"/dags/{DAG_ID}/runs/{runs[DAG_ID]}/tasks/{TASK_ID}/plugin/ropo-report")


def test_the_list_is_filtered(page: Page, airflow: Any, runs: dict[str, str], take: Take) -> None:
    """By a part of the DAG's name, by day, by posts or previews, and by what is open; a reload keeps the filters."""
    page.goto(f"{airflow.url}/ropo-one/runs.html")
    rows = page.locator("tbody tr")
    expect(rows.filter(has_text=runs["trials"]).first).to_be_visible()
    tomorrow = dt.datetime.now(ZoneInfo("Europe/Helsinki")).date() + dt.timedelta(days=1)

    page.get_by_label("Only open").check()
    expect(rows.filter(has_text=runs[DAG_ID])).to_have_count(1)
    expect(rows.filter(has_text=runs["rehearsal"])).to_have_count(0)
    # Of the three tasks of the trials only one has an event that was not delivered, and none in this module.
    expect(rows.filter(has_text=runs["trials"])).to_have_count(0)
    take(page, "runs-open")
    page.get_by_label("Only open").uncheck()

    page.get_by_label("Show").select_option("previews only")
    preview = rows.filter(has_text=runs["rehearsal"])
    expect(rows.filter(has_text=runs["trials"])).to_have_count(0)
    expect(rows.filter(has_text=runs[DAG_ID])).to_have_count(0)
    expect(preview).to_contain_text("Nothing was posted: 3 events would be posted.")
    assert "–" == cell(preview, "Open now").inner_text()
    page.get_by_label("Show").select_option("posts and previews")

    page.get_by_label("DAG").fill("rial")
    page.keyboard.press("Enter")
    expect(rows.filter(has_not_text="trials")).to_have_count(0)
    expect(rows.filter(has_text=runs["trials"])).to_have_count(3)
    page.reload()
    expect(rows.filter(has_text=runs["trials"])).to_have_count(3)
    expect(rows.filter(has_not_text="trials")).to_have_count(0)

    page.get_by_label("Since").fill(tomorrow.isoformat())
    expect(page.get_by_role("heading", name="No run matches the filters")).to_be_visible()


def test_a_report_that_is_kept_elsewhere_hides_no_other_run(page: Page, airflow: Any, runs: dict[str, str]) -> None:
    """A run whose XCom Airflow's API cannot give is listed with what is known of it, and so are all others."""
    progress = f"dags/elsewhere/dagRuns/{runs['elsewhere']}/taskInstances/before_33/xcomEntries/ropo_progress"
    assert 204 == airflow.delete(progress)
    page.goto(f"{airflow.url}/ropo-one/runs.html")

    kept = page.locator("tbody tr").filter(has_text=runs["elsewhere"])
    expect(kept.filter(has_text="1 of 2 events are at Ropo One: 1 new.")).to_have_count(1)
    expect(kept.filter(has_text="An XCom backend keeps this report outside Airflow's database.")).to_have_count(1)
    expect(page.locator("tbody tr").filter(has_text=runs[DAG_ID])).to_have_count(1)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_list_fits_a_narrow_screen(page: Page, airflow: Any, runs: dict[str, str], take: Take, theme: str) -> None:
    """At a width of 400 pixels nothing is cut off, and the result is still there."""
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    page.set_viewport_size({"width": 400, "height": 900})

    page.goto(f"{airflow.url}/ropo-one/runs.html")

    row = page.get_by_role("row").filter(has_text=runs[DAG_ID])
    expect(row).to_contain_text("of 29 events are at Ropo One")
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
