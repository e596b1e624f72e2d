"""A server on loopback that answers byte for byte as a test wants, and a proxy in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

APICODE = "hunter2-hunter2"
TOKEN = "e30.e30.c2lnbmF0dXJl"
RESET = struct.pack("ii", 1, 0)
#: A name that only a proxy can make something of.
ELSEWHERE = "ropo.invalid"
FLOOD = 256 * 1024 * 1024


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer as it goes over the connection."""
    lines = {"Content-Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


SIGNED_IN = http(201, json.dumps({"token": TOKEN}).encode())
#: The same, told in a way that leaves no doubt that the next request needs a connection of its own.
SIGNED_IN_AND_CLOSED = http(201, json.dumps({"token": TOKEN}).encode(), Connection="close")
ACCEPTED = http(200)


@dataclass(frozen=True)
class Reply:
    """What a server answers to one request, and what it does to the connection then.

    :param then: ``keep``, ``close``, ``reset``, ``hold`` in silence, ``drip`` or ``flood``; ``drip-and-end`` ends well
        within half a second, ``unwrap`` leaves TLS.
    :param drop: what drips, twenty times a second.
    """

    data: bytes = b""
    then: str = "keep"
    drop: bytes = b"0"


class RawServer:
    """A server on loopback that answers byte for byte what a test wants, and keeps the requests it got.

    :param answers: its answers to the coming events, the last one to all that follow.
    :param sign_in: its answer to sign-ins.
    """

    def __init__(self, *answers: Reply, sign_in: Reply = Reply(SIGNED_IN), tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.flooded = 0
        self._answers = list(answers) or [Reply(ACCEPTED)]
        self._sign_in = sign_in
        self._tls = tls
        self._handshake = "keep"
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for opened in (self._listening, *self._open):
            # Closing alone does not wake a thread that waits in it.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [line.split()[1] for line, _headers, _body in self.requests]

    @property
    def events(self) -> list[Any]:
        """The bodies of the events that came, in order."""
        return [json.loads(body) for line, _, body in self.requests if "/rest/usageplace/event" in line]

    def refuse_tls(self, then: str) -> None:
        """Break off the handshake of connections to come: reset, close, or hold still."""
        self._handshake = then

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls and self._handshake != "keep":
                connection.recv(65536)
                self._leave(connection, Reply(then=self._handshake))
                connection.close()
                return
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            with connection.makefile("rb") as stream:
                while request := self._read(stream):
                    self.requests.append(request)
                    if not self._answer(connection, request):
                        break
        connection.close()

    def _leave(self, connection: socket.socket, reply: Reply) -> None:
        how = reply.then
        if how == "hold":
            self._over.wait(10)
        if how == "drip":
            # Far longer than any timeout here, and not for ever.
            for _ in range(600):
                connection.sendall(reply.drop)
                self._over.wait(0.05)
        if how == "drip-and-end":
            for _ in range(8):
                connection.sendall(reply.drop)
                self._over.wait(0.05)
            connection.sendall(b"\r\nContent-Length: 0\r\n\r\n")
        while how == "flood" and self.flooded < FLOOD:
            self.flooded += connection.send(bytes(65536))
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _read(self, stream: Any) -> tuple[str, dict[str, str], bytes] | None:
        line = stream.readline().decode().strip()
        if not line:
            return None
        headers = {}
        while header := stream.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.title()] = value.strip()
        return line, headers, stream.read(int(headers.get("Content-Length", 0)))

    def _answer(self, connection: socket.socket, request: tuple[str, dict[str, str], bytes]) -> bool:
        reply = self._sign_in if "/rest/token" in request[0] else self._answers[0]
        if reply is self._answers[0] and len(self._answers) > 1:
            del self._answers[0]
        connection.sendall(reply.data)
        self._leave(connection, reply)
        if reply.then == "unwrap" and self._tls:
            # Plain text in the middle of TLS, as from a box on the way.
            with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                plain.sendall(http(502))
        return reply.then in {"keep", "drip-and-end"}


class TunnelProxy(RawServer):
    """A proxy that lets the first connection through to a port on loopback, and answers the later ones itself.

    :param greeting: its answer to the first connection.
    """

    def __init__(self, target: int, *answers: Reply, greeting: bytes = ACCEPTED) -> None:
        super().__init__(*answers or (Reply(http(502), "close"),))
        self._target = target
        self._greeting = greeting

    def _answer(self, connection: socket.socket, request: tuple[str, dict[str, str], bytes]) -> bool:
        if len(self.requests) > 1:
            return super()._answer(connection, request)
        with socket.create_connection(("127.0.0.1", self._target)) as onward:
            connection.sendall(self._greeting)
            self._open.append(onward)
            self._start(self._pipe, onward, connection)
            self._pipe(connection, onward)
        return False

    def _pipe(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
