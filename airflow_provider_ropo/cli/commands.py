"""The functions behind the commands of ``airflow ropo``."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.cli.simple_table import AirflowConsole
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk.execution_time.context import set_current_context
from airflow.utils.cli import action_cli, suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_provider_ropo.cli.ledger import not_delivered
from airflow_provider_ropo.cli.run import find_task, render, simulate_run, without_supervisor
from airflow_provider_ropo.errors import RopoError
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.reporting.summary import DeliverySummary


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def check(args: Namespace) -> None:
    """Sign in and print the result."""
    with one_line_errors(args):
        good, message = RopoHook(args.conn_id).test_connection()
    if not good:
        raise SystemExit(message)
    print(message)


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def preview(args: Namespace) -> None:
    """Show what a task would post; exit with 1 if the task would fail."""
    with one_line_errors(args):
        task = find_task(args.dag_id, args.task_id, args.bundle_name)
        run = simulate_run(task.dag, args.date, args.conf)
        print(f"{args.dag_id}.{args.task_id}, {run.window}\n")
        with without_supervisor():
            operator, context = render(task, run, args.map_index)
            with set_current_context(context):
                result = operator.deliver(context, preview=True)
    _print_payloads(result.summary)
    print(result.summary)
    is_empty = not result.summary.rows and operator.on_empty == "fail"
    if is_empty or result.failure is not None:
        raise SystemExit(1)


def _print_payloads(summary: DeliverySummary) -> None:
    for payload in summary.sample:
        print(json.dumps(payload, ensure_ascii=False))
    more = summary.as_dict()["undelivered"] - len(summary.sample)
    if more > 0:
        print(f"… and {more:,} more")
    if summary.sample:
        print()


@action_cli(check_db=False)
@suppress_logs_and_warning
@providers_configuration_loaded
def ledger(args: Namespace) -> None:
    """List the events that are not delivered."""
    with one_line_errors(args):
        # One more than is shown, to know whether there are more.
        events = not_delivered(args.conn_id, args.table, args.limit + 1)
    AirflowConsole().print_as(data=events[: args.limit], output=args.output)
    if len(events) > args.limit:
        print(f"These are the first {args.limit:,}; there are more.", file=sys.stderr)


@contextmanager
def one_line_errors(args: Namespace) -> Iterator[None]:
    """Turn an error into one line and exit code 1; with ``--verbose``, raise it with its traceback."""
    # Connections and variables are read from Airflow's database, too, as in Airflow's own commands.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    try:
        yield
    except Exception as error:
        if args.verbose:
            raise
        ours = isinstance(error, RopoError | AirflowException)
        raise SystemExit(str(error) if ours else f"{type(error).__name__}: {error}") from None
