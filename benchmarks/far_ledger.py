"""How posting fares with a ledger that is far away: a local PostgreSQL behind a link with a given round trip.

``python benchmarks/far_ledger.py`` prints a row for each round trip: the speed from the first accepted post to the
last, to the ideal (the workers are never idle), and the ledger's round trips an event.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from ours import open_ledger, post, serving
from posting import postgres

#: Seconds of a post, and posts side by side.
LATENCY, WORKERS = 0.05, 8
#: Milliseconds of a round trip → events, and what is to be reached of the ideal.
LENGTHS = {0: (1_500, 0.90), 20: (1_500, 0.90), 100: (1_500, 0.85), 300: (3_000, 0.75)}


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Carry bytes one way, each that much later than it came, in their order."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await pieces.get()
            await asyncio.sleep(max(due - loop.time(), 0))
            if not data:
                writer.close()
                return
            writer.write(data)

    sending = asyncio.create_task(deliver())
    while data := await reader.read(65_536):
        pieces.put_nowait((loop.time() + delay, data))
    pieces.put_nowait((loop.time() + delay, b""))
    await sending


async def serve(host: str, port: int, delay: float) -> None:
    """Forward to a server with a delay: print the port, and carry until the process ends.

    :param host: its address, or the folder of its socket.
    :param delay: seconds one way.
    """

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if host.startswith("/"):
            there, back = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(carry(reader, back, delay), carry(there, writer, delay), return_exceptions=True)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def link(host: str, port: int, milliseconds: float) -> Iterator[int]:
    """Run a link with that round trip in a process of its own; give its port."""
    command = [sys.executable, __file__, "--link", host, str(port), str(milliseconds / 2_000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def measure(address: sa.engine.URL, milliseconds: int, count: int) -> tuple[float, float]:
    """Return the speed to the ideal, and round trips an event."""
    trips = 0
    with link(str(address.query["host"]), address.port or 5432, milliseconds) as port, serving(LATENCY) as server:
        near = address.set(host="127.0.0.1", port=port, query={})
        engine = sa.create_engine(near, hide_parameters=True)

        @sa.event.listens_for(engine, "before_cursor_execute")
        def count_trips(*_statement: object) -> None:
            nonlocal trips
            trips += 1

        ledger = open_ledger(engine, f"run {milliseconds}")
        trips = 0
        took = post(server, count, WORKERS, ledger, prefix=f"{milliseconds}-", from_first_post=True)
    return count * LATENCY / WORKERS / took.seconds, trips / count


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS), help="milliseconds of a round trip")
    given = parser.parse_args()
    print(f"{'round trip':<12}{'events':>8}{'of the ideal':>14}{'to reach':>10}{'trips an event':>16}", flush=True)
    with tempfile.TemporaryDirectory() as folder, postgres(Path(folder)) as address:
        for milliseconds in given.lengths:
            count, goal = LENGTHS[milliseconds]
            reached, trips = measure(sa.make_url(address), milliseconds, count)
            print(f"{milliseconds:>7} ms  {count:>8,}{reached:>14.2f}{goal:>10.2f}{trips:>16.3f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--link"]:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        main()
