"""Time that Airflow needs to read the provider info, which it does at every start.

``python benchmarks/imports.py`` starts new Python processes in turn: one that does nothing, one that imports ``typing``
and one that reads the provider info. It prints the medians in milliseconds; compare them with each other, not between
machines.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "Python's own start": "pass",
    "and `typing`": "import typing",
    "the provider info": "from airflow_provider_ropo.provider_info import get_provider_info; get_provider_info()",
}
ROUNDS = 40


def start(program: str) -> float:
    """Run a program in a new Python process; return the time in milliseconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure, and print a table."""
    took: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            took[name].append(start(program))
    medians = {name: statistics.median(times) for name, times in took.items()}
    own = medians["Python's own start"]
    print(f"median of {ROUNDS} starts each")
    for name, median in medians.items():
        print(f"  {name:<20} {median:6.1f} ms   +{median - own:5.1f} ms   {median / own:5.2f} x")


if __name__ == "__main__":
    main()
