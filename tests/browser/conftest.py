"""A whole Airflow under a path of its own, as behind a proxy, and a real browser."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from airflow_provider_ropo.plugins.report import STATIC
from airflow_provider_ropo.sandbox import Sandbox

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: Screenshots for people; the README shows some of them.
PICTURES = ROOT / "build" / "browser"

DAG_ID, TASK_ID = "ropo_usageplace_events_daily", "report_usageplace_events"
#: The example whose events a person approves.
APPROVED_ID = "ropo_usageplace_events_approved"
#: The example that settles events in the ledger.
SETTLE_ID = "ropo_settle"
#: Three days of work; the last has rows that are invalid or rejected.
LAST_DAY, DAYS = dt.date(2026, 1, 14), 3
BAD_DAY = "2026-01-14"
PASSWORDS = {"chief": "chief's own", "visitor": "visitor's own"}

#: Seconds: the longest wait for anything, on a busy machine.
TIMEOUT = 120
DESKTOP = {"width": 1280, "height": 860}
expect.set_options(timeout=TIMEOUT * 1000)
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Airflow:
    """A running Airflow, used as its user "chief"."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{port}/utility"

    def ask(self, path: str, method: str = "GET", **body: Any) -> Any:
        """Ask the REST API; each part of a path has to be escaped."""
        token = self._post("auth/token", {"username": "chief", "password": PASSWORDS["chief"]})["access_token"]
        return self._post(f"api/v2/{path}", body or None, method=method, Authorization=f"Bearer {token}")

    def delete(self, path: str) -> int:
        """Delete something by the REST API; return the status of the answer."""
        token = self._post("auth/token", {"username": "chief", "password": PASSWORDS["chief"]})["access_token"]
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/api/v2/{path}", method="DELETE", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)

    def _post(self, path: str, body: Any, method: str = "POST", **headers: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def wait_for(self, find: Callable[[], Any], what: str) -> Any:
        """Wait until something is there, and return it."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            # While something else writes to its SQLite, Airflow answers with 503, and has to be asked again.
            with suppress(urllib.error.URLError, ConnectionError):
                if found := find():
                    return found
            time.sleep(0.5)
        pytest.fail(f"{what} was not there after {TIMEOUT} s:\n{self.log[-20_000:]}", pytrace=False)

    @property
    def log(self) -> str:
        """The output of all its processes so far."""
        return (self.home / "airflow.log").read_text()

    def trigger(self, dag_id: str, run_id: str) -> None:
        """Start a run."""
        self.ask(f"dags/{dag_id}", "PATCH", is_paused=False)
        self.ask(f"dags/{dag_id}/dagRuns", "POST", dag_run_id=run_id, logical_date=None)

    def wait_for_end(self, dag_id: str, run_id: str) -> str:
        """Wait until a run is over, and return its state."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}"
        ended = {"success", "failed"}
        run = self.wait_for(lambda: (found := self.ask(path))["state"] in ended and found, f"the end of {run_id}")
        return str(run["state"])

    def wait_for_state(self, dag_id: str, run_id: str, state: str, task: str = "report") -> Any:
        """Wait until a task instance is in a state, and return it."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id)}/taskInstances/{task}"
        return self.wait_for(lambda: (found := self.ask(path))["state"] == state and found, f"{state} of {run_id}")

    def report_page(self, run_id: str, task: str = TASK_ID, dag_id: str = DAG_ID) -> str:
        """Return the address of a report; a mapped task is written ``task/mapped/0``."""
        return f"{self.url}/dags/{dag_id}/runs/{quote(run_id, safe=':+~')}/tasks/{task}/plugin/ropo-report"

    def end(self) -> None:
        """End every process of this Airflow, also those in a session of their own."""
        mark = f"AIRFLOW_HOME={self.home}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Run a local Ropo One."""
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """Return a folder for an Airflow."""
    path = Path(tempfile.mkdtemp(prefix="ropo-browser-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def warehouse(home: Path) -> Path:
    """Return the demo's warehouse, where only one day has rows that are invalid or rejected."""
    sys.path.insert(0, str(ROOT / "demo"))
    from warehouse import make_warehouse

    path = home / "warehouse.db"
    make_warehouse(path, last_day=LAST_DAY, days=DAYS)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "DELETE FROM field_work_outcome WHERE done_at NOT LIKE ? "
            "AND (work_order_no LIKE '%-07' OR work_order_no LIKE '%-09')",
            [f"{BAD_DAY}%"],
        )
        database.commit()
    return path


@pytest.fixture(scope="session")
def airflow(home: Path, warehouse: Path) -> Iterator[Airflow]:
    """Run a whole Airflow that knows some of the examples and the DAGs beside this file, and end all of it."""
    dags = home / "dags"
    shutil.copytree(HERE / "dags", dags)
    shutil.copytree(ROOT / "example_dags" / "sql", dags / "sql")
    for dag_id in (DAG_ID, APPROVED_ID, SETTLE_ID):
        shutil.copy(ROOT / "example_dags" / f"{dag_id}.py", dags)
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    port, *log_ports = (listening.getsockname()[1] for listening in sockets)
    for listening in sockets:
        listening.close()
    running = Airflow(home, port)
    environment = _environment(running, port, log_ports, warehouse)
    with (home / "airflow.log").open("wb") as log, ExitStack() as processes:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [str(BIN / "airflow"), *arguments]
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            return processes.enter_context(process)

        try:
            assert start("db", "migrate").wait() == 0, running.log
            # Not `airflow standalone`, which would have its own auth manager.
            parts = [start(part) for part in ("api-server", "scheduler", "dag-processor")]
            for dag_id in (DAG_ID, APPROVED_ID, SETTLE_ID, "trials"):
                running.wait_for(partial(running.ask, f"dags/{dag_id}"), dag_id)
            yield running
            for part in parts:
                part.terminate()
        finally:
            running.end()


def _environment(airflow: Airflow, port: int, log_ports: list[int], warehouse: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return inherited | {
        "AIRFLOW_HOME": str(airflow.home),
        "AIRFLOW__API__BASE_URL": airflow.url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": "the browser's",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "what all processes of this Airflow sign with, and is long enough for it",
        "AIRFLOW__CORE__AUTH_MANAGER": "visitors.Visitors",
        "AIRFLOW__CORE__DAGS_FOLDER": str(airflow.home / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{airflow.url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(airflow.home / "passwords.json"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "chief:admin,visitor:viewer",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__XCOM_BACKEND": "elsewhere.Elsewhere",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{airflow.home}/xcoms",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "100",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        # Nothing but this machine is contacted.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE / "auth"), os.environ.get("PYTHONPATH")])),
        # As in an environment that is activated.
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        # A process that gives itself a title leaves its environment legible, by which it is found and ended.
        "SPT_NOENV": "1",
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run Debian's Chromium, which is fetched first where that may be."""
    if not Path(CHROMIUM).exists() and os.getuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, check=False)  # noqa: S607
    if not Path(CHROMIUM).exists():
        pytest.fail("Chromium is missing: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def files() -> Iterator[str]:
    """Serve the files of the pages, without an Airflow; return their address."""
    handler = partial(QuietHandler, directory=STATIC)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def script(browser: Browser, files: str) -> Iterator[Callable[[str, Any], Any]]:
    """Return a shorthand that evaluates JavaScript beside the pages' modules, in Helsinki."""
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Helsinki")
    page = context.new_page()
    page.goto(f"{files}/icon.svg")
    yield page.evaluate
    context.close()


@pytest.fixture(scope="session")
def sign_in(browser: Browser, airflow: Airflow) -> Iterator[Callable[..., Page]]:
    """Return a shorthand for a page of a browser of its own, on which a user has signed in."""
    contexts: list[BrowserContext] = []

    def sign_in(user: str | None) -> Page:
        contexts.append(
            browser.new_context(viewport=cast("Any", DESKTOP), locale="en-GB", timezone_id="Europe/Helsinki")
        )
        contexts[-1].set_default_timeout(TIMEOUT * 1000)
        page = contexts[-1].new_page()
        if user is not None:
            page.goto(airflow.url)
            page.get_by_label("Username").fill(user)
            page.get_by_label("Password").fill(PASSWORDS[user])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("link", name="Dags", exact=True).first.wait_for()
        return page

    yield sign_in
    for context in contexts:
        context.close()


@pytest.fixture
def page(sign_in: Callable[..., Page]) -> Iterator[Page]:
    """Return a page on which the chief has signed in."""
    page = sign_in("chief")
    yield page
    page.close()


@pytest.fixture(scope="session")
def add_connection(airflow: Airflow, sandbox: Sandbox) -> Callable[..., None]:
    """Return a shorthand that adds a connection to the local Ropo One as a person does, in Airflow's form."""

    def add(page: Page, conn_id: str, apicode: str) -> None:
        page.goto(f"{airflow.url}/connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        form.get_by_role("textbox", name="Connection ID").fill(conn_id)
        form.get_by_role("combobox", name="Connection Type").fill("Ropo")
        page.get_by_role("option", name="Ropo One").click()
        form.get_by_role("textbox", name="Server").fill(sandbox.url)
        form.get_by_role("textbox", name="Customer number (cid)").fill(sandbox.cid)
        form.get_by_role("textbox", name="API code (apicode)").fill(apicode)
        # Airflow 3.3.2 does not test a connection without a port.
        form.get_by_role("spinbutton", name="Port").fill(sandbox.url.rpartition(":")[2])
        form.get_by_role("button", name="Save").click()
        form.wait_for(state="detached")

    return add


@pytest.fixture(scope="session")
def ropo_default(sign_in: Callable[..., Page], add_connection: Callable[..., None], sandbox: Sandbox) -> None:
    """Add the connection that the DAGs use, in the browser."""
    add_connection(sign_in("chief"), "ropo_default", sandbox.apicode)


@pytest.fixture(scope="session")
def take() -> Callable[[Page, str], None]:
    """Return a shorthand that keeps a picture of a page for people."""
    PICTURES.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")

    return take
