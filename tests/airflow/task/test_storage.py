from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import FileConflictError, FileStoreError, RopoConfigurationError
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.sandbox.drop_folder import DropFolder
from airflow_provider_ropo.task.storage import open_store
from file_runs import FileRuns, rows
from s3_server import serving_s3

BUCKET = "drop"


@dataclass
class Faults:
    """What the SFTP server does wrong."""

    lose_rename: bool = False
    collect: bool = False
    disk_full: bool = False
    cut_at: int | None = None
    no_stat: bool = False
    no_list: bool = False
    no_rename: bool = False


class Scripted(asyncssh.SFTPServer):
    """An SFTP server with faults."""

    def __init__(self, channel: Any, root: Path, faults: Faults) -> None:
        super().__init__(channel, chroot=str(root).encode())
        self._channel = channel
        self._root = root
        self._faults = faults

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        if self._faults.no_rename:
            raise asyncssh.SFTPPermissionDenied("no")
        super().rename(oldpath, newpath)
        if self._faults.collect:
            (self._root / newpath.decode().lstrip("/")).unlink()
        if self._faults.lose_rename:
            self._cut()

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        if self._faults.disk_full:
            raise asyncssh.SFTPFailure("No space left on device")
        if self._faults.cut_at is not None and offset + len(data) > self._faults.cut_at:
            super().write(file_obj, offset, data[: self._faults.cut_at - offset])
            file_obj.flush()  # type: ignore[attr-defined]
            self._cut()
        return int(super().write(file_obj, offset, data))  # type: ignore[arg-type]

    def stat(self, path: bytes) -> Any:
        if self._faults.no_stat:
            raise asyncssh.SFTPPermissionDenied("no")
        return super().stat(path)

    def scandir(self, path: bytes) -> Any:
        if self._faults.no_list:
            raise asyncssh.SFTPPermissionDenied("no")
        return super().scandir(path)

    def _cut(self) -> None:
        self._channel.get_connection().abort()
        raise asyncssh.SFTPConnectionLost("cut")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> FileRuns:
    """Return runs that share a ledger in a SQLite file."""
    return FileRuns(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def faults() -> Faults:
    """Return faults, none of them set."""
    return Faults()


@contextmanager
def connection(conn_id: str, **values: Any) -> Iterator[str]:
    """Define an Airflow connection."""
    name = f"AIRFLOW_CONN_{conn_id.upper()}"
    os.environ[name] = json.dumps(values)
    try:
        yield conn_id
    finally:
        del os.environ[name]


@pytest.fixture
def server(folder: Path, faults: Faults) -> Iterator[DropFolder]:
    """Run an SFTP server over that folder."""
    with DropFolder(folder, make_server=lambda channel: Scripted(channel, folder, faults)) as server:
        yield server


@pytest.fixture
def connect(server: DropFolder) -> Iterator[Callable[..., FileStore]]:
    """Return a shorthand for a store over a connection to that server."""
    stores: list[FileStore] = []

    def make(**changes: Any) -> FileStore:
        values = {"conn_type": "sftp", "host": "127.0.0.1", "port": server.port, "login": server.login} | {
            "password": server.password,
            "extra": {"host_key": server.host_key, "look_for_keys": False},
        }
        with connection("files", **(values | changes)):
            stores.append(open_store("files"))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Run one S3 server for the whole test run."""
    with serving_s3() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Iterator[Any]:
    """Return an empty bucket, which the connection ``s3`` leads to."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    values = {"conn_type": "aws", "login": "key", "password": "secret"}
    extra = {"endpoint_url": s3_url, "region_name": "eu-north-1", "service_config": {"s3": {"bucket_name": BUCKET}}}
    with connection("s3", **values, extra=extra):
        client = S3Hook("s3").get_conn()
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        yield S3Hook("s3").get_bucket(BUCKET)
        for found in S3Hook("s3").get_bucket(BUCKET).objects.all():
            found.delete()
        client.delete_bucket(Bucket=BUCKET)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# SFTP


def test_sftp(connect: Callable[..., FileStore], server: DropFolder, runs: FileRuns, folder: Path) -> None:
    """A file arrives at an SFTP server, whole and under its name alone."""
    (folder / "in").mkdir()

    ended = runs.run(rows(1_000), connect(), paths=FilePaths("in"))

    assert 1_000 == ended.counts["delivered"]
    (name,) = names(folder / "in")
    assert 1_000 == len((folder / "in" / name).read_text().splitlines())
    (arrival,) = server.files
    assert (f"in/{name}", 1_000) == (arrival.name, arrival.lines)


def test_sftp_destination(connect: Callable[..., FileStore], server: DropFolder) -> None:
    """The ledger remembers an SFTP server by user, address and port."""
    assert f"sftp://ropo@127.0.0.1:{server.port}" == connect().destination


@pytest.mark.parametrize(
    ("fault", "then"),
    [
        ({"lose_rename": True}, DeliveryStatus.DELIVERED),
        ({"collect": True}, DeliveryStatus.DELIVERED),
        ({"lose_rename": True, "collect": True}, DeliveryStatus.UNCONFIRMED),
        ({"lose_rename": True, "no_stat": True}, DeliveryStatus.DELIVERED),
        ({"lose_rename": True, "no_stat": True, "no_list": True}, DeliveryStatus.UNCONFIRMED),
        ({"disk_full": True}, DeliveryStatus.UNDELIVERED),
        ({"cut_at": 0}, DeliveryStatus.UNDELIVERED),
        ({"cut_at": 20_000}, DeliveryStatus.UNDELIVERED),
        ({"no_stat": True, "no_list": True}, DeliveryStatus.DELIVERED),
        ({"no_rename": True}, DeliveryStatus.UNDELIVERED),
    ],
    ids=[
        "answer to the rename lost",
        "collected at once",
        "collected and the answer lost",
        "answer lost, no stat",
        "answer lost, cannot look",
        "disk full",
        "cut at the beginning",
        "cut in the middle",
        "cannot look",
        "no rename",
    ],
)
def test_sftp_faults(
    connect: Callable[..., FileStore],
    runs: FileRuns,
    folder: Path,
    faults: Faults,
    fault: dict[str, Any],
    then: DeliveryStatus,
) -> None:
    """After each fault of an SFTP server, a try says what is known, and the next leaves one whole file."""
    for name, value in fault.items():
        setattr(faults, name, value)

    first = runs.run(rows(200), connect())

    assert 200 == first.counts[then]
    assert (first.stopped is None) == (then is DeliveryStatus.DELIVERED)
    for name in fault:
        setattr(faults, name, None if name == "cut_at" else False)

    second = runs.run(rows(200), connect(), try_number=2)

    assert 200 == second.counts["delivered"] + second.counts["already_delivered"]
    whole = [path for path in folder.iterdir() if path.suffix != ".part"]
    assert [200] * (fault != {"collect": True}) == [len(path.read_text().splitlines()) for path in whole]
    assert whole == list(folder.iterdir())


def test_sftp_without_a_rename(connect: Callable[..., FileStore], runs: FileRuns, folder: Path, faults: Faults) -> None:
    """Where the server cannot rename, a file is written under its final name, and half of one is removed."""
    faults.no_rename = faults.disk_full = True
    paths = FilePaths("", None)

    first = runs.run(rows(100), connect(), paths=paths)

    assert (100, []) == (first.counts["undelivered"], names(folder))
    faults.disk_full = False

    second = runs.run(rows(100), connect(), paths=paths, try_number=2)

    assert 100 == second.counts["delivered"]
    (path,) = folder.iterdir()
    assert 100 == len(path.read_text().splitlines())


def test_sftp_half_a_file_under_the_final_name(
    connect: Callable[..., FileStore], runs: FileRuns, folder: Path, faults: Faults
) -> None:
    """Half a file that a cut session has left under the final name is not taken for a whole one."""
    faults.cut_at = 1_000
    paths = FilePaths("", None)

    runs.run(rows(100), connect(), paths=paths)
    faults.cut_at = None
    second = runs.run(rows(100), connect(), paths=paths, try_number=2)

    if second.counts["delivered"]:
        (path,) = folder.iterdir()
        assert 100 == len(path.read_text().splitlines())
    else:
        assert isinstance(second.stopped, FileConflictError)


def test_sftp_rename_does_not_replace(connect: Callable[..., FileStore], folder: Path) -> None:
    """A rename leaves a file that is there already."""
    store = connect()
    store.put(io.BytesIO(b"new"), "a.part", replace=True)
    (folder / "a").write_bytes(b"old")

    with pytest.raises(OSError, match="exists"):
        store.publish("a.part", "a")

    assert b"old" == (folder / "a").read_bytes()


@pytest.mark.parametrize(
    "extra",
    [{}, {"no_host_key_check": False}, {"host_key": None}],
    ids=["nothing said", "checked", "no key"],
)
def test_unknown_host_key(
    connect: Callable[..., FileStore], extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server whose key nobody knows is refused, with what to do about it."""
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(RopoConfigurationError, match=r"'files'.*not found in known_hosts.*host_key"):
        connect(extra=extra | {"look_for_keys": False}).look("a")


def test_another_host_key(connect: Callable[..., FileStore]) -> None:
    """A server with another key than the connection's is refused."""
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()

    with pytest.raises(RopoConfigurationError, match=r"'files'.*host_key"):
        connect(extra={"host_key": key, "look_for_keys": False}).look("a")


def test_hook_whose_default_is_not_to_check(connect: Callable[..., FileStore]) -> None:
    """The key is checked, too, where the provider's default is another."""
    from airflow.providers.sftp.hooks.sftp import SFTPHook

    from airflow_provider_ropo.task.storage import SftpStore

    hook = SFTPHook(ssh_conn_id=None, remote_host="127.0.0.1", username="ropo")
    hook.no_host_key_check = True

    SftpStore(hook)

    assert hook.no_host_key_check is False


@pytest.mark.parametrize("name", ["no_host_key_check", "allow_host_key_change", "ignore_hostkey_verification"])
def test_connection_that_does_not_check(connect: Callable[..., FileStore], name: str) -> None:
    """A connection that asks not to check the key is refused."""
    with pytest.raises(RopoConfigurationError, match=f"extra '{name}' must not be true"):
        connect(extra={name: "true"})


def test_wrong_password(connect: Callable[..., FileStore]) -> None:
    """A wrong password is an error of the configuration, before anything is claimed."""
    with pytest.raises(RopoConfigurationError, match="Authentication failed"):
        connect(password="wrong").look("a")


def test_no_server(connect: Callable[..., FileStore], runs: FileRuns) -> None:
    """A server that is not there leaves the events for the next try, and no claim behind."""
    ended = runs.run(rows(2), connect(port=1))

    assert isinstance(ended.stopped, FileStoreError)
    assert 2 == ended.counts["undelivered"]
    assert ["undelivered"] == runs.statuses("e0")


# S3


def test_s3(bucket: Any, runs: FileRuns, s3_url: str) -> None:
    """A file arrives in a bucket, under its final name at once."""
    store = open_store("s3")

    ended = runs.run(rows(100), store, paths=FilePaths("in"))

    assert 100 == ended.counts["delivered"]
    (found,) = bucket.objects.all()
    assert found.key.startswith("in/usageplace_events_20260114T030000Z_")
    assert 100 == len(found.get()["Body"].read().splitlines())
    assert ["sending", "publishing", "delivered"] == runs.statuses(found.key.removeprefix("in/"))
    assert f"{s3_url}/{BUCKET}" == store.destination


def test_s3_does_not_replace(bucket: Any) -> None:
    """An object that is there is left alone."""
    store = open_store("s3")
    store.put(io.BytesIO(b"old"), "a", replace=False)

    with pytest.raises(FileExistsError):
        store.put(io.BytesIO(b"new"), "a", replace=False)

    assert (3, b"old") == (store.look("a"), bucket.Object("a").get()["Body"].read())


def test_s3_look_and_remove(bucket: Any) -> None:
    """What is not there has no size, and need not be there to be removed."""
    store = open_store("s3")
    store.put(io.BytesIO(b""), "a", replace=True)

    assert (0, None) == (store.look("a"), store.look("b"))
    for _ in range(2):
        store.remove("a")
    assert store.look("a") is None


def test_s3_bucket_in_the_folder(bucket: Any, s3_url: str, runs: FileRuns) -> None:
    """Where the connection names no bucket, the folder begins with it."""
    extra = {"endpoint_url": s3_url, "region_name": "eu-north-1"}
    with connection("files", conn_type="aws", login="key", password="secret", extra=extra):
        store = open_store("files")
        ended = runs.run(rows(2), store, paths=FilePaths(f"{BUCKET}/in"))

    assert 2 == ended.counts["delivered"]
    assert ["in"] == [found.key.partition("/")[0] for found in bucket.objects.all()]


def test_s3_is_not_there(bucket: Any, runs: FileRuns) -> None:
    """A service that does not answer leaves the events for the next try."""
    extra = {"endpoint_url": "http://127.0.0.1:1", "config_kwargs": {"retries": {"max_attempts": 0}}}
    with connection("files", conn_type="aws", login="key", password="secret", extra=extra):
        ended = runs.run(rows(2), open_store("files"), paths=FilePaths(BUCKET))

    assert isinstance(ended.stopped, FileStoreError)
    assert 2 == ended.counts["undelivered"]


# Connections


def test_folder(runs: FileRuns, folder: Path) -> None:
    """A connection of type fs leads to a folder."""
    with connection("files", conn_type="fs", extra={"path": str(folder)}):
        store = open_store("files")
        ended = runs.run(rows(2), store)

    assert 2 == ended.counts["delivered"]
    assert f"file://{folder}" == store.destination
    assert 1 == len(names(folder))


def test_other_connections(folder: Path) -> None:
    """A connection of another type is refused."""
    with (
        connection("files", conn_type="http", host="example.com"),
        pytest.raises(RopoConfigurationError, match="'files' is of type http; files go to one of type fs, sftp, aws"),
    ):
        open_store("files")
