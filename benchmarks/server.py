"""Minimal Ropo One for measuring clients: an asyncio protocol in a process of its own.

``python benchmarks/server.py LATENCY`` prints its port, and answers every sign-in with a token and every event with an
empty 200, LATENCY seconds after the request.
"""

from __future__ import annotations

import asyncio
import sys

TOKEN = b'{"token": "benchmark"}'
ANSWERS = {
    True: b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(TOKEN), TOKEN),
    False: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}
LENGTH = b"content-length: "


class RopoOne(asyncio.Protocol):
    """Answers the requests of one connection, which arrive one after another."""

    latency = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Answer a request after its last byte has arrived."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered[lowered.index(LENGTH) + len(LENGTH) :].split(b"\r\n", 1)[0]) if end else 0
        if end and len(body) >= length:
            self._received = b""
            answer = ANSWERS[head.startswith(b"POST /rest/token ")]
            if self.latency:
                asyncio.get_running_loop().call_later(self.latency, self._transport.write, answer)
            else:
                self._transport.write(answer)


async def serve(latency: float) -> None:
    """Answer requests until the process is ended."""
    RopoOne.latency = latency
    server = await asyncio.get_running_loop().create_server(RopoOne, "127.0.0.1", 0, backlog=128)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
