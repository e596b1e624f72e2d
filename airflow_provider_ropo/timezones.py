"""Time zones by name."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

import pendulum

from airflow_provider_ropo.errors import RopoConfigurationError

DEFAULT_TIMEZONE = "Europe/Helsinki"


@lru_cache(maxsize=32)
def find_timezone(timezone: str | dt.tzinfo) -> dt.tzinfo:
    """Return the time zone with this name.

    :raises RopoConfigurationError: if no time zone has this name.
    """
    if isinstance(timezone, dt.tzinfo):
        return timezone
    try:
        return pendulum.timezone(timezone)
    except (ValueError, OSError):
        raise RopoConfigurationError(
            f"timezone {timezone!r} is not known; give a name such as {DEFAULT_TIMEZONE}"
        ) from None
