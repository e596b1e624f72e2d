"""The functions behind ``airflow ropo check`` and ``preview``, which sign in and read, and post nothing."""

from __future__ import annotations

import json
from argparse import Namespace

from airflow.sdk.execution_time.context import set_current_context
from airflow.utils.cli import action_cli, suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_provider_ropo.cli.errors import one_line_errors
from airflow_provider_ropo.cli.run import find_task, render, simulate_run, without_supervisor
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
