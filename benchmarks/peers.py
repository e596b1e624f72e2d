"""Other ways to post, for comparison: a thread pool, a loop, aiohttp, and Airflow's own HTTP provider."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ours import Stopwatch, Took, payloads

PATH = "/rest/usageplace/event"
HEADERS = {"Authorization": "Bearer benchmark"}
HTTP_DAG = """
import json
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.operators.http import HttpOperator

PAYLOADS = json.loads({payloads!r})
HEADERS = {{"Authorization": "Bearer benchmark", "Content-Type": "application/json"}}

with DAG("mapped", schedule=None, start_date=datetime(2024, 1, 1)) as mapped:
    HttpOperator.partial(
        task_id="post", http_conn_id="ropo", endpoint={path!r}, method="POST", headers=HEADERS, log_response=False
    ).expand(data=[json.dumps(payload) for payload in PAYLOADS])

with DAG("looped", schedule=None, start_date=datetime(2024, 1, 1)) as looped:

    @task
    def post():
        hook = HttpHook(http_conn_id="ropo", method="POST")
        for payload in PAYLOADS:
            hook.run({path!r}, data=json.dumps(payload), headers=HEADERS)

    post()

if __name__ == "__main__":
    import sys
    import time

    dag = {{"mapped": mapped, "looped": looped}}[sys.argv[1]]
    started = time.perf_counter()
    assert dag.test().state == "success"
    print("seconds", time.perf_counter() - started)
"""


def pool(server: str, count: int, workers: int) -> Took:
    """Post with a pool of threads with a session each, and nothing else."""
    messages, local = payloads(count), threading.local()

    def post(payload: dict[str, Any]) -> int:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers.update(HEADERS)
        return int(local.session.post(server + PATH, json=payload).status_code)

    with Stopwatch() as watch, ThreadPoolExecutor(workers) as threads:
        assert {200} == set(threads.map(post, messages))
    return watch.took


def loop(server: str, count: int) -> Took:
    """Post with one session, one event after another."""
    messages = payloads(count)
    with requests.Session() as session:
        session.headers.update(HEADERS)
        with Stopwatch() as watch:
            for payload in messages:
                assert session.post(server + PATH, json=payload).ok
    return watch.took


def with_aiohttp(server: str, count: int, workers: int) -> Took:
    """Post with aiohttp, with this number of workers."""
    messages = iter(payloads(count))

    async def work(session: aiohttp.ClientSession) -> None:
        for payload in messages:
            async with session.post(server + PATH, json=payload) as answer:
                assert answer.ok
                await answer.read()

    async def run() -> None:
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            await asyncio.gather(*(work(session) for _ in range(workers)))

    with Stopwatch() as watch:
        asyncio.run(run())
    return watch.took


def through_airflow(server: str, counts: dict[str, int]) -> dict[str, float]:
    """Post with Airflow's HTTP provider, in real DAG runs; return events a second.

    :param counts: the number of events: ``mapped``, one HttpOperator for each row; ``looped``, a hook in a loop in one
        task.
    """
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = os.environ | {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": folder,
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_ROPO": json.dumps({"conn_type": "http", "host": server}),
        }
        airflow = Path(sys.executable).parent / "airflow"
        run: Callable[..., Any] = subprocess.run
        options = {"env": environment, "check": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        run([airflow, "db", "migrate"], **options)
        for name, count in counts.items():
            dag = home / f"{name}.py"
            dag.write_text(HTTP_DAG.format(payloads=json.dumps(payloads(count)), path=PATH))
            output = run([sys.executable, dag, name], text=True, **options).stdout
            rates[name] = count / float(output.rpartition("seconds")[2])
    return rates
