"""A whole run without Airflow: a real warehouse, a real ledger, and the sandbox over HTTP."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus, end_of
from airflow_provider_ropo.dispatch.posting import PostingOptions, RestChannel
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
    RunRefusedError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Round
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.maintenance import Settlement, settle
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.pipeline import DeliveryOptions, MappingRows, QueryRows, RowSource, RunResult, deliver
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import FakeClock

NOTHING = {"rows": 0, "events": 0, **{status.value: 0 for status in DeliveryStatus}}


@pytest.fixture(scope="module")
def running_sandbox() -> Iterator[Sandbox]:
    """Run one local Ropo One for all tests."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Sandbox:
    """Return an empty local Ropo One."""
    running_sandbox.clear()
    return running_sandbox


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the database of warehouse and ledger is."""
    return tmp_path / "warehouse.db"


@pytest.fixture
def open_ledger(path: Path) -> Iterator[Callable[..., DeliveryLedger]]:
    """Return a shorthand for the ledger as a run of that name sees it."""
    ledgers: list[DeliveryLedger] = []

    def make(run: str, **policy: Any) -> DeliveryLedger:
        table = LedgerTable(sa.create_engine(f"sqlite:///{path}", hide_parameters=True), "ropo_ledger")
        me = Claimant("dag", "report", run, -1, 1, f"process of {run}")
        ledgers.append(DeliveryLedger(table, "https://rc.ropo24.fi 1000011", me, LedgerPolicy(**policy)))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close()


OF_POSTING = {field.name for field in dataclasses.fields(PostingOptions)}


def class_of(options: dict[str, Any]) -> type[DeliveryOptions | PostingOptions]:
    return PostingOptions if options.keys() <= OF_POSTING else DeliveryOptions


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "usageplacecode": f"P{number}",
        "status": "connected",
        "time": f"2024-01-04 10:00:{number:02}",
        "customernumber": f"A{number}",
        **fields,
    }


def run(
    rows: RowSource | list[dict[str, Any]],
    sandbox: Sandbox,
    ledger: DeliveryLedger | None = None,
    *,
    apicode: str = "sandbox",
    stop: threading.Event | None = None,
    jobid_as_string: bool = False,
    destination: str = "",
    publish: Callable[[dict[str, Any]], bool] = lambda _report: True,
    clock: Callable[[], float] = time.monotonic,
    on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
    **options: Any,
) -> RunResult:
    posting = {name: options.pop(name) for name in OF_POSTING & options.keys()}
    chosen = DeliveryOptions(**options)
    settings = RopoSettings("ropo_test", sandbox.url, sandbox.cid, apicode, timeout=2)
    with Report(DeliverySummary(preview=chosen.preview), publish, clock, preview=chosen.preview) as report:
        return deliver(
            MappingRows(rows) if isinstance(rows, list) else rows,
            RestChannel(RopoClient(settings), PostingOptions(**posting), jobid_as_string),
            ledger,
            chosen,
            destination=destination or settings.destination,
            report=report,
            stop=stop or threading.Event(),
            on_delivery=on_delivery,
        )


def sent(sandbox: Sandbox) -> list[str]:
    return sorted(event["id"] for event in sandbox.events)


def remembered(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        query = "SELECT event_id, delivery_status FROM ropo_ledger ORDER BY recorded_at"
        return dict(database.execute(query).fetchall())


def test_every_row_is_counted_once(sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]) -> None:
    """Each row ends as one counted status, at Ropo One or not, and the ledger says the same."""
    rows = [row(1), row(2, usageplacecode="UNKNOWN-2"), row(3, status="gone"), row(4), row(4)]

    result = run(rows, sandbox, open_ledger("first"))

    counts = result.summary.as_dict()
    assert {**NOTHING, "rows": 5, "events": 4, "delivered": 2, "rejected": 1, "invalid": 1} == counts
    assert counts["events"] == sum(counts[status] for status in DeliveryStatus)
    assert ["e1", "e4"] == sent(sandbox)
    assert {"e1": "delivered", "e2": "rejected", "e3": "invalid", "e4": "delivered"} == remembered(path)
    assert result.stopped is None
    assert isinstance(result.error, DeliveriesFailedError)
    assert counts == result.error.summary


def test_a_second_run_posts_only_the_rest(sandbox: Sandbox, open_ledger: Callable[[str], DeliveryLedger]) -> None:
    """With a ledger, what an earlier run delivered is counted and not posted again."""
    run([row(1), row(2)], sandbox, open_ledger("first"))

    result = run([row(1), row(2), row(3)], sandbox, open_ledger("second"))

    assert {**NOTHING, "rows": 3, "events": 3, "delivered": 1, "already_delivered": 2} == result.summary.as_dict()
    assert result.error is None
    assert ["e1", "e2", "e3"] == sent(sandbox)


def test_the_rows_of_a_query(sandbox: Sandbox, path: Path) -> None:
    """A query's rows arrive with columns and statuses translated; its connection is closed before the first post."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE outcome (id, place, result, time)")
        database.executemany(
            "INSERT INTO outcome VALUES (?, ?, ?, '2024-01-04 10:00:00')", [("e1", "P1", 7), ("e2", "P2", 8)]
        )
        database.commit()
    opened: list[sqlite3.Connection] = []
    closed_at_delivery: list[bool] = []

    def connect() -> sqlite3.Connection:
        opened.append(sqlite3.connect(path))
        return opened[-1]

    def look_at_connection(_delivery: Delivery) -> None:
        try:
            opened[0].execute("SELECT 1")
        except sqlite3.ProgrammingError:
            closed_at_delivery.append(True)

    result = run(
        QueryRows(connect, "SELECT * FROM outcome WHERE result = ?", [7]),
        sandbox,
        columns={"usageplacecode": "place", "status": "result"},
        statuses={7: "disconnected"},
        on_delivery=look_at_connection,
    )

    assert {**NOTHING, "rows": 1, "events": 1, "delivered": 1} == result.summary.as_dict()
    assert [("P1", "disconnected")] == [(event["usageplacecode"], event["status"]) for event in sandbox.events]
    assert [True] == closed_at_delivery
    assert 1 == len(opened)


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        pytest.param(
            QueryRows(partial(sqlite3.connect, ":memory:"), "SELECT 1 AS id"), "usageplacecode", id="query's columns"
        ),
        pytest.param(MappingRows("e1", name="the list"), "list of row mappings", id="no rows"),
        pytest.param(MappingRows([row(1), ["e2"]]), "item 2 is a list", id="no mapping"),
    ],
)
def test_rows_that_make_no_events(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger], rows: RowSource, named: str
) -> None:
    """Rows that can make no events end the run before anything is signed in for, posted or remembered."""
    with pytest.raises(RopoConfigurationError, match=named):
        run(rows, sandbox, open_ledger("first"))

    assert 0 == sandbox.sign_ins
    assert [] == sandbox.arrivals
    assert {} == remembered(path)


def test_the_source_is_named_in_messages(sandbox: Sandbox) -> None:
    """A key that no row has is reported with the name of what the rows come from."""
    with pytest.raises(RopoConfigurationError, match="rows of the list have the keys"):
        run(MappingRows([row(1)], name="the list"), sandbox, columns={"description": "why"})


def test_the_options_reach_the_payload(sandbox: Sandbox) -> None:
    """Time zone and job ids are sent as the options say."""
    rows = [row(1, time="2024-01-04T10:00:00+00:00", invoicenumber="1", jobid=7)]

    run(rows, sandbox, timezone="Europe/Stockholm", jobid_as_string=True)

    assert [("2024-01-04 11:00:00", "7")] == [
        (event["time"], event["invoices"][0]["jobid"]) for event in (arrival.payload for arrival in sandbox.arrivals)
    ]


def test_a_preview_leaves_nothing(sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]) -> None:
    """A preview counts and shows masked payloads; nothing is signed in for or posted, and no table is made."""
    rows = [*(row(number) for number in range(7)), row(8, status="gone")]

    result = run(rows, sandbox, open_ledger("preview"), preview=True)

    assert {**NOTHING, "rows": 8, "events": 8, "undelivered": 7, "invalid": 1} == result.summary.as_dict()
    assert ["e0", "e1", "e2", "e3", "e4"] == [payload["id"] for payload in result.summary.sample]
    assert {"***"} == {payload["customernumber"] for payload in result.summary.sample}
    assert isinstance(result.error, DeliveriesFailedError)
    assert (0, []) == (sandbox.sign_ins, sandbox.arrivals)
    with closing(sqlite3.connect(path)) as database:
        assert [] == database.execute("SELECT name FROM sqlite_master").fetchall()


def test_a_preview_knows_the_ledger(sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]) -> None:
    """A preview counts what an earlier run delivered, and writes nothing."""
    run([row(1)], sandbox, open_ledger("first"))
    before = path.read_bytes()

    result = run([row(1), row(2)], sandbox, open_ledger("preview"), preview=True)

    assert {**NOTHING, "rows": 2, "events": 2, "already_delivered": 1, "undelivered": 1} == result.summary.as_dict()
    assert result.error is None
    assert before == path.read_bytes()
    assert ["e1"] == sent(sandbox)


def test_a_preview_fails_where_the_ledger_cannot_be_read(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]
) -> None:
    """A preview does not call known events new because the ledger's database fails."""
    path.write_text("this is no database")

    with pytest.raises(RopoLedgerError, match="the ledger ropo_ledger could not be opened"):
        run([row(1)], sandbox, open_ledger("preview"), preview=True)


def test_an_invalid_row_that_a_person_has_closed(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]
) -> None:
    """A row that will never be right is closed once, and ends no later run or preview in red while it is the same."""
    bad = row(2, status="gone")
    first = run([row(1), bad], sandbox, open_ledger("first"))
    table = LedgerTable(sa.create_engine(f"sqlite:///{path}", hide_parameters=True), "ropo_ledger")
    settle(table, Settlement(event_ids=["e2"], settle_as="closed", reason="a test order", who="anna"))
    table.close()

    again = run([row(1), row(3), bad], sandbox, open_ledger("second"))
    previewed = run([bad], sandbox, open_ledger("third"), preview=True)
    otherwise = run([row(2, time="never")], sandbox, open_ledger("fourth"))
    fixed = run([row(2)], sandbox, open_ledger("fifth"))

    assert first.failure is not None
    assert ({"closed": 1, "already_delivered": 1, "delivered": 1}, None) == (nonzero(again), again.failure)
    assert ({"closed": 1}, None) == (nonzero(previewed), previewed.failure)
    assert {"invalid": 1} == nonzero(otherwise)
    assert {"delivered": 1} == nonzero(fixed)
    assert ["e1", "e3", "e2"] == [payload["id"] for payload in sandbox.events]


def nonzero(result: RunResult) -> dict[str, int]:
    """Return the counts by delivery status that are not zero."""
    return {name: count for name, count in result.summary.as_dict().items() if count and name not in {"rows", "events"}}


def test_closed_rows_are_not_known_without_the_ledger(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]
) -> None:
    """If the ledger fails after the rows are read, an invalid row is counted as invalid, and the run stops."""

    def rows() -> Iterator[dict[str, Any]]:
        yield row(1)
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP VIEW ropo_ledger_state")
            database.execute("ALTER TABLE ropo_ledger RENAME COLUMN process TO processes")
        yield row(2, status="gone")

    result = run(MappingRows(rows()), sandbox, open_ledger("first"))

    assert isinstance(result.stopped, RopoLedgerError)
    assert {"undelivered": 1, "invalid": 1} == nonzero(result)


def test_a_stopped_run_leaves_the_rest(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]
) -> None:
    """Told to stop, a run ends soon; what was not sent is counted undelivered, and the reason is returned."""
    stop = threading.Event()

    result = run(
        [row(number % 60, id=f"e{number}", usageplacecode=f"P{number}") for number in range(200)],
        sandbox,
        open_ledger("first"),
        stop=stop,
        on_delivery=lambda _delivery: stop.set(),
        max_workers=2,
    )

    delivered = sorted(event_id for event_id, status in remembered(path).items() if status == "delivered")
    counts = {"delivered": len(delivered), "undelivered": 200 - len(delivered)}
    assert 1 <= len(delivered) < 200
    assert {**NOTHING, "rows": 200, "events": 200, **counts} == result.summary.as_dict()
    assert delivered == sent(sandbox)
    assert "told to stop" in str(result.stopped)
    assert result.stopped is result.error


@pytest.mark.parametrize(
    ("apicode", "faults", "error"),
    [
        pytest.param("wrong", [], RopoAuthenticationError, id="refused"),
        pytest.param("sandbox", [Fault(status=503, headers={"Retry-After": "7200"})], RopoUnavailableError, id="later"),
    ],
)
def test_a_sign_in_that_fails(sandbox: Sandbox, apicode: str, faults: list[Fault], error: type[RopoError]) -> None:
    """Without a sign-in nothing is posted; the error is returned beside the counts, and is in the last report."""
    reports: list[dict[str, Any]] = []
    sandbox.script_sign_in(faults)

    def publish(report: dict[str, Any]) -> bool:
        reports.append(report)
        return True

    result = run([row(1), row(2, status="gone")], sandbox, apicode=apicode, publish=publish)

    assert {**NOTHING, "rows": 2, "events": 2, "undelivered": 1, "invalid": 1} == result.summary.as_dict()
    assert error is type(result.stopped)
    assert result.stopped is result.error
    assert [] == sandbox.arrivals
    assert str(result.stopped) == reports[-1]["stopped"]


def test_a_ledger_that_cannot_be_written(
    sandbox: Sandbox, path: Path, open_ledger: Callable[[str], DeliveryLedger]
) -> None:
    """What could not be remembered is not posted; the ledger's error is returned beside the counts."""
    run([row(1)], sandbox, open_ledger("first"))
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON ropo_ledger BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        database.commit()

    result = run([row(1), row(2)], sandbox, open_ledger("second"))

    assert {**NOTHING, "rows": 2, "events": 2, "already_delivered": 1, "undelivered": 1} == result.summary.as_dict()
    assert isinstance(result.stopped, RopoLedgerError)
    assert ["e1"] == sent(sandbox)


def test_a_ledger_that_cannot_be_made(sandbox: Sandbox, path: Path, open_ledger: Callable[..., DeliveryLedger]) -> None:
    """Where the ledger's table cannot be made, no row is read and nothing is posted."""
    path.write_text("this is no database")
    read: list[int] = []

    class Rows:
        def read_into(self, *_arguments: object) -> int:
            read.append(1)
            return 0

    with pytest.raises(RopoLedgerError):
        run(Rows(), sandbox, open_ledger("first"))

    assert ([], 0) == (read, sandbox.sign_ins)


def test_progress_and_deliveries_are_told(sandbox: Sandbox) -> None:
    """The report is published at each step, and each delivery is told once, on the calling thread."""
    reports: list[dict[str, Any]] = []
    deliveries: list[tuple[str | None, str]] = []
    threads = set()

    def publish(report: dict[str, Any]) -> bool:
        reports.append(report)
        return True

    def on_delivery(delivery: Delivery) -> None:
        deliveries.append((delivery.event_id, delivery.status.value))
        threads.add(threading.get_ident())

    result = run(
        [row(1), row(2, usageplacecode="UNKNOWN-2"), row(3, status="gone")],
        sandbox,
        publish=publish,
        on_delivery=on_delivery,
    )

    assert ["reading", "posting", "ended"] == list(dict.fromkeys(report["state"] for report in reports))
    assert [("e1", "delivered"), ("e2", "rejected")] == sorted(deliveries)
    assert {threading.get_ident()} == threads
    assert result.summary.as_dict() == reports[-1]["counts"]
    assert (2, 2) == (reports[-1]["done"], reports[-1]["total"])


@pytest.mark.parametrize("options", [{}, {"preview": True}, {"max_events": 5_000}], ids=str)
def test_figures_are_never_older_than_fifteen_seconds(
    sandbox: Sandbox, open_ledger: Callable[[str], DeliveryLedger], options: dict[str, Any]
) -> None:
    """While a slow source is read and checked, each report follows the one before within fifteen seconds."""
    clock, published = FakeClock(), list[tuple[float, int]]()

    def slow_rows() -> Iterator[dict[str, Any]]:
        for number in range(1_000):
            clock.now += 0.1
            yield row(number % 60, id=f"e{number}", status="connected" if number % 2 else "gone")

    def publish(report: dict[str, Any]) -> bool:
        published.append((clock.now, report["counts"]["rows"]))
        return True

    run(MappingRows(slow_rows()), sandbox, open_ledger("run"), publish=publish, clock=clock, **options)

    times, rows = zip(*published, strict=True)
    assert max(later - earlier for earlier, later in pairwise(times)) <= 15
    assert {100, 500, 1_000} <= set(rows)


def test_figures_are_fresh_while_the_sign_in_is_tried_again(sandbox: Sandbox) -> None:
    """Reports are published while Ropo One keeps the run waiting, and the events are posted after all."""
    published: list[tuple[str, int]] = []
    sandbox.script_sign_in([Fault(status=503), Fault(status=503)])
    now = time.monotonic()

    def clock() -> float:
        # It is always time for another report.
        nonlocal now
        now += 60
        return now

    def publish(report: dict[str, Any]) -> bool:
        published.append((report["state"], sandbox.sign_ins))
        return True

    result = run([row(1)], sandbox, publish=publish, clock=clock)

    # One report when the posting starts, and one at least during each of the two waits.
    assert len([state for state, sign_ins in published if state == "posting" and sign_ins == 0]) >= 3
    assert result.error is None


def test_a_stop_does_not_wait_for_the_sign_in(sandbox: Sandbox) -> None:
    """Told to stop while no answer to the sign-in comes, a run ends before that would."""
    stop = threading.Event()
    sandbox.script_sign_in([Fault(delay=30)])

    def publish(report: dict[str, Any]) -> bool:
        if report["state"] == "posting":
            stop.set()
        return True

    result = run([row(1)], sandbox, stop=stop, publish=publish)

    assert "told to stop" in str(result.stopped)
    assert {"undelivered": 1} == nonzero(result)


@pytest.mark.parametrize(
    ("max_failed", "is_red"), [(0, True), (1, True), (2, False), (0.4, True), (0.5, False)], ids=str
)
def test_failures_that_are_tolerated(sandbox: Sandbox, max_failed: float, is_red: bool) -> None:  # noqa: FBT001
    """Two of four events fail: more than one or 0.4, and not more than two or 0.5."""
    rows = [row(1), row(2), row(3, status="gone"), row(4, usageplacecode="UNKNOWN-4")]

    result = run(rows, sandbox, max_failed=max_failed)

    assert is_red == (result.failure is not None)
    assert is_red == (result.error is not None)


def test_no_rows_need_no_sign_in(sandbox: Sandbox) -> None:
    """A run without rows ends well, and does not sign in."""
    result = run([], sandbox)

    assert NOTHING == result.summary.as_dict()
    assert result.error is None
    assert 0 == sandbox.sign_ins


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            pytest.param({"max_workers": value}, "`max_workers` must be 1 or more", id=f"max_workers {value!r}")
            for value in (0, -1, 1.5, True, None, "8")
        ],
        *[
            pytest.param({"rate_limit": value}, "`rate_limit` must be more than 0", id=f"rate_limit {value!r}")
            for value in (0, -0.5, float("nan"), True, "5")
        ],
        *[
            pytest.param({"max_failed": value}, "`max_failed` must be a count", id=f"max_failed {value!r}")
            for value in (-1, float("nan"), True, None, "0.1")
        ],
        pytest.param({"columns": "id"}, "`columns` must be a mapping", id="columns"),
        pytest.param({"statuses": ["connected"]}, "`statuses` must be a mapping", id="statuses"),
        *[
            pytest.param({"max_events": value}, "`max_events` must be a whole number", id=f"max_events {value!r}")
            for value in (-1, 1.5, True, "5", {"connected": "5"}, {"connected": -1}, {"connected": None}, [5])
        ],
        pytest.param({"max_events": {"cut off": 5}}, "`max_events` names cut off, which is none of", id="status"),
        pytest.param({"approved": "yes"}, "`approved` is not the digest of a preview", id="approved"),
        pytest.param({"timezone": "Helsinki/Europe"}, "timezone 'Helsinki/Europe' is not known", id="timezone"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], message: str) -> None:
    """An option that cannot work is refused when the options are made, by its name."""
    with pytest.raises(RopoConfigurationError) as caught:
        class_of(options)(**options)

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "options",
    [
        {"max_workers": 1},
        {"rate_limit": 0.1},
        {"rate_limit": None},
        {"max_failed": 0.99},
        {"columns": {}},
        {"max_events": 0},
    ],
    ids=str,
)
def test_options_at_their_bounds(options: dict[str, Any]) -> None:
    """What is just allowed is taken as it is, and cannot be changed afterwards."""
    (name, value), *_ = options.items()

    made = class_of(options)(**options)

    assert value == getattr(made, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, value)


# Guards: nothing is posted unless what would be posted is what is wanted.


def plain_row(number: int, status: str = "connected", **fields: Any) -> dict[str, Any]:
    return row(number, status=status, description="no access", **fields)


LIMITS: list[Any] = [
    pytest.param(2, "3 events, at most 2 are allowed by `max_events`", id="a count"),
    pytest.param({"disconnected": 1}, "2 disconnected, at most 1 are allowed", id="a status"),
    pytest.param({"connected": 5, "disconnected": 0}, "2 disconnected, at most 0 are allowed", id="several statuses"),
]


@pytest.mark.parametrize(("limit", "reason"), LIMITS)
def test_too_many_events_are_refused(sandbox: Sandbox, path: Path, open_ledger: Any, limit: Any, reason: str) -> None:
    """If more would be posted than is allowed, nothing is, and the counts say what it would have been."""
    rows = [plain_row(1, "disconnected"), plain_row(2, "disconnected"), plain_row(3), plain_row(4, "gone")]
    published: list[dict[str, Any]] = []

    result = run(
        rows,
        sandbox,
        open_ledger("run"),
        max_events=limit,
        publish=lambda report: published.append(report) or True,  # type: ignore[func-returns-value]
    )

    assert isinstance(result.stopped, RunRefusedError)
    assert str(result.stopped).startswith(f"refused before the first post, nothing was posted: {reason}")
    assert "this run would post 2 disconnected, 1 connected" in str(result.stopped)
    assert {"disconnected": 2, "connected": 1} == result.stopped.counts
    assert {**NOTHING, "rows": 4, "events": 4, "undelivered": 3, "invalid": 1} == result.summary.as_dict()
    assert (0, []) == (sandbox.sign_ins, sandbox.arrivals)
    assert {} == remembered(path)
    assert str(result.stopped) == published[-1]["stopped"]


@pytest.mark.parametrize(
    "limit", [3, 4, {"disconnected": 2}, {"disconnected": 2, "connected": 1}, {"notdisconnected": 0}, None]
)
def test_as_many_as_allowed_are_posted(sandbox: Sandbox, limit: Any) -> None:
    """A limit that is just reached refuses nothing; a status without a limit has none."""
    result = run([plain_row(1, "disconnected"), plain_row(2, "disconnected"), plain_row(3)], sandbox, max_events=limit)

    assert result.error is None
    assert 3 == len(sandbox.arrivals)


def test_known_events_do_not_count(sandbox: Sandbox, open_ledger: Any) -> None:
    """What the ledger knows as delivered is not posted, so it is no part of the limit: a retry goes on."""
    run([row(number) for number in range(5)], sandbox, open_ledger("first"))

    result = run([row(number) for number in range(7)], sandbox, open_ledger("second"), max_events=2)

    assert result.error is None
    assert (5, 2) == (result.summary.count(DeliveryStatus.ALREADY_DELIVERED), len(sandbox.arrivals) - 5)


def digest_of(rows: list[dict[str, Any]], sandbox: Sandbox, ledger: Any = None, **options: Any) -> str:
    return str(run(rows, sandbox, ledger, preview=True, **options).digest)


def test_what_was_approved_is_posted(sandbox: Sandbox, open_ledger: Any) -> None:
    """A run that would post just what the preview showed posts it, in whichever order the rows come."""
    rows = [row(number) for number in range(4)]
    digest = digest_of(rows, sandbox, open_ledger("preview"))

    result = run(rows[::-1], sandbox, open_ledger("run"), approved=digest)

    assert result.error is None
    assert 4 == len(sandbox.arrivals)


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        pytest.param([row(0), row(1), row(2), row(3)], "2 events more", id="more"),
        pytest.param([row(0)], "1 event fewer", id="fewer"),
        pytest.param([row(0), row(1, customernumber="B")], "1 event with other content", id="other content"),
        pytest.param([row(0), row(2)], "1 event more, 1 event fewer", id="another"),
    ],
)
def test_anything_else_is_refused(sandbox: Sandbox, rows: list[dict[str, Any]], difference: str) -> None:
    """If anything but what was approved would be posted, nothing is, and the message says what differs."""
    digest = digest_of([row(0), row(1)], sandbox)

    result = run(rows, sandbox, approved=digest)

    assert isinstance(result.stopped, RunRefusedError)
    assert f"this is not what was approved: {difference}; run the preview again" in str(result.stopped)
    assert [] == sandbox.arrivals


def test_an_approval_is_for_one_destination(sandbox: Sandbox) -> None:
    """What was approved for the test server is not approved for production."""
    digest = digest_of([row(0)], sandbox, destination="https://test.example 1000011")

    result = run([row(0)], sandbox, approved=digest)

    assert "this is not what was approved: the preview was for another destination" in str(result.stopped)
    assert [] == sandbox.arrivals


def test_a_retry_of_an_approved_run_goes_on(sandbox: Sandbox, open_ledger: Any) -> None:
    """What an earlier try of the run has delivered belongs to what was approved: the next try posts the rest."""
    rows = [row(number) for number in range(4)]
    digest = digest_of(rows, sandbox, open_ledger("preview"))
    run(rows[:2], sandbox, open_ledger("run"))

    again = run(rows, sandbox, open_ledger("run"), approved=digest)

    assert again.error is None
    assert ["e0", "e1", "e2", "e3"] == sent(sandbox)


def test_what_another_run_delivered_meanwhile_is_a_difference(sandbox: Sandbox, open_ledger: Any) -> None:
    """If another run has delivered some of it since, the batch is no longer what was approved."""
    rows = [row(number) for number in range(4)]
    digest = digest_of(rows, sandbox, open_ledger("preview"))
    run(rows[:1], sandbox, open_ledger("another"))

    result = run(rows, sandbox, open_ledger("run"), approved=digest)

    assert "1 event fewer" in str(result.stopped)
    assert ["e0"] == sent(sandbox)


@pytest.mark.parametrize("guard", ["approved", "max_events"])
@pytest.mark.parametrize("end", [DeliveryStatus.UNDELIVERED, DeliveryStatus.UNCONFIRMED], ids=str)
def test_what_another_run_lets_go_is_not_posted_beside_it(
    sandbox: Sandbox, open_ledger: Any, guard: str, end: DeliveryStatus
) -> None:
    """Only what was to be posted when the guard was checked is posted; a later run sends what another let go since."""
    another, event = open_ledger("another"), UsageplaceEvent.from_row(row(1))
    another.prepare()
    (claim,) = another.exchange(Round(look_ups=[event], claim_limit=1)).unresolved
    rows = [row(0), row(1)]
    options: dict[str, Any] = {"approved": digest_of(rows, sandbox, open_ledger("preview")), "max_events": 1}

    def let_go(report: dict[str, Any]) -> bool:
        if report["state"] == "posting" and report["done"] == 0:
            another.exchange(Round(results=[(claim, end_of(event, end, "no answer", attempts=1))]))
        return True

    result = run(rows, sandbox, open_ledger("run"), publish=let_go, **{guard: options[guard]})

    assert ["e0"] == sent(sandbox)
    (failure,) = result.summary.failures
    expected = DeliveryStatus.HELD if end is DeliveryStatus.UNDELIVERED else DeliveryStatus.UNCONFIRMED
    assert ("e1", expected) == (failure.event_id, failure.status)
    assert "not to be sent when `max_events` and `approved` were checked" in failure.detail
    assert result.summary.retryable

    later = run(rows, sandbox, open_ledger("later"))

    assert later.error is None
    assert ["e0", "e1"] == sent(sandbox)


def test_only_these_events(sandbox: Sandbox) -> None:
    """With event ids, nothing else is posted or counted, an invalid row among them included."""
    rows = [row(0), row(1), row(2, status="gone"), row(3, status="gone")]

    result = run(rows, sandbox, event_ids=["e1", "e2"])

    assert {**NOTHING, "rows": 4, "events": 2, "delivered": 1, "invalid": 1} == result.summary.as_dict()
    assert ["e1"] == sent(sandbox)


def test_an_id_that_no_row_has_is_named(sandbox: Sandbox) -> None:
    """An id without a row is a mistake: nothing is posted, and the message names it."""
    with pytest.raises(RopoConfigurationError, match=r"`event_ids`: no row has the id nope, nor; correct the id"):
        run([row(0)], sandbox, event_ids=["e0", "nope", "nor"])

    assert [] == sandbox.arrivals


def test_an_event_is_sent_again(sandbox: Sandbox, open_ledger: Any) -> None:
    """With its id, and `redeliver` set to always, one delivered event is sent again, and no other."""
    rows = [row(number) for number in range(3)]
    run(rows, sandbox, open_ledger("first"))
    always = open_ledger("again", redeliver="always")

    result = run(rows, sandbox, always, event_ids=["e1"])

    assert result.error is None
    assert ["e0", "e1", "e1", "e2"] == sent(sandbox)
