"""How little Airflow has to import to learn what this package offers: it does so at every start."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
before = set(sys.modules)
import {module}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def imported_by(module: str) -> set[str]:
    """Return the modules that come with one, in a Python that has just started."""
    command = [sys.executable, "-c", PROGRAM.format(module=module)]
    return set(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_discovery_imports_what_typing_does() -> None:
    """Reading the provider info imports the two modules it is in, and nothing that ``typing`` would not."""
    imported = imported_by("airflow_provider_ropo.provider_info")

    ours = {"airflow_provider_ropo", "airflow_provider_ropo.provider_info"}
    assert ours == imported - imported_by("__future__, typing")


def test_what_is_heavy_is_noticed() -> None:
    """The same look at a module that needs more finds it."""
    imported = imported_by("airflow_provider_ropo.hooks.ropo")

    assert {"airflow", "requests", "pendulum", "sqlalchemy"} <= imported
