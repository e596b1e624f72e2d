"""The destinations of files behind Airflow's connections: a folder, an SFTP server, a bucket of S3.

Each is one class with the four methods of :class:`~airflow_provider_ropo.export.store.FileStore`, over the hook of the
connection's own provider.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.store import FileStore

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.providers.sftp.hooks.sftp import SFTPHook
    from paramiko import SFTPClient

#: Bytes of one write to an SFTP server; every server takes as many.
CHUNK_SIZE = 32_768
#: Seconds that an SFTP server has for each answer.
ANSWER_TIMEOUT = 60.0


def open_store(conn_id: str) -> FileStore:
    """Return the store that a connection leads to.

    :raises RopoConfigurationError: if its type is none of those here, or its provider is not installed.
    """
    connection = BaseHook.get_connection(conn_id)
    stores: dict[str, Callable[[str], FileStore]] = {
        "fs": _folder_of_connection,
        "sftp": SftpStore.of_connection,
        "aws": S3Store.of_connection,
    }
    if connection.conn_type not in stores:
        raise RopoConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type}; files go to one of type {', '.join(stores)}"
        )
    return stores[connection.conn_type](conn_id)


def _folder_of_connection(conn_id: str) -> FileStore:
    """Return the store of a connection of type ``fs``, whose extra has the folder's ``path``."""
    return FolderStore(Path(BaseHook.get_connection(conn_id).extra_dejson.get("path") or "/"))


class SftpStore(FileStore):
    """An SFTP server, through the hook of Airflow's own provider. Its host key is always checked.

    :param hook: of a connection of type ``sftp``.
    """

    def __init__(self, hook: SFTPHook) -> None:
        # The default of some versions is not to check it.
        hook.no_host_key_check = False
        self._hook = hook
        self._client: SFTPClient | None = None

    @classmethod
    def of_connection(cls, conn_id: str) -> SftpStore:
        """Return the store of a connection.

        :raises RopoConfigurationError: if the connection asks not to check the server's host key.
        """
        try:
            from airflow.providers.sftp.hooks.sftp import SFTPHook
        except ImportError:
            raise _missing("sftp", "sftp") from None
        extra = BaseHook.get_connection(conn_id).extra_dejson
        for name in ("no_host_key_check", "ignore_hostkey_verification", "allow_host_key_change"):
            if str(extra.get(name, "")).casefold() == "true":
                raise RopoConfigurationError(
                    f"connection {conn_id!r}: extra {name!r} must not be true; the server's host key is always "
                    "checked: put it into extra 'host_key', or into the worker's known_hosts"
                )
        hook = SFTPHook(ssh_conn_id=conn_id)
        # A task is tried again by Airflow: a wrong password is not, three times in a row, by the hook.
        hook.conn_retry_attempts = 1
        return cls(hook)

    @property
    def destination(self) -> str:
        """The server's address, with the user."""
        return f"sftp://{self._hook.username}@{self._hook.remote_host}:{self._hook.port}"

    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        """Write a file."""
        with self._connected() as client:
            target = client.open(name, "wb" if replace else "wbx")
            try:
                with target:
                    _write_all(file, target)
            except Exception:
                if not replace:
                    # Nobody must take half a file for a whole one.
                    with suppress(Exception):
                        client.remove(name)
                raise

    def publish(self, temporary: str, name: str) -> None:
        """Rename a file: by the protocol's own request, which does not replace; never by ``posix-rename``."""
        with self._connected() as client:
            client.rename(temporary, name)

    def look(self, name: str) -> int | None:
        """Return a file's size; from the folder's list, where the server allows no ``stat``."""
        with self._connected() as client:
            try:
                size: int | None = client.stat(name).st_size
                return size
            except FileNotFoundError:
                return None
            except OSError as error:
                _refuse_lost(error)
            folder, _, plain = name.rpartition("/")
            try:
                listed = {each.filename: each.st_size for each in client.listdir_attr(folder or ".")}
            except OSError as error:
                _refuse_lost(error)
                raise PermissionError(errno.EACCES, "the server does not tell what is there", name) from None
            if plain in listed and listed[plain] is None:
                raise PermissionError(errno.EACCES, "the server does not tell how large a file is", name)
            return listed.get(plain)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._connected() as client, suppress(FileNotFoundError):
            client.remove(name)

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            channel = client.get_channel()
            transport = channel.get_transport() if channel is not None else None
            with suppress(Exception):
                client.close()
            if transport is not None:
                transport.close()
        self._hook.conn = None

    @contextmanager
    def _connected(self) -> Iterator[SFTPClient]:
        """Give the client; drop it if the connection is lost.

        :raises ConnectionError: if the server is gone before it has answered.
        """
        from paramiko import SSHException

        if self._client is None:
            self._client = self._connect()
        try:
            yield self._client
        except (SSHException, EOFError, TimeoutError, ConnectionError) as error:
            self.close()
            raise ConnectionError(f"the server did not answer: {error or type(error).__name__}") from error
        except OSError as error:
            if _is_lost(error):
                self.close()
                raise ConnectionError("the connection was closed") from error
            raise

    def _connect(self) -> SFTPClient:
        from paramiko import AuthenticationException, BadHostKeyException, SSHException

        try:
            client = self._hook.get_conn()
        except (AuthenticationException, BadHostKeyException) as error:
            self.close()
            raise self._refused(error) from None
        except SSHException as error:
            self.close()
            if "not found in known_hosts" in str(error):
                raise self._refused(error) from None
            raise ConnectionError(str(error)) from error
        except EOFError as error:
            self.close()
            raise ConnectionError("the server closed the connection") from error
        channel = client.get_channel()
        if channel is not None:
            channel.settimeout(ANSWER_TIMEOUT)
        return client

    def _refused(self, error: Exception) -> RopoConfigurationError:
        return RopoConfigurationError(
            f"connection {self._hook.ssh_conn_id!r}: {error}; the server's host key belongs into extra 'host_key' (as "
            "ssh-keyscan prints it, without the host's name), and must be got from its owner"
        )


def _refuse_lost(error: OSError) -> None:
    """Raise an error again that is no answer of the server."""
    if _is_lost(error):
        raise error


def _is_lost(error: OSError) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or str(error) == "Socket is closed"


def _write_all(file: BinaryIO, target: Any) -> None:
    """Write to a file at an SFTP server, and wait until each write is answered."""
    chunk = file.read(CHUNK_SIZE)
    # Many writes are on their way at a time. Paramiko ends a file without reading the last answers, so the last write
    # is not one of them: it waits for its own answer and all before.
    target.set_pipelined(True)
    while chunk:
        following = file.read(CHUNK_SIZE)
        if not following:
            target.set_pipelined(False)
        target.write(chunk)
        chunk = following


class S3Store(FileStore):
    """A bucket of S3, or of a service that speaks like it. An object appears whole, or not at all.

    :param hook: of a connection of type ``aws``.
    :param bucket: the bucket that the connection names; None: the first part of each name is the bucket.
    """

    can_rename: ClassVar[bool] = False

    def __init__(self, hook: S3Hook, bucket: str | None = None) -> None:
        self._hook = hook
        self._bucket = bucket
        self._client: Any = None

    @classmethod
    def of_connection(cls, conn_id: str) -> S3Store:
        """Return the store of a connection; its extra ``service_config`` may name the bucket."""
        try:
            from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        except ImportError:
            raise _missing("aws", "amazon") from None
        hook = S3Hook(aws_conn_id=conn_id)
        return cls(hook, hook.service_config.get("bucket_name"))

    @property
    def destination(self) -> str:
        """The bucket's address, or the service's."""
        base = str(self._hook.conn_config.endpoint_url or "s3:/")
        return f"{base}/{self._bucket}" if self._bucket else base

    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        """Make an object in one request, on the condition that there is none."""
        condition = {} if replace else {"IfNoneMatch": "*"}
        with self._translated():
            self._connect().put_object(Body=file, **self._address(name), **condition)

    def publish(self, temporary: str, name: str) -> None:
        """Objects cannot be renamed."""
        raise NotImplementedError(f"{temporary} cannot be renamed to {name}")

    def look(self, name: str) -> int | None:
        """Return an object's size."""
        try:
            with self._translated():
                return int(self._connect().head_object(**self._address(name))["ContentLength"])
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._translated():
            self._connect().delete_object(**self._address(name))

    def _connect(self) -> Any:
        if self._client is None:
            self._client = self._hook.get_conn()
        return self._client

    def _address(self, name: str) -> dict[str, str]:
        if self._bucket:
            return {"Bucket": self._bucket, "Key": name}
        bucket, _, key = name.partition("/")
        if not key:
            raise RopoConfigurationError("`folder` must begin with the bucket, or the connection name one")
        return {"Bucket": bucket, "Key": key}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
            raise _of_http_status(code, str(error)) from error
        except BotoCoreError as error:
            raise ConnectionError(str(error)) from error


def _of_http_status(code: int, text: str) -> OSError:
    kinds: dict[int, Callable[[], OSError]] = {
        403: lambda: PermissionError(errno.EACCES, text),
        404: lambda: FileNotFoundError(errno.ENOENT, text),
        412: lambda: FileExistsError(errno.EEXIST, text),
    }
    if code in kinds:
        return kinds[code]()
    is_lost = code >= HTTPStatus.INTERNAL_SERVER_ERROR and code != HTTPStatus.NOT_IMPLEMENTED
    return ConnectionError(text) if is_lost else OSError(text)


def _missing(conn_type: str, extra: str) -> RopoConfigurationError:
    return RopoConfigurationError(
        f"a connection of type {conn_type} needs its provider: pip install 'airflow-provider-ropo[{extra}]'"
    )
