"""Report to Ropo One only what a person has approved (Airflow 3.1 and later).

The preview reads and checks the rows, and leaves the counts, the first payloads and a digest of exactly what would be
posted. A person approves that under *Required Actions*. The report then posts just that: if anything differs by then,
it refuses before its first post, and its message names what differs.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

BODY = """
{% set report = ti.xcom_pull(task_ids="preview", key="ropo_report") %}
Server: {{ report.server }}

| Result | Events |
| --- | --- |
| Would be posted | {{ report.counts.undelivered }} |
| Already at Ropo One | {{ report.counts.already_delivered }} |
| Invalid rows | {{ report.counts.invalid }} |

The first events, without customer data:

{% for payload in report["sample"] %}
- {{ payload.time }} **{{ payload.status }}** usage place {{ payload.usageplacecode }} (id {{ payload.id }})
{% endfor %}
"""

SETTINGS = {
    "sql": "sql/usageplace_events.sql",
    "sql_conn_id": "warehouse",
    "statuses": {"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
    "ledger_table": "ropo_ledger",
}

with DAG(
    dag_id="ropo_usageplace_events_approved",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
    tags=["ropo"],
):
    preview = UsageplaceEventOperator(
        task_id="preview",
        preview=True,
        # An invalid row is shown to the person who approves; it does not keep the others back.
        max_failed=1_000_000,
        **SETTINGS,
    )
    approve = ApprovalOperator(task_id="approve", subject="Report these events to Ropo One?", body=BODY)
    report = UsageplaceEventOperator(
        task_id="report_usageplace_events",
        approved="{{ ti.xcom_pull(task_ids='preview', key='ropo_digest') }}",
        outlets=[Asset("ropo://rc.ropo24.fi/usageplace/event")],
        **SETTINGS,
    )
    preview >> approve >> report
