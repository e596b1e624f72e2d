"""The commands of ``airflow ropo``: names and arguments. Their functions are imported when one of them runs.

Airflow 3.2 and later read this at every start of ``airflow``
(https://airflow.apache.org/docs/apache-airflow-providers/core-extensions/cli-commands.html).
"""

from __future__ import annotations

from airflow.cli.cli_config import (
    ARG_BUNDLE_NAME,
    ARG_DAG_ID,
    ARG_MAP_INDEX,
    ARG_OUTPUT,
    ARG_TASK_ID,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

_CLI = "airflow_provider_ropo.cli"

_ROPO_CONN_ID = Arg(("--conn-id",), help="The connection of type Ropo One", default="ropo_default")
_LEDGER_CONN_ID = Arg(("--conn-id",), help="The connection of the ledger's database", required=True)
_TABLE = Arg(("--table",), help="The ledger's table, written as in SQL", default="ropo_ledger")
_LIMIT = Arg(("--limit",), help="Maximum number of rows to show", type=positive_int(allow_zero=False), default=100)
_DESTINATION = Arg(
    ("--destination",),
    help="Only what is known of this destination, as the ledger names it, such as 'https://rc.ropo24.fi 1000011'",
)
_EVENT = Arg(("--event",), help="Only this event, open or not; may be given several times", action="append")
_PLACE = Arg(("--place",), help="Only the events of this usage place, open or not")
_STATUS = Arg(
    ("--status",), help="Only the events in this state, such as delivered, rejected, unconfirmed, sending or closed"
)
_SINCE = Arg(
    ("--since",),
    help="Only rows recorded on this date or at this time, or later; without a zone it is UTC, such as 2026-01-14, "
    "2026-01-14T05:00 or 2026-01-14T05:00+02:00",
)
_UNTIL = Arg(
    ("--until",), help="Only rows recorded up to the end of this date, or before this time; without a zone it is UTC"
)
_ALL = Arg(("--all",), help="All events, not only those that are open", action="store_true")
_HISTORY = Arg(
    ("--history",), help="All rows about the events, the oldest first, not only their state", action="store_true"
)
_EVENT_IDS = Arg(("event_id",), help="The ids of the events", nargs="+", metavar="event_id")
_SETTLE_AS = Arg(
    ("--as",),
    help="delivered: Ropo One has it. undelivered: Ropo One does not have it; the next run that reads it sends it. "
    "closed: it is not sent and does not fail a task, until its content changes",
    choices=("delivered", "closed", "undelivered"),
    dest="settle_as",
    required=True,
)
_REASON = Arg(("--reason",), help="Why; it is written to the ledger, with your user name", required=True)
_SETTLE_AT = Arg(
    ("--destination",), help="The destination, as the ledger names it; needed if the events have more than one"
)
_CLAIM_TIMEOUT = Arg(
    ("--claim-timeout",),
    help="The claim_timeout of the tasks that use this ledger, in seconds",
    type=float,
    default=600,
)
_OLDER_THAN = Arg(("--older-than",), help="Delete the finished events whose newest row is older, such as 400d")
_ERASED_PLACE = Arg(("--place",), help="Instead of that, erase this usage place from all rows")
_DRY_RUN = Arg(("--dry-run",), help="Count only", action="store_true")
_FORCE = Arg(("--force",), help="Accept an age below 90d", action="store_true")
_DATE = Arg(("date",), help="The run's logical date, such as 2026-01-14T05:00+02:00")
_CONF = Arg(("-c", "--conf"), help="The run's configuration, a JSON object that sets the DAG's params")


def get_ropo_cli_commands() -> list[GroupCommand]:
    """Return the commands that the provider adds to Airflow's command line."""
    return [
        GroupCommand(
            name="ropo",
            help="Ropo One: check the connection, preview a task, read and maintain the ledger",
            subcommands=(
                ActionCommand(
                    name="check",
                    help="Sign in to Ropo One",
                    description="Sign in, and print until when the token is valid. No event is posted.",
                    func=lazy_load_command(f"{_CLI}.commands.check"),
                    args=(_ROPO_CONN_ID, ARG_VERBOSE),
                ),
                ActionCommand(
                    name="preview",
                    help="Show what a task would post",
                    description=(
                        "Read, check and count what a task of a DAG would post in a run with this logical date, and "
                        "show the first payloads without customer data. Nothing is posted, and nothing is written: "
                        "neither to the ledger nor as a DAG run. The DAG is read from its file."
                    ),
                    func=lazy_load_command(f"{_CLI}.commands.preview"),
                    args=(ARG_DAG_ID, ARG_TASK_ID, _DATE, _CONF, ARG_MAP_INDEX, ARG_BUNDLE_NAME, ARG_VERBOSE),
                ),
                ActionCommand(
                    name="ledger",
                    help="List the events that are not delivered, or look events up",
                    description=(
                        "List the events that are neither at Ropo One nor closed, by their state in the ledger. With "
                        "--event, --place, --status or --all, events in any state are listed. All times are UTC, but "
                        "for event_time, which is as Ropo One was told it."
                    ),
                    func=lazy_load_command(f"{_CLI}.ledger.ledger"),
                    args=(
                        _LEDGER_CONN_ID,
                        _TABLE,
                        _EVENT,
                        _PLACE,
                        _STATUS,
                        _SINCE,
                        _UNTIL,
                        _ALL,
                        _HISTORY,
                        _DESTINATION,
                        _LIMIT,
                        ARG_OUTPUT,
                        ARG_VERBOSE,
                    ),
                ),
                ActionCommand(
                    name="settle",
                    help="Record that events are delivered, undelivered or closed",
                    description=(
                        "Show the history of each event, ask, and write one row for each to the ledger, with your user "
                        "name and the reason. If one of the events cannot be settled like that, nothing is written."
                    ),
                    func=lazy_load_command(f"{_CLI}.maintenance.settle"),
                    args=(
                        _EVENT_IDS,
                        _SETTLE_AS,
                        _REASON,
                        _LEDGER_CONN_ID,
                        _TABLE,
                        _SETTLE_AT,
                        _CLAIM_TIMEOUT,
                        ARG_YES,
                        ARG_VERBOSE,
                    ),
                ),
                ActionCommand(
                    name="purge",
                    help="Delete old finished events from the ledger, or erase a usage place",
                    description=(
                        "With --older-than: delete the rows of events that are delivered or closed, and have no newer "
                        "row. With --place, for a request for erasure: remove the usage place and the details from "
                        "all rows about it; that its events were delivered stays known, so that none is sent again."
                    ),
                    func=lazy_load_command(f"{_CLI}.maintenance.purge"),
                    args=(
                        _LEDGER_CONN_ID,
                        _TABLE,
                        _OLDER_THAN,
                        _ERASED_PLACE,
                        _DRY_RUN,
                        _FORCE,
                        ARG_YES,
                        ARG_VERBOSE,
                    ),
                ),
            ),
        )
    ]
