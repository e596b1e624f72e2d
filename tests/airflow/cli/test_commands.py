"""``airflow ropo …``, as a person runs it: real processes, a home of their own, and the local Ropo One."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.errors import DeliveriesFailedError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Fault, Sandbox
from terminal import Answer, plain, run_commands

DATE = "2026-01-14T05:00+02:00"
DAG = '''
from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param, get_current_context, task
from airflow_provider_ropo.errors import DeliveriesFailedError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

with DAG(
    "reporting",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=datetime(2026, 1, 1),
    params={"place": Param("P1", type="string")},
):
    UsageplaceEventOperator(
        task_id="report",
        sql="outcomes.sql",
        sql_conn_id="warehouse",
        parameters=["{{ data_interval_start }}", "{{ data_interval_end }}"],
        ledger_table="ropo_ledger",
    )
    EmptyOperator(task_id="other")
    UsageplaceEventOperator(task_id="lost", sql="SELECT * FROM nowhere", sql_conn_id="warehouse")
    UsageplaceEventOperator.partial(task_id="each", sql_conn_id="warehouse", sql="SELECT * FROM outcome").expand(
        parameters=[[], []]
    )

    @task.ropo_usageplace_events(ledger_table="no_ledger_yet", ledger_conn_id="warehouse")
    def late(data_interval_start):
        """Give one row, of the window and the params of the run."""
        place = get_current_context()["params"]["place"]
        yield {"id": "l1", "usageplacecode": place, "status": "connected", "time": data_interval_start}

    late()

    @task
    def outcomes():
        return []

    @task.ropo_usageplace_events
    def handed_over(rows):
        return rows

    handed_over(outcomes())
'''
SQL = "SELECT * FROM outcome WHERE datetime(loaded) >= datetime(?) AND datetime(loaded) < datetime(?) ORDER BY id\n"


@dataclass(frozen=True)
class Terminal:
    """A terminal with an Airflow home, a DAG and connections."""

    home: Path
    environment: dict[str, str]

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.db"

    def airflow(self, *arguments: str) -> Answer:
        """Run one command."""
        command = [str(Path(sys.executable).with_name("airflow")), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return Answer(done.returncode, plain(done.stdout), plain(done.stderr))

    def kept(self) -> dict[str, list[Any]]:
        """Return all that is in the warehouse, and in Airflow's database but its log of commands."""
        return {**contents(self.warehouse), **contents(self.home / "airflow.db", but=("log", "sqlite_sequence"))}


def contents(path: Path, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT * FROM "{name}"').fetchall() for name in names if name not in but}


@pytest.fixture(scope="module")
def terminal(
    airflow_db: None, running_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """A home of its own: a DAG file, Airflow's database with a connection in it, a warehouse and a ledger."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", home)
    (home / "dags").mkdir()
    (home / "dags" / "reporting.py").write_text(DAG)
    (home / "dags" / "outcomes.sql").write_text(SQL)
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(home / "warehouse.db")}),
        "AIRFLOW_CONN_AWAY": json.dumps({"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "nobody"}),
        "AIRFLOW_CONN_WRONG": json.dumps(
            {"conn_type": "ropo", "host": running_sandbox.url, "login": running_sandbox.cid, "password": "wrong"}
        ),
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    with closing(sqlite3.connect(home / "airflow.db")) as database:
        database.execute(
            "INSERT INTO connection (conn_id, conn_type, host, login, password, is_encrypted, is_extra_encrypted)"
            " VALUES ('ropo_default', 'ropo', ?, ?, ?, 0, 0)",
            (running_sandbox.url, running_sandbox.cid, running_sandbox.apicode),
        )
        database.commit()
    fill(home / "warehouse.db")
    yield Terminal(home, others | settings)
    shutil.rmtree(home)


def fill(path: Path) -> None:
    """Make a table of outcomes: eight of one day, one of which is invalid, and one of another day."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE outcome (id, usageplacecode, status, time, customernumber, loaded)")
        database.executemany(
            "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)",
            [
                *[
                    (f"e{n}", f"P{n}", "disconnected", f"2026-01-14 10:00:0{n}", f"A123{n}", "2026-01-14 12:00")
                    for n in range(1, 8)
                ],
                ("e8", "P8", "notdisconnected", "2026-01-14 10:00:08", "A1238", "2026-01-14 12:00"),
                ("e9", "P9", "disconnected", "2026-01-15 10:00:00", "A1239", "2026-01-15 12:00"),
            ],
        )
        database.commit()


@pytest.fixture(scope="module")
def ledger(terminal: Terminal, running_sandbox: Sandbox) -> Iterator[None]:
    """A ledger with one delivered, one undelivered and one rejected event."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_WAREHOUSE", terminal.environment["AIRFLOW_CONN_WAREHOUSE"])
        environment.setenv(
            "AIRFLOW_CONN_ROPO_DEFAULT",
            json.dumps(
                {
                    "conn_type": "ropo",
                    "host": running_sandbox.url,
                    "login": running_sandbox.cid,
                    "password": running_sandbox.apicode,
                }
            ),
        )
        running_sandbox.clear()
        running_sandbox.script([Fault(status=500, usageplacecode="P20")] * 5)
        rows = [
            ("e1", "P1", "disconnected", "2026-01-14 10:00:01", "A1231"),
            ("f2", "P20", "disconnected", "2026-01-13 10:00:00", "A1232"),
            ("f3", "UNKNOWN-3", "connected", "2026-01-13 11:00:00", "A1233"),
        ]
        names = ("id", "usageplacecode", "status", "time", "customernumber")
        events = [dict(zip(names, row, strict=True)) for row in rows]
        operator = UsageplaceEventOperator(
            task_id="report", events=events, ledger_table="ropo_ledger", ledger_conn_id="warehouse"
        )
        with pytest.raises(DeliveriesFailedError, match="1 of 3 events"):
            operator.execute({})
        yield


def test_check_signs_in(terminal: Terminal, sandbox: Sandbox) -> None:
    """The check prints the message of the Test button, for a connection in Airflow's database, and posts nothing."""
    answer = terminal.airflow("ropo", "check")

    expected = f"Signed in to {sandbox.url} as customer {sandbox.cid}; the token is valid until "
    assert (0, "") == (answer.code, answer.err)
    assert re.fullmatch(re.escape(expected) + r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(Europe/Helsinki\)\n", answer.out)
    assert (1, []) == (sandbox.sign_ins, sandbox.arrivals)


def test_a_preview_shows_what_would_be_posted(terminal: Terminal, ledger: None, sandbox: Sandbox) -> None:
    """The output has the interval, masked payloads, counts and reasons; nothing is posted, nothing written."""
    before = terminal.kept()

    answer = terminal.airflow("ropo", "preview", "reporting", "report", DATE)

    payloads = "".join(
        f'{{"id": "e{n}", "usageplacecode": "P{n}", "customernumber": "***", "time": "2026-01-14 10:00:0{n}", '
        '"status": "disconnected", "description": "Usage place disconnected"}\n'
        for n in range(2, 7)
    )
    expected = f"""\
reporting.report, a scheduled run, data interval 2026-01-14 03:00:00+00:00 to 2026-01-15 03:00:00+00:00

{payloads}… and 1 more

Preview, nothing was posted: 6 of 8 events would be posted, 1 already_delivered, 1 invalid
  invalid: row 8 (id e8): description: is missing, and Ropo One needs the reason why the place was not disconnected
"""
    assert Answer(1, expected, "") == answer
    assert before == terminal.kept()
    assert (0, []) == (sandbox.sign_ins, sandbox.arrivals)


def test_a_preview_of_a_decorated_task(terminal: Terminal, ledger: None, sandbox: Sandbox) -> None:
    """A function gets the run's dates and params; a date that is not in the schedule makes a manual run."""
    before = terminal.kept()

    answer = terminal.airflow("ropo", "preview", "reporting", "late", "2026-01-14", "--conf", '{"place": "P7"}')

    expected = """\
reporting.late, a run triggered by hand, data interval 2026-01-12 03:00:00+00:00 to 2026-01-13 03:00:00+00:00

{"id": "l1", "usageplacecode": "P7", "time": "2026-01-12 05:00:00", "status": "connected", \
"description": "Usage place connected"}

Preview, nothing was posted: 1 of 1 events would be posted
"""
    assert Answer(0, expected, "") == answer
    assert before == terminal.kept()
    assert (0, []) == (sandbox.sign_ins, sandbox.arrivals)


def test_a_wrong_code_is_refused_in_a_sentence(terminal: Terminal, sandbox: Sandbox) -> None:
    """A command that fails exits with 1, and writes the reason to stderr only."""
    answer = terminal.airflow("ropo", "check", "--conn-id", "wrong")

    assert (1, "") == (answer.code, answer.out)
    assert 1 == answer.err.count("\n")
    assert answer.err.startswith(f"{sandbox.url} refuses the sign-in; check Server (host)")


def test_the_ledger_lists_what_is_not_delivered(terminal: Terminal, ledger: None) -> None:
    """Each event that is not at Ropo One is there once, by its newest row, the earliest first."""
    before = terminal.kept()

    answer = terminal.airflow("ropo", "ledger", "--conn-id", "warehouse", "--output", "json")

    assert (0, "") == (answer.code, answer.err)
    shown = json.loads(answer.out)
    assert [
        ("f2", "P20", "disconnected", "2026-01-13 10:00:00", "undelivered"),
        ("f3", "UNKNOWN-3", "connected", "2026-01-13 11:00:00", "rejected"),
    ] == [tuple(row.values())[1:6] for row in shown]
    assert {row["destination"] for row in shown} == {f"{shown[0]['destination'].split()[0]} 1000011"}
    assert [*shown[0]][6:] == ["http_status", "detail", "run_id", "recorded_at"]
    assert "HTTP 400 Unknown usage place" in shown[1]["detail"]
    assert before == terminal.kept()


MISTAKES = {
    "no connection to check": (
        ["check", "--conn-id", "nowhere"],
        "connection 'nowhere' is not defined, or Airflow cannot read it; add one of type Ropo One",
    ),
    "unknown DAG": (
        ["preview", "nothing", "report", DATE],
        "there is no DAG 'nothing' in the DAG bundles (dags-folder)",
    ),
    "unknown task": (
        ["preview", "reporting", "nothing", DATE],
        "task 'nothing' of DAG 'reporting' is not there; those that report are: report, lost, each, late, handed_over",
    ),
    "another operator's task": (
        ["preview", "reporting", "other", DATE],
        "task 'other' of DAG 'reporting' reports no events to Ropo One; those that report are: report,",
    ),
    "no date": (
        ["preview", "reporting", "report", "yesterday"],
        "'yesterday' is not a date such as 2026-01-14 or 2026-01-14T05:00+02:00",
    ),
    "no configuration": (["preview", "reporting", "report", DATE, "--conf", "[1]"], "--conf takes a JSON object"),
    "another task's output": (
        ["preview", "reporting", "handed_over", DATE],
        "the task needs something that only a real run has, such as the output of another task; preview it in a run",
    ),
    "a mapped task as a whole": (
        ["preview", "reporting", "each", DATE],
        "task 'each' is mapped: choose an instance with --map-index",
    ),
    "a query that fails": (
        ["preview", "reporting", "lost", DATE],
        "the database cannot run the query (no such table: nowhere); correct `sql`",
    ),
    "no connection to a ledger": (
        ["ledger", "--conn-id", "nowhere"],
        "connection 'nowhere' is not defined, or Airflow cannot read it; add it under Admin, Connections",
    ),
    "a connection that is no database": (
        ["ledger", "--conn-id", "wrong"],
        "connection 'wrong' is no SQL database: RopoHook is no DbApiHook",
    ),
    "no such ledger": (
        ["ledger", "--conn-id", "warehouse", "--table", "ops_ledger"],
        "there is no ledger ops_ledger in the database of connection 'warehouse'",
    ),
    "a ledger's database that is away": (
        ["ledger", "--conn-id", "away"],
        "the ledger ropo_ledger (connection 'away') could not be opened: connection",
    ),
    "a misspelled status": (
        ["ledger", "--conn-id", "warehouse", "--status", "delivred"],
        "no event is ever 'delivred'; a status is one of already_delivered, changed, closed, delivered,",
    ),
    "no time between": (
        ["ledger", "--conn-id", "warehouse", "--since", "2026-02-01", "--until", "2026-01-31"],
        "no row is recorded from 2026-02-01 00:00:00 on and before 2026-02-01 00:00:00",
    ),
    "an unknown destination": (
        ["ledger", "--conn-id", "warehouse", "--destination", "rc.ropo24.fi"],
        "no row is about destination 'rc.ropo24.fi'; there are: http://127.0.0.1:",
    ),
    "no date to look up": (
        ["ledger", "--conn-id", "warehouse", "--since", "January"],
        "--since: 'January' is not a date such as 2026-01-14, or a time such as 2026-01-14T05:00+02:00",
    ),
    "no reason": (
        ["settle", "f2", "--as", "closed", "--reason", " ", "--conn-id", "warehouse"],
        "give a reason; it is written to the ledger",
    ),
    "an unknown event": (
        ["settle", "f2", "f9", "--as", "closed", "--reason", "gone", "--conn-id", "warehouse", "--yes"],
        "nothing was settled; f9: no row of the ledger is about it; check the id, and whether this is its task's",
    ),
    "nothing to purge": (["purge", "--conn-id", "warehouse"], "give either --older-than or --place"),
    "no age": (
        ["purge", "--conn-id", "warehouse", "--older-than", "a year"],
        "'a year' is no age in days such as 400d",
    ),
    "a short age": (
        ["purge", "--conn-id", "warehouse", "--older-than", "30d", "--yes"],
        "an age below 90d is refused: a query that looks back, a backfill or a cleared run could still read these",
    ),
    "an unknown place": (
        ["purge", "--conn-id", "warehouse", "--place", "P99", "--yes"],
        "no row of the ledger ropo_ledger is about this usage place",
    ),
}


FORMATS = {
    output: ["ledger", "--conn-id", "warehouse", "--limit", "1", "--output", output]
    for output in ("table", "plain", "yaml")
}


@pytest.fixture(scope="module")
def answers(terminal: Terminal, ledger: None) -> dict[str, Answer]:
    """Run a command for every mistake and every output format."""
    asked = {**{name: arguments for name, (arguments, _) in MISTAKES.items()}, **FORMATS}
    return dict(zip(asked, run_commands(terminal.environment, [*asked.values()]), strict=True))


@pytest.mark.parametrize("output", FORMATS)
def test_the_ledger_has_all_of_airflows_formats(answers: dict[str, Answer], output: str) -> None:
    """The list ends at the limit, and a note on stderr tells that there are more."""
    answer = answers[output]

    assert (0, "These are the first 1; there are more.\n") == (answer.code, plain(answer.err))
    assert "undelivered" in answer.out
    # As a word of its own: a process's number may have the two characters in it.
    assert re.search(r"\bf3\b", answer.out) is None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(answers: dict[str, Answer], mistake: str) -> None:
    """A command that cannot work ends with one line that gives the reason, without a traceback."""
    answer = answers[mistake]

    # What ends the process with a sentence makes Python print it, and exit with 1.
    assert isinstance(answer.code, str)
    assert answer.code.startswith(MISTAKES[mistake][1])
    assert "\n" not in answer.code
    assert "" == plain(answer.err)


def test_the_commands_cost_nothing_before_they_run() -> None:
    """Airflow reads the provider info and the commands at every start: nothing else comes in with them."""
    script = (
        "import sys, airflow.cli.cli_config; before = set(sys.modules);"
        "from airflow_provider_ropo.provider_info import get_provider_info; get_provider_info();"
        "from airflow_provider_ropo.cli.definition import get_ropo_cli_commands; get_ropo_cli_commands();"
        "print(*sorted(set(sys.modules) - before))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    new = set(done.stdout.split())
    assert "airflow_provider_ropo.cli.definition" in new
    assert set() == new - {f"airflow_provider_ropo{name}" for name in ("", ".cli", ".cli.definition", ".provider_info")}
