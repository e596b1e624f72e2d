"""The report on a task instance's page: while the task runs and after, good and bad, light, dark and narrow."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from airflow_provider_ropo.sandbox import Fault, Sandbox

pytestmark = pytest.mark.usefixtures("ropo_default")

DAG_ID, TASK_ID = "ropo_usageplace_events_daily", "report_usageplace_events"
SETTLE_ID = "ropo_settle"
NARROW = {"width": 400, "height": 900}
#: With every special character that Airflow allows in a run id.
RUN_ID = "manual__2026-01-01T00:00:00+00:00~1.a"
MARKUP = "<img src=x onerror=\"document.title='broken into'\"> <b>no</b> & never"

Take = Callable[[Page, str], None]


def report(page: Page) -> FrameLocator:
    return page.frame_locator("iframe[title='Ropo One']")


def figures(frame: FrameLocator | Page) -> dict[str, str]:
    """Return the number of events of each status that has any."""
    shown = frame.locator(".figure:not(.none)")
    numbers = [figure.inner_text().split("\n") for figure in shown.all()]
    return {label: number for number, label in numbers}


def pick(page: Page, field: Locator, date: str, time: str) -> None:
    """Pick a date and time in one of Airflow's forms."""
    field.click()
    popover = page.get_by_role("dialog").last
    popover.get_by_placeholder("YYYY/MM/DD").fill(date)
    popover.get_by_placeholder("HH:mm").fill(time)
    page.keyboard.press("Escape")


def trigger(page: Page, airflow: Any) -> str:
    """Trigger the example for the first day of work, and return the run's name."""
    airflow.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
    page.goto(f"{airflow.url}/dags/{DAG_ID}")
    page.get_by_role("button", name="Trigger").click()
    form = page.get_by_role("dialog")
    pick(page, form.get_by_text(re.compile(r"\d{4} \d\d:\d\d")), "2026/01/13", "12:00")
    with page.expect_response(lambda answer: answer.url.endswith("/dagRuns") and answer.ok) as answered:
        form.get_by_role("button", name="Trigger").click()
    return str(answered.value.json()["dag_run_id"])


def backfill(page: Page, airflow: Any) -> None:
    """Start a backfill over the three days of work and the day after, and wait for its end."""
    page.goto(f"{airflow.url}/dags/{DAG_ID}")
    page.get_by_role("button", name="Trigger").click()
    form = page.get_by_role("dialog")
    form.get_by_text("Run this Dag for a range of dates").click()
    pick(page, form.get_by_text("Select date and time").first, "2026/01/12", "00:00")
    pick(page, form.get_by_text("Select date and time").first, "2026/01/15", "23:59")
    with page.expect_response(lambda answer: answer.url.endswith("/backfills") and answer.ok) as answered:
        form.get_by_role("button", name="Run Backfill").click()
    number = answered.value.json()["id"]
    airflow.wait_for(lambda: airflow.ask(f"backfills/{number}")["completed_at"], "the backfill's end")


def test_the_example_from_the_trigger_to_the_end(page: Page, airflow: Any, sandbox: Sandbox, take: Take) -> None:
    """The report is refreshed until the task ends, and not after; a backfill then counts new and known events."""
    sandbox.script(Fault(delay=2 * n) for n in range(1, 9))

    run_id = trigger(page, airflow)
    page.goto(airflow.report_page(run_id))

    frame = report(page)
    progress = frame.get_by_role("progressbar")
    expect(progress).to_have_text(re.compile(r"^[1-8] of 9 events, [\d.]+ a second, about \d+ s left$"))
    expect(frame.get_by_text("Posting", exact=True)).to_be_visible()
    assert 1 <= int(progress.get_attribute("aria-valuenow") or 0) <= 8
    take(page, "report-running")

    expect(frame.get_by_role("heading", level=1)).to_have_text("9 events reported: 9 new.")
    expect(frame.get_by_text("Done", exact=True)).to_be_visible()
    expect(progress).to_be_hidden()
    expect(frame.get_by_role("img", name="9 delivered")).to_be_visible()
    assert {"Delivered": "9"} == figures(frame)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "ropo_report" in request.url else None)
    airflow.wait_for(lambda: is_quiet(page, asked), "the end of the requests")
    take(page, "report-good")

    backfill(page, airflow)

    expected = {
        "2026-01-13": ("Done", "Nothing new: 9 events already known."),
        "2026-01-14": ("Done", "18 events reported: 9 new, 9 already known."),
        "2026-01-15": ("Failed", "27 of 29 events are at Ropo One: 9 new, 18 already known."),
        "2026-01-16": ("Failed", "27 of 29 events are at Ropo One: 27 already known."),
    }
    seen = {}
    for day in expected:
        page.goto(airflow.report_page(f"backfill__{day}T03:00:00+00:00"))
        seen[day] = (frame.locator(".badge").inner_text(), frame.get_by_role("heading", level=1).inner_text())
        take(page, f"report-{day}")
    assert expected == seen


def is_quiet(page: Page, asked: list[str]) -> bool:
    """Whether no request is sent for longer than the delay between two refreshes of a page that still refreshes."""
    before = len(asked)
    page.wait_for_timeout(5000)
    return len(asked) == before


def test_a_red_run_shows_which_rows_failed_and_what_to_do(
    page: Page, airflow: Any, sandbox: Sandbox, take: Take
) -> None:
    """The report of a run with bad rows has a table of these rows, and tells what to do next."""
    page.goto(airflow.report_page(red_run(airflow)))
    frame = report(page)
    expect(frame.get_by_role("table")).to_be_visible()

    head, *rows = ([text.strip() for text in row.inner_text().split("\t")] for row in frame.get_by_role("row").all())

    assert ["Event", "Usage place", "Status", "Reason", "HTTP"] == head
    assert ["WO-0114-07", "643007572062443726", "Invalid", "–"] == [*rows[0][:3], rows[0][-1]]
    assert ["WO-0114-09", "UNKNOWN-7781", "Rejected", "400"] == [*rows[1][:3], rows[1][-1]]
    assert "Ropo One needs the reason" in rows[0][3]
    assert "HTTP 400 Unknown usage place" in rows[1][3]
    assert ["1 rejected", "1 invalid"] == [mark.strip() for mark in frame.locator(".todo .mark").all_inner_texts()]
    expect(frame.locator(".todo")).to_contain_text("would reject it again. Fix the row in the source table.")
    expect(frame.locator(".next")).to_contain_text(
        "Airflow does not try this task instance again. When the rows are fixed, clear this task instance, or let a "
        "later run read the same rows. With the ledger, nothing that is known to be delivered is posted again."
    )
    for fact in (f"to {sandbox.url} {sandbox.cid}", "ledger ropo_ledger (connection warehouse)"):
        expect(frame.locator(".about").get_by_text(fact, exact=True)).to_be_visible()
    # The day's first work order, the rejected one and the invalid one are of January 2026.
    expect(frame.locator(".times")).to_have_text(
        re.compile(r"Oldest event not at Ropo One: [\d,.]+ days old \(14 Jan 2026")
    )
    # The customer of the rejected row.
    assert "A125400" not in frame.locator("body").inner_html()
    take(page, "report-red")


def test_the_report_is_legible_light_dark_and_narrow(page: Page, airflow: Any, take: Take) -> None:
    """The report follows the theme chosen in Airflow's UI at once; at a width of 400 pixels nothing is cut off."""
    run_id = red_run(airflow)
    page.goto(airflow.report_page(run_id))
    frame = report(page)

    for theme in ("dark", "light"):
        choose(page, theme.capitalize())
        expect(frame.locator("html")).to_have_attribute("data-theme", theme)
        expect(frame.get_by_role("table")).to_be_visible()
        assert [] == faint(frame)
        take(page, f"report-{theme}")

    page.set_viewport_size(cast("Any", NARROW))
    for theme in ("dark", "light"):
        page.evaluate(f"localStorage.setItem('theme', '{theme}')")
        page.goto(
            f"{airflow.url}/ropo-one/report.html?dag_id={DAG_ID}&task_id={TASK_ID}&map_index=-1&run_id={quote(run_id)}"
        )
        expect(page.get_by_text("UNKNOWN-7781")).to_be_visible()
        assert 0 == page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert ["Event", "Usage place", "Status"] == page.get_by_role("columnheader").all_inner_texts()[:3]
        take(page, f"report-narrow-{theme}")


def red_run(airflow: Any) -> str:
    """Return the run of the day with bad rows; any run of it will do."""
    run_id = "red"
    found = airflow.ask(f"dags/{DAG_ID}/dagRuns?run_id_pattern={run_id}")["dag_runs"]
    if not found:
        airflow.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
        airflow.ask(f"dags/{DAG_ID}/dagRuns", "POST", dag_run_id=run_id, logical_date="2026-01-15T10:00:00Z")
    assert "failed" == airflow.wait_for_end(DAG_ID, run_id)
    return run_id


def choose(page: Page, theme: str) -> None:
    """Choose Airflow's theme as a person does."""
    page.get_by_role("button", name="User").click()
    page.get_by_role("menuitem", name="Appearance").click()
    page.get_by_role("menuitemradio", name=theme).click()
    page.keyboard.press("Escape")


FAINT = """body => {
  const rgb = color => { const c = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    c.fillStyle = color; c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data]; };
  const page = rgb(getComputedStyle(parent.document.documentElement).backgroundColor);
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] / 255 + under[i] * (1 - top[3] / 255));
  const behind = e => over(rgb(getComputedStyle(e).backgroundColor), e === body ? page : behind(e.parentElement));
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  return [...body.querySelectorAll('*')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())
      && e.checkVisibility())
    .map(e => [e.className || e.tagName, ratio(light(over(rgb(getComputedStyle(e).color), behind(e))),
      light(behind(e)))]).filter(([, r]) => r < 4.5).map(([name, r]) => `${name}: ${r.toFixed(2)}`);
}"""


def faint(frame: FrameLocator) -> list[str]:
    """Return the texts that are too faint to read by the Web Content Accessibility Guidelines (4.5 to 1)."""
    found: list[str] = frame.locator("body").evaluate(FAINT)
    return found


def test_reports_unlike_the_example(page: Page, airflow: Any, sandbox: Sandbox, take: Take) -> None:
    """Each mapped task has a report, markup in a reason stays text, and a missing report is shown as such."""
    problem = json.dumps({"status": 400, "title": "No", "detail": MARKUP}).encode()
    headers = {"Content-Type": "application/problem+json"}
    sandbox.script([Fault(status=400, headers=headers, body=problem, usageplacecode="Prefused0")])
    airflow.ask("dags/trials", "PATCH", is_paused=False)
    airflow.trigger("trials", RUN_ID)
    assert "failed" == airflow.wait_for_end("trials", RUN_ID)
    frame, heading = report(page), report(page).get_by_role("heading", level=1)

    for index, sentence in enumerate(["1 event reported: 1 new.", "2 events reported: 2 new."]):
        page.goto(airflow.report_page(RUN_ID, f"shards/mapped/{index}", "trials"))
        expect(heading).to_have_text(sentence)

    page.goto(airflow.report_page(RUN_ID, "refused", "trials"))
    expect(heading).to_have_text("0 of 1 event is at Ropo One.")
    expect(frame.get_by_role("table")).to_contain_text(MARKUP)
    assert 0 == frame.locator("td img, td b").count()
    assert "broken into" != page.title()

    page.goto(airflow.report_page(RUN_ID, "silent", "trials"))
    expect(heading).to_have_text("No report")
    take(page, "report-none")


def test_the_buttons_lead_to_ropo_one_and_to_the_report(page: Page, airflow: Any, sandbox: Sandbox) -> None:
    """The task instance's page has a button to the server's front page, and one that opens the report."""
    run_id = red_run(airflow)
    page.goto(f"{airflow.report_page(run_id).removesuffix('plugin/ropo-report')}details")

    link = page.get_by_role("link", name="Ropo One", exact=True).and_(page.locator(f"[href='{sandbox.url}/']"))
    expect(link).to_be_visible()
    page.get_by_role("link", name="Report", exact=True).click()

    expect(report(page).get_by_role("heading", level=1)).to_contain_text("of 29 events are at Ropo One")
    assert airflow.report_page(run_id) == page.url


def test_a_killed_task_is_not_shown_as_running(page: Page, airflow: Any, take: Take) -> None:
    """The report of a task killed while posting tells that the task stopped early, and what may have arrived."""
    airflow.ask("dags/endless", "PATCH", is_paused=False)
    airflow.trigger("endless", "killed")
    page.goto(airflow.report_page("killed", "report", "endless"))
    frame = report(page)
    expect(frame.get_by_role("progressbar")).to_have_text(re.compile(r"^[1-9]\d* of 900 events"))

    os.kill(airflow.ask("dags/endless/dagRuns/killed/taskInstances/report")["pid"], signal.SIGKILL)

    expect(frame.get_by_text("Interrupted", exact=True)).to_be_visible()
    expect(frame.get_by_role("heading", level=1)).to_have_text(
        re.compile(r"^The task stopped without a final report after \d+ of 900 events\.$")
    )
    expect(frame.locator(".note:visible")).to_have_text(
        re.compile(r"^The task was killed.* These figures are from .* More events may have arrived since then"),
    )
    expect(frame.locator(".next")).to_contain_text("There is no ledger: a cleared task instance sends every row")
    # The whole bar means all 900 events; only the part of the posted events is filled.
    filled, whole = (frame.locator(part).bounding_box() for part in (".segment.status-delivered", ".bar"))
    assert filled is not None
    assert whole is not None
    assert filled["width"] < whole["width"] / 10
    take(page, "report-killed")


def test_a_task_that_waits_for_its_next_try_is_shown_as_such(
    page: Page, airflow: Any, sandbox: Sandbox, take: Take
) -> None:
    """The report tells when the next try is due; once the task instance is marked as failed, that nothing is sent."""
    sandbox.script(Fault(status=503, usageplacecode="Pwaiting0") for _ in range(5))
    airflow.trigger("waiting", "waits")
    ended = airflow.wait_for_state("waiting", "waits", "up_for_retry")["end_date"]

    page.goto(airflow.report_page("waits", "report", "waiting"))

    next_step = report(page).locator(".next")
    due = dt.datetime.fromisoformat(ended).astimezone(ZoneInfo("Europe/Helsinki")) + dt.timedelta(hours=1)
    expect(next_step).to_contain_text("Try 2 of 3 is due at")
    expect(next_step).to_contain_text(f"{due:%H:%M:%S}. There is no ledger")
    assert {"Delivered": "1", "Undelivered": "1"} == figures(report(page))
    take(page, "report-waiting")

    airflow.ask("dags/waiting/dagRuns/waits/taskInstances/report", "PATCH", new_state="failed")

    expect(next_step).to_contain_text("Airflow does not try this task instance again. Nothing sends the events")


def test_a_refused_sign_in_names_the_connection_to_correct(page: Page, airflow: Any, sandbox: Sandbox) -> None:
    """Nothing is tried again before a person has corrected the API code."""
    wrong = {"conn_type": "ropo", "host": sandbox.url, "login": sandbox.cid, "password": "wrong"}
    airflow.ask("connections", "POST", connection_id="ropo_wrong", **wrong)
    airflow.trigger("refused_sign_in", "refused")
    assert "failed" == airflow.wait_for_end("refused_sign_in", "refused")

    page.goto(airflow.report_page("refused", "report", "refused_sign_in"))

    expect(report(page).locator(".next")).to_contain_text(
        'Correct the customer number and the API code in the connection "ropo_wrong". Airflow does not try this task '
        "instance again."
    )
    assert {"Undelivered": "2"} == {name: number for name, number in figures(report(page)).items() if number != "0"}


def test_a_report_that_is_kept_elsewhere(page: Page, airflow: Any, take: Take) -> None:
    """With an XCom backend, the figures come from the task's state store, before Airflow 3.3 from an XCom."""
    airflow.trigger("elsewhere", "kept")
    airflow.wait_for_end("elsewhere", "kept")
    frame, heading = report(page), report(page).get_by_role("heading", level=1)

    page.goto(airflow.report_page("kept", "report", "elsewhere"))
    expect(heading).to_have_text("1 of 2 events are at Ropo One: 1 new.")
    expect(frame.locator(".note:visible")).to_contain_text(f"{airflow.home}/xcoms/elsewhere/kept/report/")
    take(page, "report-elsewhere")
    page.goto(airflow.report_page("kept", "before_33", "elsewhere"))
    expect(heading).to_have_text("1 event reported: 1 new.")

    path = "dags/elsewhere/dagRuns/kept/taskInstances/before_33/xcomEntries/ropo_progress"
    assert airflow.delete(path) == 204
    page.reload()
    expect(heading).to_have_text("The report is stored elsewhere")
    expect(frame.locator(".empty")).to_contain_text(f"{airflow.home}/xcoms/elsewhere/kept/before_33/")


def test_failed_events_are_settled_from_the_report(
    page: Page, airflow: Any, warehouse: Path, sandbox: Sandbox, take: Take
) -> None:
    """The form has the ids of the failed events, and triggers the example that writes the decision to the ledger."""
    page.goto(airflow.report_page(red_run(airflow)))
    frame = report(page)
    frame.get_by_text("Settle these events by hand").click()
    ids = frame.get_by_label("Event ids")
    expect(ids).to_have_value("WO-0114-09")
    frame.get_by_role("combobox", name="Events").select_option("invalid")
    expect(ids).to_have_value("WO-0114-07")
    take(page, "report-settle")

    button = frame.get_by_role("button", name=f"Run {SETTLE_ID}")
    button.click()
    assert [] == airflow.ask(f"dags/{SETTLE_ID}/dagRuns")["dag_runs"]
    frame.get_by_label("Settle as").select_option("closed")
    frame.get_by_label("Reason").fill("Not worked on any more")
    button.click()
    link = frame.locator(".settle").get_by_role("link", name="manual__")
    expect(link).to_be_visible()
    # As Airflow leaves a new DAG.
    expect(frame.locator(".settle")).to_contain_text("The DAG is paused: the run starts when it is unpaused.")

    (started,) = airflow.ask(f"dags/{SETTLE_ID}/dagRuns")["dag_runs"]
    assert {
        "event_ids": ["WO-0114-07"],
        "settle_as": "closed",
        "reason": "Not worked on any more",
        "conn_id": "warehouse",
        "table": "ropo_ledger",
        "destination": f"{sandbox.url} {sandbox.cid}",
    } == started["conf"]
    assert "chief" == started["triggering_user_name"]
    link.click()
    page.wait_for_url(f"{airflow.url}/dags/{SETTLE_ID}/runs/{started['dag_run_id']}")

    airflow.ask(f"dags/{SETTLE_ID}", "PATCH", is_paused=False)
    assert "success" == airflow.wait_for_end(SETTLE_ID, started["dag_run_id"])
    with closing(sqlite3.connect(warehouse, timeout=30)) as database:
        query = "SELECT event_id, destination, detail FROM ropo_ledger WHERE delivery_status = 'closed'"
        settled = database.execute(query).fetchall()
        # Other tests count the invalid row as open.
        database.execute("DELETE FROM ropo_ledger WHERE delivery_status = 'closed'")
        database.commit()
    detail = "settled as closed by chief: Not worked on any more"
    assert [("WO-0114-07", f"{sandbox.url} {sandbox.cid}", detail)] == settled


def test_who_may_not_trigger_a_dag_settles_nothing(sign_in: Callable[..., Page], airflow: Any) -> None:
    """Airflow decides who may settle: a viewer is told that he may not."""
    airflow.trigger("trials", "viewed")
    airflow.wait_for_end("trials", "viewed")
    page = sign_in("visitor")
    page.goto(f"{airflow.url}/ropo-one/report.html?dag_id=trials&task_id=refused&map_index=-1&run_id=viewed")

    text = page.evaluate(FORBIDDEN)

    assert f"You may not trigger the DAG {SETTLE_ID}." == text


FORBIDDEN = """
async () => {
  const { settleSection } = await import("./settle.js");
  const { element, update } = settleSection();
  document.body.append(element);
  const failures = [{ id: "e1", status: "rejected" }];
  await update({ failures, ledger: { table: "t", conn_id: "c" }, destination: "d" });
  element.querySelector("details").open = true;
  element.querySelectorAll("select")[1].value = "closed";
  element.querySelector("input").value = "no reason";
  element.querySelector("form").requestSubmit();
  const answer = element.querySelector("[role=status]");
  while (!answer.textContent) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return answer.textContent;
}
"""
