"""Simulated DAG run: the template context a task would get, without a run in Airflow's database.

This is how ``airflow tasks render`` works: a DAG run that is never saved, and a template context made from it. What
only a real run has, such as the outputs of other tasks, is missing.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk import DAG, timezone
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval
from pendulum import DateTime

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.operators.base import UsageplaceOperator


class Run(NamedTuple):
    """A simulated DAG run, and a text that describes it and its data interval."""

    dag_run: DagRun
    window: str


def find_task(dag_id: str, task_id: str, bundle_names: list[str] | None) -> Any:
    """Find a task that reports events in the DAG bundles.

    :raises RopoConfigurationError: if there is no such task.
    """
    manager = DagBundlesManager()
    bundles = list(map(manager.get_bundle, bundle_names)) if bundle_names else list(manager.get_all_dag_bundles())
    broken: list[str] = []
    for bundle in bundles:
        bundle.initialize()
        bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        if dag_id in bag.dags:
            return _task_of(bag.dags[dag_id], task_id)
        broken += bag.import_errors
    names = ", ".join(bundle.name for bundle in bundles)
    hint = f"; these files could not be read: {', '.join(broken)}" if broken else ""
    raise RopoConfigurationError(f"there is no DAG {dag_id!r} in the DAG bundles ({names}){hint}")


def _task_of(dag: DAG, task_id: str) -> Any:
    tasks: dict[str, Any] = {name: task for name, task in dag.task_dict.items() if _reports(task)}
    if task_id not in tasks:
        what = "reports no events to Ropo One" if task_id in dag.task_dict else "is not there"
        raise RopoConfigurationError(
            f"task {task_id!r} of DAG {dag.dag_id!r} {what}; those that report are: {', '.join(tasks) or 'none'}"
        )
    return tasks[task_id]


def _reports(task: Any) -> bool:
    return issubclass(task.operator_class if task.is_mapped else type(task), UsageplaceOperator)


def simulate_run(dag: DAG, logical_date: str, conf: str | None) -> Run:
    """Return a simulated run of a DAG with this logical date: scheduled if the schedule has it, otherwise manual.

    :param conf: a JSON object.
    :raises RopoConfigurationError: if the date or the configuration cannot be read.
    """
    date = _date(logical_date)
    interval, is_scheduled = _interval_of(dag, date)
    dag_run = DagRun(
        dag_id=dag.dag_id,
        run_id=f"preview__{date.isoformat()}__{uuid.uuid4()}",
        logical_date=date,
        data_interval_start=interval.start,
        data_interval_end=interval.end,
        run_after=interval.end,
        start_date=dt.datetime.now(dt.UTC),
        end_date=None,
        run_type=DagRunType.SCHEDULED if is_scheduled else DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        conf=_conf(conf),
        consumed_asset_events=[],
        partition_key=None,
    )
    kind = "a scheduled run" if is_scheduled else "a run triggered by hand"
    return Run(dag_run, f"{kind}, data interval {interval.start} to {interval.end}")


def render(task: Any, run: Run, map_index: int) -> tuple[UsageplaceOperator, Any]:
    """Render a task's templates as in this run; return the operator and its context.

    :param map_index: which instance of a mapped task; -1 for others.
    :raises RopoConfigurationError: if a mapped task is given no index, or another task is given one.
    """
    if task.is_mapped != (map_index >= 0):
        problem = "is mapped: choose an instance with" if task.is_mapped else "is not mapped: remove"
        raise RopoConfigurationError(f"task {task.task_id!r} {problem} --map-index")
    ti = RuntimeTaskInstance.model_construct(
        id=uuid.uuid4(),
        task_id=task.task_id,
        dag_id=run.dag_run.dag_id,
        run_id=run.dag_run.run_id,
        try_number=1,
        map_index=map_index,
        start_date=run.dag_run.start_date,
        task=task,
        _ti_context_from_server=TIRunContext(dag_run=run.dag_run, max_tries=0),
    )
    context: Any = ti.get_template_context()
    ti.render_templates(context)
    operator = context["task"]
    # A simulated run has no place to publish a report to.
    operator.do_xcom_push = False
    context.pop("task_state_store", None)
    return operator, context


@contextmanager
def without_supervisor() -> Iterator[None]:
    """Turn the failure of a task that needs the supervisor of a real run into a configuration error.

    :raises RopoConfigurationError: if the task asks for something that only the supervisor can answer.
    """
    try:
        yield
    except ImportError as error:
        # How Airflow's task runner finds that there is no supervisor.
        if "SUPERVISOR_COMMS" not in str(error):
            raise
        raise RopoConfigurationError(
            "the task needs something that only a real run has, such as the output of another task; preview it in a "
            "run, with the task's `preview`"
        ) from error


def _date(text: str) -> DateTime:
    try:
        date: DateTime = timezone.convert_to_utc(timezone.parse(text))
    except ValueError:
        raise RopoConfigurationError(f"{text!r} is not a date such as 2026-01-14 or 2026-01-14T05:00+02:00") from None
    return date


def _conf(text: str | None) -> dict[str, Any]:
    try:
        conf = json.loads(text or "{}")
    except ValueError:
        conf = None
    if not isinstance(conf, dict):
        raise RopoConfigurationError("--conf takes a JSON object")
    return conf


def _interval_of(dag: DAG, date: DateTime) -> tuple[DataInterval, bool]:
    """Return a run's data interval, and whether the run is a scheduled one."""
    # Only the serialized DAG, as the scheduler has it, knows its scheduled runs.
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    for info in scheduled.iter_dagrun_infos_between(date, date):
        if info.logical_date == date and info.data_interval is not None:
            return info.data_interval, True
    return scheduled.timetable.infer_manual_data_interval(run_after=date), False
