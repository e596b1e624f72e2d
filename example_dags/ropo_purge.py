"""Every month, delete what the ledger has of events that were finished more than 400 days ago.

Events that are not at Ropo One and that nobody has closed stay, whatever their age. An event without rows in the ledger
is unknown to it: choose an age that is longer than any query looks back, and than any backfill you may want to make.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_ropo.operators.ledger import RopoPurgeOperator

with DAG(
    dag_id="ropo_purge",
    schedule="@monthly",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    params={
        "older_than": Param("400d", type="string", pattern="^[0-9]+d$", title="Older than", description="In days."),
        "preview": Param(default=False, type="boolean", title="Preview: count, delete nothing"),
    },
    doc_md=__doc__,
    tags=["ropo"],
):
    RopoPurgeOperator(
        task_id="purge",
        conn_id="warehouse",
        table="ropo_ledger",
        older_than="{{ params.older_than }}",
        preview="{{ params.preview }}",
    )
