"""The operator's parameters, checked when the DAG is parsed where that is possible, else once they are rendered."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_ropo.dispatch.posting import PostingOptions
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.export.options import FileOptions
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.pipeline import DeliveryOptions

_OF_DELIVERY = ("columns", "statuses", "max_failed", "max_events", "approved", "event_ids")
_OF_POSTING = ("max_workers", "rate_limit")
_OF_FILE = ("destination_conn_id", "folder", "timezone", "name", "format", "temporary", "marker")
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
    if "on_empty" not in pending and task.on_empty not in task.empty_choices:
        raise RopoConfigurationError(f"`on_empty` must be one of {', '.join(task.empty_choices)}")


def check_posting_when_parsed(task: Any) -> None:
    """Refuse posting options that cannot work, as far as they are known when the DAG is parsed.

    :raises RopoConfigurationError: naming the parameter.
    """
    posting_options(task, {name for name in _OF_POSTING if _is_pending(getattr(task, name))})


def delivery_options(
    task: Any, pending: Collection[str] = (), *, needs_approval: bool = False, **others: Any
) -> DeliveryOptions:
    """Return the options of the task's run.

    :param pending: the parameters that are not rendered yet.
    :param needs_approval: ``approved`` was given, so that it must not be empty now.
    :param others: options that are not the task's parameters.
    :raises RopoConfigurationError: naming the parameter.
    """
    values = _values(task, _OF_DELIVERY, pending)
    if "max_events" in values:
        values["max_events"] = _parse_literal(values["max_events"])
    if "event_ids" in values:
        values["event_ids"] = parse_ids(values["event_ids"])
    if needs_approval and not pending:
        values["approved"] = _approved(values["approved"])
    return DeliveryOptions(**values, **others)


def posting_options(task: Any, pending: Collection[str] = ()) -> PostingOptions:
    """Return how the task posts.

    :param pending: the parameters that are not rendered yet.
    :raises RopoConfigurationError: naming the parameter.
    """
    return PostingOptions(**_values(task, _OF_POSTING, pending))


def check_file_when_parsed(task: Any) -> None:
    """Refuse file options that cannot work, as far as they are known when the DAG is parsed.

    :raises RopoConfigurationError: naming the parameter.
    """
    if not task.ledger_table:
        raise RopoConfigurationError("`ledger_table` is missing: a file is sent only with a ledger")
    pending = {name for name in (*_OF_FILE, "on_unconfirmed", "on_empty") if _is_pending(getattr(task, name))}
    file_options(task, pending)


def file_options(task: Any, pending: Collection[str] = ()) -> FileOptions:
    """Return how the task makes its file.

    :param pending: the parameters that are not rendered yet.
    :raises RopoConfigurationError: naming the parameter.
    """
    values = _values(task, _OF_FILE, pending)
    for name in {"temporary", "marker"} & values.keys():
        values[name] = None if values[name] == "None" else values[name]
    return FileOptions(**values)


def parse_ids(value: object) -> tuple[str, ...]:
    """Return the event ids of a list, or of text with commas or line ends between them; none means all events.

    :raises RopoConfigurationError: if it is something else.
    """
    value = _parse_literal(value) if isinstance(value, str) and value.strip()[:1] in {"[", "("} else value
    if value is None or value == "None":
        return ()
    if isinstance(value, str):
        return tuple(part for line in value.splitlines() for each in line.split(",") if (part := each.strip()))
    if not isinstance(value, Iterable) or not all(isinstance(each, str) for each in value):
        raise RopoConfigurationError("`event_ids` must be a list of ids, or text with commas between them")
    return tuple(value)


def _approved(value: object) -> str:
    text = str(value if value is not None else "").strip()
    if text in {"", "None"}:
        raise RopoConfigurationError(
            "`approved` is empty: the preview left no digest in the XCom ropo_digest (it failed, was skipped, or its "
            "task id is another); nothing was posted"
        )
    return text


def _parse_literal(value: object) -> object:
    """Return the value that a template has turned into text, such as a number, a list or a mapping."""
    if not isinstance(value, str):
        return value
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError):
            return parse(value.strip())
    return value


def ledger_policy(task: Any, pending: Collection[str] = ()) -> LedgerPolicy:
    """Return the task's ledger policy.

    :param pending: the parameters that are not rendered yet.
    :raises RopoConfigurationError: naming the parameter.
    """
    return LedgerPolicy(**_values(task, _OF_LEDGER, pending))


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


def _is_pending(value: object) -> bool:
    """Return whether the value will be known only when the task runs."""
    # Airflow calls what is callable, with the context.
    return _is_output(value) or callable(value) or (isinstance(value, str) and ("{{" in value or "{%" in value))


def _is_output(value: object) -> bool:
    """Return whether this is another task's output, or the like; Airflow, too, tells them by this method."""
    return hasattr(value, "resolve") and not isinstance(value, os.PathLike)
