"""The page "First steps" is correct: each step is done as it says, and prints what it shows."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from airflow_provider_ropo.sandbox import Sandbox
from documents import ROOT, block

#: Runs the commands of a terminal in one process, as a start of ``airflow`` takes seconds: ``airflow …`` from its own
#: entry point, and ``python FILE``. Their output follows a line that names the command.
TERMINAL = """
import json, runpy, sys
from airflow.__main__ import main

for command, *arguments in json.loads(sys.argv[1]):
    print(f"\\n$ {command} {' '.join(arguments)}", flush=True)
    try:
        sys.argv = [command, *arguments]
        main() if command == "airflow" else runpy.run_path(arguments[0])
    except SystemExit as end:
        print(end.code if isinstance(end.code, str) else "", flush=True)
"""
#: The page's commands in the order in which a reader runs them, once everything is in place.
COMMANDS = """
airflow ropo check
airflow ropo preview report_usageplace_events report {today}
airflow dags test report_usageplace_events
airflow dags test report_usageplace_events
python bad_row.py
airflow dags test report_usageplace_events
airflow ropo ledger --conn-id warehouse --output plain
"""


@pytest.fixture
def outputs(airflow_db: None, sandbox: Sandbox, tmp_path: Path) -> list[str]:
    """Follow the page in an empty folder; return what each command prints."""
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "report_usageplace_events.py").write_text(
        block("first-steps", "from datetime import timedelta")
    )
    make_warehouse = block(
        "first-steps", 'import sqlite3\n\ndatabase = sqlite3.connect("warehouse.db")\ndatabase.execute(\n    "CREATE'
    )
    bad_row = block(
        "first-steps", 'import sqlite3\n\ndatabase = sqlite3.connect("warehouse.db")\ndatabase.execute(\n    "INSERT'
    )
    (tmp_path / "bad_row.py").write_text(bad_row)
    subprocess.run([sys.executable, "-c", make_warehouse], cwd=tmp_path, check=True)
    # `airflow db migrate` has been run for all tests.
    shutil.copy(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db", tmp_path)
    commands = [line.split() for line in COMMANDS.format(today=f"{dt.datetime.now(dt.UTC):%F}").split("\n") if line]

    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, json.dumps(commands)],
        cwd=tmp_path,
        env=environment(tmp_path, sandbox),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )

    text = done.stdout.replace(sandbox.url, "http://127.0.0.1:8099")
    return re.split(r"(?m)^\$ (?=airflow|python)", text)[1:]


def environment(folder: Path, sandbox: Sandbox) -> dict[str, str]:
    """Return the environment that the page's exports make in that folder."""
    exports = block("first-steps", "export AIRFLOW_HOME").replace("http://127.0.0.1:8099", sandbox.url)
    script = f"{exports}\n{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=inherited, stdout=subprocess.PIPE, check=True)  # noqa: S607
    return dict(json.loads(done.stdout)) | {"AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False"}


def test_the_steps_print_what_the_page_shows(outputs: list[str], sandbox: Sandbox) -> None:
    """The commands print what the page shows, the good events arrive once, and the bad row is named."""
    shown = "".join(
        (
            block("first-steps", "$ airflow db migrate"),
            block("first-steps", "$ airflow ropo preview"),
            block("first-steps", "$ airflow dags test report_usageplace_events\n… 3 of 3"),
            "$ airflow dags test report_usageplace_events\n3 of 3 events are at Ropo One: 3 already_delivered\n",
            block("first-steps", "$ airflow dags test report_usageplace_events\n… 3 of 4"),
        )
    )
    expected = [each for each in re.split(r"(?m)^\$ ", shown)[1:] if "db migrate" not in each]
    printed = [output for output in outputs if output.startswith("airflow")]

    assert [text.split("\n")[0].replace("$(date +%F)", f"{dt.datetime.now(dt.UTC):%F}") for text in expected] == [
        text.split("\n")[0].strip() for text in printed
    ]
    for text, output in zip(expected, printed, strict=True):
        _, _, lines = text.partition("\n")
        for piece in re.split(r"…|\n", lines):
            assert " ".join(piece.split()) in " ".join(output.split())
    assert ["WO-1", "WO-2", "WO-3"] == sorted(payload["id"] for payload in sandbox.events)
    assert 3 == len(sandbox.arrivals)


def test_the_dag_is_that_of_the_readme() -> None:
    """The DAG of the first steps is that of the README."""
    assert block("README", "from datetime import timedelta") == block("first-steps", "from datetime import timedelta")


def test_the_package_can_be_installed_so() -> None:
    """The command names this package, one of its extras, and a package that the tests use."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (command,) = (line for line in block("first-steps", "$ python3 -m venv").splitlines() if "pip" in line)

    name, extra, other = re.findall(r"'([\w-]+)\[(\w+)\]' ([\w-]+)$", command)[0]

    assert pyproject["name"] == name
    assert extra in pyproject["optional-dependencies"]
    assert distribution(other)


def test_the_sandbox_starts_with_the_command() -> None:
    """The command for the local Ropo One runs it."""
    (command,) = block("first-steps", "$ python -m airflow_provider_ropo.sandbox").splitlines()
    arguments = command.replace("8099", "0").split()[2:]

    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()

    assert "http://127.0.0.1:" in line
