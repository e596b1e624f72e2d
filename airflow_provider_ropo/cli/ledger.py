"""The function behind ``airflow ropo ledger``: what the ledger knows of events."""

from __future__ import annotations

import datetime as dt
import re
import sys
from argparse import Namespace
from typing import Any

import sqlalchemy as sa
from airflow.cli.simple_table import AirflowConsole
from airflow.utils.cli import action_cli, suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_provider_ropo.cli.errors import one_line_errors
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.states import LookUp, destinations, history, states
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.task.connections import existing_ledger

_SHOWN = (
    "destination",
    "event_id",
    "usageplacecode",
    "event_status",
    "event_time",
    "delivery_status",
    "http_status",
    "detail",
    "run_id",
    "recorded_at",
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def ledger(args: Namespace) -> None:
    """List events by their state, or all their rows."""
    with one_line_errors(args):
        asked = _asked(args)
        with existing_ledger(args.conn_id, args.table) as table:
            # One more than is shown, to know whether there are more.
            rows = find(table, asked, limit=args.limit + 1, all_rows=args.history)
            if not rows and asked.destination is not None:
                _check_destination(table, asked.destination)
    AirflowConsole().print_as(data=rows[: args.limit], output=args.output)
    if not rows:
        print(_nothing_found(asked, f"{args.table} (connection {args.conn_id!r})"), file=sys.stderr)
    if len(rows) > args.limit:
        print(f"These are the first {args.limit:,}; there are more.", file=sys.stderr)


def find(table: LedgerTable, asked: LookUp, *, limit: int, all_rows: bool = False) -> list[dict[str, Any]]:
    """Return events by their state, the earliest event first; or all their rows, each event's oldest row first.

    :param limit: the maximum number of rows.
    """
    query = history(table.definition, asked) if all_rows else states(table.definition, asked)
    found = query.subquery("found").c
    # An event that never was one has no time.
    order = (
        (found.event_id, found.destination, found.recorded_at)
        if all_rows
        else (found.event_time, found.recorded_at, found.event_id)
    )
    return table.fetch(sa.select(*(found[name] for name in _SHOWN)).order_by(*order).limit(limit))


def _check_destination(table: LedgerTable, destination: str) -> None:
    named = [row["destination"] for row in table.fetch(destinations(table.definition))]
    if destination not in named:
        raise RopoConfigurationError(
            f"no row is about destination {destination!r}; there are: {', '.join(named) or 'none'}"
        )


def _nothing_found(asked: LookUp, ledger: str) -> str:
    if asked.only_open and not (asked.since or asked.until or asked.destination):
        return f"No event in the ledger {ledger} is open."
    times = "--since and --until are about recorded_at, in UTC. " if asked.since or asked.until else ""
    return f"Nothing in the ledger {ledger} matches. {times}Ids and codes have to be given exactly."


def _asked(args: Namespace) -> LookUp:
    is_chosen = bool(args.event or args.place or args.status)
    return LookUp(
        event_ids=args.event or (),
        place=args.place,
        destination=args.destination,
        status=args.status,
        since=args.since and parse_time("--since", args.since),
        until=args.until and parse_time("--until", args.until, is_end=True),
        only_open=not (args.all or is_chosen),
    )


def parse_time(name: str, text: str, *, is_end: bool = False) -> dt.datetime:
    """Return a time, UTC, naive, as the ledger has it; a text without a zone is UTC.

    :param is_end: a date means the end of that day, not its beginning.
    :raises RopoConfigurationError: naming the option.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise RopoConfigurationError(
            f"{name}: {text!r} is not a date such as 2026-01-14, or a time such as 2026-01-14T05:00+02:00"
        ) from None
    if is_end and _DATE.fullmatch(text):
        moment += dt.timedelta(days=1)
    return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
