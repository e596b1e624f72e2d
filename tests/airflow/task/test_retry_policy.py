"""Airflow waits as long as Ropo One asks, where it has retry policies."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_ropo.errors import DeliveriesFailedError, RopoError, RopoUnavailableError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator


@pytest.mark.parametrize(
    ("error", "delay"),
    [
        pytest.param(RopoUnavailableError("asks", retry_after=7200), timedelta(hours=2), id="asked to wait"),
        pytest.param(RopoUnavailableError("asks", retry_after=1e12), timedelta(days=1), id="too long"),
        pytest.param(RopoUnavailableError("nothing gets through"), None, id="not asked"),
        pytest.param(DeliveriesFailedError("2 of 3"), None, id="another failure"),
    ],
)
def test_a_long_retry_after_is_airflows_own_delay(error: RopoError, delay: timedelta | None) -> None:
    """The delay of a retry is the one Ropo One asked for; without one, it is the task's."""
    policy = UsageplaceEventOperator(task_id="report", events=[]).retry_policy

    assert policy is not None
    decision = policy.evaluate(error, 1, 3)

    assert delay == decision.retry_delay


def test_the_users_own_policy_is_kept() -> None:
    """A retry policy given to the task is the task's."""
    given = UsageplaceEventOperator(task_id="x", events=[]).retry_policy
    own = UsageplaceEventOperator(task_id="report", events=[], retry_policy=given)
    default = UsageplaceEventOperator(task_id="report", events=[], default_args={"retry_policy": given})

    assert given is own.retry_policy is default.retry_policy
