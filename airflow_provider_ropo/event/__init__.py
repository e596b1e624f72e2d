"""The usage place event that is sent to Ropo One."""

from airflow_provider_ropo.event.model import Invoice, UsageplaceEvent
from airflow_provider_ropo.event.values import UsageplaceStatus

__all__ = ["Invoice", "UsageplaceEvent", "UsageplaceStatus"]
