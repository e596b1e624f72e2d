"""The operator that sends a file."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_ropo.errors import DeliveriesFailedError, FileStoreError, RopoConfigurationError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import encode_json
from airflow_provider_ropo.export.formats import CsvFormat
from airflow_provider_ropo.export.marker import ControlFile
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.operators.usageplace_file import UsageplaceEventFileOperator
from airflow_provider_ropo.sandbox import Sandbox
from doubles import FakeTaskInstance, fake_context
from file_runs import rows

DAY = dt.datetime(2026, 1, 14, 3, tzinfo=dt.UTC)


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder behind the connection ``files``, and a ledger's database behind ``warehouse``."""
    drop = tmp_path / "drop"
    drop.mkdir()
    database = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps({"conn_type": "fs", "extra": {"path": str(drop)}}))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(database)}))
    return drop


def make(given: list[dict[str, Any]], **parameters: Any) -> UsageplaceEventFileOperator:
    values = {
        "events": given,
        "ledger_table": "ropo_ledger",
        "ledger_conn_id": "warehouse",
        "destination_conn_id": "files",
        "timezone": "Europe/Helsinki",
    }
    return UsageplaceEventFileOperator(task_id="report", **(values | parameters))


def run(given: list[dict[str, Any]], ti: FakeTaskInstance | None = None, **parameters: Any) -> dict[str, int]:
    return make(given, **parameters).execute(fake_context(ti, logical_date=DAY))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file(drop: Path, sandbox: Sandbox) -> None:
    """The file has the run's time in its name, and is byte for byte what the REST interface is sent."""
    ti = FakeTaskInstance()

    counts = run(rows(3), ti)

    assert (3, 3, 3) == (counts["rows"], counts["events"], counts["delivered"])
    (path,) = drop.iterdir()
    assert path.name.startswith("usageplace_events_20260114T030000Z_")
    assert (".jsonl", 12) == (path.suffix, len(path.stem.rpartition("_")[2]))
    UsageplaceEventOperator(task_id="post", events=rows(3), max_workers=1).execute(fake_context())
    posted = {encode_json(payload) for payload in sandbox.events}
    assert posted == set(path.read_text().splitlines())
    assert f"file://{drop}" == ti.pushed["ropo_report"]["server"]


def test_cleared_task_sends_nothing_again(drop: Path) -> None:
    """A try that comes again sends nothing that is known, and the next run neither."""
    run(rows(2))

    again = run(rows(2), FakeTaskInstance(try_number=2))

    assert (0, 2) == (again["delivered"], again["already_delivered"])
    assert 1 == len(names(drop))


@pytest.mark.parametrize(
    ("parameters", "ending"),
    [
        ({"format": "json"}, ".json"),
        ({"format": "csv"}, ".csv"),
        ({"format": CsvFormat(delimiter=",", encoding="cp1252")}, ".csv"),
        ({"name": "ropo", "temporary": None}, ".jsonl"),
    ],
    ids=["json", "csv", "set", "without a temporary name"],
)
def test_parameters(drop: Path, parameters: dict[str, Any], ending: str) -> None:
    """Format and name are as they were set."""
    run(rows(2), **parameters)

    (name,) = names(drop)
    assert name.endswith(ending)
    assert name.startswith(parameters.get("name", "usageplace_events"))


def test_marker_and_folder(drop: Path) -> None:
    """A control file follows the file, in the same folder."""
    (drop / "in").mkdir()

    run(rows(2), folder="in", marker=ControlFile(".ctl"))

    file, control = names(drop / "in")
    assert f"{file}.ctl" == control
    assert {"file": file, "events": 2}.items() <= json.loads((drop / "in" / control).read_text()).items()


def test_preview(drop: Path) -> None:
    """A preview sends and writes nothing, and leaves the digest by which the run is approved."""
    ti = FakeTaskInstance()

    counts = run(rows(2), ti, preview=True)

    assert (2, []) == (counts["undelivered"], names(drop))
    assert 2 == run(rows(2), approved=ti.pushed["ropo_digest"])["delivered"]


def test_guards(drop: Path) -> None:
    """More events than are allowed are refused before anything is sent, and single ones can be sent."""
    with pytest.raises(AirflowFailException, match="max_events"):
        run(rows(3), max_events=2)

    assert [] == names(drop)
    assert 1 == run(rows(3), max_events=2, event_ids=["e1"])["delivered"]


def test_anything_else_than_was_approved(drop: Path, tmp_path: Path) -> None:
    """Events that were not approved are refused before a file or a claim is made; a later try may send what was."""
    ti = FakeTaskInstance()
    run(rows(2), ti, preview=True)
    digest = ti.pushed["ropo_digest"]
    changed = [*rows(1), rows(1, first=1)[0] | {"description": "something else"}]

    for given in (rows(3), rows(1), changed):
        with pytest.raises(AirflowFailException, match="not what was approved"):
            run(given, approved=digest)

    assert [] == names(drop)
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as database:
        assert [(0,)] == database.execute("SELECT count(*) FROM ropo_ledger").fetchall()
    with pytest.raises(FileStoreError):
        run(rows(2), approved=digest, temporary="missing/")
    assert 2 == run(rows(2), FakeTaskInstance(try_number=2), approved=digest)["delivered"]


def test_max_failed(drop: Path) -> None:
    """Rows that the file's encoding cannot hold count as failed: tolerated up to the limit, the others are sent."""
    given = [*rows(3), rows(1, first=3)[0] | {"description": "5 €"}]
    latin: dict[str, Any] = {"format": CsvFormat(encoding="latin-1")}

    with pytest.raises(AirflowFailException, match="3 of 4 events"):
        run(given, **latin)
    counts = run(given, FakeTaskInstance(try_number=2), max_failed=1, **latin)

    assert (1, 3) == (counts["invalid"], counts["already_delivered"])
    assert 1 == len(names(drop))


def test_preview_of_no_rows(drop: Path) -> None:
    """A preview sends no empty file either."""
    run([], on_empty="file", preview=True)

    assert [] == names(drop)


def test_no_rows(drop: Path) -> None:
    """No rows end the task well, skip it, fail it, or send an empty file, as is wanted."""
    assert 0 == run([])["rows"]
    with pytest.raises(AirflowSkipException):
        run([], on_empty="skip")
    with pytest.raises(DeliveriesFailedError):
        run([], on_empty="fail")
    assert [] == names(drop)

    run([], on_empty="file", format="csv")

    (path,) = drop.iterdir()
    assert 1 == len(path.read_text().splitlines())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ledger_table": None}, "`ledger_table` is missing"),
        ({"timezone": "Europe/Espoo"}, "Europe/Espoo"),
        ({"format": "xml"}, "`format`"),
        ({"name": "a b"}, "`name`"),
        ({"name": "in/a"}, "`name`"),
        ({"name": "a\0"}, "`name`"),
        ({"temporary": ""}, "`temporary`"),
        ({"temporary": "a/b"}, "`temporary`"),
        ({"temporary": "a b/"}, "`temporary`"),
        ({"marker": 5}, "`marker`"),
        ({"destination_conn_id": ""}, "`destination_conn_id`"),
        ({"on_empty": "nothing"}, "`on_empty` must be one of succeed, skip, fail, file"),
    ],
    ids=str,
)
def test_refused_when_parsed(parameters: dict[str, Any], message: str) -> None:
    """A parameter that cannot work is refused when the DAG is parsed."""
    with pytest.raises(RopoConfigurationError, match=message):
        make(rows(1), **parameters)


def test_another_file_has_the_name(drop: Path) -> None:
    """A file of another size under the same name stops the task, without a retry."""
    run(rows(2))
    (path,) = drop.iterdir()
    path.write_text("something else")

    with pytest.raises(AirflowFailException, match=f"{path.name} at file://{drop} has 14 bytes"):
        run(rows(2), FakeTaskInstance(try_number=2), redeliver="always")


def test_templates_are_checked_when_rendered() -> None:
    """A template is taken when the DAG is parsed."""
    make(rows(1), format="{{ params.format }}", timezone="{{ params.zone }}", name="{{ ds }}", temporary="{{ x }}")


def test_run_without_a_time(drop: Path) -> None:
    """A run that was triggered without a date has the time after which it runs in its file's name."""

    class DagRun:
        run_after = dt.datetime(2026, 1, 14, 5, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))

    make(rows(1)).execute(fake_context(logical_date=None, dag_run=DagRun()))

    (name,) = names(drop)
    assert name.startswith("usageplace_events_20260114T033000Z_")


def test_own_store_and_format(drop: Path, tmp_path: Path) -> None:
    """A store and a format of the user's own are one class each."""

    class Own(FileStore):
        destination = "own://store"
        can_rename = False
        files: dict[str, bytes] = {}  # noqa: RUF012 - a test's

        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            self.files[name] = file.read()

        def publish(self, temporary: str, name: str) -> None:
            raise NotImplementedError

        def look(self, name: str) -> int | None:
            return len(self.files[name]) if name in self.files else None

        def remove(self, name: str) -> None:
            self.files.pop(name, None)

    class Ids:
        extension = "txt"

        def open(self, stream: BinaryIO) -> None:
            self._stream = stream

        def write(self, event: UsageplaceEvent) -> None:
            self._stream.write(event.id.encode() + b"\n")

        def close(self) -> None:
            pass

    class Operator(UsageplaceEventFileOperator):
        def open_store(self) -> FileStore:
            return Own()

    values = {"ledger_table": "ropo_ledger", "ledger_conn_id": "warehouse", "destination_conn_id": "own"}
    operator = Operator(task_id="report", events=rows(2), timezone="Europe/Helsinki", format=Ids(), **values)
    operator.execute(fake_context(logical_date=DAY))

    ((name, content),) = Own.files.items()
    assert (".txt", b"e0\ne1\n") == (name[-4:], content)
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as database:
        found = database.execute("SELECT DISTINCT destination FROM ropo_ledger").fetchall()
    assert [("own://store",)] == found


def test_dag_run(drop: Path, run_dag: Callable[..., Any]) -> None:
    """A whole DAG run sends a file, with templates, and shows its counts."""
    finished = run_dag(
        """
        from airflow_provider_ropo.operators.usageplace_file import UsageplaceEventFileOperator
        from airflow_provider_ropo.export.formats import CsvFormat

        with DAG(DAG_ID, start_date=START, schedule=None, params={"zone": "Europe/Oslo"}):
            UsageplaceEventFileOperator(
                task_id="report",
                events=[{"id": "e1", "usageplacecode": "RE1", "status": "connected", "time": "2026-01-14T00:00:00Z"}],
                ledger_table="ropo_ledger", ledger_conn_id="warehouse", destination_conn_id="files",
                timezone="{{ params.zone }}", name="events_{{ dag.dag_id }}", format=CsvFormat(header=False),
            )
        """,
        logical_date=DAY,
    )

    assert ("success", 1) == (finished.state, finished.xcom["delivered"])
    (path,) = drop.iterdir()
    assert path.name.startswith(f"events_{finished.dag_id}_20260114T030000Z_")
    assert path.read_text().startswith("e1;RE1;connected;2026-01-14 01:00:00;")
