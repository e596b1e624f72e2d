"""Tasks whose reports are unlike those of the example: mapped, refused in strange words, silent, and endless."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator


def rows(name: str, count: int) -> list[dict[str, str]]:
    return [
        {"id": f"{name}-{n}", "usageplacecode": f"P{name}{n}", "status": "connected", "time": "2026-01-04 10:00:00"}
        for n in range(count)
    ]


with DAG("trials", schedule=None):
    UsageplaceEventOperator.partial(task_id="shards").expand(events=[rows("one", 1), rows("two", 2)])
    UsageplaceEventOperator(task_id="refused", events=rows("refused", 1))
    UsageplaceEventOperator(task_id="silent", events=rows("silent", 1), do_xcom_push=False)

with DAG("endless", schedule=None):
    UsageplaceEventOperator(task_id="report", events=rows("endless", 900), rate_limit=1, retries=0)
