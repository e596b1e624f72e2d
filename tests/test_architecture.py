from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported_by(module: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has after importing a module."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_imports_only_go_down() -> None:
    """Every import follows the floors and fences that pyproject.toml draws."""
    command = Path(sysconfig.get_path("scripts")) / "lint-imports"

    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_say_what_they_hold(path: Path) -> None:
    """Every test's docstring says in one sentence which behaviour it holds."""
    silent = [
        each.name
        for each in functions(path)
        if each.name.startswith("test_") and not (ast.get_docstring(each) or "").endswith(".")
    ]

    assert [] == silent


@pytest.mark.parametrize("module", ["api.client", "dispatch.dispatcher", "event", "intake.reader", "intake.spool"])
def test_core_works_without_airflow(module: str) -> None:
    """The core's modules run where there is no Airflow."""
    assert set() == {"airflow", "sqlalchemy"} & imported_by(f"airflow_provider_ropo.{module}")
