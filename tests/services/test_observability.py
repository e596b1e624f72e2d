"""Metrics, lineage, asset events and traces of a successful and a failed run, as Airflow sends them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from airflow_provider_ropo.sandbox import Fault, Sandbox

DAGS = """
from airflow.sdk import DAG, Asset, Param, task
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

ROPO_ONE = Asset("{asset}")

with DAG("report", schedule=None, params={{"crew": Param("", type="string")}}):
    UsageplaceEventOperator(
        task_id="usageplaces",
        sql="SELECT id, usageplacecode, status, time, customernumber FROM {schema}.field_work WHERE crew = %(crew)s",
        parameters={{"crew": "{{{{ params.crew }}}}"}},
        sql_conn_id="warehouse",
        outlets=[ROPO_ONE],
    )

with DAG("follow", schedule=[ROPO_ONE]):

    @task
    def read(triggering_asset_events=None):
        return [event.extra for event in triggering_asset_events[ROPO_ONE]]

    read()
"""
TABLE = """
CREATE TABLE {schema}.field_work (
    id TEXT, usageplacecode TEXT, status TEXT, time TIMESTAMP, customernumber TEXT, crew TEXT
)
"""
ROWS = [
    ("ORDER-1", "PLACE-1", "disconnected", "CUSTOMER-1", "green"),
    ("ORDER-2", "PLACE-2", "connected", "CUSTOMER-2", "green"),
    ("ORDER-3", "PLACE-3", "disconnected", "CUSTOMER-3", "green"),
    ("ORDER-4", "PLACE-4", "connected", "CUSTOMER-4", "red"),
    ("ORDER-5", "UNKNOWN-PLACE", "connected", "CUSTOMER-5", "red"),
    ("ORDER-6", "PLACE-6", "vanished", "CUSTOMER-6", "red"),
]
NOUGHT = dict.fromkeys(
    ("already_delivered", "rejected", "invalid", "changed", "undelivered", "unconfirmed", "held", "closed"), 0
)
GREEN = NOUGHT | {"rows": 3, "events": 3, "delivered": 3}
RED = NOUGHT | {"rows": 3, "events": 3, "delivered": 1, "rejected": 1, "invalid": 1}
TAGS = "dag_id=report,task_id=usageplaces"


class Statsd:
    """Takes in what Airflow sends by StatsD's protocol."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._listen)
        thread.start()
        yield
        # An empty datagram is the end.
        self._socket.sendto(b"", self._socket.getsockname())
        thread.join()
        self._socket.close()

    def of_ropo(self) -> list[tuple[str, str]]:
        """Return the names and values of our metrics, in order of their names; a time or an age is whatever it is."""
        ours = sorted(line for line in self.lines if line.startswith("airflow.ropo."))
        named = [line.rpartition(":")[::2] for line in ours]
        kinds = {"ms", "g"}
        return [(name, kind if (kind := value.rpartition("|")[2]) in kinds else value) for name, value in named]

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            self.lines += datagram.decode().splitlines()


class Collector(ThreadingHTTPServer):
    """Takes in spans, as OpenTelemetry's collector does over HTTP."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TakeSpans)
        self.bodies: list[bytes] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        yield
        self.shutdown()
        thread.join()
        self.server_close()

    def spans(self) -> list[Span]:
        """Return every span, in order of its beginning."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [
            scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans
        ]
        return sorted((span for scope in scopes for span in scope.spans), key=lambda span: span.start_time_unix_nano)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans() if span.name == name]


class _TakeSpans(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Platform:
    """A whole Airflow, and everything it tells: metrics, lineage, assets and traces."""

    def __init__(self, airflow: Any, sandbox: Sandbox, postgres: Any) -> None:
        self.airflow = airflow
        self.schema = postgres.make_schema()
        self.statsd, self.collector = Statsd(), Collector()
        self.lineage = Path(airflow.home) / "lineage.json"
        self.ropo_one = f"ropo://{urlsplit(sandbox.url).netloc}"
        self.warehouse = f"postgres://{quote(postgres.host, safe='')}:{postgres.port}"
        with postgres.connect(autocommit=True) as connection:
            connection.execute(TABLE.format(schema=self.schema))
            for *row, crew in ROWS:
                insert = f"INSERT INTO {self.schema}.field_work VALUES (%s, %s, %s, '2024-01-04 10:00', %s, %s)"
                connection.execute(insert, [*row, crew])
        airflow.connect(
            "warehouse",
            conn_type="postgres",
            host=postgres.host,
            port=postgres.port,
            login=postgres.user,
            schema="postgres",
        )
        (airflow.home / "dags").mkdir()
        source = DAGS.format(asset=f"{self.ropo_one}/usageplace/event", schema=self.schema)
        (airflow.home / "dags" / "dags.py").write_text(source)

    def start(self) -> None:
        transport = {"type": "file", "log_file_path": str(self.lineage), "append": True}
        self.airflow.start(
            "standalone",
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
            AIRFLOW__CORE__DAGS_FOLDER=str(self.airflow.home / "dags"),
            AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
            AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED="True",
            AIRFLOW__METRICS__STATSD_ON="True",
            AIRFLOW__METRICS__STATSD_PORT=str(self.statsd.port),
            # On a busy machine, an event may take longer than by default.
            AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT="60",
            AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport),
            AIRFLOW__TRACES__OTEL_ON="True",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{self.collector.server_port}/v1/traces",
            OTEL_TRACES_EXPORTER="otlp_proto_http",
        )
        for dag_id in ("report", "follow"):
            self.airflow.wait_for(lambda dag_id=dag_id: self.airflow.ask(f"dags/{dag_id}"), f"the DAG {dag_id}")

    def run(self, crew: str) -> str:
        """Report a crew's work, and return the state of the run."""
        body = {"dag_run_id": crew, "logical_date": None, "conf": {"crew": crew}}
        # While something else writes to its SQLite, Airflow answers with 503, and would be asked again.
        self.airflow.wait_for(lambda: self.airflow.ask("dags/report/dagRuns", "POST", **body), f"the {crew} run")
        path = f"dags/report/dagRuns/{crew}"
        ends = self.airflow.wait_for(lambda: {"success", "failed"} & {self.airflow.ask(path)["state"]}, "its end")
        return str(ends.pop())

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return OpenLineage's events of our task of that kind, such as COMPLETE."""
        lines = self.lineage.read_text().splitlines() if self.lineage.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if (event["job"]["name"], event["eventType"]) == ("report.usageplaces", kind)]

    def everything(self) -> str:
        """Return everything that was received, without asset events."""
        return "\n".join([*self.statsd.lines, self.lineage.read_text(), *map(str, self.collector.spans())])


@pytest.fixture(scope="module")
def platform(airflow: Any, sandbox: Sandbox, postgres: Any) -> Iterator[Platform]:
    """Return the platform after a green run, in which one event needed a second attempt, and a red one."""
    platform = Platform(airflow, sandbox, postgres)
    with platform.statsd.running(), platform.collector.running():
        platform.start()
        sandbox.script([Fault(status=500, usageplacecode="PLACE-2")])
        assert "success" == platform.run("green"), airflow.output()
        assert "failed" == platform.run("red"), airflow.output()
        airflow.wait_for(lambda: platform.events("COMPLETE") and platform.events("FAIL"), "the lineage")
        airflow.wait_for(lambda: len(platform.collector.named("worker.usageplaces")) > 1, "the spans")
        yield platform
        airflow.end()


def test_metrics(platform: Platform) -> None:
    """Deliveries by status, the time of each attempt and the retries are counted, tagged with DAG and task."""
    expected = [
        *[(f"airflow.ropo.attempt,{TAGS}", "ms")] * 6,
        (f"airflow.ropo.deliveries.delivered,{TAGS},status=delivered", "1|c"),
        (f"airflow.ropo.deliveries.delivered,{TAGS},status=delivered", "3|c"),
        (f"airflow.ropo.deliveries.invalid,{TAGS},status=invalid", "1|c"),
        (f"airflow.ropo.deliveries.rejected,{TAGS},status=rejected", "1|c"),
        *[(f"airflow.ropo.lag,{TAGS}", "ms")] * 4,
        *[(f"airflow.ropo.oldest_open,{TAGS}", "g")] * 2,
        (f"airflow.ropo.retries,{TAGS}", "1|c"),
    ]
    platform.airflow.wait_for(lambda: len(platform.statsd.of_ropo()) >= len(expected), "the metrics")

    assert expected == platform.statsd.of_ropo()


@pytest.mark.parametrize(("kind", "count"), [("START", 2), ("COMPLETE", 1), ("FAIL", 1)])
def test_lineage(platform: Platform, kind: str, count: int) -> None:
    """The table that the query reads is the input, with its columns, and Ropo One is the output, green or red."""
    table = {"namespace": platform.warehouse, "name": f"postgres.{platform.schema}.field_work"}
    columns = ["id", "usageplacecode", "status", "time", "customernumber", "crew"]
    ropo_one = {"namespace": platform.ropo_one, "name": "usageplace/event", "facets": {}}

    seen = [([named(each) for each in event["inputs"]], event["outputs"]) for event in platform.events(kind)]

    assert [([table | {"columns": columns}], [ropo_one])] * count == seen


def named(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table's name and the names of its columns, which is all that OpenLineage has of it."""
    facets = table.pop("facets")
    assert ["schema"] == list(facets)
    return table | {"columns": [field["name"] for field in facets["schema"]["fields"]]}


def test_asset_event(platform: Platform) -> None:
    """The green run's counts go with its asset event, to whatever it triggers; the red run has none."""
    airflow = platform.airflow
    runs = airflow.wait_for(
        lambda: [run for run in airflow.ask("dags/follow/dagRuns")["dag_runs"] if run["state"] == "success"],
        "a follower",
    )

    events = airflow.ask("assets/events")["asset_events"]
    xcoms = [
        airflow.ask(f"dags/follow/dagRuns/{quote(run['dag_run_id'])}/taskInstances/read/xcomEntries/return_value")
        for run in runs
    ]

    ours = [
        (event["source_dag_id"], event["source_task_id"], event["source_run_id"], event["extra"]) for event in events
    ]
    assert [("report", "usageplaces", "green", GREEN)] == ours
    assert [[GREEN]] == [xcom["value"] for xcom in xcoms]


def test_span(platform: Platform) -> None:
    """Each run is one span below Airflow's own of the task, with the counts; a red one is an error, by its class."""
    workers = platform.collector.named("worker.usageplaces")
    spans = platform.collector.named("ropo.report")

    assert [worker.span_id for worker in workers] == [span.parent_span_id for span in spans]
    assert [worker.trace_id for worker in workers] == [span.trace_id for span in spans]
    assert [attributes(platform, GREEN), attributes(platform, RED)] == [values_of(span) for span in spans]
    assert [Status(), Status(code=Status.STATUS_CODE_ERROR, message="DeliveriesFailedError")] == [
        span.status for span in spans
    ]
    assert [[], []] == [list(span.events) for span in spans]


def attributes(platform: Platform, counts: dict[str, int]) -> dict[str, object]:
    server = platform.ropo_one.replace("ropo://", "http://")
    return {"ropo.server": server, "ropo.preview": False} | {f"ropo.{name}": count for name, count in counts.items()}


def values_of(span: Span) -> dict[str, object]:
    kinds = [(each.key, each.value, each.value.WhichOneof("value")) for each in span.attributes]
    return {key: getattr(value, kind) for key, value, kind in kinds if kind is not None}


def test_no_customer_is_named(platform: Platform, sandbox: Sandbox) -> None:
    """No usage place, customer number or API code is in any of it; of events, nothing but the error's own words."""
    received = platform.everything()
    [failure] = [event["run"]["facets"].pop("errorMessage") for event in platform.events("FAIL")]
    without_errors = received.replace(json.dumps(failure["message"])[1:-1], "")

    assert "ORDER-5" in failure["message"]
    assert [] == [text for row in ROWS for text in (row[1], row[3]) if text in received]
    assert sandbox.apicode not in received
    assert [] == [row[0] for row in ROWS if row[0] in without_errors]
