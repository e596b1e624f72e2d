"""Run a whole Airflow for the browser, with connections, DAGs, a warehouse and the sandbox."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import stage

DAYS = 5
ROPO_PORT = 8099
AIRFLOW_PORT = 8080


def main() -> None:
    """Run it until Ctrl+C."""
    for port in (AIRFLOW_PORT, ROPO_PORT):
        if stage.is_in_use(port):
            sys.exit(f"Port {port} is in use: end the program that uses it, then run `make airflow` again")
    today = dt.datetime.now().astimezone().date()
    home, warehouse = stage.fresh_home(".airflow", last_day=today - dt.timedelta(days=1), days=DAYS)
    environment = stage.environment(home)
    log = home / "setup.log"
    with stage.sandbox(ROPO_PORT) as address:
        print("Creating Airflow's database …", flush=True)
        known = home / "connections.json"
        known.write_text(json.dumps(stage.connections(warehouse, address)))
        steps = (("db", "migrate"), ("connections", "import", "--overwrite", str(known)))
        if any(stage.airflow(*step, environment=environment, log=log) for step in steps):
            sys.exit(f"Airflow could not be set up; see {log}")
        print(
            f"\n  Airflow    http://127.0.0.1:{AIRFLOW_PORT} (no login), ready in about half a minute\n"
            f"  Ropo One   {address} (its page shows the events that arrive)\n"
            f"  Warehouse  {warehouse}: {DAYS} days, up to yesterday\n\n"
            f"  1. Open the DAG ropo_usageplace_events_daily, and unpause it. Its run takes all {DAYS} days.\n"
            f"     It fails as intended: each day has two bad rows. All other events arrive.\n"
            f"  2. Look at the page Ropo One in the sidebar, and at the tab Ropo One of the task instance.\n"
            f"  3. Choose Trigger, Backfill, from {today - dt.timedelta(days=DAYS)} 00:00 to {today} 00:00. "
            f"Nothing is posted twice.\n\n"
            f"  Ctrl+C ends everything. Airflow's own log: {home / 'standalone.log'}\n",
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
