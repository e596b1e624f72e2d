"""A whole Airflow to try things out in the browser: connections, DAGs, a warehouse and the sandbox in place."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import stage

DAYS = 5
PORT = 8099


def main() -> None:
    """Run it until Ctrl+C."""
    today = dt.datetime.now().astimezone().date()
    home, warehouse = stage.fresh_home(".airflow", last_day=today - dt.timedelta(days=1), days=DAYS)
    environment = stage.environment(home)
    log = home / "setup.log"
    with stage.sandbox(PORT) as address:
        print("Making Airflow's database …", flush=True)
        known = home / "connections.json"
        known.write_text(json.dumps(stage.connections(warehouse, address)))
        steps = (("db", "migrate"), ("connections", "import", "--overwrite", str(known)))
        if any(stage.airflow(*step, environment=environment, log=log) for step in steps):
            sys.exit(f"Airflow could not be set up; {log} says why.")
        print(
            f"\n  Airflow    http://127.0.0.1:8080 (no login), up in about half a minute\n"
            f"  Ropo One   {address} (the events as they come in)\n"
            f"  Warehouse  {warehouse}: {DAYS} days, up to yesterday\n\n"
            f"  Open the DAG ropo_usageplace_events_daily and unpause it: yesterday runs by itself. Then Trigger, "
            f"Backfill,\n  from {today - dt.timedelta(days=DAYS)} to {today}. The tasks turn red, as they should: each "
            f"day has two bad rows.\n  What became of each event is on the page Ropo One, and in the tab of that name "
            f"on each task's page.\n  Ctrl+C ends everything. Airflow's own log: {home / 'standalone.log'}\n",
            flush=True,
        )
        with (home / "standalone.log").open("wb") as output:
            command = [str(stage.BIN / "airflow"), "standalone"]
            with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
                try:
                    code = process.wait()
                except KeyboardInterrupt:
                    process.terminate()
                    code = 0
        if code:
            sys.exit(f"Airflow ended with code {code}; {home / 'standalone.log'} says why.")


if __name__ == "__main__":
    main()
