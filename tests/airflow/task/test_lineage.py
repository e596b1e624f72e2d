"""Ropo One as an asset in Airflow, and the lineage that Airflow's OpenLineage provider extracts from our tasks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.providers.openlineage.extractors.base import DefaultExtractor, OperatorLineage

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Sandbox

RunDag = Callable[..., Any]

ROPO_ONE = "ropo://rc.ropo24.fi/usageplace/event"
GOOD = {"id": "e1", "usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00:00"}
BAD = GOOD | {"id": "e2", "usageplacecode": "UNKNOWN"}
NOUGHT = dict.fromkeys(
    ("already_delivered", "rejected", "invalid", "changed", "undelivered", "unconfirmed", "held", "closed"), 0
)
ONE = NOUGHT | {"rows": 1, "events": 1, "delivered": 1}


def asset_events(dag_id: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Return what Airflow's database has of a DAG's asset events: the URI, the map index and the extra."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetModel.uri, AssetEvent.source_map_index, AssetEvent.extra).filter(
            AssetEvent.asset_id == AssetModel.id, AssetEvent.source_dag_id == dag_id
        )
        return sorted((uri, index, extra) for uri, index, extra in found)


@pytest.mark.parametrize("uri", ["ropo://RC.Ropo24.fi:443/usageplace/event/", "ropo://rc.ropo24.fi#today", ROPO_ONE])
def test_airflow_normalises_the_uri(uri: str) -> None:
    """An asset's URI is normalized, because Airflow finds our handler for the scheme."""
    assert ROPO_ONE == Asset(uri=uri).uri


@pytest.mark.parametrize("uri", ["ropo://rc.ropo24.fi/rest", "ropo:///usageplace/event", f"{ROPO_ONE}?timeout=60"])
def test_airflow_refuses_other_uris(uri: str) -> None:
    """An asset that cannot be Ropo One's is an error when the DAG is parsed."""
    with pytest.raises(ValueError, match="URI format ropo://"):
        Asset(uri=uri)


def test_airflow_makes_the_asset_of_a_server() -> None:
    """Hook lineage makes the asset by its scheme."""
    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]

    made = collector.create_asset(scheme="ropo", asset_kwargs={"host": "RC.ropo24.fi"}, asset_extra=None)

    assert Asset(uri=ROPO_ONE) == made


def test_airflow_translates_the_asset() -> None:
    """As an OpenLineage dataset, the asset is what our task names as its output."""
    dataset = translate_airflow_asset(Asset(uri="ropo://127.0.0.1:8099"), None)

    assert dataset is not None
    assert ("ropo://127.0.0.1:8099", "usageplace/event") == (dataset.namespace, dataset.name)


def test_counts_go_with_the_asset_event(run_dag: RunDag, sandbox: Sandbox) -> None:
    """After a green run, each asset's event has the counts; other outlets, such as an alias, are not changed."""
    finished = run_dag(
        f"""
        from airflow.providers.common.compat.lineage.entities import File
        from airflow.providers.common.compat.sdk import AssetAlias
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report",
                events=[{GOOD}],
                outlets=[
                    Asset(uri="{ROPO_ONE}", extra={{"ours": "stays"}}),
                    AssetAlias(DAG_ID),
                    Asset("x-" + DAG_ID),
                    File(url="file://outcomes"),
                ],
            )
        """
    )

    assert "success" == finished.state
    assert [(ROPO_ONE, -1, ONE), (f"x-{finished.dag_id}", -1, ONE)] == asset_events(finished.dag_id)


@pytest.fixture
def partition_key() -> Iterator[str]:
    """Give each new DAG run a partition's key, as the scheduler gives it to a run of a partition."""
    from airflow.models.dagrun import DagRun

    key = "2024-01-04"

    def give(_mapper: object, _connection: object, dag_run: Any) -> None:
        dag_run.partition_key = key

    sa.event.listen(DagRun, "before_insert", give)
    yield key
    sa.event.remove(DagRun, "before_insert", give)


def test_a_run_of_a_partition(run_dag: RunDag, sandbox: Sandbox, partition_key: str) -> None:
    """A run selects by the key of its partition, and the event of its outlet has that key beside the counts."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    rows = [GOOD | {"id": "2024-01-03"}, GOOD | {"id": partition_key}]
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report",
                events={rows},
                event_ids="{{{{ dag_run.partition_key }}}}",
                outlets=[Asset(uri="{ROPO_ONE}")],
            )
        """
    )

    assert "success" == finished.state
    assert [partition_key] == [event["id"] for event in sandbox.events]
    with create_session() as session:
        (event,) = session.query(AssetEvent).filter(AssetEvent.source_dag_id == finished.dag_id)
    assert (partition_key, ONE | {"rows": 2}) == (event.partition_key, event.extra)


def test_a_red_run_has_no_asset_event(run_dag: RunDag, sandbox: Sandbox) -> None:
    """If not everything arrived, DAGs that are scheduled on the asset are not triggered."""
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(task_id="report", events={[GOOD, BAD]}, outlets=[Asset(uri="{ROPO_ONE}")])
        """
    )

    assert "failed" == finished.state
    assert ["e1"] == [event["id"] for event in sandbox.events]
    assert [] == asset_events(finished.dag_id)


def test_tolerated_failures_are_among_the_counts(run_dag: RunDag, sandbox: Sandbox) -> None:
    """If a task succeeds in spite of rejected events, the asset event shows their number."""
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report", events={[GOOD, BAD]}, max_failed=1, outlets=[Asset(uri="{ROPO_ONE}")]
            )
        """
    )

    assert "success" == finished.state
    assert [(ROPO_ONE, -1, ONE | {"rows": 2, "events": 2, "rejected": 1})] == asset_events(finished.dag_id)


def test_each_mapped_task_has_its_own_counts(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Each mapped task instance has an asset event of its own, with its own counts."""
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator.partial(
                task_id="report", outlets=[Asset(uri="{ROPO_ONE}")]
            ).expand(events=[[{GOOD}], []])
        """
    )

    nothing = dict.fromkeys(ONE, 0)
    assert "success" == finished.state
    assert [(ROPO_ONE, 0, ONE), (ROPO_ONE, 1, nothing)] == asset_events(finished.dag_id)


def test_counts_are_returned_where_there_are_no_asset_events(sandbox: Sandbox) -> None:
    """If the operator is not run by Airflow, its outlets are not changed."""
    task = UsageplaceEventOperator(task_id="report", events=[GOOD], outlets=[Asset(uri=ROPO_ONE)])

    assert ONE == task.execute({})


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse whose hook has no information for OpenLineage."""
    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE outcome (id)")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))


class Tables(NamedTuple):
    """Two tables: how OpenLineage's names of them begin, and a task's parameters to reach them."""

    prefix: str
    parameters: dict[str, Any]


@pytest.fixture
def tables(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """A PostgreSQL warehouse with the tables ``outcome`` and ``place``."""
    schema = postgres.make_schema()
    with postgres.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {schema}.outcome (id TEXT); CREATE TABLE {schema}.place (code TEXT)")
    connection = {
        "conn_type": "postgres",
        "host": postgres.host,
        "port": postgres.port,
        "login": postgres.user,
        "schema": postgres.dbname,
    }
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    prefix = f"postgres://{quote(postgres.host, safe='')}:{postgres.port}/{postgres.dbname}.{schema}."
    return Tables(prefix, {"sql_conn_id": "warehouse", "sql_hook_params": {"options": f"-c search_path={schema}"}})


def lineage_of(**parameters: Any) -> OperatorLineage[Any, Any] | None:
    """Return what Airflow's OpenLineage provider takes from a task, at its start and at its end."""
    with DAG("lineage", schedule=None):
        task = UsageplaceEventOperator(task_id="report", **parameters)
    extractor = DefaultExtractor(task)
    assert extractor.extract() == extractor.extract_on_complete(None) == extractor.extract_on_failure(None)
    return extractor.extract()


def names(datasets: list[Any]) -> list[str]:
    return sorted(f"{dataset.namespace}/{dataset.name}" for dataset in datasets)


def ropo_one(sandbox: Sandbox) -> str:
    return f"ropo://{urlsplit(sandbox.url).netloc}/usageplace/event"


@pytest.mark.parametrize(
    ("sql", "parameters", "shown"),
    [
        ("SELECT * FROM outcome JOIN place ON id = code WHERE id NOT LIKE '%s'", None, "id NOT LIKE '%s'"),
        (
            "SELECT * FROM outcome, place WHERE id = %s AND code LIKE '%%s'",
            ["1"],
            "id = :parameter AND code LIKE '%%s'",
        ),
        ("SELECT * FROM outcome, place WHERE id = %(day)s", {"day": "1"}, "id = :day"),
    ],
    ids=["plain", "%s", "%(name)s"],
)
def test_the_tables_of_the_query_are_inputs(
    sql: str, parameters: object, shown: str, tables: Tables, sandbox: Sandbox
) -> None:
    """The tables of a query are found, with or without the driver's placeholders; no parameter value is shown."""
    lineage = lineage_of(sql=sql, parameters=parameters, **tables.parameters)

    assert lineage is not None
    assert [f"{tables.prefix}outcome", f"{tables.prefix}place"] == names(lineage.inputs)
    assert [ropo_one(sandbox)] == names(lineage.outputs)
    assert {} == lineage.run_facets
    assert ["sql"] == list(lineage.job_facets)
    assert shown == lineage.job_facets["sql"].query.partition(" WHERE ")[2]


@pytest.mark.parametrize(
    "parameters",
    [{"sql": "SELECT * FROM outcome", "sql_conn_id": "warehouse"}, {"events": [GOOD]}],
    ids=["sqlite", "events"],
)
def test_without_known_tables_there_is_the_output(sqlite: None, sandbox: Sandbox, parameters: dict[str, Any]) -> None:
    """If Airflow finds no table, as for SQLite and for given rows, Ropo One is still the output."""
    assert OperatorLineage(outputs=lineage_outputs(sandbox)) == lineage_of(**parameters)


def lineage_outputs(sandbox: Sandbox) -> list[Any]:
    return [translate_airflow_asset(Asset(uri=ropo_one(sandbox)), None)]


def test_a_decorated_task_has_the_output(sandbox: Sandbox) -> None:
    """For a function's rows the input is unknown, and the output is Ropo One."""
    from airflow_provider_ropo.decorators.usageplace import usageplace_events_task

    decorated: Any = usageplace_events_task(lambda: [GOOD], task_id="report")
    with DAG("lineage", schedule=None):
        task = decorated().operator

    assert OperatorLineage(outputs=lineage_outputs(sandbox)) == DefaultExtractor(task).extract()


def test_the_output_is_as_the_connection_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset is the server's, however the connection writes it, and does not contain the credentials."""
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", "ropo://1000011:secret@RC.Ropo24.fi:443/?timeout=60")

    lineage = lineage_of(events=[GOOD])

    assert lineage is not None
    assert [ROPO_ONE] == names(lineage.outputs)


def test_a_broken_ropo_connection_leaves_the_inputs(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an invalid connection the lineage has the inputs only; the task itself raises the error."""
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps({"conn_type": "ropo"}))

    lineage = lineage_of(sql="SELECT * FROM outcome", **tables.parameters)

    assert lineage is not None
    assert ([f"{tables.prefix}outcome"], []) == (names(lineage.inputs), lineage.outputs)


def test_a_missing_warehouse_is_no_more_than_a_warning(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged as a warning by Airflow's OpenLineage provider, and there is no lineage."""
    assert lineage_of(sql="SELECT * FROM outcome", sql_conn_id="nowhere") is None

    # Which of the two has it depends on how Airflow's logging is set up by then.
    output = capfd.readouterr().out + caplog.text
    assert "connection 'nowhere' is not defined" in output
    assert "Traceback" not in output
