"""SFTP drop folder of the sandbox: a server for one user, who sees one folder and nothing else."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

START_STOP_TIMEOUT = 10
"""Seconds: the longest time that a start or a stop may take."""


@dataclass(frozen=True)
class FileArrival:
    """A file in the drop folder."""

    name: str
    size: int
    lines: int
    time: str


class _Login(asyncssh.SSHServer):
    def __init__(self, login: str, password: str, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._pair = (login, password)
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.add(conn)

    def begin_auth(self, username: str) -> bool:
        del username
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == self._pair


class DropFolder:
    """SFTP server in a thread of this process, for the length of a ``with`` block.

    Args:
        root: the folder that the user sees as the root of the server.
        login: the user who may sign in.
        password: that user's password.
        host: the address to listen on.
        port: the port to listen on; 0 picks a free one.
        make_server: makes the server of a session; by default, asyncssh's own.

    """

    def __init__(
        self,
        root: Path,
        *,
        login: str = "ropo",
        password: str = "sandbox",  # noqa: S107 - the sandbox's documented password
        host: str = "127.0.0.1",
        port: int = 0,
        make_server: Callable[[asyncssh.SSHServerChannel[bytes]], asyncssh.SFTPServer] | None = None,
    ) -> None:
        self.root = root
        self.login = login
        self.password = password
        self.host = host
        self.port = port
        self._make_server = make_server or (lambda channel: asyncssh.SFTPServer(channel, chroot=str(root).encode()))
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ropo-drop-folder", daemon=True)

    @property
    def host_key(self) -> str:
        """The server's public key, as a connection's extra ``host_key`` takes it."""
        return self._key.export_public_key().decode().strip()

    @property
    def connection(self) -> dict[str, object]:
        """An Airflow connection to this server, as plain data."""
        return {
            "conn_type": "sftp",
            "host": self.host,
            "port": self.port,
            "login": self.login,
            "password": self.password,
            "extra": {"host_key": self.host_key},
        }

    @property
    def files(self) -> list[FileArrival]:
        """The files in the folder and below, the newest first; those that are still uploaded are left out."""
        found = [path for path in self.root.rglob("*") if path.is_file() and path.suffix != ".part"]
        arrivals = []
        for path in found:
            try:
                status, content = path.stat(), path.read_bytes()
            except FileNotFoundError:
                # Collected meanwhile.
                continue
            moment = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds")
            lines = content.count(b"\n")
            arrivals.append(FileArrival(path.relative_to(self.root).as_posix(), status.st_size, lines, moment))
        return sorted(arrivals, key=lambda arrival: (arrival.time, arrival.name), reverse=True)

    def __enter__(self) -> Self:
        self._thread.start()
        acceptor = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_STOP_TIMEOUT)
        self.port = acceptor.get_port()
        self._acceptor = acceptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_STOP_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_STOP_TIMEOUT)
        self._loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            self.host,
            self.port,
            server_factory=lambda: _Login(self.login, self.password, self._connections),
            server_host_keys=[self._key],
            sftp_factory=self._make_server,
            allow_scp=False,
        )

    async def _close(self) -> None:
        self._acceptor.close()
        for connection in list(self._connections):
            connection.abort()
            await connection.wait_closed()
        # From Python 3.12 on, it waits for the connections, too.
        await self._acceptor.wait_closed()
        # Closed sockets are let go in the loop's next turns.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)
