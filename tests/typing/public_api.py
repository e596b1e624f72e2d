"""The public interface as users write it, in their own DAGs and scripts: checked by mypy, never run.

``make lint`` fails if a user's type checker would: if something public lost its type, or its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, assert_type

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    InvalidRowError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoResponseError,
    RopoServerError,
    RopoTimeoutError,
    RopoTransportError,
)
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator


def make_events(row: Mapping[str, Any]) -> list[UsageplaceEvent]:
    """Make an event of a row, and one by hand."""
    event = UsageplaceEvent.from_row(
        row, columns={"id": "work_order_no"}, statuses={"cut off": "disconnected"}, timezone="Europe/Helsinki"
    )
    assert_type(event.id, str)
    assert_type(event.usageplacecode, str)
    assert_type(event.status, UsageplaceStatus)
    assert_type(event.time, datetime)
    assert_type(event.description, str | None)
    assert_type(event.invoices, tuple[Invoice, ...])
    assert_type(event.to_payload(jobid_as_string=True), dict[str, Any])
    invoice = Invoice(invoicenumber="594294", jobid=1234)
    by_hand = UsageplaceEvent(
        "WO-1", "643007572062443672", UsageplaceStatus.CONNECTED, datetime.now(UTC), invoices=(invoice,)
    )
    return [event, by_hand]


def post(event: UsageplaceEvent) -> Receipt | None:
    """Post an event with the hook, and tell the errors apart."""
    hook = RopoHook("ropo_default")
    assert_type(hook.test_connection(), tuple[bool, str])
    with_default = RopoHook(ropo_conn_id=RopoHook.default_conn_name)
    assert_type(with_default.get_conn().sign_in(), datetime)
    try:
        receipt = hook.post_usageplace_event(event)
    except InvalidRowError as error:
        assert_type((error.row, error.column, error.reason), tuple[str, str, str])
    except RopoConfigurationError as error:
        assert_type(error.event_id, str | None)
    except (RopoConnectError, RopoTimeoutError) as error:
        as_transport: RopoTransportError = error
        assert_type(as_transport.may_have_arrived, bool)
    except (RopoAuthenticationError, RopoRateLimitError, RopoRejectedError, RopoServerError) as error:
        as_response: RopoResponseError = error
        assert_type((as_response.status_code, as_response.detail), tuple[int, str])
        assert_type(as_response.retry_after, float | None)
    except DeliveriesFailedError as error:
        assert_type(error.summary, dict[str, int])
    except RopoError as error:
        assert_type(error.transient, bool)
    else:
        return assert_type(receipt, Receipt)
    return None


with DAG("usageplace_events", schedule=None):
    from_a_query = UsageplaceEventOperator(
        task_id="from_a_query",
        sql="SELECT * FROM outcome WHERE done_at >= ?",
        sql_conn_id="warehouse",
        parameters=["{{ data_interval_start }}"],
        sql_hook_params={"schema": "field_work"},
        columns={"id": "work_order_no"},
        statuses={"cut off": "disconnected", 1: "connected"},
        ropo_conn_id="ropo_default",
        ledger_table="ropo_ledger",
        ledger_conn_id="warehouse",
        redeliver="changed",
        on_unconfirmed="hold",
        claim_timeout=600,
        max_failed=0.01,
        on_empty="skip",
        max_workers=8,
        rate_limit=20,
        preview="{{ params.preview }}",
        retries=3,
    )
    from_rows = UsageplaceEventOperator(task_id="from_rows", events=[{"id": "e1", "usageplacecode": "P1"}])
    from_a_query >> from_rows
    assert_type(from_a_query.execute({}), dict[str, int])

    @task.ropo_usageplace_events(ledger_table="ropo_ledger", ledger_conn_id="warehouse")
    def from_a_function(day: str) -> Iterator[dict[str, Any]]:
        """Yield rows."""
        yield {"id": "e1", "usageplacecode": "P1", "status": "connected", "time": f"{day} 10:00:00"}

    from_a_function("{{ ds }}")
