"""Run the daily example DAG in a real Airflow, against the sandbox, and show which events arrived and which did not."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

import stage

DAG_ID = "ropo_usageplace_events_daily"
DAY = dt.date(2026, 1, 14)


def main() -> None:
    """Run the demo."""
    shutil.rmtree(stage.ROOT / ".demo", ignore_errors=True)
    home, warehouse = stage.fresh_home(".demo", last_day=DAY, days=1)
    log = home / "airflow.log"
    print(f"Warehouse   {warehouse.relative_to(stage.ROOT)}: 12 rows of field work done on {DAY}")
    with stage.sandbox() as address:
        print(f"Ropo One    the sandbox, on {address}")
        environment = stage.environment(home) | stage.as_variables(stage.connections(warehouse, address))
        print("Airflow     creating its database …", flush=True)
        if stage.airflow("db", "migrate", environment=environment, log=log):
            sys.exit(f"Airflow could not create its database; see {log}")
        print(f"Airflow     running {DAG_ID} for {DAY} …", flush=True)
        morning_after = f"{DAY + dt.timedelta(days=1)}T05:00:00+02:00"
        stage.airflow("dags", "test", DAG_ID, morning_after, environment=environment, log=log)
        with urllib.request.urlopen(f"{address}/events?all=true", timeout=10) as answer:
            arrivals = json.load(answer)
    report(arrivals, log)


def report(arrivals: list[dict[str, Any]], log: Path) -> None:
    """Print the events in the sandbox, and the summary in the task's log."""
    accepted = [arrival["payload"] for arrival in arrivals if arrival["http_status"] == 200]  # noqa: PLR2004
    print(f"\nArrived at Ropo One: {len(accepted)} events\n")
    # Several events are posted in parallel, so only the events of one usage place arrive in order.
    for event in sorted(accepted, key=lambda event: str(event["time"])):
        invoices = len(event.get("invoices", ()))
        print(
            f"  {event['time']}  {event['status']:<15}  {event['usageplacecode']:<18}  {event['id']:<11}  "
            f"{invoices} invoice{'s' if invoices != 1 else ''}  {event['description']}"
        )
    summary = re.search(r"([\d,]+ of [\d,]+ events are at Ropo One:.*(?:\n  \S.*)*)", log.read_text())
    if summary is None:
        sys.exit(f"\nThe task did not finish; see {log}")
    print(f"\nThe task failed, because two rows must be fixed in the source table:\n\n{summary.group(1)}")
    print(f"\nThe full log: {log.relative_to(stage.ROOT)}. In the browser: make airflow")


if __name__ == "__main__":
    main()
