"""Errors that Airflow must not retry: a retry cannot succeed until a person fixes the cause.

Each is a subclass of the provider's own error and of Airflow's ``AirflowFailException``, so that code that catches
either of them catches it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    FileConflictError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RunRefusedError,
)


class NonRetryableConfigurationError(RopoConfigurationError, AirflowFailException):
    """The configuration of a connection or a task cannot work."""


# Airflow's class has a class attribute status_code; the instance's attribute overrides it.
class NonRetryableAuthenticationError(RopoAuthenticationError, AirflowFailException):  # type: ignore[misc]
    """The sign-in was refused."""


class NonRetryableDeliveriesFailedError(DeliveriesFailedError, AirflowFailException):
    """Rows are invalid or were rejected, and everything else is at Ropo One."""


class NonRetryableRunRefusedError(RunRefusedError, AirflowFailException):
    """More would be posted than ``max_events`` allows, or anything else than what was approved."""


class NonRetryableFileConflictError(FileConflictError, AirflowFailException):
    """Another file has the name of ours: a person has to decide."""


_NON_RETRYABLE: dict[type[RopoError], type[RopoError]] = {
    RopoConfigurationError: NonRetryableConfigurationError,
    RopoAuthenticationError: NonRetryableAuthenticationError,
    DeliveriesFailedError: NonRetryableDeliveriesFailedError,
    RunRefusedError: NonRetryableRunRefusedError,
    FileConflictError: NonRetryableFileConflictError,
}


def without_retry(error: RopoError) -> RopoError:
    """Return the error as one that Airflow does not retry."""
    twin = _NON_RETRYABLE[type(error)](*error.args)
    twin.__dict__.update(error.__dict__)
    return twin


@contextmanager
def no_retry_on_misconfiguration() -> Iterator[None]:
    """Turn errors that a person has to correct into ones that Airflow does not retry."""
    try:
        yield
    except (RopoConfigurationError, RopoAuthenticationError, RunRefusedError, FileConflictError) as error:
        if type(error) not in _NON_RETRYABLE:
            raise
        raise without_retry(error) from None
