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

#: Seconds: whoever asks to wait for longer than a day has made a mistake, and a task must end some time.
LONGEST = 86_400.0


def use_retry_after(task: Any) -> None:  # noqa: ANN401 - the operator, which imports this
    """Let a task without a policy of its own wait as long as Ropo One asks to, where Airflow has retry policies."""
    if RetryPolicy is not None and task.retry_policy is None:
        task.retry_policy = RopoRetryPolicy()


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
                delay = timedelta(seconds=min(exception.retry_after, LONGEST))
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
