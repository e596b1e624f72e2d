"""Retry policy that lets Airflow wait for a long ``Retry-After``, so that no worker slot is occupied by the wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_ropo.errors import RopoUnavailableError

try:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:
    # Airflow before 3.3 has no retry policies: it uses the task's own retry_delay.
    RetryPolicy = None  # type: ignore[assignment,misc]

#: Airflow lets a task wait for as long as its error says.
HAS_RETRY_POLICIES = RetryPolicy is not None

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Seconds: the maximum delay. A request to wait longer than a day is a mistake, and a task must end at some time.
MAX_DELAY = 86_400.0


class RetryTiming(NamedTuple):
    """When Airflow tries a task again after a failure, as far as that is known beforehand.

    :param delay: between two tries; None: it depends on the number of the try, or on a retry policy of the user's own.
    :param uses_retry_after: the delay that Ropo One asks for is used instead.
    """

    delay: timedelta | None = None
    uses_retry_after: bool = False

    @classmethod
    def of(cls, task: Any) -> RetryTiming:
        """Return the timing of a task."""
        policy = getattr(task, "retry_policy", None)
        is_ours = policy is not None and HAS_RETRY_POLICIES and isinstance(policy, RopoRetryPolicy)
        is_constant = not task.retry_exponential_backoff and (policy is None or is_ours)
        return cls(task.retry_delay if is_constant else None, is_ours)


def use_retry_after(task: Any) -> None:
    """Give a task without its own retry policy the one for ``Retry-After``, if Airflow has retry policies."""
    if RetryPolicy is not None and task.retry_policy is None:
        task.retry_policy = RopoRetryPolicy()


if RetryPolicy is not None:

    class RopoRetryPolicy(RetryPolicy):
        """Retries after the delay that Ropo One asked for, otherwise after the task's own delay.

        (https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/tasks.html, since Airflow 3.3)
        """

        def evaluate(
            self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
        ) -> RetryDecision:
            """Return the delay of Ropo One's ``Retry-After``, if the task failed because of it."""
            del try_number, max_tries, context
            if isinstance(exception, RopoUnavailableError) and exception.retry_after:
                delay = timedelta(seconds=min(exception.retry_after, MAX_DELAY))
                return RetryDecision.retry(delay, reason=f"Ropo One asked to wait {exception.retry_after:,.0f} s")
            return RetryDecision.default()

        def serialize(self) -> dict[str, Any]:
            """Return no settings: the policy has none."""
            return {}

        @classmethod
        def deserialize(cls, data: dict[str, Any]) -> RopoRetryPolicy:
            """Return a new policy."""
            del data
            return cls()
