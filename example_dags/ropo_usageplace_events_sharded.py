"""Every morning, report to Ropo One what the field crews did, from a table that is big enough for several machines.

The task is mapped over shards of the usage places, which any executor spreads over its workers. A shard is a remainder
of a hash of the place's code: all events of one place are in one shard, and keep their order, however many shards there
are. All rows of one event are in one shard, too, even if they contradict each other: the shards' counts add up to what
one task would have counted. One ledger remembers for all.

A handful of shards is enough: each posts ``max_workers`` events side by side (and Airflow maps a task 1024 times at
most, ``[core] max_map_length``). What limits the posting is the task's own, hence a shard's: to stay below 40 posts a
second, give each ``rate_limit=40 / SHARDS``, or let a ``pool`` keep the shards from running all at once.
After changing ``SHARDS``, clear whole runs, not single shards: number 2 of 4 and number 2 of 8 are other places.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

SHARDS = 4

with DAG(
    dag_id="ropo_usageplace_events_sharded",
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="Europe/Helsinki"),
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Helsinki"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["ropo"],
):
    UsageplaceEventOperator.partial(
        task_id="report_usageplace_events",
        sql="sql/usageplace_events_shard.sql",
        sql_conn_id="warehouse",
        statuses={"cut off": "disconnected", "reconnected": "connected", "not cut off": "notdisconnected"},
        ledger_table="ropo_ledger",
        map_index_template="shard {{ task.parameters.shard }}",
        # Not `params`: what a run is triggered with replaces those, and every shard would be the same one.
    ).expand(parameters=[{"shard": shard, "shards": SHARDS} for shard in range(SHARDS)])
