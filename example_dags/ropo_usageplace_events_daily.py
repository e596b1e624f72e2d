"""Every morning, report to Ropo One what the field crews did since the previous morning.

``CronDataIntervalTimetable`` gives every run a real data interval, which the query uses. (On Airflow 3, the data
interval of ``schedule="@daily"`` is empty, and the query would find nothing.)
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

with DAG(
    dag_id="ropo_usageplace_events_daily",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    # One scheduled run at a time. This alone does not keep the order between runs: after a failed run the next run
    # starts anyway, and its events overtake those that have not arrived; and the runs of a backfill are parallel, as
    # many as the backfill allows. An event that was overtaken is still sent, and is marked as stale in the ledger.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={"preview": Param(default=False, type="boolean", title="Preview: read and check, post nothing")},
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventOperator(
        task_id="report_usageplace_events",
        sql="sql/usageplace_events.sql",
        sql_conn_id="warehouse",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        # Records what is at Ropo One, so that a retry, a cleared run or a backfill posts nothing twice.
        ledger_table="ropo_ledger",
        preview="{{ params.preview }}",
    )
