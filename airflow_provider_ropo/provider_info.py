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
            "login": "1000011",
            "password": "from Ropo support",
            "port": "443",
        },
    },
    "conn-fields": {
        "timezone": {
            "label": "Time zone",
            "description": (
                "The zone whose wall clock Ropo One is told, such as Europe/Stockholm. "
                "Empty: the country of the server (.fi, .se, .no), else Europe/Helsinki."
            ),
            "schema": {"type": ["string", "null"], "default": None},
        },
        "timeout": {
            "label": "Timeout",
            "description": "Seconds to wait for an answer of Ropo One.",
            "schema": {"type": ["integer", "null"], "default": 30, "minimum": 1, "maximum": 3600},
        },
        "verify": {
            "label": "CA bundle",
            "description": (
                "true: the server's certificate is checked against the public authorities. "
                "A path on the worker: against that CA bundle. It is always checked."
            ),
            "schema": {"type": ["string", "null"], "default": "true"},
        },
        "jobid_as_string": {
            "label": "Send jobid as text",
            "description": (
                "Ropo One's API reference wants an invoice's jobid as a number, its guide shows text (\"1234\"). "
                "Turn on only if Ropo asks for text."
            ),
            "schema": {"type": ["boolean", "null"], "default": False},
        },
        "allow_http": {
            "label": "Allow plain http",
            "description": (
                "Plain http shows the API code to the network, so it is refused, but to this machine itself. "
                "Turn on only for a server behind a tunnel of your own."
            ),
            "schema": {"type": ["boolean", "null"], "default": False},
        },
    },
}


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
    }
