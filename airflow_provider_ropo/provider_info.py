"""The provider info: what this package offers to Airflow, as plain data.

Airflow reads it whenever it discovers providers, so it imports nothing else. It is the only source of the connection
form. Airflow 3.2 and later read the form from here
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
        # The server's address may contain the scheme, and every extra has its own field.
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
                "The time zone of the times sent to Ropo One, such as Europe/Stockholm. "
                "If empty: the zone of the server's country (.fi, .se, .no), otherwise Europe/Helsinki."
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
                "true: the server's certificate is checked against the public certificate authorities. A path on the "
                "workers: it is checked against the authorities in that file. It is always checked."
            ),
            "schema": {"type": ["string", "null"], "default": "true"},
        },
        "jobid_as_string": {
            "label": "Send jobid as text",
            "description": (
                "In Ropo One's API reference an invoice's jobid is an integer (1234), in its guide it is text "
                '("1234"). Turn on only if Ropo support asks for text.'
            ),
            "schema": {"type": ["boolean", "null"], "default": False},
        },
        "destination": {
            "label": "Name in the ledger",
            "description": (
                "The name under which the ledger remembers what was delivered here. Empty: server and customer number. "
                "When the server's address changes, enter the old name here, and nothing is sent again."
            ),
            "schema": {"type": ["string", "null"], "default": None, "maxLength": 255},
        },
        "allow_http": {
            "label": "Allow plain http",
            "description": (
                "Over plain http, others on the network can read the API code. It is therefore refused, except to "
                "this machine itself. Turn on only if the connection goes through your own tunnel."
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
    """Return the provider info for Airflow's entry point ``apache_airflow_provider``."""
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
            {
                "integration-name": "Ropo One",
                "python-modules": [
                    "airflow_provider_ropo.operators.ledger",
                    "airflow_provider_ropo.operators.usageplace",
                    "airflow_provider_ropo.operators.usageplace_file",
                ],
            }
        ],
        "connection-types": [CONNECTION_TYPE],
        "asset-uris": ASSET_URIS,
        # The name in Airflow 2.
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
