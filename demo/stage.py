"""Environment of the demos: a warehouse, a local Ropo One and an Airflow of their own, all on this machine."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from warehouse import make_warehouse

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def connections(warehouse: Path, ropo: str) -> dict[str, dict[str, Any]]:
    """Return the two connections that the example DAGs use."""
    return {
        "ropo_default": {
            "conn_type": "ropo",
            "host": ropo,
            # Already in the host; but the Test button of Airflow 3.3.2 needs a connection with a port.
            "port": int(ropo.rpartition(":")[2]),
            "login": "1000011",
            "password": "sandbox",
        },
        "warehouse": {"conn_type": "sqlite", "host": str(warehouse)},
    }


def environment(home: Path) -> dict[str, str]:
    """Return the environment variables of an Airflow with its home in ``home`` and the example DAGs."""
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        # There is no login, so it must not be reachable from the network.
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Nothing but this machine is contacted.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # `airflow standalone` starts `airflow` by name.
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def airflow(*arguments: str, environment: dict[str, str], log: Path) -> int:
    """Run an airflow command with its output in a file; return its exit code."""
    with log.open("ab") as output:
        command = [str(BIN / "airflow"), *arguments]
        return subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode


def is_in_use(port: int) -> bool:
    """Tell whether a program listens on that port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def sandbox(port: int = 0) -> Iterator[str]:
    """Run a local Ropo One, and yield its address."""
    command = [sys.executable, "-m", "airflow_provider_ropo.sandbox", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
            if address is None:
                sys.exit("The sandbox did not start; see the lines above.")
            yield address.group()
        finally:
            process.terminate()


def fresh_home(name: str, *, last_day: dt.date, days: int) -> tuple[Path, Path]:
    """Return a folder for an Airflow home, and the path of a new warehouse in it."""
    home = ROOT / name
    home.mkdir(exist_ok=True)
    warehouse = home / "warehouse.db"
    make_warehouse(warehouse, last_day=last_day, days=days)
    return home, warehouse


def as_variables(known: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return connections as the environment variables that Airflow reads them from."""
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection) for name, connection in known.items()}
