"""A run's metrics, through Airflow's own Stats to a StatsD server, and its trace span."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.observability.metrics.stats_utils import NoStatsLogger, get_stats_factory
from airflow.sdk.observability.stats import initialize
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airflow_provider_ropo.errors import RopoError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import FakeTaskInstance, fake_context

ARRIVED = [
    {"id": f"e{number}", "usageplacecode": f"P{number}", "status": "connected", "time": "2024-01-04 10:00:00"}
    for number in range(3)
]
UNKNOWN = ARRIVED[0] | {"id": "e8", "usageplacecode": "UNKNOWN"}
INVALID = ARRIVED[0] | {"id": "e9", "status": "vanished"}
#: A StatsD client as a platform may bring its own, which never works.
BROKEN = """
from statsd import StatsClient


class Client(StatsClient):
    def _send(self, data):
        with open("{path}", "a") as asked:
            asked.write(data + "\\n")
        raise RuntimeError("out of order")
"""


class TeamsTaskInstance(FakeTaskInstance):
    """One of an Airflow with several teams."""

    stats_tags = {"dag_id": "dag", "task_id": "report", "team_name": "meters"}  # noqa: RUF012 - read only


def run(rows: list[dict[str, Any]], ti: FakeTaskInstance | None = None, **parameters: Any) -> dict[str, int]:
    return UsageplaceEventOperator(task_id="report", events=rows, **parameters).execute(fake_context(ti))


class Statsd:
    """StatsD server that receives Airflow's metrics."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    def received(self) -> list[str]:
        """Return the received metrics, sorted, with each time replaced."""
        lines: list[str] = []
        while True:
            try:
                line = self._socket.recv(65536).decode()
            except BlockingIOError:
                return sorted(lines)
            name, _, value = line.rpartition(":")
            is_time = value.endswith("|ms") and float(value[:-3]) > 0
            is_age = value.endswith("|g") and float(value[:-2]) > 0
            lines.append(f"{name}:<time>" if is_time or is_age else line)


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Statsd]:
    """Let Airflow send its metrics to a StatsD server that knows no tags."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)  # noqa: FBT003 - the standard library's
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(listening.getsockname()[1]))
        backends: list[Any] = []

        def make_backend() -> Any:
            backends.append(get_stats_factory()())
            return backends[-1]

        # As Airflow does when a task's process begins.
        initialize(factory=make_backend, export_legacy_names=True)
        yield Statsd(listening)
        for backend in backends:
            backend.statsd.close()
    initialize(factory=NoStatsLogger, export_legacy_names=True)


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Keep every span from now on, as Airflow with `[traces] otel_on` would send them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    """No span yet."""
    exporter.clear()
    return exporter


def test_every_metric(statsd: Statsd, sandbox: Sandbox) -> None:
    """Deliveries by status, each attempt's time and the retries; plain StatsD has the status in the name."""
    sandbox.script([Fault(status=500, usageplacecode="P1")] * 2)

    run([*ARRIVED, UNKNOWN, INVALID], max_failed=2)

    assert [
        *["airflow.ropo.attempt:<time>"] * 6,
        "airflow.ropo.deliveries.delivered:3|c",
        "airflow.ropo.deliveries.invalid:1|c",
        "airflow.ropo.deliveries.rejected:1|c",
        *["airflow.ropo.lag:<time>"] * 3,
        "airflow.ropo.oldest_open:<time>",
        "airflow.ropo.retries:2|c",
    ] == statsd.received()


@pytest.mark.parametrize(
    ("ti", "tags"),
    [
        (FakeTaskInstance(), "dag_id=dag,task_id=report"),
        (TeamsTaskInstance(), "dag_id=dag,task_id=report,team_name=meters"),
    ],
    ids=["plain", "teams"],
)
def test_tags(
    statsd: Statsd, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, ti: FakeTaskInstance, tags: str
) -> None:
    """With tags, they are those of Airflow's own metrics of a task, and a delivery's status."""
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")

    run(ARRIVED[:1], ti)

    assert [
        f"airflow.ropo.attempt,{tags}:<time>",
        f"airflow.ropo.deliveries.delivered,{tags},status=delivered:1|c",
        f"airflow.ropo.lag,{tags}:<time>",
        f"airflow.ropo.oldest_open,{tags}:0.0|g",
    ] == statsd.received()


def test_a_preview_has_no_metrics(statsd: Statsd, sandbox: Sandbox) -> None:
    """A preview sends no metrics."""
    run(ARRIVED, preview=True)

    assert [] == statsd.received()


def test_a_red_run_has_metrics(statsd: Statsd, sandbox: Sandbox) -> None:
    """The delivery statuses are counted before the task fails, also if nothing could be sent."""
    sandbox.script_sign_in([Fault(status=403)])

    with pytest.raises(RopoError):
        run(ARRIVED)

    assert ["airflow.ropo.deliveries.undelivered:3|c", "airflow.ropo.oldest_open:<time>"] == statsd.received()


def test_a_broken_backend_stops_no_run(
    statsd: Statsd,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A metrics backend that raises is logged once and not used again; every event is delivered."""
    (tmp_path / "platform_statsd.py").write_text(BROKEN.format(path=tmp_path / "asked"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_CUSTOM_CLIENT_PATH", "platform_statsd.Client")

    counts = run(ARRIVED)

    assert 3 == counts["delivered"] == len(sandbox.events)
    assert 1 == len((tmp_path / "asked").read_text().splitlines())
    failed = "Airflow's metrics backend failed, no more of this run's metrics are sent: RuntimeError"
    assert [failed] == [message for message in caplog.messages if "metrics" in message]


def attributes(sandbox: Sandbox, **counts: object) -> dict[str, object]:
    statuses = (
        "delivered",
        "already_delivered",
        "rejected",
        "invalid",
        "changed",
        "undelivered",
        "unconfirmed",
        "held",
        "closed",
    )
    nought: dict[str, object] = dict.fromkeys(["rows", "events", *statuses], 0)
    attributes = {f"ropo.{name}": count for name, count in (nought | {"preview": False} | counts).items()}
    return attributes | {"ropo.server": sandbox.url}


def the_span(spans: InMemorySpanExporter) -> ReadableSpan:
    [span] = [span for span in spans.get_finished_spans() if span.name == "ropo.report"]
    assert () == span.events
    return span


def test_a_green_runs_span(spans: InMemorySpanExporter, sandbox: Sandbox) -> None:
    """A run's span has the counts and the server, and is below the span that is current."""
    with trace.get_tracer(__name__).start_as_current_span("task") as task:
        run([*ARRIVED, UNKNOWN], max_failed=1)

    span = the_span(spans)
    assert span.parent is not None
    assert task.get_span_context().span_id == span.parent.span_id
    assert attributes(sandbox, rows=4, events=4, delivered=3, rejected=1) == dict(span.attributes or {})
    assert (StatusCode.UNSET, None) == (span.status.status_code, span.status.description)


def test_a_previews_span(spans: InMemorySpanExporter, sandbox: Sandbox) -> None:
    """A preview's span has an attribute for that."""
    run(ARRIVED, preview=True)

    assert attributes(sandbox, preview=True, rows=3, events=3, undelivered=3) == dict(the_span(spans).attributes or {})


@pytest.mark.parametrize(
    ("parameters", "faults", "expected"),
    [
        ({"rows": [*ARRIVED, UNKNOWN]}, [], "DeliveriesFailedError"),
        ({"rows": ARRIVED}, [Fault(status=403)], "RopoAuthenticationError"),
        ({"rows": "P1"}, [], "RopoConfigurationError"),
        ({"rows": ARRIVED, "ledger_table": "ledger", "ledger_conn_id": "nowhere"}, [], "RopoConfigurationError"),
    ],
    ids=["rejected", "sign-in", "mistake", "no ledger"],
)
def test_a_red_runs_span(
    spans: InMemorySpanExporter, sandbox: Sandbox, parameters: dict[str, Any], faults: list[Fault], expected: str
) -> None:
    """The span of a failed run has the error's class, and not its text."""
    sandbox.script_sign_in(faults)

    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the parameter
        run(**parameters)

    span = the_span(spans)
    assert expected in [each.__name__ for each in type(caught.value).__mro__]
    assert (StatusCode.ERROR, expected) == (span.status.status_code, span.status.description)
    assert sandbox.url == (span.attributes or {})["ropo.server"]
