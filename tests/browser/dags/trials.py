"""Tasks whose reports are unlike those of the example: mapped, silent, endless and others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

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

with DAG("waiting", schedule=None):
    UsageplaceEventOperator(
        task_id="report", events=rows("waiting", 2), retries=2, retry_delay=timedelta(hours=1), max_workers=1
    )

with DAG("refused_sign_in", schedule=None):
    UsageplaceEventOperator(task_id="report", events=rows("out", 2), ropo_conn_id="ropo_wrong", retries=2)

with DAG("rehearsal", schedule=None):
    UsageplaceEventOperator(task_id="report", events=rows("rehearsal", 3), preview=True)


class WithoutStateStore(UsageplaceEventOperator):
    """The operator on an Airflow before 3.3."""

    def execute(self, context: Any) -> dict[str, int]:
        context.pop("task_state_store", None)
        return super().execute(context)


# The XCom backend of these tests keeps what is large elsewhere, for this DAG.
with DAG("elsewhere", schedule=None):
    UsageplaceEventOperator(task_id="report", events=[*rows("elsewhere", 1), {"id": "elsewhere-bad"}], max_failed=1)
    WithoutStateStore(task_id="before_33", events=rows("before", 1))
