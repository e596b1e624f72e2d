"""A run as a platform sees it: counters and timings through Airflow's Stats, and one trace span.

Metrics are described in the README; no event, usage place or customer is named in them.
(https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/metrics.html)
"""

from __future__ import annotations

import logging
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self

from airflow.providers.common.compat.sdk import Context, Stats
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import RopoError
from airflow_provider_ropo.reporting.summary import DeliverySummary

log = logging.getLogger(__name__)

#: Airflow, from 3.2 on, says where spans go; before, and where nobody asked for traces, they go nowhere.
_tracer = trace.get_tracer("airflow_provider_ropo")


class RunMetrics:
    """Follows one run; a context manager, whose end is the run's.

    :param summary: the counts, which others keep.
    :param preview: nothing is posted, and so there are no metrics.
    """

    def __init__(self, context: Context, summary: DeliverySummary, *, preview: bool) -> None:
        self._metrics = _Metrics(context, working=not preview)
        self._summary = summary
        self._preview = preview
        self._retries = 0
        # An error's class is noted, and nothing it says: a database's may quote a row.
        self._current = _tracer.start_as_current_span(
            "ropo.report", record_exception=False, set_status_on_exception=False
        )
        self._span: Span = trace.INVALID_SPAN

    def __enter__(self) -> Self:
        """Begin the span."""
        self._span = self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        """End the span, and send the counts."""
        counts = self._summary.as_dict()
        self._span.set_attributes(
            {"ropo.preview": self._preview} | {f"ropo.{name}": count for name, count in counts.items()}
        )
        if kind is not None:
            self._span.set_status(StatusCode.ERROR, kind.__name__)
        self._current.__exit__(kind, error, trace_back)
        self._send_counts()

    def set_server(self, *, server: str) -> None:
        """Note where the events go."""
        self._span.set_attribute("ropo.server", server)

    def on_delivery(self, delivery: Delivery) -> None:
        """Time each attempt of one event that has come to its end."""
        self._retries += max(len(delivery.seconds) - 1, 0)
        for seconds in delivery.seconds:
            self._metrics.send("timing", "ropo.attempt", timedelta(seconds=seconds))

    def ends_with(self, error: RopoError | None) -> None:
        """Note why the task will be red, if it will."""
        if error is not None:
            self._span.set_status(StatusCode.ERROR, type(error).__name__)

    def _send_counts(self) -> None:
        for status in DeliveryStatus:
            if count := self._summary.count(status):
                # The status in the name, too: plain StatsD knows no tags.
                self._metrics.send("incr", f"ropo.deliveries.{status}", count, status=status.value)
        if self._retries:
            self._metrics.send("incr", "ropo.retries", self._retries)


class _Metrics:
    """Airflow's Stats, whose backend may be of the platform's own making and must not stop a run."""

    def __init__(self, context: Context, *, working: bool) -> None:
        ti: Any = context.get("ti")
        # Those of Airflow's own metrics of a task; on Airflow 3.0 it has no name for them.
        own = {name: getattr(ti, name) for name in ("dag_id", "task_id") if hasattr(ti, name)}
        self._tags: dict[str, str] = getattr(ti, "stats_tags", own)
        self._working = working

    def send(self, kind: Literal["incr", "timing"], name: str, value: float | timedelta, **tags: str) -> None:
        """Send one metric; after the first that fails, no more."""
        if not self._working:
            return
        try:
            getattr(Stats, kind)(name, value, tags=self._tags | tags)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            self._working = False
            log.warning("Airflow's metrics backend failed, no more of this run's are sent: %s", type(error).__name__)
