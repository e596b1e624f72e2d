"""A local Ropo One for trying things out and for tests.

From a shell: ``python -m airflow_provider_ropo.sandbox --port 8099``. From a test::

    from airflow_provider_ropo.sandbox import Fault, Sandbox

    with Sandbox() as sandbox:
        sandbox.script([Fault(status=503, headers={"Retry-After": "1"})])
        ...  # point a connection at sandbox.url
        assert sandbox.events == [...]

The sandbox shares no code with the rest of the provider. It reads Ropo's documentation a second time, so that
a misunderstanding in one of the two shows as a refusal instead of passing unnoticed through both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_ropo.sandbox.faults import Fault

if TYPE_CHECKING:
    from airflow_provider_ropo.sandbox.server import Sandbox

__all__ = ["Fault", "Sandbox"]

EXTRA_MISSING = "The sandbox needs FastAPI and uvicorn: pip install 'airflow-provider-ropo[sandbox]'"


def __getattr__(name: str) -> object:
    """Import the server on first use: its packages come with the extra ``sandbox`` only."""
    if name != "Sandbox":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        from airflow_provider_ropo.sandbox.server import Sandbox
    except ModuleNotFoundError as error:
        raise ImportError(EXTRA_MISSING) from error
    return Sandbox
