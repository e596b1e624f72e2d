"""Every morning, report to Ropo One what the field crews did.

The query looks back seven days from the end of the run's data interval, by the time at which a row landed in the
warehouse. So a run also takes what an earlier run did not send and what landed late, and the ledger skips the events
that are already at Ropo One. A row that must be fixed keeps the runs red until it is fixed, closed
(``airflow ropo settle``), or older than the look-back.

To send one event again, trigger a run with its id in *Event ids*, and *Send again* set to ``always``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

PARAMS = {
    "preview": Param(
        default=False,
        type="boolean",
        title="Preview",
        description=(
            "Read and check everything, post nothing. If the DAG is paused, clear the box 'Unpause … on trigger' in "
            "this dialog, too: otherwise a scheduled run that is due starts as well, and posts."
        ),
    ),
    "event_ids": Param(
        default=[],
        type="array",
        items={"type": "string"},
        title="Event ids",
        description="Only these events, one id a line. Empty: all.",
    ),
    "redeliver": Param(
        default="never",
        enum=["never", "changed", "always"],
        title="Send again",
        description=(
            "Which events that Ropo One already has are sent again: none, those whose content has changed, or all that "
            "are selected."
        ),
    ),
}

with DAG(
    dag_id="ropo_usageplace_events_daily",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    # One scheduled run at a time. This alone does not keep the order between runs: the runs of a backfill are parallel,
    # as many as the backfill allows. An event that was overtaken is still sent, and is marked as stale in the ledger.
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=10)},
    params=PARAMS,
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventOperator(
        task_id="report_usageplace_events",
        sql="sql/usageplace_events.sql",
        sql_conn_id="warehouse",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        # Records what is at Ropo One, so that a retry, a cleared run, a look-back or a backfill posts nothing twice.
        ledger_table="ropo_ledger",
        # More than the crews disconnect in a week is a wrong join, not work: nothing is posted then.
        max_events={"disconnected": 2_000},
        event_ids="{{ params.event_ids }}",
        redeliver="{{ params.redeliver }}",
        preview="{{ params.preview }}",
        outlets=[Asset("ropo://rc.ropo24.fi/usageplace/event")],
    )
