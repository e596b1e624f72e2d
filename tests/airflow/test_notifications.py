"""Notifications about a failed task, through Airflow's own notifiers, to a chat and a mail server on this machine."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as policy
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseRequestHandler, StreamRequestHandler, ThreadingTCPServer
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from airflow_provider_ropo.errors import DeliveriesFailedError, RopoConnectError
from airflow_provider_ropo.notifications import message
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Fault, Sandbox

RunDag = Callable[..., Any]

RECIPE = (Path(__file__).parents[2] / "docs" / "recipes" / "alerts.md").read_text(encoding="utf-8")
(DAG, SHOWN, CONNECTIONS) = re.findall(r"^```(?:python|text)?\n(.*?)^```", RECIPE, re.DOTALL | re.MULTILINE)

ROW = {
    "status": "disconnected",
    "time": "2026-01-14 10:00:00",
    "customernumber": "A123456",
    "contract_no": "555555b",
    "description": "Paid <at> the door",
    "invoicenumber": "594294",
    "jobid": 98761234,
}
PERSONAL = ("A123456", "555555b", "the door", "594294", "98761234", "UNKNOWN-7781", "643007572062443672")
ROWS = [
    ROW | {"id": "e1", "usageplacecode": "643007572062443672"},
    ROW | {"id": "e2", "usageplacecode": "UNKNOWN-7781"},
    ROW | {"id": "e3", "usageplacecode": "UNKNOWN-7782"},
    ROW | {"id": "<b>4", "usageplacecode": "643007572062443672", "time": "2026-01-14"},
    ROW | {"id": "e5", "usageplacecode": "643007572062443672", "time": "2026-01-15"},
    ROW | {"id": "e6", "usageplacecode": "RE12345"},
]
#: What looks like a template in Ropo One's answer.
ODD = Fault(
    status=400,
    headers={"Content-Type": "application/problem+json"},
    body=json.dumps({"status": 400, "title": "{{ 7 * 6 }}"}).encode(),
    usageplacecode="RE12345",
)


class Webhook(BaseHTTPRequestHandler):
    """A chat's webhook."""

    received: ClassVar[list[dict[str, Any]]]

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments: object) -> None:
        pass


class Mail(StreamRequestHandler):
    """A mail server, as far as it goes for one mail."""

    received: ClassVar[list[EmailMessage]]

    def handle(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                content = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.received.append(message_from_bytes(content, policy=policy))
            self.wfile.write(b"250 OK\r\n")
            if line.upper().startswith(b"QUIT"):
                return


@contextmanager
def serving(handler: type[BaseRequestHandler]) -> Iterator[int]:
    """Serve in another thread; give the port."""
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What arrives at a chat's webhook, to which the connection ``slack`` leads."""
    monkeypatch.setattr(Webhook, "received", [], raising=False)
    with serving(Webhook) as port:
        connection = {"conn_type": "slackwebhook", "host": f"http://127.0.0.1:{port}", "password": "T/B/X"}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK", json.dumps(connection))
        yield Webhook.received


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EmailMessage]]:
    """What arrives at a mail server, to which the connection ``mail`` leads."""
    monkeypatch.setattr(Mail, "received", [], raising=False)
    with serving(Mail) as port:
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(connection))
        yield Mail.received


@pytest.fixture
def run_recipe(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], str]]:
    """Run the recipe's DAG over the rows above; return how it ended."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    file, query = dags_folder / "alerts.py", dags_folder / "outcomes.sql"
    file.write_text(DAG)
    names = ", ".join(ROWS[0])
    values = ", ".join(str(tuple(row.values())) for row in ROWS)
    query.write_text(f"WITH outcome ({names}) AS (VALUES {values}) SELECT * FROM outcome")

    def run() -> str:
        dag = DagBag(dag_folder=file).dags["report_usageplace_events"]
        return str(dag.test(logical_date=datetime(2026, 1, 15, 3, tzinfo=UTC)).state)

    yield run
    file.unlink()
    query.unlink()


def test_the_recipe_alerts_chat_and_mail(
    run_recipe: Callable[[], str],
    sandbox: Sandbox,
    chat: list[dict[str, Any]],
    mailbox: list[EmailMessage],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed task sends one message to each, with the counts, the reasons in groups, what to do, and the address."""
    sandbox.script([ODD])
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")

    state = run_recipe()

    assert "failed" == state
    ((sent,), (mail,)) = chat, mailbox
    assert ("airflow@example.com", "oncall@example.com") == (mail["From"], mail["To"])
    html = mail.get_body(("html",))
    assert html is not None
    for text in (sent["text"], html.get_content()):
        assert re.search(EXPECTED, text), text
        assert [] == [value for value in PERSONAL if value in text]


#: As it is sent: `<` in an id is no markup, and no reason is a template.
EXPECTED = re.compile(
    r"""Ropo One: task report of DAG report_usageplace_events failed \(run manual__\S+, try 1\)
1 of 6 events are at Ropo One: 1 delivered, 3 rejected, 2 invalid
2 × invalid: time: is a date without a time of day[^\n]* \(rows 4, 5; ids &lt;b&gt;4, e5\)
2 × rejected: HTTP 400 Unknown usage place[^\n]* \(ids e[23], e[23]\)
rejected: id e6: HTTP 400 {{ 7 \* 6 }}
Fix the rejected, invalid and changed rows in the source table: no retry can help them.
Airflow does not try this again. After the correction, clear this task instance.
https://airflow.example.com/team/dags/report_usageplace_events/runs/manual__\S+/tasks/report/plugin/ropo-report"""
)


#: A DAG whose callbacks write the message to the task's log.
ALERTING = """
from airflow_provider_ropo.notifications import message

def alert(context):
    print("<<<" + message(context) + ">>>")

ALERTS = {"on_failure_callback": alert, "on_retry_callback": alert}
ROW = {"id": "e1", "usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00:00"}

with DAG(DAG_ID, schedule=None, default_args=ALERTS) as dag:
    """


def messages(finished: Any) -> list[str]:
    """Return the messages that the callbacks wrote."""
    return re.findall(r"<<<(.*?)>>>", finished.log, re.DOTALL)


def test_a_try_that_is_not_the_last_is_called_so(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Before a retry, the message says that Airflow tries again; after the last try, that a person has to clear it."""
    sandbox.script([Fault(status=503)] * 100)
    options = "retries=1, retry_delay=timedelta(0), max_workers=1"

    finished = run_dag(f"{ALERTING}UsageplaceEventOperator(task_id='report', events=[ROW], {options})")

    first, last = messages(finished)
    assert "failed and will be tried again (run" in first
    assert "Airflow starts try 2 of 2 after the task's retry_delay" in first
    assert "clear" not in first
    assert " failed (run" in last
    assert "No retry is left: nothing sends these events until this task instance is cleared" in last
    assert "Without a ledger, that sends again also what has arrived." in last


def test_a_mapped_task_is_named_with_its_index(run_dag: RunDag, sandbox: Sandbox) -> None:
    """The message of a mapped task instance has its own report and its own address."""
    mapped = "UsageplaceEventOperator.partial(task_id='report').expand(events=[[ROW], [ROW | {'time': ''}]])"

    finished = run_dag(ALERTING + mapped)

    (text,) = messages(finished)
    assert "task report [1] of DAG" in text
    assert "0 of 1 events are at Ropo One: 1 invalid" in text
    assert text.endswith("/tasks/report/mapped/1/plugin/ropo-report")


def test_a_run_that_could_not_begin_says_why(run_dag: RunDag, sandbox: Sandbox) -> None:
    """If the sign-in or the connection is wrong, the message has the error, and that nothing was posted."""
    finished = run_dag(f"{ALERTING}UsageplaceEventOperator(task_id='report', events=[ROW], ropo_conn_id='nowhere')")

    (text,) = messages(finished)
    assert "\nNothing was posted.\nStopped: " in text
    assert "nowhere" in text


def test_a_task_without_a_report_has_the_error(run_dag: RunDag, sandbox: Sandbox) -> None:
    """If no XCom is pushed, the message has the error's text, which is our own."""
    row = "ROW | {'usageplacecode': 'UNKNOWN-1'}"

    finished = run_dag(f"{ALERTING}UsageplaceEventOperator(task_id='report', events=[{row}], do_xcom_push=False)")

    (text,) = messages(finished)
    assert "0 of 1 events are at Ropo One: 1 rejected" in text
    assert "There is no report of Ropo One" in text


def test_another_task_of_the_dag(run_dag: RunDag) -> None:
    """A failed task that is not ours, in a DAG with the same callback, has a message without its error's text."""
    finished = run_dag(ALERTING + "task(task_id='report')(lambda: [][7])()")

    (text,) = messages(finished)
    assert "IndexError\nThere is no report of Ropo One" in text
    assert "out of range" not in text


def task_instance(report: Any, **attributes: Any) -> SimpleNamespace:
    """Return a task instance as a callback gets it, with a report in its XCom."""

    def xcom_pull(**_asked: Any) -> Any:
        if isinstance(report, Exception):
            raise report
        return report

    given = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 2, "state": "failed"}
    return SimpleNamespace(**given | attributes, xcom_pull=xcom_pull)


def our_task(**parameters: Any) -> UsageplaceEventOperator:
    """Return a task of ours with a ledger."""
    return UsageplaceEventOperator(
        task_id="t", events=[], ledger_table="ropo_ledger", ledger_conn_id="warehouse", **parameters
    )


def test_a_killed_task_has_the_figures_that_are_known() -> None:
    """If a task was killed, the message says that the figures are not final, and of when they are."""
    report = {
        "state": "posting",
        "total": 4000,
        "done": 1400,
        "counts": {"rows": 4000, "events": 1400, "delivered": 1400},
        "updated_at": "2026-01-15T03:04:05+00:00",
    }

    text = message({"ti": task_instance(report)})

    assert "1,400 of 1,400 events are at Ropo One" not in text
    assert "stopped without a final report after 1,400 of 4,000 events" in text
    assert "2026-01-15T03:04:05+00:00; more events may have arrived" in text


def test_no_rows_where_there_should_be_some() -> None:
    """If there were no rows and the task is set to fail then, the message has the error's text."""
    report: dict[str, Any] = {"state": "ended", "counts": {"events": 0}, "stopped": None, "failures": []}

    text = message({"ti": task_instance(report), "exception": DeliveriesFailedError("no rows came from the query")})

    assert "Nothing was posted.\nno rows came from the query\n" in text


def test_a_report_that_cannot_be_read_stops_no_message() -> None:
    """If Airflow does not give the report, the message is sent without it."""
    text = message({"ti": task_instance(RopoConnectError("gone")), "exception": RopoConnectError("no answer")})

    assert "no answer\nThere is no report of Ropo One" in text


@pytest.mark.parametrize(
    ("max_tries", "end"),
    [pytest.param(2, "failed and will be tried again", id="retry"), pytest.param(1, "failed", id="last")],
)
def test_a_dead_workers_task_instance_has_no_state(max_tries: int, end: str) -> None:
    """Airflow's DAG processor calls back with a task instance without a state; its tries tell whether one is left."""
    text = message({"ti": task_instance(None, state=None, try_number=2, max_tries=max_tries)})

    assert text.startswith(f"Ropo One: task t of DAG d {end} (run r, try 2)")


def test_no_report_is_asked_for_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3.0's DAG processor never answers a request for an XCom; there the message is sent without a report."""
    monkeypatch.setattr("airflow_provider_ropo.notifications.HAS_TABS", False)
    report = {"state": "ended", "counts": {"events": 1, "delivered": 1}}

    dead = message({"ti": task_instance(report, state=None)})
    ended = message({"ti": task_instance(report)})

    assert "There is no report of Ropo One" in dead
    assert "1 of 1 events are at Ropo One" in ended


def test_a_run_without_a_task() -> None:
    """A DAG's callback may have no task instance; the message then names the run."""
    text = message({"dag": SimpleNamespace(dag_id="daily"), "run_id": "r1", "reason": "timed_out"})

    assert text.startswith("Ropo One: run r1 of DAG daily failed")


def test_many_reasons_are_shortened() -> None:
    """The most frequent reasons come first, with the first rows of each; the rest is counted."""
    invalid = [{"status": "invalid", "id": None, "detail": f"row {row}: time: is missing"} for row in range(20)]
    rejected = [{"status": "rejected", "id": f"e{row}", "detail": f"HTTP 400 {row}"} for row in range(20)]
    report = {"state": "ended", "counts": {"events": 50}, "failures": rejected + invalid, "not_good": 50}

    lines = message({"ti": task_instance(report)}).splitlines()

    assert "20 × invalid: time: is missing (rows 0, 1, 2, 3, 4, …)" == lines[2]
    assert "rejected: id e0: HTTP 400 0" == lines[3]
    assert "… and 11 more" in lines
    assert "(These are the first 40 of 50 events.)" in lines
    assert len(lines) < 20


@pytest.mark.parametrize(
    ("place", "detail"),
    [
        pytest.param("RE12345", "HTTP 400 RE12345 is unknown, RE123456 is not", id="text"),
        pytest.param("(RE", "HTTP 400 (RE is unknown, RE123456 is not", id="no expression"),
    ],
)
def test_a_usage_place_is_left_out(place: str, detail: str) -> None:
    """If Ropo One names the usage place in its reason, the message does not."""
    failure = {"status": "rejected", "id": "e1", "usageplacecode": place, "detail": detail}

    text = message({"ti": task_instance({"state": "ended", "counts": {"events": 1}, "failures": [failure]})})

    assert "\nrejected: id e1: HTTP 400 *** is unknown, RE123456 is not\n" in text


def test_what_is_held_for_a_person_is_not_called_resent() -> None:
    """With ``on_unconfirmed="hold"``, the message does not say that unconfirmed events are sent again."""
    report = {"state": "ended", "counts": {"events": 1, "unconfirmed": 1}, "failures": []}

    text = message({"ti": task_instance(report), "task": our_task(on_unconfirmed="hold")})

    assert "1 of them may have arrived, and on_unconfirmed='hold' keeps them from being sent again" in text


def test_retries_that_are_left_do_not_help_after_the_end() -> None:
    """If a person marks a task instance as failed, the message does not speak of a next try."""
    report = {"state": "posting", "total": 2, "done": 1, "counts": {"events": 1, "delivered": 1}}

    text = message({"ti": task_instance(report, max_tries=5), "task": our_task()})

    assert "No retry is left" in text
    assert "With the ledger, nothing that has arrived is sent again." in text


def test_the_message_in_the_recipe_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe shows the message that its DAG sends about the demo's two bad rows."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com")
    reason = "is missing, and Ropo One needs the reason why the place was not disconnected"
    unknown = "HTTP 400 Unknown usage place: usageplacecode: codes that start with UNKNOWN are unknown here"
    report = {
        "state": "ended",
        "counts": {"rows": 12, "events": 11, "delivered": 9, "rejected": 1, "invalid": 1},
        "failures": [
            {"status": "invalid", "id": "WO-0114-07", "detail": f"row 8 (id WO-0114-07): description: {reason}"},
            {"status": "rejected", "id": "WO-0114-09", "detail": unknown},
        ],
        "not_good": 2,
    }
    run = {"dag_id": "report_usageplace_events", "run_id": "scheduled__2026-01-15T03:00:00+00:00", "task_id": "report"}

    text = message({"ti": task_instance(report, **run, try_number=1, task=our_task())})

    assert SHOWN == text + "\n"


def test_the_connections_in_the_recipe() -> None:
    """Both connections are read by Airflow as they stand there."""
    from airflow.sdk import Connection

    read = {}
    for line in CONNECTIONS.splitlines():
        name, _, value = line.partition("=")
        read[name] = Connection.from_json(value.strip("'")).conn_type

    assert {"AIRFLOW_CONN_SLACK": "slackwebhook", "AIRFLOW_CONN_MAIL": "smtp"} == read
