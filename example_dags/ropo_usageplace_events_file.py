"""Every morning, send what the field crews did since the previous morning to Ropo, as one CSV file by SFTP.

The format, the folder and the file's name are examples: they have to be agreed with Ropo first.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace_file import UsageplaceEventFileOperator

with DAG(
    dag_id="ropo_usageplace_events_file",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventFileOperator(
        task_id="report_usageplace_events",
        sql="sql/usageplace_events.sql",
        sql_conn_id="warehouse",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        # Records how far the file has come, so that a retry knows whether to send it again.
        ledger_table="ropo_ledger",
        destination_conn_id="ropo_sftp",
        folder="in",
        timezone="Europe/Helsinki",
        format="csv",
    )
