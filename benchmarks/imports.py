"""What it costs Airflow to learn what this package offers, which it asks for at every start.

``python benchmarks/imports.py`` starts fresh Pythons in turn, one that does nothing and one that reads the provider
info, and prints the medians: in milliseconds, so compare them with each other rather than between machines.
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
    """Return how long a Python takes that runs it, in milliseconds."""
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
