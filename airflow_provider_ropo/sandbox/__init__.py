"""A local Ropo One, for demonstrations and tests.

From a shell: ``python -m airflow_provider_ropo.sandbox --port 8099``. From a test::

    from airflow_provider_ropo.sandbox import Fault, Sandbox

    with Sandbox() as sandbox:
        sandbox.script([Fault(status=503, headers={"Retry-After": "1"})])
        ...  # point a connection at sandbox.url
        assert sandbox.events == [...]

The sandbox shares no code with the rest of the provider. It is a second implementation of Ropo's documentation: if one
of the two misunderstands it, the sandbox refuses the event and the error is noticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_ropo.sandbox.faults import Fault

if TYPE_CHECKING:
    from airflow_provider_ropo.sandbox.server import Sandbox

__all__ = ["Fault", "Sandbox"]

EXTRA_MISSING = "The sandbox needs FastAPI, uvicorn and asyncssh: pip install 'airflow-provider-ropo[sandbox]'"


def __getattr__(name: str) -> object:
    """Import the server on first use: its packages are installed only with the extra ``sandbox``."""
    if name != "Sandbox":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        from airflow_provider_ropo.sandbox.server import Sandbox
    except ModuleNotFoundError as error:
        raise ImportError(EXTRA_MISSING) from error
    return Sandbox
