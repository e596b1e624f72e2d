"""Explore histories until told to stop: ``make simulate``, or ``python tests/simulation [FIRST SEED]``."""

from __future__ import annotations

import itertools
import logging
import sys
import time

from simulator import explore

#: Histories between two lines.
CHUNK = 1_000


def main() -> None:
    """Count histories; end with the first that fails."""
    logging.disable()
    first, began = int(sys.argv[1]) if len(sys.argv) > 1 else 0, time.monotonic()
    for chunk in itertools.count():
        seeds = range(first + chunk * CHUNK, first + (chunk + 1) * CHUNK)
        for history, wrong in explore(seeds):
            sys.exit(f"{wrong}\n{history}")
        rate = (chunk + 1) * CHUNK / (time.monotonic() - began)
        print(f"{(chunk + 1) * CHUNK:,} histories, {rate:,.0f} a second, none fails", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
