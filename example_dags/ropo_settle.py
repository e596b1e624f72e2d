"""Settle events in the ledger from Airflow's UI, without a command line: trigger this DAG and fill in its form.

Airflow's permissions decide who may trigger it, and its audit log shows who did; the ledger gets one row for each
event, with the user and the reason. If one of them cannot be settled like that, nothing is written, and the task's log
has the reason.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_ropo.operators.ledger import RopoSettleOperator

with DAG(
    dag_id="ropo_settle",
    schedule=None,
    params={
        "event_ids": Param(
            type="array",
            items={"type": "string"},
            minItems=1,
            title="Events",
            description="The ids of the events, one a line.",
        ),
        "settle_as": Param(
            type="string",
            enum=["delivered", "undelivered", "closed"],
            values_display={
                "delivered": "delivered: Ropo One has it",
                "undelivered": "undelivered: Ropo One does not have it; the next run that reads it sends it",
                "closed": "closed: it is not sent and does not fail a task, until its content changes",
            },
            title="Settle as",
        ),
        "reason": Param(
            type="string",
            minLength=3,
            title="Reason",
            description="Why. It is written to the ledger, with your user name.",
        ),
        "conn_id": Param("warehouse", type="string", title="Connection", description="That of the ledger's database."),
        "table": Param("ropo_ledger", type="string", title="Ledger", description="The ledger's table."),
        "destination": Param(
            None,
            type=["null", "string"],
            title="Destination",
            description="As the ledger names it. Needed only if the events went to more than one.",
        ),
    },
    max_active_runs=1,
    doc_md=__doc__,
    # By the second tag, the report of a failed run finds this DAG, and links to its form with the events filled in.
    tags=["ropo", "ropo-settle"],
):
    RopoSettleOperator(
        task_id="settle",
        event_ids="{{ params.event_ids | tojson }}",
        settle_as="{{ params.settle_as }}",
        reason="{{ params.reason }}",
        conn_id="{{ params.conn_id }}",
        table="{{ params.table }}",
        destination="{{ params.destination or '' }}",
    )
