"""Run a whole Airflow for the browser, with connections, DAGs, a warehouse and the sandbox."""

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
        print("Creating Airflow's database …", flush=True)
        known = home / "connections.json"
        known.write_text(json.dumps(stage.connections(warehouse, address)))
        steps = (("db", "migrate"), ("connections", "import", "--overwrite", str(known)))
        if any(stage.airflow(*step, environment=environment, log=log) for step in steps):
            sys.exit(f"Airflow could not be set up; see {log}")
        print(
            f"\n  Airflow    http://127.0.0.1:8080 (no login), ready in about half a minute\n"
            f"  Ropo One   {address} (its page shows the events that arrive)\n"
            f"  Warehouse  {warehouse}: {DAYS} days, up to yesterday\n\n"
            f"  Open the DAG ropo_usageplace_events_daily and unpause it: it runs for yesterday. Then choose Trigger, "
            f"Backfill,\n  from {today - dt.timedelta(days=DAYS)} to {today}. The tasks fail as intended: each day has "
            f"two bad rows.\n  The delivery status of the events is on the page Ropo One, and on the tab Ropo One of "
            f"each task's page.\n  Ctrl+C ends everything. Airflow's own log: {home / 'standalone.log'}\n",
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
            sys.exit(f"Airflow ended with code {code}; see {home / 'standalone.log'}")


if __name__ == "__main__":
    main()
