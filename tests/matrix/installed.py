"""An installed Airflow of any supported version, used as people do: through its command line.

Nothing here imports Airflow: each command is a process of its own, in a home of its own.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "example_dags"
#: The Airflow under test, as numbers.
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
#: How a warning names one of our files: Python's own way, or as the field of a structured log's line.
BLAMED = re.compile(r"airflow_provider_ropo/[\w/]+\.py\S*[:\s].*Warning|Warning.*airflow_provider_ropo/[\w/]+\.py")


@dataclass
class Finished:
    """A command that has come to its end."""

    output: str
    everything: str

    @property
    def data(self) -> Any:
        """What was printed as JSON: the last line, as some Airflows log before it."""
        return json.loads(self.output.strip().splitlines()[-1])

    @property
    def warnings(self) -> list[str]:
        """The warnings that one of our own files is to blame for."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.everything)
        return [line for line in plain.splitlines() if BLAMED.search(line)]


@dataclass
class Airflow:
    """One Airflow home."""

    home: Path
    environment: dict[str, str]

    @property
    def dags(self) -> Path:
        """The DAGs folder."""
        return self.home / "dags"

    def python(self, *arguments: str | Path, allow_failure: bool = False) -> Finished:
        """Run this environment's Python with every warning shown."""
        command = [sys.executable, "-W", "always", *arguments]
        environment = os.environ | self.environment
        done = subprocess.run(command, env=environment, cwd=self.home, capture_output=True, text=True, check=False)
        everything = done.stdout + done.stderr
        assert allow_failure or 0 == done.returncode, everything[-5000:]
        return Finished(done.stdout, everything)

    def run(self, *arguments: str, allow_failure: bool = False) -> Finished:
        """Run a command of ``airflow``; none may lead to a warning that our own code is to blame for."""
        finished = self.python("-m", "airflow", *arguments, allow_failure=allow_failure)
        assert [] == finished.warnings
        return finished

    def test_dag(self, dag_id: str, date: str) -> tuple[str, list[dict[str, int]]]:
        """Run a DAG with ``airflow dags test``; return how it ended, and its tasks' counts by map index."""
        self.run("dags", "test", dag_id, date, allow_failure=True)
        (state,) = self.query("SELECT state FROM dag_run WHERE dag_id = ?", dag_id)
        values = self.query(
            "SELECT value FROM xcom WHERE dag_id = ? AND key = 'return_value' ORDER BY map_index", dag_id
        )
        return state, [nonzero(decoded(value)) for value in values]

    def query(self, statement: str, *parameters: str) -> list[Any]:
        """Return the first column of what Airflow's own database has."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            return [row[0] for row in database.execute(statement, parameters)]


def decoded(value: Any) -> Any:
    """Return an XCom as it was pushed: bytes on Airflow 2, and JSON within JSON on Airflow 3."""
    while isinstance(value, str | bytes):
        value = json.loads(value)
    return value


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
