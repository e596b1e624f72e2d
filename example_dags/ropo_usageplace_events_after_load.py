"""Report to Ropo One as soon as the warehouse table with the outcomes of field work has been loaded.

The DAG that loads the table has it as an outlet: ``outlets=[Asset("warehouse://field_work_outcome")]``. A run that is
triggered by an asset has no dates of its own. Therefore the query looks back three days from the run's start, and the
ledger skips the events that are already at Ropo One. Events that a failed run did not send are sent by the next run.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

with DAG(
    dag_id="ropo_usageplace_events_after_load",
    schedule=[Asset("warehouse://field_work_outcome")],
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventOperator(
        task_id="report_usageplace_events",
        sql="""
            SELECT
                work_order_no AS id,
                place_code AS usageplacecode,
                result AS status,
                done_at AS time,
                remark AS description,
                invoice_no AS invoicenumber,
                ropo_jobid AS jobid
            FROM field_work_outcome
            WHERE recorded_at >= '{{ (dag_run.start_date - macros.timedelta(days=3)).strftime("%Y-%m-%d %H:%M:%S") }}'
        """,
        sql_conn_id="warehouse",
        ledger_table="ropo_ledger",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        on_empty="fail",
        outlets=[Asset("ropo://rc.ropo24.fi/usageplace/event")],
    )
