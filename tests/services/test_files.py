"""Files go to Debian's OpenSSH server and to S3, while the runs that send them are killed."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.task.storage import open_store
from file_runs import FileRuns, rows
from killed_runs import FILES, Worker, check_whole, later_tries
from s3_server import serving_s3

PROGRAM = "/usr/sbin/sshd"
#: Kills at each of the two destinations.
KILLS = 25
#: Seconds that a server may take to start on a busy machine.
TIMEOUT = 60


@dataclass(frozen=True)
class OpenSsh:
    """A running OpenSSH server, for the user who runs the tests."""

    port: int
    folder: Path
    connection: dict[str, Any]


@contextmanager
def openssh(where: Path, *options: str) -> Iterator[OpenSsh]:
    """Run an OpenSSH server on loopback.

    :param options: of its ``internal-sftp``.
    """
    drop = where / "drop"
    drop.mkdir(parents=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(where / name)]
        subprocess.run(command, check=True)
    shutil.copy(where / "user.pub", where / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": where / "host",
        "PidFile": where / "pid",
        "AuthorizedKeysFile": where / "authorized_keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "MaxStartups": "100",
        "Subsystem": " ".join(["sftp internal-sftp", "-d", str(drop), *options]),
    }
    config = where / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    # Its parent for the privileges that root's server gives up.
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([PROGRAM, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(port)
            extra = {
                "host_key": (where / "host.pub").read_text().strip(),
                "private_key": (where / "user").read_text(),
                "look_for_keys": False,
            }
            connection = {"conn_type": "sftp", "host": "127.0.0.1", "port": port, "login": getuser(), "extra": extra}
            yield OpenSsh(port, drop, connection)
        finally:
            process.terminate()


def _await_port(port: int) -> None:
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("sshd did not start")


@pytest.fixture(scope="session", autouse=True)
def _program() -> None:
    """Install OpenSSH's server where it is missing."""
    if not Path(PROGRAM).exists():
        for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "openssh-server"]):
            subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def runs(tmp_path: Path) -> FileRuns:
    """Return runs that share a ledger in a SQLite file."""
    return FileRuns(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def open_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[OpenSsh], FileStore]]:
    """Return a shorthand for the store of a server."""
    stores: list[FileStore] = []

    def open_(server: OpenSsh) -> FileStore:
        monkeypatch.setenv("AIRFLOW_CONN_FILES", json.dumps(server.connection))
        stores.append(open_store("files"))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 server."""
    with serving_s3() as url:
        yield url


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """Return a worker that knows Airflow's connections."""
    with Worker(FILES, "--airflow") as worker:
        yield worker


@pytest.mark.parametrize(
    ("options", "temporary", "then"),
    [
        ((), ".part", DeliveryStatus.DELIVERED),
        (("-P", "posix-rename"), ".part", DeliveryStatus.DELIVERED),
        (("-P", "stat,lstat,fstat"), ".part", DeliveryStatus.DELIVERED),
        (("-P", "stat,lstat,fstat,opendir,readdir"), ".part", DeliveryStatus.DELIVERED),
        (("-u", "0077"), ".part", DeliveryStatus.DELIVERED),
        (("-P", "rename"), ".part", DeliveryStatus.UNDELIVERED),
        (("-P", "rename,posix-rename"), None, DeliveryStatus.DELIVERED),
    ],
    ids=["plain", "no posix-rename", "no stat", "cannot look", "umask", "no rename", "no temporary name"],
)
def test_openssh(
    runs: FileRuns,
    open_at: Callable[[OpenSsh], FileStore],
    tmp_path: Path,
    options: tuple[str, ...],
    temporary: str | None,
    then: DeliveryStatus,
) -> None:
    """A file arrives at an OpenSSH server, whichever requests that forbids, except one that is needed."""
    with openssh(tmp_path / "server", *options) as server:
        ended = runs.run(rows(2_000), open_at(server), paths=FilePaths("", temporary))

        assert 2_000 == ended.counts[then]
        if then is DeliveryStatus.DELIVERED:
            (path,) = server.folder.iterdir()
            check_whole([path.read_bytes()], (f"e{number}" for number in range(2_000)))
            assert (path.stat().st_mode & 0o077 == 0) == ("-u" in options)
        else:
            assert "Permission denied" in str(ended.stopped)


def test_openssh_rename_does_not_replace(open_at: Callable[[OpenSsh], FileStore], tmp_path: Path) -> None:
    """OpenSSH's rename leaves a file that is there already."""
    with openssh(tmp_path / "server") as server:
        (server.folder / "a").write_bytes(b"old")
        (server.folder / "a.part").write_bytes(b"new")

        with pytest.raises(OSError, match="Failure"):
            open_at(server).publish("a.part", "a")

        assert b"old" == (server.folder / "a").read_bytes()


@pytest.mark.parametrize("kind", ["sftp", "s3"])
def test_kills(kind: str, worker: Worker, s3: str, tmp_path: Path) -> None:
    """Killed at each step and at any moment, a run leaves one whole file for its events, and loses none."""
    with openssh(tmp_path / "server") as server:
        numbers = itertools.count()

        def new_job(count: int) -> tuple[dict[str, Any], Callable[[], list[bytes]]]:
            folder = f"story{next(numbers)}"
            connection = server.connection
            if kind == "s3":
                extra = {"endpoint_url": s3, "region_name": "eu-north-1"}
                connection = {"conn_type": "aws", "login": "key", "password": "secret", "extra": extra}
                client.create_bucket(Bucket=folder, CreateBucketConfiguration=location)
            else:
                (server.folder / folder).mkdir()
            job: dict[str, Any] = {
                "database": f"sqlite:///{tmp_path / folder}.db",
                "connection": connection,
                "folder": folder,
            }
            job |= {"rows": count, "places": 3, "run": "run", "try": 1}

            def files() -> list[bytes]:
                if kind == "s3":
                    listed = client.list_objects_v2(Bucket=folder).get("Contents", [])
                    return [client.get_object(Bucket=folder, Key=each["Key"])["Body"].read() for each in listed]
                return [path.read_bytes() for path in (server.folder / folder).iterdir()]

            return job, files

        import boto3

        location = {"LocationConstraint": "eu-north-1"}
        client = boto3.client(
            "s3",
            endpoint_url=s3,
            region_name="eu-north-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        kills = 0
        job, _files = new_job(30)
        began = time.monotonic()
        steps = worker.run(job)["steps"]
        takes = time.monotonic() - began
        moments = random.Random(5)  # noqa: S311 - the same every time
        at_each_step = ((step, None) for step in range(1, steps + 1))
        at_any_moment = ((0, moments.random() * takes) for _ in itertools.count())
        for kill_at, kill_after in itertools.chain(at_each_step, at_any_moment):
            if kills == KILLS:
                break
            job, files = new_job(30)
            end = worker.run(job | {"kill_at": kill_at}, kill_after)
            kills += end["ended"] == -signal.SIGKILL
            worker.finish(later_tries(job), first=2)
            whole = files()
            assert 1 == len(whole), (kill_at, kill_after)
            check_whole(whole, (f"e{number}" for number in range(30)))
