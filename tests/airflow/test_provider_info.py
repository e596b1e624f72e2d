"""Discovery of this package by Airflow: the provider, its connection type and the connection's form."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_ropo.api.settings import DEFAULT_TIMEOUT, EXTRAS, RopoSettings
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.provider_info import CONNECTION_TYPE, get_provider_info

SCHEMAS = Path(airflow.__file__).parent
FIELDS = CONNECTION_TYPE["conn-fields"]


@pytest.fixture(scope="module")
def manager() -> ProvidersManager:
    """Let Airflow discover its providers, once."""
    with warnings.catch_warnings():
        # Not ours: warnings of Airflow and other providers.
        warnings.simplefilter("ignore")
        found = ProvidersManager()  # type: ignore[no-untyped-call]
        found.initialize_providers_hooks()
    return found


def ask(*arguments: str) -> str:
    """Return what Airflow's command line answers."""
    command = [str(Path(sys.executable).with_name("airflow")), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_provider_info_fits_airflows_schema() -> None:
    """The data is valid by the schema of the Airflow that reads it."""
    schema = json.loads((SCHEMAS / "provider_info.schema.json").read_text())

    errors = list(jsonschema.Draft7Validator(schema).iter_errors(get_provider_info()))

    assert [] == errors


def test_the_labels_fit_airflows_schema() -> None:
    """The hook's data for the form is valid by Airflow's schema."""
    schema = json.loads((SCHEMAS / "customized_form_field_behaviours.schema.json").read_text())

    errors = list(jsonschema.Draft7Validator(schema).iter_errors(RopoHook.get_ui_field_behaviour()))

    assert [] == errors


def test_the_entry_point_leads_to_the_provider_info() -> None:
    """Airflow finds the provider through the entry point of the installed distribution."""
    found = [
        point
        for point in entry_points(group="apache_airflow_provider")
        if point.dist is not None and point.dist.name == "airflow-provider-ropo"
    ]

    assert [get_provider_info()] == [point.load()() for point in found]


def test_discovery_imports_nothing_heavy() -> None:
    """Reading the provider info imports neither Airflow nor requests."""
    program = (
        "import sys; from airflow_provider_ropo.provider_info import get_provider_info; get_provider_info();"
        "print([name for name in ('airflow', 'requests', 'pendulum') if name in sys.modules])"
    )

    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert "[]" == output.stdout.strip()


def test_every_module_named_is_there() -> None:
    """Each hook and operator module that the provider info names can be imported."""
    info = get_provider_info()
    named = [module for key in ("hooks", "operators") for part in info[key] for module in part["python-modules"]]

    imported = [importlib.import_module(name).__name__ for name in named]

    assert named == imported
    assert len(named) >= 2


def test_airflow_lists_the_provider() -> None:
    """``airflow providers get`` knows the provider, under its distribution's name, and what it is for."""
    rows = json.loads(ask("providers", "get", "airflow-provider-ropo", "--full", "--output", "json"))

    assert "airflow-provider-ropo" in json.dumps(rows)
    assert get_provider_info()["description"].rstrip(".") in json.dumps(rows)


def test_airflow_lists_the_hook() -> None:
    """``airflow providers hooks`` shows the connection type with its hook."""
    rows = json.loads(ask("providers", "hooks", "--output", "json"))

    expected = {
        "connection_type": "ropo",
        "class": "airflow_provider_ropo.hooks.ropo.RopoHook",
        "conn_id_attribute_name": "ropo_conn_id",
        "package_name": "airflow-provider-ropo",
        "hook_name": "Ropo One",
    }
    assert [expected] == [row for row in rows if row["connection_type"] == "ropo"]


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_the_connection_type_is_discovered(manager: ProvidersManager) -> None:
    """Airflow knows the connection type by the name "Ropo One", and that it can be tested."""
    hook = manager.hooks["ropo"]

    assert hook is not None
    assert ("Ropo One", "ropo_conn_id", True) == (
        hook.hook_name,
        hook.connection_id_attribute_name,
        hook.connection_testable,
    )
    assert "airflow_provider_ropo.hooks.ropo.RopoHook" == hook.hook_class_name


def test_the_form_asks_for_server_customer_number_and_api_code(manager: ProvidersManager) -> None:
    """The form has Ropo's terms, hides meaningless fields, and is the same from both sources."""
    expected = {
        "hidden_fields": ["schema", "extra"],
        "relabeling": {
            "host": "Server",
            "login": "Customer number (cid)",
            "password": "API code (apicode)",
        },
        "placeholders": {
            "host": "rc.ropo24.fi (test) or ropo24.fi",
            "login": "from Ropo support, such as 1000011",
            "password": "from Ropo support, with the customer number",
            "port": "443",
        },
    }

    assert expected == manager.field_behaviours["ropo"]
    assert expected == RopoHook.get_ui_field_behaviour()


def test_the_form_has_a_field_for_every_extra(manager: ProvidersManager) -> None:
    """Each extra has a field of its own, in the order of the data, and none is treated as a secret."""
    widgets = {
        widget.field_name: widget for name, widget in manager.connection_form_widgets.items() if "__ropo__" in name
    }

    assert list(FIELDS) == list(widgets)
    assert set(EXTRAS) == set(widgets)
    assert {False} == {widget.is_sensitive for widget in widgets.values()}


@pytest.mark.parametrize("name", EXTRAS)
def test_a_field_shows_label_description_and_default(manager: ProvidersManager, name: str) -> None:
    """Airflow shows each field with the label, the description and the default of the data."""
    shown = look_of(manager.connection_form_widgets[f"extra__ropo__{name}"].field)

    declared = FIELDS[name]
    assert (declared["label"], declared["description"], declared["schema"]["default"]) == shown


def look_of(field: Any) -> tuple[str, str, Any]:
    """Return label, description and default of a form's field: plain data, or a WTForms field before 3.2."""
    if isinstance(field, dict):
        return field["schema"]["title"], field["description"], field["value"]
    return str(field.args[0]), field.kwargs["description"], field.kwargs["default"]


def test_the_defaults_of_the_form_are_those_of_the_connection() -> None:
    """A form saved with its default values gives the same settings as one without extras."""
    shown = {name: field["schema"]["default"] for name, field in FIELDS.items()}
    given: dict[str, Any] = {"host": "rc.ropo24.fi", "login": "1", "password": "x"}

    saved = RopoSettings.from_connection("c", **given, extra=shown)

    assert RopoSettings.from_connection("c", **given) == saved
    assert DEFAULT_TIMEOUT == saved.timeout


@pytest.mark.parametrize("name", EXTRAS)
def test_a_default_fits_its_own_schema(name: str) -> None:
    """Each field's default, and a missing value, is valid by the field's schema."""
    schema = FIELDS[name]["schema"]

    errors = [*jsonschema.Draft7Validator(schema).iter_errors(schema["default"])]
    errors += jsonschema.Draft7Validator(schema).iter_errors(None)

    assert [] == errors


def test_discovery_says_nothing_of_us(tmp_path: Path) -> None:
    """Airflow discovers the provider, its hook and its form without a warning about them."""
    program = (
        "from airflow.providers_manager import ProvidersManager as M; m = M(); m.initialize_providers_hooks();"
        "m.connection_form_widgets; m.field_behaviours; [m.hooks[name] for name in ('ropo',)]"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}

    result = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )

    warnings = [line for line in (result.stdout + result.stderr).splitlines() if "ropo" in line.casefold()]
    assert [] == warnings
