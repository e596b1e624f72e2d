"""Errors that Airflow must not retry: trying again cannot help before somebody mends something.

Each is the provider's own error and Airflow's ``AirflowFailException`` at once, so that whoever catches either
finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
)


class NonRetryableConfigurationError(RopoConfigurationError, AirflowFailException):
    """A connection or a task is set up in a way that cannot work."""


# Airflow's class has a status_code of its own, which the instance's covers.
class NonRetryableAuthenticationError(RopoAuthenticationError, AirflowFailException):  # type: ignore[misc]
    """Signing in was refused."""


class NonRetryableDeliveriesFailedError(DeliveriesFailedError, AirflowFailException):
    """Rows are invalid or were rejected, and everything else is at Ropo One."""


_NON_RETRYABLE: dict[type[RopoError], type[RopoError]] = {
    RopoConfigurationError: NonRetryableConfigurationError,
    RopoAuthenticationError: NonRetryableAuthenticationError,
    DeliveriesFailedError: NonRetryableDeliveriesFailedError,
}


def without_retry(error: RopoError) -> RopoError:
    """Return the error as one that Airflow does not retry."""
    twin = _NON_RETRYABLE[type(error)](*error.args)
    twin.__dict__.update(error.__dict__)
    return twin


@contextmanager
def no_retry_on_misconfiguration() -> Iterator[None]:
    """Let wrong configuration and refused credentials end the task without an Airflow retry."""
    try:
        yield
    except (RopoConfigurationError, RopoAuthenticationError) as error:
        if type(error) not in _NON_RETRYABLE:
            raise
        raise without_retry(error) from None
