"""Servers that the machine has to have: a MariaDB of the test session's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

# They need packages that do not go with Airflow's: `make test-services` runs them in an environment of their own.
collect_ignore = ["snowflake"]

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
PATIENCE = 60


@dataclass(frozen=True)
class MariaDB:
    """A running MariaDB server, which takes root without a password, on a socket that nobody else may open."""

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
    give_up = time.monotonic() + PATIENCE
    while True:
        # Not with the driver, which leaves a socket open where nobody answers.
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            if probe.connect_ex(server.socket) == 0:
                return
        if process.poll() is not None or time.monotonic() > give_up:
            pytest.fail(f"MariaDB did not start:\n{log.read_text()}", pytrace=False)
        time.sleep(0.1)
