"""The operator's parameters, checked when the DAG is parsed where that is possible, not in the night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_ropo.errors import RopoConfigurationError

_CHOICES = {
    "on_empty": ("succeed", "skip", "fail"),
    "redeliver": ("never", "changed", "always"),
    "on_unconfirmed": ("resend", "hold"),
}


def check(task: Any) -> None:  # noqa: ANN401 - the operator, which imports this
    """Refuse what cannot work.

    :raises RopoConfigurationError: naming the parameter.
    """
    if (task.sql is None) == (task.events is None):
        raise RopoConfigurationError("give either `sql` or `events`")
    if task.sql is not None and not task.sql_conn_id:
        raise RopoConfigurationError("`sql` needs `sql_conn_id`, the connection of the warehouse")
    for name, choices in _CHOICES.items():
        if getattr(task, name) not in choices:
            raise RopoConfigurationError(f"`{name}` must be one of {', '.join(choices)}")
    if task.ledger_table and not (task.ledger_conn_id or task.sql_conn_id):
        raise RopoConfigurationError("`ledger_table` needs `ledger_conn_id`, the connection it lives in")
    if isinstance(task.max_workers, bool) or not task.max_workers >= 1:
        raise RopoConfigurationError("`max_workers` must be 1 or more")
    if task.rate_limit is not None and not task.rate_limit > 0:
        raise RopoConfigurationError("`rate_limit` must be more than 0 posts a second, or None")
    if not task.claim_timeout > 0:
        raise RopoConfigurationError("`claim_timeout` must be more than 0 seconds")
    if isinstance(task.max_failed, bool) or not task.max_failed >= 0:
        raise RopoConfigurationError("`max_failed` must be a count, or a fraction below 1")


def is_literal_rows(events: object) -> bool:
    """Are these rows, written into the DAG, rather than something that will give rows when the task runs?"""
    return isinstance(events, list | tuple) and bool(events) and all(isinstance(row, Mapping) for row in events)


def parse_bool(name: str, value: object) -> bool:
    """Read a yes or no that a template may have turned into text."""
    text = str(value).strip().casefold()
    if text not in {"true", "false"}:
        raise RopoConfigurationError(f"`{name}` must be true or false, or a template that gives one of them")
    return text == "true"
