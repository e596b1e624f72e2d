"""How a command of ``airflow ropo`` fails."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_ropo.errors import RopoError


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
