"""Every morning, check that all outcomes of field work have been reported to Ropo One.

The task that reports is red for the rows that it read. This DAG finds the rows that no run ever read: it compares the
warehouse with the ledger, and fails if an outcome landed more than some hours ago and the ledger has it neither as
delivered nor as closed. The error's ``result`` is the number of rows of such outcomes.

Outcomes that landed before ``start_date`` do not count: set it to the day on which reporting began.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param
from airflow.providers.common.sql.operators.sql import SQLColumnCheckOperator

with DAG(
    dag_id="ropo_outcomes_check",
    schedule="0 8 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    params={"hours": Param(default=24, type="integer", minimum=1, title="Hours within which an outcome is reported")},
    doc_md=__doc__,
    tags=["ropo"],
):
    SQLColumnCheckOperator(
        task_id="every_outcome_is_delivered",
        conn_id="warehouse",
        table="""(
            SELECT field_work_outcome.recorded_at, finished.event_id AS finished_event_id
            FROM field_work_outcome
            LEFT JOIN (
                SELECT DISTINCT event_id FROM ropo_ledger WHERE delivery_status IN ('delivered', 'closed')
            ) AS finished ON finished.event_id = TRIM(field_work_outcome.work_order_no)
        ) AS outcomes""",
        # Times in UTC, as the column has them.
        partition_clause="""
            recorded_at >= '{{ dag.start_date.in_timezone("UTC").strftime("%Y-%m-%d %H:%M:%S") }}'
            AND recorded_at < '{{
                (dag_run.start_date - macros.timedelta(hours=params.hours)).strftime("%Y-%m-%d %H:%M:%S")
            }}'
        """,
        column_mapping={"finished_event_id": {"null_check": {"equal_to": 0}}},
    )
