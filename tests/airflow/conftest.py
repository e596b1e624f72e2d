"""A real Airflow with a home, a database and a DAGs folder of its own."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

# Airflow reads its configuration when it is first imported: it has to be in place before that.
HOME = Path(tempfile.mkdtemp(prefix="airflow-provider-ropo-"))
DAGS = HOME / "dags"
DAGS.mkdir()
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ.update(
    {
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)

from airflow_provider_ropo.sandbox import Sandbox  # noqa: E402 - after the environment


@pytest.fixture(scope="session")
def airflow_db(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make Airflow's database. Of processes that test side by side, one migrates it, and the others copy it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        migrate()
        return
    # Here, because the tests of other Airflows have it not.
    from filelock import FileLock

    migrated = tmp_path_factory.getbasetemp().parent / "airflow.db"
    with FileLock(f"{migrated}.lock"):
        if not migrated.exists():
            migrate()
            shutil.copy(HOME / "airflow.db", migrated)
            return
    shutil.copy(migrated, HOME / "airflow.db")


def migrate() -> None:
    airflow = Path(sys.executable).parent / "airflow"
    subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def dags_folder() -> Path:
    """Where Airflow looks for DAG files, and for their .sql files."""
    return DAGS


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """A local Ropo One for the whole session."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty local Ropo One, which the connection ``ropo_default`` leads to."""
    running_sandbox.clear()
    connection = {
        "conn_type": "ropo",
        "host": running_sandbox.url,
        "login": running_sandbox.cid,
        "password": running_sandbox.apicode,
        "extra": {"timeout": 2},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(connection))
    return running_sandbox


@dataclass(frozen=True)
class Finished:
    """A DAG run that has come to its end."""

    dag_id: str
    state: str
    log: str
    xcom: Any
    tries: int
    rendered: dict[str, Any]


@pytest.fixture
def run_dag(
    airflow_db: None, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Finished]]:
    """Run a DAG, given as source, with Airflow's own ``dag.test()``; its task of interest is called ``report``."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    caplog.set_level("INFO")
    files: list[Path] = []

    def run(source: str, *, logical_date: datetime | None = None, **options: Any) -> Finished:
        dag_id = f"dag_{os.urandom(4).hex()}"
        file = DAGS / f"{dag_id}.py"
        file.write_text(HEADER.format(dag_id=dag_id) + dedent(source))
        files.append(file)
        dag = load_dag(file, dag_id)
        capfd.readouterr()
        caplog.clear()
        dag_run = dag.test(logical_date=logical_date, **options)
        output = capfd.readouterr()
        task_instances = [ti for ti in dag_run.get_task_instances() if ti.task_id == "report"]
        (last, *_) = sorted(task_instances, key=lambda ti: -ti.try_number)
        pulled = last.xcom_pull(task_ids="report", map_indexes=[ti.map_index for ti in task_instances])
        xcom = list(pulled)
        return Finished(
            dag_id,
            str(dag_run.state),
            # What is logged without Airflow's own logger is not in what the task prints.
            output.out + output.err + caplog.text,
            xcom[0] if len(xcom) == 1 else xcom,
            last.try_number,
            RenderedTaskInstanceFields.get_templated_fields(last) or {},
        )

    yield run
    for file in files:
        file.unlink()


HEADER = """
from datetime import datetime, timedelta, timezone
from airflow.providers.common.compat.sdk import DAG, Asset, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
DAG_ID = "{dag_id}"
"""


def load_dag(file: Path, dag_id: str) -> Any:
    """Parse a DAG file as Airflow does."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=file)
    assert bag.import_errors == {}
    return bag.dags[dag_id]
