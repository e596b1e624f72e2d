"""Report what happened at usage places to Ropo One, from Apache Airflow.

Nothing is imported here: Airflow imports this package whenever it looks for providers.
"""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Read ``__version__`` from the installed distribution, only when somebody asks."""
    if name != "__version__":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib.metadata import version

    return version("airflow-provider-ropo")
