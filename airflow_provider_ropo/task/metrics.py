"""Metrics and trace of a run: counters and timings through Airflow's Stats, and one trace span.

The metrics are described in docs/observability.md; they contain no id of an event, a usage place or a customer.
(https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/metrics.html)
"""

from __future__ import annotations

import datetime as dt
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

#: Airflow exports spans from 3.2 on; before, and if traces are not enabled, spans are dropped.
_tracer = trace.get_tracer("airflow_provider_ropo")


class RunMetrics:
    """Collects the metrics of one run; a context manager that sends them when the run ends.

    :param summary: the counts of the run, read at its end.
    :param preview: nothing is posted, and therefore no metrics are sent.
    """

    def __init__(self, context: Context, summary: DeliverySummary, *, preview: bool) -> None:
        self._metrics = _Metrics(context, working=not preview)
        self._summary = summary
        self._preview = preview
        self._retries = 0
        # Of an error only the class is recorded, not the text: a database error may quote a row.
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
        """Record the address of the server."""
        self._span.set_attribute("ropo.server", server)

    def on_delivery(self, delivery: Delivery) -> None:
        """Send the duration of each attempt of a finished event and its lag, and count its retries."""
        self._retries += max(len(delivery.seconds) - 1, 0)
        for seconds in delivery.seconds:
            self._metrics.send("timing", "ropo.attempt", timedelta(seconds=seconds))
        if delivery.status is DeliveryStatus.DELIVERED and delivery.event_time is not None:
            self._metrics.send("timing", "ropo.lag", dt.datetime.now(dt.UTC) - delivery.event_time)

    def ends_with(self, error: RopoError | None) -> None:
        """Record the error with which the task will fail, if any."""
        if error is not None:
            self._span.set_status(StatusCode.ERROR, type(error).__name__)

    def _send_counts(self) -> None:
        for status in DeliveryStatus:
            if count := self._summary.count(status):
                # The status is in the name, too: plain StatsD has no tags.
                self._metrics.send("incr", f"ropo.deliveries.{status}", count, status=status.value)
        oldest = self._summary.oldest_open
        age = 0.0 if oldest is None else (dt.datetime.now(dt.UTC) - oldest).total_seconds()
        self._metrics.send("gauge", "ropo.oldest_open", age)
        if self._retries:
            self._metrics.send("incr", "ropo.retries", self._retries)


class _Metrics:
    """Wrapper of Airflow's Stats: an error in the metrics backend, which may be custom, must not stop a run."""

    def __init__(self, context: Context, *, working: bool) -> None:
        ti: Any = context.get("ti")
        # The same tags as Airflow's own task metrics; Airflow 3.0 has no property for them.
        tags = {name: getattr(ti, name) for name in ("dag_id", "task_id") if hasattr(ti, name)}
        self._tags: dict[str, str] = getattr(ti, "stats_tags", tags)
        self._working = working

    def send(self, kind: Literal["incr", "timing", "gauge"], name: str, value: float | timedelta, **tags: str) -> None:
        """Send one metric; after the first failure, send no more."""
        if not self._working:
            return
        try:
            getattr(Stats, kind)(name, value, tags=self._tags | tags)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            self._working = False
            log.warning(
                "Airflow's metrics backend failed, no more of this run's metrics are sent: %s", type(error).__name__
            )
