"""Server of the sandbox: in a thread for tests, or in its own process."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

from airflow_provider_ropo.sandbox.app import LocalRopo, Settings, create_app
from airflow_provider_ropo.sandbox.request_log import KEPT, Arrival
from airflow_provider_ropo.sandbox.tokens import TWO_HOURS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from fastapi import Request

    from airflow_provider_ropo.sandbox.faults import Fault

START_STOP_TIMEOUT = 10
"""Seconds: the longest time that a start or a stop may take."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""Socket option SO_LINGER with no delay: closing resets the connection (RST) instead of ending it (FIN)."""


class LocalServer(uvicorn.Server):
    """uvicorn server that signals when it is up, ends delays when it stops, and can reset a connection."""

    def __init__(self, ropo: LocalRopo) -> None:
        config = uvicorn.Config(
            create_app(ropo),
            loop="asyncio",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            log_level="warning",
            # The client address must be that of the socket, never one from a header.
            proxy_headers=False,
        )
        super().__init__(config)
        self.up = threading.Event()
        self._ropo = ropo
        ropo.reset = self._reset

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set ``up``."""
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the delays of answers, then stop."""
        self._ropo.stopping.set()
        await super().shutdown(sockets)

    def _reset(self, request: Request) -> None:
        for connection in list(self.server_state.connections):
            if getattr(connection, "client", None) == request.scope["client"]:
                transport = connection.transport
                peer = transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """Open the socket before the server runs: a port in use fails at once, and early requests wait in the queue."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def address(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Sandbox:
    """A local Ropo One in a thread of this process, on loopback, for the length of a ``with`` block.

    Args:
        latency: seconds by which every answer to an event is delayed.
        token_ttl: seconds for which a token is valid.
        cid: the customer number that may sign in.
        apicode: the API code of that customer number.
        accept_jobid_string: accept a ``jobid`` as text (``"1234"``), too, as in the documentation's examples.
        keep: the maximum number of arrivals kept.
        port: the port to listen on; 0 picks a free one.

    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        token_ttl: float = TWO_HOURS,
        cid: str = Settings.cid,
        apicode: str = Settings.apicode,
        accept_jobid_string: bool = False,
        keep: int = KEPT,
        port: int = 0,
    ) -> None:
        self._ropo = LocalRopo(Settings(cid, apicode, latency, token_ttl, accept_jobid_string, keep))
        self._server = LocalServer(self._ropo)
        self._port = port
        self.cid = cid
        self.apicode = apicode
        self.url = ""
        """``http://127.0.0.1:PORT``, once it runs."""

    def __enter__(self) -> Self:
        listening = listen("127.0.0.1", self._port)
        self.url = address(listening)
        self._thread = threading.Thread(target=self._server.run, args=([listening],), name="ropo-sandbox", daemon=True)
        self._thread.start()
        if not self._server.up.wait(START_STOP_TIMEOUT):
            raise RuntimeError("The sandbox did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(START_STOP_TIMEOUT)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads of the accepted events, in the order in which they arrived."""
        return [arrival.payload for arrival in self._ropo.request_log.arrivals(refused=False)]

    @property
    def arrivals(self) -> list[Arrival]:
        """Everything that was posted as an event, accepted or not, in the order in which it arrived."""
        return self._ropo.request_log.arrivals()

    @property
    def sign_ins(self) -> int:
        """The number of tokens issued."""
        return self._ropo.request_log.sign_ins

    def clear(self) -> None:
        """Delete arrivals, counts and unused faults. Tokens stay valid."""
        self._ropo.clear()

    def script(self, faults: Iterable[Fault]) -> None:
        """Apply these faults to the next events, one each."""
        self._ropo.event_faults.extend(faults)

    def script_sign_in(self, faults: Iterable[Fault]) -> None:
        """Apply these faults to the next sign-ins, one each."""
        self._ropo.sign_in_faults.extend(faults)
