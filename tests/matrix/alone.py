"""Program that checks that Airflow finds the provider where only the wheel and what it requires are installed."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from importlib.util import find_spec

from airflow.providers_manager import ProvidersManager


def main() -> None:
    """Check the provider's version, and that what it names can be imported."""
    provider = ProvidersManager().providers["airflow-provider-ropo"]  # type: ignore[no-untyped-call]
    assert version("airflow-provider-ropo") == provider.version
    assert find_spec("pytest") is None, "this environment has more than the wheel"
    (connection,) = provider.data["connection-types"]
    assert "ropo" == connection["connection-type"]
    for name in [connection["hook-class-name"], *provider.data["extra-links"]]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    for part in provider.data["operators"]:
        for module in part["python-modules"]:
            importlib.import_module(module)


main()
