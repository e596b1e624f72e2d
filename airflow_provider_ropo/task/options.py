"""The operator's parameters, checked when the DAG is parsed where that is possible, else once they are rendered."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.pipeline import DeliveryOptions, is_number

_CHOICES = {
    "on_empty": ("succeed", "skip", "fail"),
    "redeliver": ("never", "changed", "always"),
    "on_unconfirmed": ("resend", "hold"),
}
_OF_DELIVERY = ("columns", "statuses", "max_workers", "rate_limit", "max_failed")
_OF_LEDGER = ("redeliver", "on_unconfirmed", "claim_timeout")
_NUMBERS = ("max_workers", "rate_limit", "max_failed", "claim_timeout")
#: No template fields. A warehouse's status values may be numbers beside text, which not every Airflow takes as the keys
#: of one.
_NOT_TEMPLATED = ("statuses", "sql_hook_params")


def check_when_parsed(task: Any) -> None:
    """Refuse what cannot work, as far as it is known: templates and other tasks' outputs are checked when rendered.

    :raises RopoConfigurationError: naming the parameter.
    """
    if (task.sql is None) == (task.events is None):
        raise RopoConfigurationError("give either `sql` or `events`")
    if isinstance(task.events, Iterator):
        raise RopoConfigurationError(
            "`events` takes a list of row mappings, or the output of a task that returns one; this is a "
            f"{type(task.events).__name__}, which could be read only once: make a list of it"
        )
    if task.sql is not None and not task.sql_conn_id:
        raise RopoConfigurationError("`sql` needs `sql_conn_id`, the connection of the warehouse")
    if task.ledger_table and not (task.ledger_conn_id or task.sql_conn_id):
        raise RopoConfigurationError("`ledger_table` needs `ledger_conn_id`, the connection it lives in")
    for name in _NOT_TEMPLATED:
        if _is_output(getattr(task, name)):
            raise RopoConfigurationError(f"`{name}` cannot be another task's output: it is not templated")
    names = {"sql", "on_empty", "preview", *_OF_DELIVERY, *_OF_LEDGER}.difference(_NOT_TEMPLATED)
    pending = {name for name in names if _is_pending(getattr(task, name))}
    check(task, pending)
    delivery_options(task, pending)
    ledger_policy(task, pending)
    if "preview" not in pending:
        parse_bool("preview", task.preview)


def check(task: Any, pending: Collection[str] = ()) -> None:
    """Refuse values that the task itself cannot work with.

    :param pending: the parameters that are not rendered yet.
    :raises RopoConfigurationError: naming the parameter.
    """
    if "sql" not in pending and not isinstance(task.sql, str | None):
        raise RopoConfigurationError(
            f"`sql` must be text: one query, or the name of a .sql file; this is a {type(task.sql).__name__}"
        )
    _check_choices({name: task.on_empty for name in ("on_empty",) if name not in pending})


def delivery_options(task: Any, pending: Collection[str] = (), **others: Any) -> DeliveryOptions:
    """Return the options of the task's run.

    :param pending: the parameters that are not rendered yet.
    :param others: options that are not the task's parameters.
    :raises RopoConfigurationError: naming the parameter.
    """
    return DeliveryOptions(**_values(task, _OF_DELIVERY, pending), **others)


def ledger_policy(task: Any, pending: Collection[str] = ()) -> LedgerPolicy:
    """Return the task's ledger policy.

    :param pending: the parameters that are not rendered yet.
    :raises RopoConfigurationError: naming the parameter.
    """
    values = _values(task, _OF_LEDGER, pending)
    _check_choices(values)
    policy = LedgerPolicy(**values)
    if not (is_number(policy.claim_timeout) and policy.claim_timeout > 0):
        raise RopoConfigurationError("`claim_timeout` must be more than 0 seconds")
    return policy


def is_literal_rows(events: object) -> bool:
    """Return whether these are rows, written into the DAG, not something that gives rows when the task runs."""
    return isinstance(events, list | tuple) and bool(events) and all(isinstance(row, Mapping) for row in events)


def parse_bool(name: str, value: object) -> bool:
    """Return a yes or no that a template may have turned into text."""
    text = str(value).strip().casefold()
    if text not in {"true", "false"}:
        raise RopoConfigurationError(f"`{name}` must be true or false, or a template that gives one of them")
    return text == "true"


def _values(task: Any, names: Collection[str], pending: Collection[str]) -> dict[str, Any]:
    values = {name: getattr(task, name) for name in names if name not in pending}
    return {name: _parse_number(value) if name in _NUMBERS else value for name, value in values.items()}


def _parse_number(value: object) -> object:
    """Return the number, or the None, that a template has turned into text; leave the rest for the check."""
    if isinstance(value, str):
        if value.strip() == "None":
            return None
        for kind in (int, float):
            with suppress(ValueError):
                return kind(value)
    return value


def _check_choices(values: Mapping[str, object]) -> None:
    for name, choices in _CHOICES.items():
        if name in values and values[name] not in choices:
            raise RopoConfigurationError(f"`{name}` must be one of {', '.join(choices)}")


def _is_pending(value: object) -> bool:
    """Return whether the value will be known only when the task runs."""
    # Airflow calls what is callable, with the context.
    return _is_output(value) or callable(value) or (isinstance(value, str) and ("{{" in value or "{%" in value))


def _is_output(value: object) -> bool:
    """Return whether this is another task's output, or the like; Airflow, too, tells them by this method."""
    return hasattr(value, "resolve") and not isinstance(value, os.PathLike)
