"""The operators that settle events and purge the ledger, and the example DAGs with them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.operators.ledger import RopoPurgeOperator, RopoSettleOperator
from doubles import FakeTaskInstance, fake_context

ROOT = Path(__file__).parents[3]
DESTINATION = "https://rc.ropo24.fi 1000011"
MakeEngine = Callable[[str], sa.engine.Engine]


@pytest.fixture
def ledger(database: str, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerTable]:
    """Return a ledger on SQLite, and on PostgreSQL, behind the connection ``warehouse``."""
    engine = make_engine(database)
    connection: dict[str, Any] = {"conn_type": "sqlite", "host": engine.url.database}
    if engine.dialect.name == "postgresql":
        query = engine.url.query
        extra = {"options": query["options"]}
        connection = {"conn_type": "postgres", "host": query["host"], "login": "postgres", "schema": "postgres"}
        connection |= {"port": int(str(query["port"])), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    yield table
    table.close()


def write(ledger: LedgerTable, *statuses: str, age: dt.timedelta = dt.timedelta(0), first: int = 1) -> None:
    """Write one row for each of some events."""
    empty = dict.fromkeys(ledger.definition.c.keys())
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    ledger.insert(
        [
            {**empty, **Claimant("dag", "report", "run", -1, 1, "p")._asdict(), "attempts": 1}
            | {"event_id": f"e{number}", "usageplacecode": f"P{number}", "destination": DESTINATION}
            | {"delivery_status": status, "recorded_at": now - age, "detail": "no answer"}
            for number, status in enumerate(statuses, first)
        ]
    )
    ledger.release_connection()


def rows(ledger: LedgerTable) -> list[dict[str, Any]]:
    table = ledger.definition
    found = ledger.fetch(sa.select(table).order_by(table.c.recorded_at, table.c.event_id))
    ledger.release_connection()
    return found


def settle(**parameters: Any) -> dict[str, int]:
    chosen = {"event_ids": ["e1"], "settle_as": "closed", "reason": "a duplicate", "conn_id": "warehouse"} | parameters
    return RopoSettleOperator(task_id="settle", **chosen).execute(fake_context(FakeTaskInstance("manual")))


def purge(**parameters: Any) -> dict[str, int]:
    return RopoPurgeOperator(task_id="purge", conn_id="warehouse", **parameters).execute(fake_context())


@pytest.mark.parametrize("event_ids", [["e1", "e2"], '["e1", "e2"]'], ids=["a list", "a template's JSON"])
def test_events_are_settled(event_ids: object, ledger: LedgerTable) -> None:
    """Each event gets a row that names the run; the number of events is returned."""
    write(ledger, "unconfirmed", "unconfirmed")

    assert {"settled": 2} == settle(event_ids=event_ids, settle_as="delivered", reason="seen there")
    assert [("e1", "delivered"), ("e2", "delivered")] == [
        (row["event_id"], row["delivery_status"]) for row in rows(ledger)[2:]
    ]
    last = rows(ledger)[-1]
    assert ("dag", "report", "manual", "person") == tuple(
        last[name] for name in ("dag_id", "task_id", "run_id", "process")
    )
    assert "settled as delivered by run manual: seen there" == last["detail"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"event_ids": ["e1", "e9"]}, "nothing was settled; e9: no row of the ledger is about it"),
        ({"event_ids": "e1"}, "`event_ids` must be a list of ids"),
        ({"event_ids": '{"e1": 1}'}, "`event_ids` must be a list of ids"),
        ({"event_ids": []}, "give the id of one event at least"),
        ({"settle_as": "done"}, "events are settled as one of"),
        ({"claim_timeout": "soon"}, "`claim_timeout` must be a number of seconds"),
        ({"table": "nowhere"}, "there is no ledger nowhere in the database of connection 'warehouse'"),
    ],
    ids=["an unknown event", "text", "an object", "no events", "status", "timeout", "no ledger"],
)
def test_a_mistake_is_not_tried_again(parameters: dict[str, Any], message: str, ledger: LedgerTable) -> None:
    """What makes no sense fails the task, without a retry, and nothing is written."""
    write(ledger, "rejected")

    with pytest.raises(AirflowFailException, match=message):
        settle(**parameters)
    assert 1 == len(rows(ledger))


def test_old_events_are_purged(ledger: LedgerTable) -> None:
    """The counts are returned; a preview deletes nothing; a short age has to be forced."""
    write(ledger, "delivered", "rejected", age=dt.timedelta(days=500))
    write(ledger, "delivered", age=dt.timedelta(days=10), first=3)

    assert {"events": 1, "rows": 1, "kept": 1} == purge(older_than="400d", preview="True")
    assert 3 == len(rows(ledger))
    assert {"events": 1, "rows": 1, "kept": 1} == purge(older_than="400d")
    with pytest.raises(AirflowFailException, match="an age below 90d is refused"):
        purge(older_than="5d")
    assert {"events": 1, "rows": 1, "kept": 1} == purge(older_than="5d", force=True)
    assert ["e2"] == [row["event_id"] for row in rows(ledger)]


WARNING = (
    "Open: e2. A run that reads one of these writes the place again: remove them from the source table, or settle "
    "them, first."
)


def test_the_log_tells_what_was_purged(ledger: LedgerTable, capsys: pytest.CaptureFixture[str]) -> None:
    """The log has the same sentences as the command, the warning about open events included."""
    write(ledger, "delivered", "rejected", age=dt.timedelta(days=500))

    purge(older_than="400d", preview=True)
    purge(older_than="400d")
    purge(place="P2")

    log = capsys.readouterr().out
    assert "Preview, nothing was changed; older than 400d: 1 finished event with 1 row" in log
    assert 2 == log.count("Open events of that age, which are kept: 1")
    assert "Deleted, older than 400d: 1 finished event with 1 row" in log
    assert WARNING in log
    assert "Erased this usage place: 1 event with 1 row" in log


def test_a_place_is_erased(ledger: LedgerTable) -> None:
    """A usage place is erased from its rows, and its events stay known."""
    write(ledger, "delivered", "delivered")

    assert {"events": 1, "rows": 1} == purge(place="P1", preview=True)
    assert {"events": 1, "rows": 1} == purge(place="P1")
    assert [("e1", None), ("e2", "P2")] == [(row["event_id"], row["usageplacecode"]) for row in rows(ledger)]


@pytest.mark.parametrize("parameters", [{}, {"older_than": "400d", "place": "P1"}], ids=["neither", "both"])
def test_an_age_or_a_place(parameters: dict[str, Any]) -> None:
    """What to purge is given once; anything else is refused when the DAG is parsed."""
    with pytest.raises(RopoConfigurationError, match="give either `older_than` or `place`"):
        RopoPurgeOperator(task_id="purge", conn_id="warehouse", **parameters)


def test_an_erased_place_is_not_shown(run_dag: Callable[..., Any], ledger: LedgerTable) -> None:
    """The place is in neither the Rendered Templates view nor the log."""
    write(ledger, "delivered")

    finished = run_dag(
        """
        from airflow_provider_ropo.operators.ledger import RopoPurgeOperator

        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            RopoPurgeOperator(task_id="report", conn_id="warehouse", place="{{ 'P' ~ 1 }}")
        """
    )

    assert "success" == finished.state
    assert {"events": 1, "rows": 1} == finished.xcom
    assert "str, not shown: it may contain personal data" == finished.rendered["place"]
    assert "'P1'" not in finished.log


# The example DAGs.


@pytest.fixture
def run_example(airflow_db: None, dags_folder: Path) -> Iterator[Callable[..., str]]:
    """Run an example DAG, with the configuration of a run that is triggered from the form; return its state."""
    from airflow.dag_processing.dagbag import DagBag

    links = [dags_folder / f"{dag_id}.py" for dag_id in ("ropo_settle", "ropo_purge")]
    for link in links:
        link.symlink_to(ROOT / "example_dags" / link.name)

    def run(dag_id: str, conf: dict[str, Any]) -> str:
        dag = DagBag(dag_folder=dags_folder / f"{dag_id}.py").dags[dag_id]
        return str(dag.test(logical_date=None, run_conf=conf).state)

    yield run
    for link in links:
        link.unlink()


def test_the_form_that_settles(run_example: Callable[..., str], ledger: LedgerTable) -> None:
    """What the form asks for settles events, whatever characters their ids have."""
    write(ledger, "unconfirmed", "unconfirmed")
    odd = "a 'b' \"c\" <d> {{ e }}"
    ledger.change(ledger.definition.update().where(ledger.definition.c.event_id == "e2").values(event_id=odd))
    ledger.release_connection()

    state = run_example("ropo_settle", {"event_ids": ["e1", odd], "settle_as": "closed", "reason": "a test order"})

    assert "success" == state
    assert {("e1", "closed"), (odd, "closed")} == {
        (row["event_id"], row["delivery_status"]) for row in rows(ledger)[2:]
    }


def test_the_form_is_found_and_filled_in(airflow_db: None) -> None:
    """The DAG has the tag by which a report finds it, and asks for what cannot be guessed."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagBag(dag_folder=ROOT / "example_dags" / "ropo_settle.py").dags["ropo_settle"]
    DagSerialization.to_dict(dag)

    assert "ropo-settle" in dag.tags
    assert {"event_ids", "conn_id", "table", "destination", "settle_as", "reason"} == set(dag.params)
    required = {name for name in dag.params if not dag.params.get_param(name).has_value}
    assert {"event_ids", "settle_as", "reason"} == required - {"destination"}


def test_the_monthly_purge(run_example: Callable[..., str], ledger: LedgerTable) -> None:
    """The example purges what is older than 400 days, and in a preview nothing."""
    write(ledger, "delivered", age=dt.timedelta(days=401))
    write(ledger, "delivered", age=dt.timedelta(days=399), first=2)

    previewed = run_example("ropo_purge", {"preview": True}), len(rows(ledger))
    purged = run_example("ropo_purge", {}), [row["event_id"] for row in rows(ledger)]

    assert ("success", 2) == previewed
    assert ("success", ["e2"]) == purged
