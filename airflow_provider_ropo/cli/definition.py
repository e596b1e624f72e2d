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
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
    positive_int,
)

_COMMANDS = "airflow_provider_ropo.cli.commands"

_ROPO_CONN_ID = Arg(("--conn-id",), help="The connection of type Ropo One", default="ropo_default")
_LEDGER_CONN_ID = Arg(("--conn-id",), help="The connection of the ledger's database", required=True)
_TABLE = Arg(("--table",), help="The ledger's table, written as in SQL", default="ropo_ledger")
_LIMIT = Arg(("--limit",), help="Maximum number of events to show", type=positive_int(allow_zero=False), default=100)
_DATE = Arg(("date",), help="The run's logical date, such as 2026-01-14T05:00+02:00")
_CONF = Arg(("-c", "--conf"), help="The run's configuration, a JSON object that sets the DAG's params")


def get_ropo_cli_commands() -> list[GroupCommand]:
    """Return the commands that the provider adds to Airflow's command line."""
    return [
        GroupCommand(
            name="ropo",
            help="Ropo One: check the connection, preview a task, read the ledger",
            subcommands=(
                ActionCommand(
                    name="check",
                    help="Sign in to Ropo One",
                    description="Sign in, and print until when the token is valid. No event is posted.",
                    func=lazy_load_command(f"{_COMMANDS}.check"),
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
                    func=lazy_load_command(f"{_COMMANDS}.preview"),
                    args=(ARG_DAG_ID, ARG_TASK_ID, _DATE, _CONF, ARG_MAP_INDEX, ARG_BUNDLE_NAME, ARG_VERBOSE),
                ),
                ActionCommand(
                    name="ledger",
                    help="List the events that are not delivered",
                    description="List the events that are not at Ropo One according to their newest row in the ledger.",
                    func=lazy_load_command(f"{_COMMANDS}.ledger"),
                    args=(_LEDGER_CONN_ID, _TABLE, _LIMIT, ARG_OUTPUT, ARG_VERBOSE),
                ),
            ),
        )
    ]
