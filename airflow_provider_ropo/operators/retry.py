"""When Ropo One asks to wait for long, Airflow waits: no worker slot sleeps through it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_ropo.errors import RopoUnavailableError

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    # Airflow before 3.3 has no retry policies: the task's own retry_delay it is.
    RetryPolicy = None  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


def options() -> dict[str, Any]:
    """Return what the operator asks of Airflow's retries, where this Airflow has such a thing."""
    return {} if RetryPolicy is None else {"retry_policy": RopoRetryPolicy()}


if RetryPolicy is not None:

    class RopoRetryPolicy(RetryPolicy):
        """Retries when Ropo One asked to, and otherwise as the task says.

        (https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html, since Airflow 3.3)
        """

        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
        ) -> RetryDecision:
            """Return the delay of Ropo One's ``Retry-After``, if that is why the task failed."""
            del try_number, max_tries, context
            if isinstance(exception, RopoUnavailableError) and exception.retry_after:
                delay = timedelta(seconds=exception.retry_after)
                return RetryDecision.retry(delay, reason=f"Ropo One asked to wait {exception.retry_after:,.0f} s")
            return RetryDecision.default()

        def serialize(self) -> dict[str, Any]:
            """Return nothing: there is nothing to set."""
            return {}

        @classmethod
        def deserialize(cls, data: dict[str, Any]) -> RopoRetryPolicy:
            """Return the policy."""
            del data
            return cls()
