"""The plugin: its discovery by Airflow, and the files that it serves."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from airflow import plugins_manager
from airflow.api_fastapi.core_api.datamodels.plugins import PluginResponse
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.links.ropo import REPORT_ROUTE
from airflow_provider_ropo.plugins.report import PREFIX, REPORT_VIEW, STATIC, Pages, RopoPlugin
from airflow_provider_ropo.reporting.report import REPORT_KEY
from airflow_provider_ropo.task.report_publisher import PROGRESS_KEY

FILES = sorted(path.name for path in STATIC.iterdir())
TYPES = {".html": "text/html", ".css": "text/css", ".js": "javascript", ".svg": "image/svg+xml"}


@pytest.fixture
def client() -> TestClient:
    """Return a client of an application that mounts the pages as Airflow does."""
    app = FastAPI()
    app.mount(f"/{PREFIX}", Pages())
    return TestClient(app)


def test_airflow_loads_the_plugin() -> None:
    """Airflow finds the plugin through the installed distribution's entry point, and can list its views."""
    found = [
        point.load() for point in entry_points(group="airflow.plugins") if point.module.startswith("airflow_provider")
    ]

    loaded = [info for info in plugins_manager.get_plugin_info() if info["name"] == RopoPlugin.name]

    assert [RopoPlugin] == found
    (shown,) = (PluginResponse.model_validate(info) for info in loaded)
    assert [("task_instance", REPORT_ROUTE), ("nav", "ropo-one")] == [
        (view.destination, view.url_route) for view in shown.external_views
    ]
    assert [f"/{PREFIX}"] == [app.url_prefix for app in shown.fastapi_apps]


def test_the_views_are_below_airflows_own_path() -> None:
    """The addresses in Airflow's pages are relative, so that they work when Airflow is served under a path."""
    for view in RopoPlugin.external_views:
        for address in (view["href"], view["icon"], view["icon_dark_mode"]):
            assert address.startswith(f"{PREFIX}/")
            assert address.partition("?")[0].removeprefix(f"{PREFIX}/") in FILES
    assert {"{DAG_ID}", "{RUN_ID}", "{TASK_ID}", "{MAP_INDEX}"} == set(re.findall(r"\{\w+\}", REPORT_VIEW["href"]))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    """Each file has its content type, and a policy that allows nothing from other servers."""
    answer = client.get(f"/{PREFIX}/{name}")

    assert 200 == answer.status_code
    assert TYPES[Path(name).suffix] in answer.headers["content-type"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "nosniff" == answer.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "path", ["", "nothing.js", "../report.py", "%2e%2e/report.py", "..%2f__init__.py", "//etc/passwd"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    """Neither the folder itself, nor missing files, nor files outside the folder are served."""
    assert 404 == client.get(f"/{PREFIX}/{path}").status_code


def test_nothing_can_be_sent(client: TestClient) -> None:
    """The pages accept only requests to read."""
    assert 405 == client.post(f"/{PREFIX}/runs.html").status_code


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    """No file refers to another server, and none reads text as HTML or as code."""
    text = (STATIC / name).read_text()

    namespaces = {"http://www.w3.org/2000/svg"}
    assert set() == set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w[^"'\s)]*""", text)) - namespaces
    assert [] == re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|@import", text)


def test_both_sides_speak_of_the_same() -> None:
    """The pages read what the operator publishes, know every delivery status, and link to the tab."""
    scripts = {path.name: path.read_text() for path in STATIC.glob("*.js")}

    assert f'REPORT_KEY = "{REPORT_KEY}"' in scripts["airflow.js"]
    assert f'PROGRESS_KEY = "{PROGRESS_KEY}"' in scripts["airflow.js"]
    assert f"/plugin/{REPORT_ROUTE}`" in scripts["airflow.js"]
    assert [status.value for status in DeliveryStatus] == re.findall(r'key: "(\w+)",\s+label', scripts["words.js"])[
        : len(DeliveryStatus)
    ]


def test_a_worker_that_loads_the_plugin_imports_no_server() -> None:
    """Loading the plugin imports no web framework, because Airflow loads plugins in every process."""
    program = (
        "import sys; import airflow_provider_ropo.plugins.report;"
        "print([name for name in ('fastapi', 'starlette', 'requests') if name in sys.modules])"
    )

    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "[]" == output.stdout.strip().splitlines()[-1]
