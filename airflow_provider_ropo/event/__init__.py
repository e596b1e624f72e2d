"""The business fact that Ropo One is told."""

from airflow_provider_ropo.event.model import Invoice, UsageplaceEvent
from airflow_provider_ropo.event.values import UsageplaceStatus

__all__ = ["Invoice", "UsageplaceEvent", "UsageplaceStatus"]
