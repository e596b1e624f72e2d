"""The functions behind ``airflow ropo settle`` and ``purge``, which write to the ledger."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from airflow.cli.simple_table import AirflowConsole
from airflow.utils.cli import action_cli, suppress_logs_and_warning
from airflow.utils.platform import getuser
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_provider_ropo.cli.errors import one_line_errors
from airflow_provider_ropo.delivery import quantity
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger import maintenance
from airflow_provider_ropo.ledger.maintenance import Reviewed, Settlement
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.task.connections import existing_ledger

#: What follows from each settlement.
_THEN = {
    "delivered": "No run sends {it} again.",
    "closed": "No run sends {it}, or fails because of {it}, until the content changes.",
    "undelivered": "The next run that reads {it} sends {it}: clear the task instance, or wait for that run.",
}
_OF_EVENT = ("event_id", "usageplacecode", "event_status", "event_time")
_OF_ROW = ("recorded_at", "delivery_status", "http_status", "detail", "run_id", "try_number")


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def settle(args: Namespace) -> None:
    """Show the history of events, ask, and write one row for each."""
    with one_line_errors(args):
        settlement = Settlement(
            event_ids=args.event_id,
            settle_as=args.settle_as,
            reason=args.reason,
            who=getuser(),
            destination=args.destination,
            claim_timeout=args.claim_timeout,
        )
        with existing_ledger(args.conn_id, args.table) as table:
            table.create_or_upgrade()
            reviewed = maintenance.review(table, settlement)
            table.release_connection()
            _print_history(reviewed)
            count = quantity(len(reviewed), "event")
            _confirm(args, f"Settle {count} as {settlement.settle_as}?")
            maintenance.settle(table, settlement, confirmed=reviewed)
    then = _THEN[settlement.settle_as].format(it="it" if len(reviewed) == 1 else "them")
    print(f"Settled {count} as {settlement.settle_as}. {then}")


def purge(args: Namespace) -> None:
    """Delete the rows of finished events beyond an age, or erase a usage place."""
    if args.place:
        # Airflow logs the command line; a place that is to be erased must not stay there.
        sys.argv = [f"{each.removesuffix(args.place)}***" if each.endswith(args.place) else each for each in sys.argv]
    purge_ledger(args)


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def purge_ledger(args: Namespace) -> None:
    """Do what ``purge`` does; the name is that of its entry in Airflow's audit log."""
    with one_line_errors(args):
        if bool(args.older_than) == bool(args.place):
            raise RopoConfigurationError("give either --older-than or --place")
        with existing_ledger(args.conn_id, args.table) as table:
            table.create_or_upgrade()
            if args.place:
                _erase(args, table)
            else:
                _purge_older(args, table)


def _purge_older(args: Namespace, table: LedgerTable) -> None:
    age = maintenance.parse_age(args.older_than)
    found = maintenance.purge(table, age, force=args.force, dry_run=True)
    print(f"Older than {args.older_than}: {found}.")
    print(f"Open events of that age, which are kept: {found.kept:,}.")
    if args.dry_run or not found.events:
        return
    table.release_connection()
    _confirm(args, f"Delete the rows of {quantity(found.events, 'finished event')}?")
    print(f"Deleted: {maintenance.purge(table, age, force=args.force)}.")


def _erase(args: Namespace, table: LedgerTable) -> None:
    found = maintenance.erase(table, args.place, dry_run=True)
    print(f"About this usage place: {found}.")
    if found.warning:
        print(found.warning)
    if args.dry_run:
        return
    table.release_connection()
    _confirm(args, f"Erase the usage place from {quantity(found.rows, 'row')}?")
    print(f"Erased: {maintenance.erase(table, args.place)}.")


def _print_history(reviewed: Sequence[Reviewed]) -> None:
    console = AirflowConsole()
    for each in reviewed:
        about = " ".join(str(each.row[name]) for name in _OF_EVENT if each.row[name] is not None)
        print(f"{about}, to {each.row['destination'] or 'any destination'}")
        console.print_as([{name: row[name] for name in _OF_ROW} for row in each.rows], output="table")


def _confirm(args: Namespace, question: str) -> None:
    """Ask, unless the command line has the answer.

    :raises RopoConfigurationError: if the answer is not yes.
    """
    if args.yes:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().casefold() not in {"y", "yes"}:
        raise RopoConfigurationError("nothing was changed, because nobody confirmed it (--yes confirms it)")
