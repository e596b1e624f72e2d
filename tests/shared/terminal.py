"""``airflow ropo …`` as a person runs it, many commands in one process: a start takes seconds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap

_MANY = """
import contextlib, io, json, sys
from airflow.__main__ import main

answers = []
for arguments, typed in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["airflow", "ropo", *arguments]
    sys.stdin = io.StringIO(typed)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
    answers.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Answer:
    """The output of a command, and its exit code: a text is what Python prints to stderr before it exits with 1."""

    code: int | str | None
    out: str
    err: str


def plain(text: str) -> str:
    """Remove log lines, which Airflow 3.2 writes before its commands can turn them off."""
    return re.sub(r"(?m)^\d{4}-\d\d-\d\dT\S+ \[(debug|info) .*\n", "", text)


def run_commands(
    environment: Mapping[str, str], commands: Sequence[Sequence[str]], typed: Mapping[int, str] | None = None
) -> list[Answer]:
    """Run commands of ``airflow ropo`` one after another, each from ``airflow``'s own entry point.

    :param typed: the number of a command → what a person types while it runs.
    """
    asked = [(list(command), (typed or {}).get(number, "")) for number, command in enumerate(commands)]
    done = subprocess.run(
        [sys.executable, "-c", _MANY, json.dumps(asked)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(starmap(Answer, json.loads(done.stdout.splitlines()[-1])))
