"""Fixtures of several test files: a MariaDB server and a whole Airflow, for this test run only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from airflow_provider_ropo.sandbox import Sandbox

# They need packages that do not go with Airflow's: `make test-services` runs them in an environment of their own.
collect_ignore = ["snowflake"]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKAGES = ("mariadb-server-core", "mariadb-client-core")
#: Seconds that anything may take on a busy machine.
TIMEOUT = 240


@dataclass(frozen=True)
class MariaDB:
    """A running MariaDB server, which takes root without a password, on a socket that no other user may open."""

    socket: str

    def connect(self, database: str | None = None, **options: Any) -> Any:
        return pymysql.connect(unix_socket=self.socket, user="root", database=database, **options)

    def execute(self, *statements: str) -> None:
        with closing(self.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def engine(self, database: str, user: str = "root", **options: Any) -> sa.engine.Engine:
        return sa.create_engine(f"mysql+pymysql://{user}@/{database}?unix_socket={self.socket}", **options)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """Run one MariaDB server for the whole test run, in a folder of its own."""
    programs = _programs()
    # A socket's path has to be short, which pytest's own folders are not.
    home = Path(tempfile.mkdtemp(prefix="ropo-mariadb-"))
    try:
        with (home / "log").open("wb") as log:
            where = ["--no-defaults", f"--datadir={home / 'data'}"] + (["--user=root"] if os.getuid() == 0 else [])
            install = [programs[0], *where, "--auth-root-authentication-method=normal", "--skip-test-db"]
            serve = [programs[1], *where, f"--socket={home / 'socket'}", "--skip-networking"]
            serve += ["--character-set-server=utf8mb4", f"--pid-file={home / 'pid'}"]
            subprocess.run(install, stdout=log, stderr=log, check=True)
            with subprocess.Popen(serve, stdout=log, stderr=log) as process:
                try:
                    server = MariaDB(str(home / "socket"))
                    _wait_for(server, process, home / "log")
                    yield server
                finally:
                    process.terminate()
    finally:
        shutil.rmtree(home)


@pytest.fixture
def database(mariadb: MariaDB) -> Iterator[str]:
    """Return the name of an empty database."""
    name = f"test_{os.urandom(4).hex()}"
    mariadb.execute(f"CREATE DATABASE {name}")
    yield name
    mariadb.execute(f"DROP DATABASE {name}")


@pytest.fixture
def engine(mariadb: MariaDB, database: str) -> Iterator[sa.engine.Engine]:
    """Return an engine on an empty database."""
    engine = mariadb.engine(database)
    yield engine
    engine.dispose()


def _programs() -> list[str]:
    """Find MariaDB's programs; where that may be, fetch them from Debian first."""
    if not _found():
        if os.getuid() != 0 or shutil.which("apt-get") is None:
            pytest.fail(f"MariaDB's server is missing: apt-get install {' '.join(PACKAGES)}", pytrace=False)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        # The programs alone: Debian's `mariadb-server` would also set up a service.
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, check=False)  # noqa: S607
        if not _found():
            pytest.fail(f"apt-get could not install MariaDB's server: {done.stderr.decode()}", pytrace=False)
    return _found()


def _found() -> list[str]:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    programs = [shutil.which(name, path=path) for name in ("mariadb-install-db", "mariadbd", "my_print_defaults")]
    return [program for program in programs if program] if all(programs) else []


def _wait_for(server: MariaDB, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        # Not with the driver, which leaves a socket open if there is no answer.
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            if probe.connect_ex(server.socket) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"MariaDB did not start:\n{log.read_text()}", pytrace=False)
        time.sleep(0.1)


class Airflow:
    """A whole Airflow with the example DAGs and an empty home, used through its REST API as its UI does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        port, *log_ports = _free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self.environment = inherited | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            # Nothing but this machine is contacted.
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # `airflow standalone` starts `airflow` by name.
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            # A process that gives itself a title leaves its environment legible, by which it is found and ended.
            "SPT_NOENV": "1",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def connect(self, conn_id: str, **connection: Any) -> None:
        """Give it a connection."""
        self.environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start an ``airflow`` command, in a session of its own, and let it run."""
        with (self.home / f"{len(self._processes)}-{arguments[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                [BIN / "airflow", *arguments],
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """End everything that has been started, and what that has started in turn."""
        for process in self._processes:
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            for process in self._processes:
                process.wait(10)
        self.kill()
        for process in self._processes:
            process.wait()

    def kill(self, **environment: str) -> None:
        """Kill every process of this Airflow with that in its environment, also those in a session of their own."""
        marks = {f"{name}={value}".encode() for name, value in {"AIRFLOW_HOME": self.home, **environment}.items()}
        for found in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if marks <= set(found.read_bytes().split(b"\0")):
                    os.kill(int(found.parent.name), signal.SIGKILL)

    def ask(self, path: str, method: str = "GET", **body: Any) -> Any:
        """Ask its REST API."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/api/v2/{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def _token(self) -> str:
        """Sign in, where everybody is an admin."""
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])

    def wait_for(self, come: Callable[[], Any], what: str) -> Any:
        """Wait until something is there, and return it."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            with suppress(urllib.error.URLError, ConnectionError):
                if found := come():
                    return found
            time.sleep(0.5)
        pytest.fail(f"{what} was not there after {TIMEOUT} s:\n{self.output()}", pytrace=False)

    def output(self) -> str:
        """Return the end of the output of each process and each task."""
        logs = sorted(self.home.glob("*.log")) + sorted(self.home.glob("logs/dag_id=*/**/*.log"))
        return "\n".join(f"==> {log.relative_to(self.home)} <==\n{log.read_text()[-5_000:]}" for log in logs)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listening.getsockname()[1] for listening in sockets]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a local Ropo One."""
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def airflow(sandbox: Sandbox) -> Iterator[Airflow]:
    """Return an Airflow that leads to the local Ropo One and is still to be started; all of it is ended."""
    # The path of a socket has to be short, which those of pytest's own folders are not.
    airflow = Airflow(Path(tempfile.mkdtemp(prefix="ropo-airflow-")))
    login = {"login": sandbox.cid, "password": sandbox.apicode}
    airflow.connect("ropo_default", conn_type="ropo", host=sandbox.url, **login, extra={"timeout": 90})
    yield airflow
    airflow.end()
    shutil.rmtree(airflow.home)
