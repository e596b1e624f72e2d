"""What this package offers to Airflow, as plain data: read at every discovery, so it imports nothing.

The one source of the connection form. Airflow 3.2 and later read it from here
(https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html); for earlier versions
:class:`~airflow_provider_ropo.hooks.ropo.RopoHook` translates it.
"""

from __future__ import annotations

from typing import Any

CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "ropo",
    "hook-name": "Ropo One",
    "hook-class-name": "airflow_provider_ropo.hooks.ropo.RopoHook",
    "ui-field-behaviour": {
        # The server's address may carry its scheme, and every extra has a field of its own.
        "hidden-fields": ["schema", "extra"],
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
    },
    "conn-fields": {
        "timezone": {
            "label": "Time zone",
            "description": (
                "The zone of the times that Ropo One is told, such as Europe/Stockholm. "
                "Empty: that of the server's country (.fi, .se, .no), otherwise Europe/Helsinki."
            ),
            "schema": {"type": ["string", "null"], "default": None},
        },
        "timeout": {
            "label": "Timeout",
            "description": "Seconds to wait for an answer from Ropo One.",
            "schema": {"type": ["integer", "null"], "default": 30, "minimum": 1, "maximum": 3600},
        },
        "verify": {
            "label": "CA bundle",
            "description": (
                "true: the server's certificate is checked against the public authorities. A path on the workers: "
                "against the authorities in that file. It is always checked."
            ),
            "schema": {"type": ["string", "null"], "default": "true"},
        },
        "jobid_as_string": {
            "label": "Send jobid as text",
            "description": (
                "Ropo One's API reference has an invoice's jobid as an integer (1234), its guide as text (\"1234\"). "
                "Turn on only if Ropo support asks for text."
            ),
            "schema": {"type": ["boolean", "null"], "default": False},
        },
        "allow_http": {
            "label": "Allow plain http",
            "description": (
                "Over plain http anybody on the way can read the API code, so it is refused, except to this machine "
                "itself. Turn on only where the way is a tunnel of your own."
            ),
            "schema": {"type": ["boolean", "null"], "default": False},
        },
    },
}

ASSET_URIS: list[dict[str, Any]] = [
    {
        "schemes": ["ropo"],
        "handler": "airflow_provider_ropo.assets.ropo.sanitize_uri",
        "factory": "airflow_provider_ropo.assets.ropo.create_asset",
        "to_openlineage_converter": "airflow_provider_ropo.assets.ropo.convert_asset_to_openlineage",
    }
]


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's entry point ``apache_airflow_provider`` asks for."""
    return {
        "package-name": "airflow-provider-ropo",
        "name": "Ropo One",
        "description": "Report disconnections and reconnections of usage places to Ropo One.",
        "integrations": [
            {
                "integration-name": "Ropo One",
                "external-doc-url": "https://dev.ropo.com/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Ropo One", "python-modules": ["airflow_provider_ropo.hooks.ropo"]}],
        "operators": [
            {"integration-name": "Ropo One", "python-modules": ["airflow_provider_ropo.operators.usageplace"]}
        ],
        "connection-types": [CONNECTION_TYPE],
        "asset-uris": ASSET_URIS,
        # What Airflow 2 reads.
        "dataset-uris": ASSET_URIS,
        "task-decorators": [
            {
                "name": "ropo_usageplace_events",
                "class-name": "airflow_provider_ropo.decorators.usageplace.usageplace_events_task",
            }
        ],
        # Airflow 3.2 and later.
        "cli": ["airflow_provider_ropo.cli.definition.get_ropo_cli_commands"],
        "extra-links": ["airflow_provider_ropo.links.ropo.RopoOneLink", "airflow_provider_ropo.links.ropo.ReportLink"],
    }
