"""Apache Airflow provider that reports usage place events to Ropo One.

Nothing is imported here: Airflow imports this package whenever it looks for providers.
"""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Return ``__version__``, read from the installed distribution on first use."""
    if name != "__version__":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib.metadata import version

    return version("airflow-provider-ropo")
