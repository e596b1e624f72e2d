"""Every morning, report to Ropo One what the field crews did, from a table that is large enough for several machines.

The task is mapped over shards of the usage places, and the executor distributes the shards over its workers. A shard is
a remainder of a hash of the place's code: all events of one place are in one shard and keep their order, whatever the
number of shards. All rows of one event are in one shard, too, even if they contradict each other: the sum of the
shards' counts is what one task would have counted. All shards use the same ledger.

A few shards are enough: each posts ``max_workers`` events in parallel (and Airflow maps a task at most 1024 times,
``[core] max_map_length``). The limits of the task apply to each shard: to stay below 40 posts a second, set
``rate_limit=40 / SHARDS``, or use a ``pool`` so that the shards do not all run at the same time.
After a change of ``SHARDS``, clear whole runs, not single shards: shard 2 of 4 and shard 2 of 8 have different places.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

SHARDS = 4

with DAG(
    dag_id="ropo_usageplace_events_sharded",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventOperator.partial(
        task_id="report_usageplace_events",
        sql="sql/usageplace_events_shard.sql",
        sql_conn_id="warehouse",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        ledger_table="ropo_ledger",
        outlets=[Asset("ropo://rc.ropo24.fi/usageplace/event")],
        map_index_template="shard {{ task.parameters.shard }}",
        # Not `params`: the configuration of a triggered run replaces them, and every shard would be the same.
    ).expand(parameters=[{"shard": shard, "shards": SHARDS} for shard in range(SHARDS)])
