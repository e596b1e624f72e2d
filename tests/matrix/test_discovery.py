"""Discovery of the installed package by this Airflow."""

from __future__ import annotations

import json
import sysconfig
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from installed import AIRFLOW, EXAMPLES, HERE, Airflow, Finished

import airflow_provider_ropo
from airflow_provider_ropo.provider_info import get_provider_info
from airflow_provider_ropo.sandbox import Sandbox


@pytest.fixture(scope="module")
def looked(airflow: Airflow) -> Finished:
    """Inspect the package in this Airflow, once."""
    return airflow.python(HERE / "look.py")


def test_the_package_is_the_wheels() -> None:
    """The tested package is installed from a wheel, and is not the source tree."""
    origin = json.loads(distribution("airflow-provider-ropo").read_text("direct_url.json") or "{}")

    assert Path(sysconfig.get_path("purelib")) in Path(airflow_provider_ropo.__file__).parents
    assert origin["url"].endswith(".whl")


def test_the_wheel_has_what_is_no_python() -> None:
    """The pages, the local Ropo One's own page and the mark of typed packages come with the wheel."""
    there = {str(file) for file in distribution("airflow-provider-ropo").files or ()}

    pages = ("report.html", "report.js", "runs.html", "runs.js", "airflow.js", "words.js", "style.css", "icon.svg")
    wanted = {f"airflow_provider_ropo/plugins/static/{name}" for name in pages}
    wanted |= {"airflow_provider_ropo/py.typed", "airflow_provider_ropo/sandbox/page.html"}
    assert set() == wanted - there


def test_the_wheel_has_the_examples(looked: Finished) -> None:
    """All example DAGs and their queries come with the wheel; Airflow finds them there, but loads none of them."""
    there = {str(file) for file in distribution("airflow-provider-ropo").files or ()}

    examples = [path for path in EXAMPLES.rglob("*") if path.suffix in {".py", ".sql"}]
    wanted = {f"airflow_provider_ropo/example_dags/{path.relative_to(EXAMPLES).as_posix()}" for path in examples}
    assert len(wanted) > 4
    assert set() == wanted - there
    assert [] == looked.data["shipped_examples"]


def test_airflow_lists_the_provider(airflow: Airflow) -> None:
    """``airflow providers list`` has the provider with its version."""
    rows = airflow.run("providers", "list", "--output", "json").data

    (row,) = (row for row in rows if row["package_name"] == "airflow-provider-ropo")
    assert distribution("airflow-provider-ropo").version == row["version"]
    assert get_provider_info()["description"].rstrip(".") == row["description"].rstrip(".")


@pytest.mark.parametrize(
    ("listed", "ours"),
    [
        pytest.param("hooks", "airflow_provider_ropo.hooks.ropo.RopoHook", id="hook"),
        pytest.param("behaviours", "ropo", id="labels"),
        pytest.param("widgets", "extra__ropo__jobid_as_string", id="fields"),
        pytest.param("links", "airflow_provider_ropo.links.ropo.RopoOneLink", id="links"),
    ],
)
def test_airflow_lists_what_the_provider_gives(airflow: Airflow, listed: str, ours: str) -> None:
    """Airflow loads the hook, its form and the links, without warnings."""
    finished = airflow.run("providers", listed, "--output", "plain")

    assert ours in finished.output.split()
    assert [] == complaints(finished)


def test_plugins_load(airflow: Airflow) -> None:
    """Airflow loads our plugin, without warnings."""
    finished = airflow.run("plugins", "--output", "plain")

    assert "ropo_one" in finished.output.split()
    assert [] == complaints(finished)


def complaints(finished: Finished) -> list[str]:
    """Return Airflow's warnings and errors about us, or about something missing."""
    words = ("warn", "error", "exception", "not fully initialized")
    lines = [line for line in finished.everything.casefold().splitlines() if "ropo" in line]
    return [line for line in lines if any(word in line for word in words)]


def test_every_module_is_imported_without_a_warning(looked: Finished) -> None:
    """No module of ours needs what this Airflow lacks or deprecates."""
    assert len(looked.data["modules"]) > 40
    assert [] == looked.warnings


def test_a_retry_policy_where_airflow_has_them(looked: Finished) -> None:
    """The operator has its retry policy since Airflow 3.3, and none before."""
    assert ("RopoRetryPolicy" if AIRFLOW >= (3, 3) else "NoneType") == looked.data["retry_policy"]


def test_pages_where_airflow_has_a_place_for_them(looked: Finished) -> None:
    """The plugin adds its pages since Airflow 3.1, and nothing before."""
    expected = (
        {"fastapi_apps": 1, "external_views": 2} if AIRFLOW >= (3, 1) else {"fastapi_apps": 0, "external_views": 0}
    )

    assert expected == looked.data["plugin"]


def test_links_survive_serialization(looked: Finished) -> None:
    """A DAG read back from Airflow's database still has its tasks' links."""
    links: dict[str, Any] = looked.data["links"]

    expected = ["Report", "Ropo One"] if AIRFLOW >= (3, 1) else ["Ropo One"]
    since_3_1 = {"ropo_usageplace_events_approved": expected} if AIRFLOW >= (3, 1) else {}
    assert (
        since_3_1
        | {
            "matrix_alert": expected,
            "matrix_canary": [],
            "matrix_decorated": expected,
            "matrix_mapped": expected,
            "ropo_outcomes_check": [],
            "ropo_purge": [],
            "ropo_settle": [],
            "ropo_usageplace_events_after_load": expected,
            "ropo_usageplace_events_daily": expected,
            "ropo_usageplace_events_file": ["Report"] if AIRFLOW >= (3, 1) else [],
            "ropo_usageplace_events_sharded": expected,
        }
        == links
    )


@pytest.mark.parametrize(
    ("connection", "message", "tokens"),
    [
        pytest.param("ropo_default", "Connection success!", 1, id="good"),
        pytest.param("ropo_wrong", "API code", 0, id="bad"),
    ],
)
def test_the_connection_is_tested(
    airflow: Airflow, sandbox: Sandbox, connection: str, message: str, tokens: int
) -> None:
    """Airflow's own test of a connection signs in, and reports the result; it posts nothing."""
    finished = airflow.run("connections", "test", connection, allow_failure=True)

    assert message in finished.everything
    assert tokens == sandbox.sign_ins
    assert [] == sandbox.arrivals
