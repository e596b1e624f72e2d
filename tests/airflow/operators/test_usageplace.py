"""The operator against a real SQLite warehouse and a real sandbox, mostly without Airflow's machinery around it."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, BaseOperator, Context

from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoUnavailableError,
    RunRefusedError,
)
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import FakeTaskInstance, fake_context

COLUMNS = ("id", "usageplacecode", "status", "time", "customernumber", "description")
GOOD = ("e1", "643007572062443672", "disconnected", "2024-01-04 10:41:40", "A123456", None)
BAD = ("e2", "643007572062443689", "notdisconnected", "2024-01-04 11:00:00", "A123457", None)
REFUSED = ("e3", "UNKNOWN-1", "connected", "2024-01-04 12:00:00", "A123458", None)
NOTHING = {
    "rows": 0,
    "events": 0,
    "delivered": 0,
    "already_delivered": 0,
    "rejected": 0,
    "invalid": 0,
    "changed": 0,
    "undelivered": 0,
    "unconfirmed": 0,
    "held": 0,
    "closed": 0,
}


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A SQLite database with a table ``outcome``, behind the connection ``warehouse``."""
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def fill(*rows: tuple[Any, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"CREATE TABLE outcome ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            database.executemany(f"INSERT INTO outcome VALUES ({marks})", rows)
            database.commit()
        return path

    return fill


def make(**parameters: Any) -> UsageplaceEventOperator:
    source = {} if "events" in parameters else {"sql": "SELECT * FROM outcome", "sql_conn_id": "warehouse"}
    return UsageplaceEventOperator(task_id="report", **{**source, **parameters})


def run(context: Context | None = None, **parameters: Any) -> dict[str, int]:
    operator = make(**parameters)
    context = context if context is not None else {}
    operator.render_template_fields(context)
    return operator.execute(context)


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "usageplacecode": f"place-{number}",
        "status": "disconnected",
        "time": f"2024-01-04 10:00:{number:02}",
        **fields,
    }


def test_a_row_arrives_as_the_documented_message(warehouse: Callable[..., Path], sandbox: Sandbox) -> None:
    """A warehouse row arrives at Ropo One as one event, and is counted."""
    warehouse(GOOD)

    counts = run()

    assert {**NOTHING, "rows": 1, "events": 1, "delivered": 1} == counts
    assert [
        {
            "id": "e1",
            "usageplacecode": "643007572062443672",
            "customernumber": "A123456",
            "time": "2024-01-04 10:41:40",
            "status": "disconnected",
            "description": "Usage place disconnected",
        }
    ] == sandbox.events


def test_bad_rows_do_not_stop_the_others(warehouse: Callable[..., Path], sandbox: Sandbox) -> None:
    """Everything that can be sent is sent, then the task fails once, with ids and reasons, and is not retried."""
    later = ("e4", "643007572062443696", "connected", "2024-01-04 13:00:00", None, None)
    warehouse(BAD, REFUSED, GOOD, later)
    task_instance = FakeTaskInstance()

    with pytest.raises(DeliveriesFailedError) as caught:
        run(fake_context(task_instance))

    counts = {**NOTHING, "rows": 4, "events": 4, "delivered": 2, "rejected": 1, "invalid": 1}
    assert isinstance(caught.value, AirflowFailException)
    assert counts == caught.value.summary
    assert counts == task_instance.pushed["return_value"]
    assert ["e1", "e4"] == sorted(sent["id"] for sent in sandbox.events)
    assert "2 of 4 events are at Ropo One: 2 delivered, 1 rejected, 1 invalid" in str(caught.value)
    assert "row 1 (id e2): description: is missing" in str(caught.value)
    assert "id e3: HTTP 400 Unknown usage place" in str(caught.value)


def test_no_customers_data_in_log_or_error(
    warehouse: Callable[..., Path], sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the log, the error nor an XCom holds a customer's number, the API code or a token."""
    warehouse(GOOD, BAD, REFUSED)
    task_instance = FakeTaskInstance()

    with pytest.raises(DeliveriesFailedError) as caught:
        run(fake_context(task_instance))

    output = "".join([*capfd.readouterr(), str(caught.value), repr(caught.value), json.dumps(task_instance.pushed)])
    assert "1 of 3 events" in output
    assert [] == [secret for secret in ("A123456", "A123457", "A123458", "eyJ") if secret in output]


@pytest.mark.parametrize(
    ("fault", "status", "attempts"),
    [
        pytest.param(Fault(status=500, usageplacecode="place-1"), "undelivered", 5, id="500"),
        pytest.param(Fault(cut=True, remember=True, usageplacecode="place-1"), "unconfirmed", 5, id="reset"),
    ],
)
def test_transient_failures_are_retried_then_red(sandbox: Sandbox, fault: Fault, status: str, attempts: int) -> None:
    """A transient failure is retried, then counted by its delivery status, and Airflow may retry the task."""
    sandbox.script([fault] * attempts)

    with pytest.raises(DeliveriesFailedError) as caught:
        run(events=[event(1), event(2, usageplacecode="place-1"), event(3)])

    assert not isinstance(caught.value, AirflowFailException)
    assert {**NOTHING, "rows": 3, "events": 3, "delivered": 1, status: 1, "held": 1} == caught.value.summary


def test_a_transient_failure_that_passes_is_delivered(sandbox: Sandbox) -> None:
    """A 503 and a 429 are followed by the same event again."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "0"}), Fault(status=429)])

    counts = run(events=[event(1)])

    assert {**NOTHING, "rows": 1, "events": 1, "delivered": 1} == counts
    assert ["e1"] == [sent["id"] for sent in sandbox.events]


def test_the_warehouse_is_let_go_before_the_first_post(
    warehouse: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While events are posted, the warehouse can be written to."""
    path = warehouse(*[(f"e{n}", f"p{n}", "connected", f"2024-01-04 10:00:{n:02}", None, None) for n in range(5)])
    locked: list[int] = []

    def write() -> None:
        while not sandbox.events:
            time.sleep(0.01)
        with closing(sqlite3.connect(path, timeout=0)) as database:
            database.execute("BEGIN EXCLUSIVE")
            locked.append(len(sandbox.events))

    with Sandbox(latency=0.1) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", f"ropo://1000011:sandbox@{sandbox.url[7:]}/http")
        writer = threading.Thread(target=write)
        writer.start()
        run(max_workers=1)
        writer.join()

    assert len(locked) == 1
    assert locked[0] < 5


def test_events_of_a_place_arrive_in_the_order_of_their_time(sandbox: Sandbox) -> None:
    """Events are sent in the order of their times, not of the rows."""
    times = ["12:00:00", "09:00:00", "10:30:00"]

    run(events=[event(n, usageplacecode="one", time=f"2024-01-04 {t}") for n, t in enumerate(times)])

    assert ["09:00:00", "10:30:00", "12:00:00"] == [sent["time"][-8:] for sent in sandbox.events]


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        pytest.param("SELECT * FROM outcome WHERE id = ?", ["{{ wanted }}"], id="list"),
        pytest.param("SELECT * FROM outcome WHERE id = :id", {"id": "{{ wanted }}"}, id="mapping"),
        pytest.param("SELECT * FROM outcome WHERE id = '{{ wanted }}'", None, id="in the SQL"),
    ],
)
def test_parameters_are_templated_and_in_the_drivers_style(
    warehouse: Callable[..., Path], sandbox: Sandbox, sql: str, parameters: Any
) -> None:
    """Query parameters are passed to the driver in its own style."""
    warehouse(GOOD, REFUSED)

    run(fake_context(wanted="e1"), sql=sql, parameters=parameters)

    assert ["e1"] == [sent["id"] for sent in sandbox.events]


def test_columns_and_statuses_are_mapped(warehouse: Callable[..., Path], sandbox: Sandbox) -> None:
    """Other column names and status values are translated."""
    warehouse(("w1", "P1", 7, "2024-01-04 10:00"), columns=("ORDER_NO", "PLACE", "RESULT", "DONE_AT"))

    run(
        columns={"id": "order_no", "usageplacecode": "place", "status": "result", "time": "done_at"},
        statuses={7: "connected"},
    )

    assert [("w1", "P1", "connected")] == [(e["id"], e["usageplacecode"], e["status"]) for e in sandbox.events]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        pytest.param("SELECT id, status FROM outcome", ["id, status", "usageplacecode", "time"], id="absent"),
        pytest.param("SELECT *, 1 AS ID FROM outcome", ["id twice"], id="twice"),
        pytest.param("SELECT id, status FROM outcome WHERE 0", ["usageplacecode"], id="absent and no rows"),
    ],
)
def test_columns_that_cannot_serve_fail_before_any_post(
    warehouse: Callable[..., Path], sandbox: Sandbox, sql: str, named: list[str]
) -> None:
    """A missing or doubled column is a mistake in the task; the error names the existing columns."""
    warehouse(GOOD)

    with pytest.raises(RopoConfigurationError) as caught:
        run(sql=sql)

    assert isinstance(caught.value, AirflowFailException)
    assert [] == [name for name in named if name not in str(caught.value)]
    assert [] == sandbox.events


@pytest.mark.parametrize(
    ("connection", "error", "named"),
    [
        pytest.param({}, RopoConfigurationError, ["Server (host)"], id="no host"),
        pytest.param({"login": ""}, RopoConfigurationError, ["Customer number (login)"], id="no login"),
        pytest.param({"password": ""}, RopoConfigurationError, ["API code (password)"], id="no password"),
        pytest.param({"host": "http://ropo24.fi"}, RopoConfigurationError, ["https"], id="http"),
        pytest.param({"password": "wr0ng"}, RopoAuthenticationError, ["API code (password)"], id="refused"),
        pytest.param({"host": "http://127.0.0.1:9"}, RopoConnectError, ["Server (host)"], id="no server"),
    ],
)
def test_a_connection_that_cannot_work_is_named(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    connection: dict[str, Any],
    error: type,
    named: list[str],
) -> None:
    """The error names the connection, the field and how to fix it, never the secret; nothing is posted."""
    known = {"conn_type": "ropo", "host": sandbox.url, "login": "1000011", "password": "s4ndb0x"}
    known = known | connection if connection else {**known, "host": ""}
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(known))

    with pytest.raises(error) as caught:
        run(ropo_conn_id="mine", events=[event(1)])

    assert [] == [name for name in ["'mine'", *named] if name not in str(caught.value)]
    assert not any(secret in str(caught.value) for secret in ("s4ndb0x", "wr0ng"))
    assert (error is not RopoConnectError) == isinstance(caught.value, AirflowFailException)
    assert [] == sandbox.arrivals


def test_a_refused_sign_in_still_pushes_the_counts(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that were not sent are counted as undelivered, invalid rows as invalid."""
    monkeypatch.setenv("AIRFLOW_CONN_MINE", f"ropo://1000011:wrong@{sandbox.url[7:]}/http")
    task_instance = FakeTaskInstance()

    with pytest.raises(RopoAuthenticationError):
        run(fake_context(task_instance), ropo_conn_id="mine", events=[event(1), event(2, status=None)])

    assert {**NOTHING, "rows": 2, "events": 2, "invalid": 1, "undelivered": 1} == task_instance.pushed["return_value"]


def test_a_token_refused_in_mid_run_stops_it(sandbox: Sandbox) -> None:
    """A 401 after a fresh token ends the posting; the remaining events are undelivered."""
    sandbox.script([Fault(status=200, remember=True), Fault(status=401), Fault(status=401)])
    task_instance = FakeTaskInstance()

    with pytest.raises(RopoAuthenticationError):
        run(fake_context(task_instance), events=[event(n) for n in range(1, 5)], max_workers=1)

    assert {**NOTHING, "rows": 4, "events": 4, "delivered": 1, "undelivered": 3} == task_instance.pushed["return_value"]
    assert 3 == len(sandbox.arrivals)


def test_preview_posts_nothing(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A preview reads, checks and counts, and shows payloads without personal data."""
    caplog.set_level(logging.INFO)
    invoices = [{"invoicenumber": "594294", "jobid": 4321}]

    counts = run(events=[event(1, customernumber="A123456", invoices=invoices), event(2)], preview=True)

    assert {**NOTHING, "rows": 2, "events": 2, "undelivered": 2} == counts
    assert [] == sandbox.arrivals
    assert 0 == sandbox.sign_ins
    log = caplog.text
    assert '"usageplacecode": "place-1"' in log
    assert '"customernumber": "***"' in log
    assert not any(data in log for data in ("A123456", "594294", "4321"))


@pytest.mark.parametrize(("param", "posted"), [("True", 0), ("False", 1), ("true", 0)])
def test_preview_is_templated(sandbox: Sandbox, param: str, posted: int) -> None:
    """A DAG param can turn the preview on."""
    run({"params": {"preview": param}}, events=[event(1)], preview="{{ params.preview }}")

    assert posted == len(sandbox.events)


def test_preview_is_red_for_invalid_rows(sandbox: Sandbox) -> None:
    """A preview reports a bad row as the run would."""
    with pytest.raises(DeliveriesFailedError, match=r"row 2 \(id e2\): status"):
        run(events=[event(1), event(2, status="gone")], preview=True)

    assert [] == sandbox.arrivals


@pytest.mark.parametrize(("max_failed", "red"), [(0, True), (1, True), (2, False), (0.4, True), (0.5, False)], ids=str)
def test_max_failed_tolerates_a_count_or_a_fraction(sandbox: Sandbox, max_failed: float, red: bool) -> None:  # noqa: FBT001
    """Two of four events are bad: that is more than one or 0.4, and not more than two or 0.5."""
    events = [event(1), event(2), event(3, status="gone"), event(4, usageplacecode="UNKNOWN")]
    operator = make(events=events, max_failed=max_failed)

    outcome = [operator.execute({})] if not red else []

    if red:
        with pytest.raises(DeliveriesFailedError):
            operator.execute({})
    else:
        assert 2 == outcome[0]["rejected"] + outcome[0]["invalid"]


def test_max_failed_never_tolerates_what_may_yet_arrive(sandbox: Sandbox) -> None:
    """Undelivered events fail the task, whatever number of failures is tolerated."""
    sandbox.script([Fault(status=500)] * 5)

    with pytest.raises(DeliveriesFailedError):
        run(events=[event(1)], max_failed=100)


def test_being_asked_to_wait_for_hours_ends_the_run(sandbox: Sandbox) -> None:
    """A long Retry-After ends the try, so that no worker slot is occupied; the next try sends the rest."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "7200"}, usageplacecode="place-1")])
    task_instance = FakeTaskInstance()

    with pytest.raises(RopoUnavailableError, match="asks to wait 7,200 s") as caught:
        run(fake_context(task_instance), events=[event(n) for n in range(1, 60)], max_workers=1)

    assert 7200 == caught.value.retry_after
    assert not isinstance(caught.value, AirflowFailException)
    assert {**NOTHING, "rows": 59, "events": 59, "undelivered": 59} == task_instance.pushed["return_value"]


def test_the_rate_limit_is_kept_over_all_workers(sandbox: Sandbox) -> None:
    """Twenty posts at forty a second take half a second, whatever the number of workers."""
    started = time.monotonic()

    run(events=[event(n) for n in range(20)], max_workers=8, rate_limit=40)

    assert time.monotonic() - started >= 19 / 40


def test_no_rows_succeed_by_default(warehouse: Callable[..., Path], sandbox: Sandbox) -> None:
    """An empty result is a success, without a sign-in."""
    warehouse()

    counts = run()

    assert NOTHING == counts
    assert 0 == sandbox.sign_ins


@pytest.mark.parametrize(
    ("on_empty", "error"), [("skip", AirflowSkipException), ("fail", DeliveriesFailedError)], ids=str
)
def test_no_rows_may_skip_or_fail(sandbox: Sandbox, on_empty: Any, error: type[Exception]) -> None:
    """An empty result skips or fails the task where that is asked for; the counts are pushed."""
    task_instance = FakeTaskInstance()

    with pytest.raises(error, match="no rows"):
        run(fake_context(task_instance), events=[], on_empty=on_empty)

    assert NOTHING == task_instance.pushed["return_value"]


@pytest.mark.parametrize(
    ("events", "named"),
    [
        pytest.param("[{'id': 1}]", ".output", id="text"),
        pytest.param([["e1", "place"]], "item 1 is a list", id="list of lists"),
        pytest.param({"id": "e1"}, "list of row mappings", id="one mapping"),
    ],
)
def test_events_that_are_no_list_of_mappings_are_refused(sandbox: Sandbox, events: Any, named: str) -> None:
    """A mistake in the given rows is an error, and nothing is guessed."""
    with pytest.raises(RopoConfigurationError, match=named):
        run(events=events)


def test_a_bug_is_not_a_rejected_row(sandbox: Sandbox) -> None:
    """An undocumented error is raised unchanged, before anything is posted."""

    class Broken(dict[str, Any]):
        def values(self) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(events=[event(1), Broken(event(2))]).execute({})

    assert [] == sandbox.arrivals


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        pytest.param({}, "either `sql` or `events`", id="neither"),
        pytest.param({"sql": "SELECT 1", "events": []}, "either `sql` or `events`", id="both"),
        pytest.param({"sql": "SELECT 1"}, "sql_conn_id", id="no connection"),
        pytest.param({"events": [], "on_empty": "ignore"}, "on_empty", id="on_empty"),
        pytest.param({"events": [], "max_failed": -1}, "max_failed", id="max_failed"),
        pytest.param({"events": [], "max_failed": "few"}, "`max_failed`", id="max_failed in words"),
        pytest.param({"events": [], "max_workers": "0"}, "`max_workers`", id="max_workers as text"),
        pytest.param({"events": [], "rate_limit": [5]}, "`rate_limit`", id="rate_limit of another type"),
        pytest.param({"events": [], "claim_timeout": None}, "`claim_timeout`", id="claim_timeout"),
        pytest.param({"events": [], "redeliver": ["never"]}, "`redeliver`", id="redeliver of another type"),
        pytest.param({"events": [], "columns": "id"}, "`columns`", id="columns"),
        pytest.param({"events": [], "statuses": "{{ params.statuses }}"}, "`statuses`", id="statuses as a template"),
        pytest.param({"events": [], "preview": "maybe"}, "`preview`", id="preview"),
        pytest.param({"events": [], "max_events": -1}, "`max_events`", id="max_events"),
        pytest.param({"events": [], "max_events": {"cut off": 1}}, "`max_events` names cut off", id="status"),
        pytest.param({"events": [], "approved": "yes"}, "`approved`", id="approved"),
        pytest.param({"events": [], "event_ids": 7}, "`event_ids`", id="event_ids"),
        pytest.param({"events": (row for row in [event(1)])}, "`events` .* a generator", id="generator"),
        pytest.param({"sql": ["SELECT 1"], "sql_conn_id": "warehouse"}, "`sql` must be text.* a list", id="list"),
        pytest.param({"sql": Path("q.sql"), "sql_conn_id": "warehouse"}, "`sql` must be text.*Path", id="path"),
    ],
)
def test_mistakes_are_found_when_the_dag_is_parsed(parameters: dict[str, Any], named: str) -> None:
    """What can be checked without a connection is checked in the constructor."""
    with pytest.raises(RopoConfigurationError, match=named):
        UsageplaceEventOperator(task_id="report", **parameters)


def test_a_connection_that_is_no_database_is_named(sandbox: Sandbox) -> None:
    """A connection that is not a database is an error that names the connection."""
    with pytest.raises(RopoConfigurationError, match="'ropo_default' is no SQL database"):
        run(sql="SELECT 1", sql_conn_id="ropo_default")


@pytest.mark.parametrize("name", ["statuses", "sql_hook_params"])
def test_a_parameter_that_cannot_be_another_tasks_output(name: str) -> None:
    """Another task's output for a parameter that Airflow does not resolve is refused when the DAG is parsed."""
    upstream = BaseOperator(task_id="upstream")

    with pytest.raises(RopoConfigurationError, match=f"`{name}` cannot be another task's output"):
        make(**{name: upstream.output})


@pytest.mark.parametrize(
    "name",
    [
        *("sql_conn_id", "parameters", "events", "ropo_conn_id", "columns", "ledger_table", "ledger_conn_id"),
        *("redeliver", "on_unconfirmed", "claim_timeout", "max_workers", "rate_limit", "max_failed", "on_empty"),
        *("max_events", "approved", "event_ids", "preview"),
    ],
)
def test_a_parameter_may_be_another_tasks_output(name: str) -> None:
    """Another task's output is taken when the DAG is parsed, and makes that task an upstream one."""
    with DAG("any", schedule=None):
        upstream = BaseOperator(task_id="upstream")
        operator = make(**{"ledger_conn_id": "warehouse", name: upstream.output})

    assert {"upstream"} == operator.upstream_task_ids


NO_IDS: list[Any] = [None, "", "None", "[]", [], " \n"]


@pytest.mark.parametrize(
    ("given", "sent_ids"),
    [
        *product(NO_IDS, [["e1", "e2", "e3"]]),
        *product([["e1", "e3"], "e1,e3", " e1 , e3,", "e1\ne3\n", "['e1', 'e3']"], [["e1", "e3"]]),
    ],
)
def test_event_ids_come_in_many_forms(sandbox: Sandbox, given: object, sent_ids: list[str]) -> None:
    """A DAG param gives a list, or text with commas or line ends; an empty one means all events."""
    rows = [event(number) for number in (1, 2, 3)]

    run(cast("Any", {"given": given}), events=rows, event_ids="{{ given }}")

    assert sent_ids == sorted(arrival.payload["id"] for arrival in sandbox.arrivals)


@pytest.mark.parametrize("limit", ["2", "{'disconnected': 2}", '{"disconnected": 2}', 2, {"disconnected": 2}])
def test_a_volume_guard_is_no_reason_for_a_retry(sandbox: Sandbox, limit: object) -> None:
    """A run that would post too much fails at once with nothing posted, and pushes its counts."""
    ti = FakeTaskInstance()

    with pytest.raises(RunRefusedError, match=r"3 .*at most 2 are allowed") as caught:
        run(fake_context(ti, given=limit), events=[event(n) for n in (1, 2, 3)], max_events="{{ given }}")

    assert isinstance(caught.value, AirflowFailException)
    assert {**NOTHING, "rows": 3, "events": 3, "undelivered": 3} == ti.pushed["return_value"]
    assert {"disconnected": 3} == caught.value.counts
    assert "3 disconnected" in ti.pushed["ropo_report"]["stopped"]
    assert 0 == sandbox.sign_ins


def test_a_preview_leaves_what_is_approved(sandbox: Sandbox) -> None:
    """The digest in the preview's XCom lets just that be posted."""
    preview, report = FakeTaskInstance("preview"), FakeTaskInstance("report")
    run(fake_context(preview), events=[event(1), event(2)], preview=True)
    approved = preview.pushed["ropo_digest"]

    with pytest.raises(RunRefusedError, match="1 event more"):
        run(fake_context(report), events=[event(1), event(2), event(3)], approved=approved)
    assert [] == sandbox.arrivals
    run(fake_context(report), events=[event(1), event(2)], approved=approved)

    assert 2 == len(sandbox.arrivals)
    assert "ropo_digest" not in report.pushed


@pytest.mark.parametrize(
    ("max_tries", "step"),
    [
        (1, "Airflow starts try 2 of 2 after "),
        (0, "No retry is left: nothing sends these events until this task instance is cleared"),
    ],
    ids=["a retry is left", "none is left"],
)
@pytest.mark.parametrize("at", ["script", "script_sign_in"])
def test_a_red_run_ends_with_what_happens_next(sandbox: Sandbox, at: str, max_tries: int, step: str) -> None:
    """The error has the counts first, then why the run ended, then what happens next."""
    getattr(sandbox, at)([Fault(status=429, headers={"Retry-After": "1000"})])
    ti: Any = FakeTaskInstance()
    ti.max_tries = max_tries

    with pytest.raises(RopoUnavailableError) as caught:
        run(fake_context(ti), events=[event(1), event(2, status="gone")], retries=max_tries)

    lines = str(caught.value).splitlines()
    assert "0 of 2 events are at Ropo One: 1 invalid, 1 undelivered" == lines[0]
    assert lines[1].startswith("  invalid: row 2 (id e2): status: ")
    assert lines[-3].startswith("The run ended early: Ropo One asks to wait 1,000 s")
    assert lines[-2].startswith("Fix the rejected, invalid and changed rows in the source table")
    assert lines[-1].startswith(step)
    assert lines[-3] == f"The run ended early: {ti.pushed['ropo_report']['stopped']}"


def test_rendered_parameters_are_used(warehouse: Callable[..., Path], sandbox: Sandbox) -> None:
    """Numbers, choices and column names come from templates as they would from the DAG."""
    columns = ("id", "place", "status", "time", "customernumber", "description")
    refused = [(f"e{n}", f"UNKNOWN-{n}", "connected", f"2024-01-04 12:00:0{n}", None, None) for n in (7, 8)]
    warehouse(GOOD, *refused, columns=columns)
    parameters = {
        "columns": {"usageplacecode": "{{ place }}"},
        "max_failed": "{{ tolerated }}",
        "max_workers": "{{ workers }}",
        "rate_limit": "{{ unlimited }}",
        "claim_timeout": "{{ workers * 60 }}",
        "redeliver": "{{ redeliver }}",
        "on_unconfirmed": "{{ 'hold' }}",
        "on_empty": "{% if redeliver %}skip{% endif %}",
        "ledger_table": "ledger",
    }
    context: Any = {"place": "place", "tolerated": 0.7, "workers": 2, "unlimited": None, "redeliver": "always"}

    first, second = run(context.copy(), **parameters), run(context.copy(), **parameters)

    # Two of three: no more than 0.7 of them. The second run sends again what the first delivered.
    assert {**NOTHING, "rows": 3, "events": 3, "delivered": 1, "rejected": 2} == first == second
    assert 2 == sum(arrival.payload["id"] == "e1" for arrival in sandbox.arrivals)
    with pytest.raises(AirflowSkipException):
        run(context.copy(), sql="SELECT * FROM outcome WHERE 0", **parameters)


@pytest.mark.parametrize(
    ("name", "rendered", "named"),
    [
        ("max_failed", "some", "`max_failed` must be a count, or a fraction below 1"),
        ("max_failed", "-1", "`max_failed` must be a count, or a fraction below 1"),
        ("max_workers", "2.5", "`max_workers` must be 1 or more"),
        ("rate_limit", "0", "`rate_limit` must be more than 0 posts a second, or None"),
        ("claim_timeout", "nan", "`claim_timeout` must be more than 0 seconds"),
        ("redeliver", "sometimes", "`redeliver` must be one of never, changed, always"),
        ("on_unconfirmed", "", "`on_unconfirmed` must be one of resend, hold"),
        ("on_empty", "ignore", "`on_empty` must be one of succeed, skip, fail"),
        ("columns", "id", "`columns` must be a mapping"),
        ("max_events", "few", "`max_events` must be a whole number"),
        ("max_events", "{'cut off': 5}", "`max_events` names cut off"),
        ("approved", "", "`approved` is empty: the preview left no digest"),
        ("approved", "None", "`approved` is empty: the preview left no digest"),
        ("approved", "yes", "`approved` is not the digest of a preview"),
        ("event_ids", "[1, 2]", "`event_ids` must be a list of ids"),
        ("event_ids", "e2", "`event_ids`: no row has the id e2"),
        ("preview", "maybe", "`preview` must be true or false"),
    ],
)
def test_a_template_that_gives_what_cannot_work(sandbox: Sandbox, name: str, rendered: str, named: str) -> None:
    """What a template gives is checked before the run, in the words of a parse error, and is no reason for a retry."""
    with pytest.raises(RopoConfigurationError) as caught:
        run(cast("Any", {"given": rendered}), events=[event(1)], **{name: "{{ given }}"})

    assert isinstance(caught.value, AirflowFailException)
    assert str(caught.value).startswith(named)
    assert 0 == sandbox.sign_ins


def test_a_template_that_was_not_rendered_is_refused(sandbox: Sandbox) -> None:
    """A template that reaches the run as it stands is no silent default."""
    with pytest.raises(RopoConfigurationError, match="`max_failed`"):
        make(events=[event(1)], max_failed="{{ params.max_failed }}").execute({})

    assert [] == sandbox.arrivals
