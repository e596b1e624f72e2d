from __future__ import annotations

import datetime as dt
import logging
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import pytest
from hypothesis import event as note
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.circuit_breaker import FAILURE_LIMIT
from airflow_provider_ropo.dispatch.dispatcher import (
    CLAIMS_PER_WORKER,
    LOOK_UP_SIZE,
    MAX_CLAIMS,
    SHUTDOWN_TIMEOUT,
    Dispatcher,
)
from airflow_provider_ropo.errors import (
    InvalidRowError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoLedgerError,
    RopoRejectedError,
    RopoServerError,
    RopoTimeoutError,
    RopoUnavailableError,
    SupersededError,
)
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, Decision
from airflow_provider_ropo.ledger.protocol import Ledger
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.retry import Backoff
from doubles import HANGS
from interruptions import interruption

BACKOFF = Backoff(max_attempts=3, initial=0.001, jitter=lambda: 1.0)
NOON = dt.datetime(2024, 1, 4, 12, tzinfo=dt.UTC)
#: Longer than anything here takes, unless it hangs.
SOON = 5.0
#: Posts side by side, where a test does not say.
WORKERS = 4

REJECTED = RopoRejectedError("HTTP 400: unknown code", status_code=400)
UNWELL = RopoServerError("HTTP 503", status_code=503)
SILENT = RopoTimeoutError("no answer in 30 s")
AWAY = RopoConnectError("no route to host")
REFUSED = RopoAuthenticationError("sign-in refused", status_code=401)
NO_LEDGER = RopoLedgerError("the ledger could not be reached")
SUPERSEDED = SupersededError("a later try is at work")
OK = None
Answers = Sequence[RopoError | None]

SEND = Decision(Action.SEND)
LOST = Decision(Action.SEND, unconfirmed=True, detail="may have arrived already")
KNOWN = Decision(Action.ALREADY_DELIVERED)
CHANGED = Decision(Action.CONTENT_CHANGED, detail="differs")
CLAIMED_ELSEWHERE = Decision(Action.CLAIMED_ELSEWHERE, detail="run r2 is sending it")
HOLD = Decision(Action.UNCONFIRMED, unconfirmed=True, detail="may have arrived already")


class InterruptedByAirflow(BaseException):
    """As Airflow's own timeout: not an Exception, so that no library swallows it."""


def events(place: str, count: int = 1) -> list[UsageplaceEvent]:
    return [UsageplaceEvent(f"{place}{number}", place, UsageplaceStatus.CONNECTED, NOON) for number in range(count)]


def single_lanes(count: int, name: str = "P") -> list[list[UsageplaceEvent]]:
    return [events(f"{name}{number}-") for number in range(count)]


class FakeClient:
    """Stands in for the client: answers each event as written, else with success, and sees who came and when.

    :param answers: event id → an answer for each attempt, an error or None.
    :param latency: how many seconds an answer takes.
    """

    def __init__(
        self,
        answers: Mapping[str, Sequence[BaseException | None]] | None = None,
        latency: Callable[[], float] | None = None,
    ) -> None:
        self._answers = {event_id: list(each) for event_id, each in (answers or {}).items()}
        self._latency = latency
        self._lock = threading.Lock()
        self._here: Counter[str] = Counter()
        self.came: list[str] = []
        self.most_at_once = 0
        self.overlaps: list[str] = []

    def __call__(self, event: UsageplaceEvent) -> None:
        with self._lock:
            self.came.append(event.id)
            self._here[event.usageplacecode] += 1
            self.most_at_once = max(self.most_at_once, self._here.total())
            if self._here[event.usageplacecode] > 1:
                self.overlaps.append(event.id)
            answers = self._answers.get(event.id)
            answer = answers.pop(0) if answers else OK
        try:
            if self._latency is not None:
                time.sleep(self._latency())
            if answer is not None:
                raise answer
        finally:
            with self._lock:
                self._here[event.usageplacecode] -= 1

    def came_of(self, place: str) -> list[str]:
        return [event_id for event_id in self.came if event_id.startswith(place)]


class FakeLedger:
    """Stands in for the ledger: tells how events stand as written, and notes what it is told.

    :param decisions: event id → how it stands when it is looked up; others are to be sent.
    :param claims: event id → how it stands when its claim is verified; others as they stood before.
    :param waits: event id → the number of rounds in which its claim stays unresolved.
    :param fails: what to raise: *look_up*, *claim* (which is verified) or *record* → the number of the round with any
        of these from which on it fails, and the error. A superseded run's results are recorded, and it is told once.
    :param recovers: it fails that one time only.
    :param latency: seconds that a round takes.
    """

    def __init__(
        self,
        decisions: Mapping[str, Decision] | None = None,
        claims: Mapping[str, Decision] | None = None,
        *,
        waits: Mapping[str, int] | None = None,
        fails: Mapping[str, tuple[int, BaseException]] | None = None,
        recovers: bool = False,
        latency: float = 0.0,
    ) -> None:
        self._decisions = decisions or {}
        self._claims = claims or {}
        self._waits = dict(waits or {})
        self._fails = fails or {}
        self._recovers = recovers
        self._latency = latency
        self._busy = threading.Lock()
        self._unresolved: set[str] = set()
        self.rounds = 0
        self.calls: Counter[str] = Counter()
        self.threads: set[threading.Thread] = set()
        #: What was looked up, once for each time.
        self.looked_up: list[str] = []
        #: What was claimed, and not refused when that was verified.
        self.claimed: list[str] = []
        self.ready: set[str] = set()
        self.recorded: dict[str, list[str]] = defaultdict(list)
        self.most_claimed = 0
        self.failed = threading.Event()
        self.failed_at_the_end = False

    def exchange(self, asked: Round) -> Outcome:
        assert self._busy.acquire(blocking=False), "one round at a time"
        try:
            return self._exchange(asked)
        finally:
            self._busy.release()

    def release_connection(self) -> None:
        assert not self._busy.locked()

    def _exchange(self, asked: Round) -> Outcome:
        self.rounds += 1
        self.threads.add(threading.current_thread())
        time.sleep(self._latency)
        error = self._failure(asked)
        if error is None or isinstance(error, SupersededError):
            self._record(asked.results)
        if error is not None:
            self.failed.set()
            # On the calling thread, when the ledger's own has ended: nothing is written after that.
            self.failed_at_the_end = threading.current_thread() is threading.main_thread()
            raise error
        outcome = Outcome()
        self._verify(asked.unresolved, outcome)
        self._look_up(asked, outcome)
        self.most_claimed = max(self.most_claimed, len(set(self.claimed) - self.recorded.keys()))
        return outcome

    def _failure(self, asked: Round) -> BaseException | None:
        asks = {"look_up": [*asked.look_ups, *asked.blocked], "claim": asked.unresolved, "record": asked.results}
        self.calls.update(method for method, what in asks.items() if what)
        for method, what in asks.items():
            at, error = self._fails.get(method, (0, NO_LEDGER))
            again = not (self._recovers or isinstance(error, SupersededError))
            if what and at and (self.calls[method] == at or (self.calls[method] > at and again)):
                return error
        return None

    def _record(self, results: Iterable[tuple[PendingClaim, Delivery]]) -> None:
        for claim, delivery in results:
            assert claim.event.id == delivery.event_id
            assert claim.is_claimed == (claim.event.id in self.claimed)
            assert not delivery.attempts or claim.event.id in self.ready
            self._unresolved.discard(claim.event.id)
            self.recorded[claim.event.id].append(delivery.status.value)

    def _verify(self, claims: Iterable[PendingClaim], outcome: Outcome) -> None:
        for claim in claims:
            event_id = claim.event.id
            assert event_id in self._unresolved
            decision = self._claims.get(event_id, claim.decision)
            if self._waits.get(event_id):
                self._waits[event_id] -= 1
                outcome.unresolved.append(claim)
                continue
            self._unresolved.remove(event_id)
            if decision.action is Action.SEND:
                self.ready.add(event_id)
                outcome.ready.append(claim)
            else:
                self.claimed.remove(event_id)
                outcome.refused.append(replace(claim, decision=decision, is_claimed=False))

    def _look_up(self, asked: Round, outcome: Outcome) -> None:
        of_a_place: Counter[str] = Counter()
        closed: set[str] = set()
        outcome.refused += [PendingClaim(event, self._decisions.get(event.id, SEND)) for event in asked.blocked]
        self.looked_up += [event.id for event in (*asked.look_ups, *asked.blocked)]
        for event in asked.look_ups:
            place, decision = event.usageplacecode, self._decisions.get(event.id, SEND)
            claim = PendingClaim(event, decision)
            is_full = of_a_place.total() == asked.claim_limit or of_a_place[place] == asked.claims_per_place
            if place in closed or (decision.action is Action.SEND and is_full):
                closed.add(place)
                outcome.postponed.append(claim)
            elif decision.action is Action.SEND:
                of_a_place[place] += 1
                self._unresolved.add(event.id)
                self.claimed.append(event.id)
                outcome.unresolved.append(replace(claim, is_claimed=True))
            else:
                outcome.refused.append(claim)
                if STATUS_OF_ACTION[decision.action] in BLOCKING:
                    closed.add(place)


class Run(NamedTuple):
    """What came of a run."""

    deliveries: list[Delivery]
    error: BaseException | None
    seconds: float
    unsent: Iterator[UsageplaceEvent]

    @property
    def ends(self) -> dict[str | None, str]:
        """Each event's end; it has exactly one."""
        assert len(self.deliveries) == len({delivery.event_id for delivery in self.deliveries})
        return {delivery.event_id: delivery.status.value for delivery in self.deliveries}

    @property
    def details(self) -> dict[str | None, str]:
        return {delivery.event_id: delivery.detail for delivery in self.deliveries}

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.ends.values())


def run(
    lanes: Iterable[Iterable[UsageplaceEvent]],
    send: Callable[[UsageplaceEvent], object],
    ledger: Ledger | None = None,
    *,
    workers: int = WORKERS,
    stop: threading.Event | None = None,
    backoff: Backoff = BACKOFF,
    on_delivery: Callable[[Delivery], None] | None = None,
    report: Report | None = None,
) -> Run:
    """Run a dispatcher, and hand back each delivery, the error, and what was left."""
    deliveries: list[Delivery] = []
    caller = threading.get_ident()
    stop = stop or threading.Event()

    def land(delivery: Delivery) -> None:
        assert caller == threading.get_ident()
        deliveries.append(delivery)
        if on_delivery is not None:
            on_delivery(delivery)

    dispatcher = Dispatcher(send, land, ledger=ledger, max_workers=workers, stop=stop, backoff=backoff, report=report)
    started = time.monotonic()
    error: BaseException | None = None
    try:
        dispatcher.run(lanes)
    except BaseException as raised:  # noqa: BLE001 - it is handed back
        error = raised
    seconds = time.monotonic() - started
    if isinstance(error, AssertionError):
        raise error
    assert stop.is_set()
    return Run(deliveries, error, seconds, dispatcher.unsent())


def assert_all_accounted_for(lanes: Iterable[Iterable[UsageplaceEvent]], done: Run) -> None:
    """Check that each event has either ended or is left, and no event twice; what is left of a place, in its order."""
    left = [event.id for event in done.unsent]
    all_ids = [[event.id for event in lane] for lane in lanes]
    assert sorted(chain.from_iterable(all_ids)) == sorted([*map(str, done.ends), *left])
    for ids in all_ids:
        assert [event_id for event_id in ids if event_id not in done.ends] == [each for each in left if each in ids]


def assert_all_recorded(ledger: FakeLedger, done: Run) -> None:
    """Check that each event that was claimed, or has ended, has exactly one record: its end."""
    assert {event_id: [end] for event_id, end in done.ends.items()} == ledger.recorded
    assert set(ledger.claimed) <= set(ledger.recorded)


@pytest.fixture
def lanes() -> list[list[UsageplaceEvent]]:
    """Return two usage places: one with the events A0, A1, A2, one with B0."""
    return [events("A", 3), events("B")]


# One place after another


def test_everything_arrives(lanes: list[list[UsageplaceEvent]]) -> None:
    """Every event is posted once, those of a place in their order, and each says so."""
    ropo = FakeClient()

    done = run(lanes, ropo)

    assert ["A0", "A1", "A2"] == ropo.came_of("A")
    assert ["B0"] == ropo.came_of("B")
    assert Delivery(DeliveryStatus.DELIVERED, "A2", "A", "", None, 1) == done.deliveries[-1]
    assert {"delivered": 4} == done.counts
    assert done.error is None


def test_no_events() -> None:
    """Where there is nothing to send, nothing happens, at once; empty lanes are nothing."""
    ledger = FakeLedger()

    nothings: list[list[list[UsageplaceEvent]]] = [[], [[], []]]
    for nothing in nothings:
        done = run(nothing, FakeClient(), ledger)
        assert ([], None) == (done.deliveries, done.error)
    assert 0 == ledger.rounds


@pytest.mark.parametrize("error", [UNWELL, SILENT, AWAY], ids=lambda error: type(error).__name__)
def test_transient_failure_passes(error: RopoError, lanes: list[list[UsageplaceEvent]]) -> None:
    """What may pass is tried again before the place's next event."""
    ropo = FakeClient({"A0": [error, error]})

    done = run(lanes, ropo)

    assert ["A0", "A0", "A0", "A1", "A2"] == ropo.came_of("A")
    assert {"delivered": 4} == done.counts
    assert [3] == [delivery.attempts for delivery in done.deliveries if delivery.event_id == "A0"]


@pytest.mark.parametrize(
    ("answers", "end", "http_status"),
    [
        ([AWAY, AWAY, AWAY], "undelivered", None),
        ([SILENT, SILENT, SILENT], "unconfirmed", None),
        ([SILENT, UNWELL, UNWELL], "unconfirmed", 503),
        ([UNWELL, SILENT, AWAY], "unconfirmed", None),
        ([UNWELL, UNWELL, UNWELL], "undelivered", 503),
    ],
    ids=["never left", "silent", "silent once", "silent in between", "unwell"],
)
def test_what_did_not_arrive_holds_its_place(
    answers: list[RopoError], end: str, http_status: int | None, lanes: list[list[UsageplaceEvent]]
) -> None:
    """When the attempts are used up, the place's later events are held, unsent; other places go on."""
    ropo = FakeClient({"A0": answers})

    done = run(lanes, ropo)

    assert ["A0", "A0", "A0"] == ropo.came_of("A")
    assert {"A0": end, "A1": "held", "A2": "held", "B0": "delivered"} == done.ends
    assert [(http_status, 3)] == [
        (each.http_status, each.attempts) for each in done.deliveries if each.event_id == "A0"
    ]
    assert "waits for the earlier event A0" == done.details["A1"]
    assert done.error is None


def test_long_place_is_held_to_its_end() -> None:
    """Held are also the events of the place that had not been looked at yet; what was delivered before stays so."""
    ropo = FakeClient({"A20": [UNWELL] * 3})

    done = run([events("A", 2_000)], ropo)

    assert {"delivered": 20, "undelivered": 1, "held": 1_979} == done.counts
    assert {"waits for the earlier event A20"} == {done.details[f"A{number}"] for number in range(21, 2_000)}
    assert 23 == len(ropo.came)


def test_rejection_is_final(lanes: list[list[UsageplaceEvent]]) -> None:
    """What Ropo One says no to is not tried again, and does not hold its place's later events."""
    ropo = FakeClient({"A0": [REJECTED]})

    done = run(lanes, ropo)

    assert ["A0", "A1", "A2"] == ropo.came_of("A")
    assert {"A0": "rejected", "A1": "delivered", "A2": "delivered", "B0": "delivered"} == done.ends


class Load(NamedTuple):
    """Places with their numbers of events, what is answered to each event, and a seed for the delays."""

    sizes: list[int]
    answers: dict[str, Answers]
    seed: int


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Make many small places and a hot one, so few that their failures alone end no run."""
    sizes = draw(st.lists(st.integers(1, 6), max_size=FAILURE_LIMIT - 3))
    sizes.insert(draw(st.integers(0, len(sizes))), draw(st.integers(1, 60)))
    ids = st.sampled_from([event.id for lane in lanes_of(sizes) for event in lane])
    answer = st.sampled_from([UNWELL, SILENT, AWAY, REJECTED, OK])
    some: st.SearchStrategy[Answers] = st.lists(answer, min_size=1, max_size=3)
    return Load(sizes, draw(st.dictionaries(ids, some, max_size=sum(sizes) // 3)), draw(st.integers(0, 99)))


def lanes_of(sizes: Sequence[int]) -> list[list[UsageplaceEvent]]:
    return [events(f"P{place}-", size) for place, size in enumerate(sizes)]


def journey(answers: Answers, *, unconfirmed: bool = False) -> tuple[int, str]:
    """Say how many attempts such answers make, and how they end."""
    for attempt in range(1, BACKOFF.max_attempts + 1):
        answer = answers[attempt - 1] if attempt <= len(answers) else OK
        if answer is OK:
            return attempt, "delivered"
        if answer is REJECTED:
            return attempt, "rejected"
        unconfirmed = unconfirmed or answer is SILENT
    return attempt, "unconfirmed" if unconfirmed else "undelivered"


@settings(max_examples=60)
@given(load=loads(), workers=st.integers(1, 8))
def test_order_holds_whatever_happens(load: Load, workers: int) -> None:
    """Each place's events come in their order, one at a time, as far as the one that did not arrive."""
    moods = random.Random(load.seed)  # noqa: S311 - no secret
    ropo = FakeClient(load.answers, latency=lambda: moods.choice([0.0, 0.0, 0.0005, 0.002]))
    came: list[str] = []
    ends: dict[str, str] = {}
    for lane in lanes_of(load.sizes):
        holds = False
        for event in lane:
            attempts, ends[event.id] = journey(load.answers.get(event.id, []))
            if holds:
                attempts, ends[event.id] = 0, "held"
            came += [event.id] * attempts
            holds = holds or ends[event.id] in BLOCKING

    done = run(lanes_of(load.sizes), ropo, workers=workers)

    assert came == [event_id for place in range(len(load.sizes)) for event_id in ropo.came_of(f"P{place}-")]
    assert ends == done.ends
    assert [] == ropo.overlaps
    assert ropo.most_at_once <= workers
    assert done.error is None
    note(f"held: {'held' in ends.values()}")


# Side by side


def hot_lanes_first() -> list[list[UsageplaceEvent]]:
    return [*(events(f"H{number}-", 40) for number in range(4)), *single_lanes(12)]


@pytest.mark.parametrize(
    "lanes",
    [single_lanes(64), [events(f"H{number}-", 8) for number in range(8)], hot_lanes_first()],
    ids=["many places", "few places", "busy places first"],
)
def test_all_workers_work(lanes: list[list[UsageplaceEvent]]) -> None:
    """As many events are on their way at once as there are workers, where there is work for them, and no more."""
    workers = 8
    full = threading.Event()
    ropo = FakeClient(latency=lambda: 0.001)
    here: list[str] = []

    def send(event: UsageplaceEvent) -> None:
        here.append(event.id)
        if len(here) == workers:
            full.set()
        # Nobody leaves before all are there.
        assert full.wait(SOON)
        ropo(event)

    done = run(lanes, send, workers=workers)

    assert done.error is None
    assert sum(map(len, lanes)) == done.counts["delivered"]
    assert 2 <= ropo.most_at_once <= workers


def test_retries_do_not_stop_others() -> None:
    """While an event waits for its next attempt, the other places go on."""
    ropo = FakeClient({"A0": [UNWELL]})
    patient = Backoff(max_attempts=3, initial=0.3, jitter=lambda: 1.0)

    run([events("A", 2), *single_lanes(100)], ropo, workers=2, backoff=patient)

    assert ["A0", "A1"] == ropo.came[-2:]
    # Some of the others may have been quicker, but most of them came while it waited.
    assert ropo.came.index("A0") < 50


def test_ledger_is_not_waited_for_by_those_under_way() -> None:
    """While many known events are looked up, the places under way go on, and results are recorded."""
    known = {f"K{number}": KNOWN for number in range(20_000)}
    order: list[str] = []
    ledger = FakeLedger(known, latency=0.005)
    hot = events("A", 10)
    backlog = [UsageplaceEvent(i, i, UsageplaceStatus.CONNECTED, NOON) for i in known]

    done = run([hot, backlog], FakeClient(), ledger, on_delivery=lambda delivery: order.append(str(delivery.event_id)))

    assert {"delivered": 10, "already_delivered": 20_000} == done.counts
    assert order.index(hot[-1].id) < 10_000


# Bounded


class Source:
    """Lanes without end, which notice how far they are read ahead of the results."""

    def __init__(self, enough: int) -> None:
        self.stop = threading.Event()
        self._enough = enough
        self._read = 0
        self._done = 0
        self.unclaimed = 0

    def lane(self, place: str, count: int) -> Iterator[UsageplaceEvent]:
        for number in range(count):
            self._read += 1
            self.unclaimed = max(self.unclaimed, self._read - self._done)
            yield UsageplaceEvent(f"{place}{number}", place, UsageplaceStatus.CONNECTED, NOON)

    def on_delivery(self, _delivery: Delivery) -> None:
        self._done += 1
        if self._done == self._enough:
            self.stop.set()


@pytest.mark.parametrize("known", [None, 0, 3_000], ids=["no ledger", "all new", "the first known"])
@pytest.mark.parametrize(
    "sizes",
    [lambda: (1 for _ in range(1_000_000)), lambda: iter([100_000]), lambda: iter([100_000, *[1] * 100_000])],
    ids=["a million places", "a hot place", "a hot place among many"],
)
def test_reads_little_ahead(sizes: Callable[[], Iterator[int]], known: int | None) -> None:
    """However many events there are, and however many of one place, only a bounded number is read ahead."""
    enough = (known or 0) + 1_500
    source = Source(enough)

    class FirstKnown(FakeLedger):
        def exchange(self, asked: Round) -> Outcome:
            first = [event.id for event in asked.look_ups][: max((known or 0) - len(self.looked_up), 0)]
            self._decisions = dict.fromkeys(first, KNOWN)
            return super().exchange(asked)

    lanes = (source.lane(f"P{place}-", size) for place, size in enumerate(sizes()))
    ledger = None if known is None else FirstKnown()

    done = run(lanes, FakeClient(), ledger, workers=4, stop=source.stop, on_delivery=source.on_delivery)

    assert enough <= len(done.deliveries)
    assert done.error is None
    if known is None:
        assert source.unclaimed <= 4 * CLAIMS_PER_WORKER + CLAIMS_PER_WORKER
    else:
        assert source.unclaimed <= MAX_CLAIMS + 2 * LOOK_UP_SIZE


def test_held_events_are_read_little_ahead() -> None:
    """A hot place whose first event did not arrive is held to its end without being read into memory."""
    source = Source(enough=-1)

    done = run([source.lane("A", 20_000)], FakeClient({"A0": [AWAY] * 3}), on_delivery=source.on_delivery)

    assert {"undelivered": 1, "held": 19_999} == done.counts
    assert source.unclaimed <= 2 * LOOK_UP_SIZE


@pytest.mark.parametrize(
    "lanes", [single_lanes(3_200), [events(f"H{number}-", 200) for number in range(16)]], ids=["many", "few"]
)
def test_slow_ledger_is_asked_in_batches(lanes: list[list[UsageplaceEvent]]) -> None:
    """Where a round takes its time, rounds grow with events by the batch, not with events."""
    ledger = FakeLedger(latency=0.02)

    done = run(lanes, FakeClient(), ledger, workers=8)

    assert {"delivered": 3_200} == done.counts
    assert ledger.rounds <= 3_200 / 16


def test_many_known_events_are_looked_up_many_at_a_time() -> None:
    """While most events are known, many are looked up at once, and never more than once."""
    ids = [f"K{number}" for number in range(20_000)]
    ledger = FakeLedger(dict.fromkeys(ids, KNOWN))
    ropo = FakeClient()
    backlog = [[UsageplaceEvent(event_id, event_id, UsageplaceStatus.CONNECTED, NOON)] for event_id in ids]

    done = run(backlog, ropo, ledger)

    assert {"already_delivered": 20_000} == done.counts
    assert [] == ropo.came
    assert ledger.calls["look_up"] <= 20_000 / LOOK_UP_SIZE + 3


def test_held_events_are_looked_up_many_at_a_time() -> None:
    """Behind an event that did not arrive, many of its place are looked up at once, and none of them twice."""
    ledger = FakeLedger()

    done = run([events("A", 20_000)], FakeClient({"A0": [AWAY] * 3}), ledger)

    assert {"undelivered": 1, "held": 19_999} == done.counts
    assert len(ledger.looked_up) <= 20_000 + LOOK_UP_SIZE
    assert ledger.calls["look_up"] <= 2 * 20_000 / LOOK_UP_SIZE


def test_many_look_ups_end_with_the_known_events() -> None:
    """Where the known events end, no more are looked up than are claimed."""
    known = single_lanes(2_000)
    ledger = FakeLedger({lane[0].id: KNOWN for lane in known})

    done = run([*known, *single_lanes(3_000, "N")], FakeClient(), ledger)

    assert {"already_delivered": 2_000, "delivered": 3_000} == done.counts
    assert len(ledger.looked_up) <= 5_000 + 8 * LOOK_UP_SIZE


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize(
    "lanes",
    [single_lanes(48), [events(f"H{number}-", 8) for number in range(6)], [events("A", 10)]],
    ids=["many places", "few places", "a hot place"],
)
def test_little_is_claimed_ahead(lanes: list[list[UsageplaceEvent]], workers: int) -> None:
    """While the ledger is fast, a worker has the event that it posts and one to follow: a kill leaves few open."""
    ledger = FakeLedger()
    stop = threading.Event()
    ropo = FakeClient(latency=lambda: 0.1)

    with set_once(lambda: len(ropo.came) >= 10, stop):
        done = run(lanes, ropo, ledger, workers=workers, stop=stop)

    assert done.error is None
    assert min(workers, len(lanes)) <= ledger.most_claimed <= CLAIMS_PER_WORKER * workers
    assert_all_recorded(ledger, done)
    assert_all_accounted_for(lanes, done)


@pytest.mark.parametrize(
    "lanes",
    [single_lanes(400), [events(f"H{number}-", 25) for number in range(16)]],
    ids=["many places", "few places"],
)
def test_slow_ledger_does_not_starve_the_workers(lanes: list[list[UsageplaceEvent]]) -> None:
    """Claims run ahead by what the workers take while the ledger is busy."""
    ledger = FakeLedger(latency=0.05)

    done = run(lanes, FakeClient(latency=lambda: 0.005), ledger, workers=8)

    assert {"delivered": 400} == done.counts
    assert ledger.rounds < 400 / 16, "fewer rounds than for two events a worker"
    assert ledger.most_claimed < 400


def test_no_more_is_claimed_ahead_than_a_bound() -> None:
    """However slow the ledger and however fast the posts, what is claimed ahead is bounded."""
    lanes, ledger = single_lanes(8_000), FakeLedger(latency=0.05)

    done = run(lanes, FakeClient(), ledger, workers=8)

    assert {"delivered": 8_000} == done.counts
    assert CLAIMS_PER_WORKER * 8 < ledger.most_claimed <= MAX_CLAIMS


def test_claims_beside_many_known_events_are_bounded() -> None:
    """However many are looked up at a time, no more of them are claimed than the workers soon get to."""
    known, more_known = single_lanes(3_000), single_lanes(3_000, "K")
    ledger = FakeLedger({lane[0].id: KNOWN for lane in [*known, *more_known]})
    lanes = [*known, *single_lanes(50, "N"), *more_known, events("A", 50)]

    done = run(lanes, FakeClient(latency=lambda: 0.02), ledger, workers=8)

    assert {"already_delivered": 6_000, "delivered": 100} == done.counts
    assert ledger.most_claimed <= 2 * CLAIMS_PER_WORKER * 8


# Stops


@contextmanager
def set_after(seconds: float, stop: threading.Event) -> Iterator[None]:
    timer = threading.Timer(seconds, stop.set)
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def set_once(happened: Callable[[], bool], stop: threading.Event) -> Iterator[None]:
    """Stop as soon as something has happened: how long that takes depends on the machine."""

    def wait() -> None:
        until = time.monotonic() + HANGS
        while not happened() and time.monotonic() < until:
            time.sleep(0.005)
        stop.set()

    watcher = threading.Thread(target=wait)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()


def test_stop() -> None:
    """Told to stop from elsewhere, it sends nothing new, waits for what is in flight, and lets go of the rest."""
    stop = threading.Event()
    ropo = FakeClient(latency=lambda: 0.05)
    late: list[str] = []

    def send(event: UsageplaceEvent) -> None:
        if stop.is_set():
            late.append(event.id)
        ropo(event)

    ledger = FakeLedger()
    with set_once(lambda: len(ropo.came) >= 12, stop):
        done = run([events(f"P{number}-", 5) for number in range(100)], send, ledger, stop=stop)

    assert len(late) <= 4, "but for what each worker is just about to send"
    assert done.error is None
    came = set(ropo.came)
    assert {event_id: "delivered" if event_id in came else "undelivered" for event_id in ledger.claimed} == done.ends
    assert_all_recorded(ledger, done)
    assert_all_accounted_for([events(f"P{number}-", 5) for number in range(100)], done)
    assert {"", "not sent: the run was stopped"} == set(done.details.values())


def test_stop_before_the_start() -> None:
    """Told to stop before it has begun, it sends and claims nothing."""
    stop = threading.Event()
    stop.set()
    ropo, ledger = FakeClient(), FakeLedger()

    done = run(single_lanes(9), ropo, ledger, stop=stop)

    assert ([], [], [], None) == (done.deliveries, ropo.came, ledger.claimed, done.error)
    assert_all_accounted_for(single_lanes(9), done)


def test_stop_leaves_what_may_have_arrived_unconfirmed() -> None:
    """A claimed event that was not sent is unconfirmed if an earlier run's attempt may have arrived."""
    stop = threading.Event()
    ledger = FakeLedger(dict.fromkeys(["A1", "A3"], LOST))

    done = run([events("A", 5)], lambda _event: stop.set(), ledger, stop=stop)

    expected = {"A0": "delivered", "A1": "unconfirmed", "A2": "undelivered", "A3": "unconfirmed", "A4": "undelivered"}
    assert {event_id: expected[event_id] for event_id in ledger.claimed} == done.ends
    assert {"A0", "A1"} <= set(ledger.claimed)
    assert_all_recorded(ledger, done)


def test_stop_ends_the_waits() -> None:
    """A wait for the next attempt ends when told to stop, and with it the attempts."""
    stop = threading.Event()
    ropo = FakeClient({"A0": [UNWELL] * 3, "B0": [SILENT] * 3})
    slow = Backoff(max_attempts=3, initial=60.0)

    with set_once(lambda: len(ropo.came) >= 2, stop):
        done = run([events("A", 2), events("B")], ropo, stop=stop, backoff=slow)

    assert ["A0", "B0"] == sorted(ropo.came)
    assert {"A0": "undelivered", "A1": "held", "B0": "unconfirmed"} == done.ends
    assert done.seconds < HANGS


@pytest.mark.parametrize("latency", [0.0, 0.02, 0.1], ids=["fast ledger", "slow ledger", "very slow ledger"])
@pytest.mark.parametrize("seconds", [0.05, 0.13, 0.22, 0.27])
def test_stop_loses_nothing(seconds: float, latency: float) -> None:
    """Whatever the ledger is at when the run is stopped, each event has ended, or is left to the next run."""
    stop = threading.Event()
    lanes = [*single_lanes(200), *(events(f"H{number}-", 30) for number in range(10))]
    ledger, ropo = FakeLedger(latency=latency), FakeClient(latency=lambda: 0.02)

    with set_after(seconds, stop):
        done = run(lanes, ropo, ledger, stop=stop)

    assert done.error is None
    assert_all_recorded(ledger, done)
    assert_all_accounted_for(lanes, done)
    assert set(ropo.came) == {event_id for event_id, end in done.ends.items() if end == "delivered"}


def test_stop_does_not_wait_for_ever() -> None:
    """What hangs is unconfirmed after a few seconds, even if it goes on then; what was to follow is not sent."""
    stop, release = threading.Event(), threading.Event()
    came: list[str] = []
    went: list[str] = []

    def send(event: UsageplaceEvent) -> None:
        came.append(event.id)
        release.wait(60)
        went.append(event.id)

    lanes = [events(f"P{number}-", 2) for number in range(20)]
    ledger = FakeLedger()
    try:
        with set_once(lambda: len(came) >= 2, stop):
            done = run(lanes, send, ledger, workers=2, stop=stop)
    finally:
        release.set()
    while len(went) < 2:
        time.sleep(0.01)

    assert SHUTDOWN_TIMEOUT <= done.seconds < HANGS
    assert 2 == len(came)
    assert set(came) == {event_id for event_id, end in done.ends.items() if end == "unconfirmed"}
    assert set(ledger.claimed) - set(came) == {event_id for event_id, end in done.ends.items() if end == "undelivered"}
    assert_all_recorded(ledger, done)
    assert_all_accounted_for(lanes, done)
    assert "no answer yet when the run was stopped" == done.details[came[0]]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, InterruptedByAirflow, ZeroDivisionError])
def test_interrupted_while_it_counts(kind: type[BaseException]) -> None:
    """Interrupted while an end is counted, it winds down, remembers every end, and the interruption goes on."""
    ropo, ledger = FakeClient(latency=lambda: 0.005), FakeLedger()
    interruption = kind()
    seen: list[str] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(str(delivery.event_id))
        if len(seen) == 20:
            raise interruption

    done = run([events(f"P{number}-", 5) for number in range(50)], ropo, ledger, on_delivery=on_delivery)

    assert interruption is done.error
    assert set(ledger.claimed) == set(done.ends)
    assert_all_recorded(ledger, done)
    assert_all_accounted_for([events(f"P{number}-", 5) for number in range(50)], done)
    assert set(ropo.came) == {event_id for event_id, end in done.ends.items() if end == "delivered"}
    assert len(ropo.came) < 40


def test_interrupted_while_refused_claims_are_counted() -> None:
    """Interrupted while the refused ones of some claims are counted, it forgets none of the others."""
    lanes = single_lanes(16)
    ledger = FakeLedger(claims=dict.fromkeys(["P3-0", "P4-0", "P5-0"], CLAIMED_ELSEWHERE))

    def on_delivery(delivery: Delivery) -> None:
        if delivery.event_id == "P3-0":
            raise KeyboardInterrupt

    ropo = FakeClient()
    done = run(lanes, ropo, ledger, on_delivery=on_delivery, workers=8)

    assert isinstance(done.error, KeyboardInterrupt)
    assert [] == ropo.came
    assert 13 == done.counts["undelivered"]
    assert set(ledger.claimed) == set(ledger.recorded)
    assert_all_accounted_for(lanes, done)


def test_interrupted_while_known_events_are_counted() -> None:
    """Interrupted while known events are counted, it forgets none of those that were looked up with them."""
    lanes = [events("A", 3), events("B", 3), events("C", 3)]
    ledger = FakeLedger({"A0": KNOWN, "B0": KNOWN, "C0": CLAIMED_ELSEWHERE})

    def on_delivery(delivery: Delivery) -> None:
        if delivery.event_id == "A0":
            raise KeyboardInterrupt

    done = run(lanes, FakeClient(), ledger, on_delivery=on_delivery)

    assert isinstance(done.error, KeyboardInterrupt)
    assert set(ledger.claimed) == set(ledger.recorded)
    assert_all_accounted_for(lanes, done)


def test_interrupted_while_held_events_are_counted() -> None:
    """Interrupted while the events behind one that did not arrive are counted, it forgets none of these."""
    lanes = [events("A", 9)]
    ledger, ropo = FakeLedger(), FakeClient({"A0": [AWAY] * 3}, latency=lambda: 0.02)

    def on_delivery(delivery: Delivery) -> None:
        if delivery.event_id == "A1":
            raise KeyboardInterrupt

    done = run(lanes, ropo, ledger, on_delivery=on_delivery)

    assert isinstance(done.error, KeyboardInterrupt)
    assert len(ledger.claimed) > 2
    assert set(ledger.claimed) == set(ledger.recorded)
    assert_all_accounted_for(lanes, done)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise in this thread after so long, as Airflow does when a task's time is up."""

    def ring(*_args: object) -> None:
        raise InterruptedByAirflow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interrupted_by_a_signal() -> None:
    """When a task's time is up, what is in flight is waited for and remembered, and the interruption goes on."""
    ropo, ledger = FakeClient(latency=lambda: 0.03), FakeLedger()

    with alarm(0.1):
        done = run([events(f"P{number}-", 5) for number in range(100)], ropo, ledger)

    assert isinstance(done.error, InterruptedByAirflow)
    assert_all_recorded(ledger, done)
    assert_all_accounted_for([events(f"P{number}-", 5) for number in range(100)], done)
    assert set(ropo.came) <= {event_id for event_id, end in done.ends.items() if end in {"delivered", "unconfirmed"}}


def test_interrupted_while_it_takes_a_message() -> None:
    """Interrupted at any instruction between two messages, it forgets neither: each claim and answer has its end."""
    lanes = [*single_lanes(6), events("A", 3)]
    taking = Dispatcher._handle_inbox, Dispatcher._handle_next  # noqa: SLF001 - that is where it was lost
    places = set()
    for at in range(1, 200):
        ledger, ropo = FakeLedger({"P1-0": KNOWN}, {"P2-0": CLAIMED_ELSEWHERE}), FakeClient()

        with interruption(at, InterruptedByAirflow(), *taking) as raised:
            done = run(lanes, ropo, ledger, workers=2)

        places.update(raised)
        assert isinstance(done.error, InterruptedByAirflow) == bool(raised), raised
        assert_all_accounted_for(lanes, done)
        assert set(ledger.claimed) | set(ropo.came) <= set(ledger.recorded), raised
    assert len(places) > 5


def test_interrupted_in_a_claim() -> None:
    """Interrupted while the ledger claims, it records that none of the claimed events was sent."""
    ledger, ropo = FakeLedger({"P1-0": LOST}, latency=0.3), FakeClient()

    with alarm(0.1):
        done = run(single_lanes(9), ropo, ledger, workers=8)

    assert isinstance(done.error, InterruptedByAirflow)
    assert [] == ropo.came
    assert 9 == len(ledger.claimed)
    assert {event_id: ["undelivered"] for event_id in ledger.claimed} | {"P1-0": ["unconfirmed"]} == ledger.recorded


@pytest.mark.parametrize(
    "bug",
    [
        ZeroDivisionError("no"),
        KeyError("jobid"),
        RopoConfigurationError("no password"),
        InvalidRowError("row 1", "id", "no"),
        KeyboardInterrupt(),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_bug_comes_out_as_itself(bug: BaseException, lanes: list[list[UsageplaceEvent]]) -> None:
    """Only an answer, or the lack of one, is an event's end: anything else comes out as it is, and ends the run."""
    ledger, ropo = FakeLedger(), FakeClient({"A1": [bug]})

    done = run(lanes, ropo, ledger)

    assert bug is done.error
    # B0 may be a moment too late.
    other = "delivered" if "B0" in ropo.came else "undelivered"
    expected = {"A0": "delivered", "A1": "unconfirmed", "A2": "undelivered", "B0": other}
    assert {event_id: expected[event_id] for event_id in ledger.claimed} == done.ends
    assert {"A0", "A1", "B0"} <= set(ledger.claimed)
    assert_all_recorded(ledger, done)
    assert_all_accounted_for(lanes, done)
    assert ["A0", "A1"] == ropo.came_of("A")


def test_bug_beside_a_stop_comes_out() -> None:
    """A bug that shows while the run is being stopped is not lost."""
    stop = threading.Event()
    bug = ZeroDivisionError("no")
    is_sent = threading.Event()

    def send(_event: UsageplaceEvent) -> None:
        is_sent.set()
        assert stop.wait(SOON)
        time.sleep(0.3)
        raise bug

    with set_once(is_sent.is_set, stop):
        done = run([events("A", 2)], send, stop=stop)

    assert bug is done.error
    assert {"A0": "unconfirmed", "A1": "undelivered"} == done.ends


@pytest.mark.parametrize(
    ("answers", "end"), [([REFUSED], "undelivered"), ([SILENT, REFUSED], "unconfirmed")], ids=["first", "later"]
)
def test_refused_sign_in_stops_the_run(answers: list[RopoError], end: str) -> None:
    """A refused sign-in ends the posting, and is raised when the rest has been let go of."""
    ropo, ledger = FakeClient({"P30-0": answers}, latency=lambda: 0.002), FakeLedger()

    done = run(single_lanes(1_000), ropo, ledger)

    assert REFUSED is done.error
    assert end == done.ends["P30-0"]
    assert {event_id for event_id in ropo.came if event_id != "P30-0"} == {
        event_id for event_id, status in done.ends.items() if status == "delivered"
    }
    assert len(ropo.came) < 50
    assert set(ledger.claimed) == set(ledger.recorded)


def test_refused_sign_in_is_tried_by_nobody_else() -> None:
    """Once sign-in was refused, nothing more is sent, even while the calling thread is busy."""
    ropo = FakeClient({"P1-0": [REFUSED]})

    done = run(single_lanes(50), ropo, workers=1, on_delivery=lambda _delivery: time.sleep(0.05), backoff=BACKOFF)

    assert REFUSED is done.error
    assert ["P0-0", "P1-0"] == ropo.came


def test_circuit_breaker() -> None:
    """When a number of events in a row did not arrive, the run ends early, and names the reason."""
    ropo, ledger = FakeClient({f"P{number}-0": [AWAY] * 3 for number in range(1_000)}), FakeLedger()

    done = run(single_lanes(1_000), ropo, ledger)

    assert isinstance(done.error, RopoUnavailableError)
    assert f"{FAILURE_LIMIT} events in a row did not arrive, so the run ends early; the last: no route to host" == str(
        done.error
    )
    assert {"undelivered"} == set(done.ends.values())
    assert FAILURE_LIMIT <= len(set(ropo.came)) <= FAILURE_LIMIT + WORKERS - 1
    assert set(ledger.claimed) == set(ledger.recorded)


@pytest.mark.parametrize("answer", [OK, REJECTED], ids=["delivered", "rejected"])
def test_an_answer_keeps_the_circuit_breaker_closed(answer: RopoError | None) -> None:
    """As long as Ropo One answers for one event now and then, the run goes on."""
    lanes = single_lanes(200)
    bad: dict[str, Answers] = {
        event.id: [AWAY] * 3 for number, (event,) in enumerate(lanes) if number % (FAILURE_LIMIT - 1)
    }
    good: dict[str, Answers] = {event.id: [answer] for (event,) in lanes if event.id not in bad}

    done = run(lanes, FakeClient(bad | good), workers=1)

    assert done.error is None
    assert len(bad) == done.counts["undelivered"]


def test_held_events_do_not_open_the_circuit_breaker() -> None:
    """That an event waits for another says nothing about Ropo One."""
    done = run([events("A", 500), events("B")], FakeClient({"A0": [AWAY] * 3}), workers=1)

    assert done.error is None
    assert {"undelivered": 1, "held": 499, "delivered": 1} == done.counts


def test_stop_does_not_open_the_circuit_breaker() -> None:
    """Attempts that a stop broke off say nothing about Ropo One."""
    stop = threading.Event()
    lanes = single_lanes(40)
    slow = Backoff(max_attempts=3, initial=60.0)
    ropo = FakeClient({event.id: [AWAY] * 3 for (event,) in lanes})

    with set_once(lambda: len(ropo.came) == 40, stop):
        done = run(lanes, ropo, workers=40, stop=stop, backoff=slow)

    assert done.error is None
    assert {"undelivered": 40} == done.counts


# With a ledger


def test_nothing_is_sent_before_its_claim_is_verified() -> None:
    """An event is sent only after its claim was verified; each claimed one gets exactly one record: its delivery."""
    ledger = FakeLedger(waits={"P1-0": 3, "P2-5": 1})
    ropo = FakeClient({"P3-2": [UNWELL] * 3, "P5-1": [REJECTED], "P7-0": [SILENT] * 3})
    too_early: list[str] = []

    def send(event: UsageplaceEvent) -> None:
        if event.id not in ledger.ready:
            too_early.append(event.id)
        ropo(event)

    done = run([events(f"P{number}-", 30) for number in range(10)], send, ledger)

    assert [] == too_early
    assert 300 == len(done.ends)
    assert len(ledger.claimed) == len(set(ledger.claimed))
    assert_all_recorded(ledger, done)


def test_workers_do_not_touch_the_ledger() -> None:
    """The ledger is asked by one thread at a time, which posts nothing."""
    ledger, ropo = FakeLedger(latency=0.002), FakeClient()
    posting: set[threading.Thread] = set()

    def send(event: UsageplaceEvent) -> None:
        posting.add(threading.current_thread())
        ropo(event)

    done = run(single_lanes(200), send, ledger, workers=8)

    # A second call at once would have raised.
    assert done.error is None
    assert ledger.threads
    assert set() == ledger.threads & posting


def test_claim_that_is_not_resolved_yet_is_waited_for() -> None:
    """While another run's claim on an event may end, its place waits, in its order, and the other places go on."""
    ledger, ropo = FakeLedger(waits={"A1": 20}), FakeClient()

    done = run([events("A", 4), *single_lanes(200)], ropo, ledger, workers=2)

    assert {"delivered": 204} == done.counts
    assert ["A0", "A1", "A2", "A3"] == ropo.came_of("A")
    assert ropo.came.index("A1") >= ropo.came.index("A0") + 3


@pytest.mark.parametrize("decision", [SEND, LOST], ids=["new", "may have arrived"])
def test_stop_while_a_claim_is_not_resolved(decision: Decision) -> None:
    """What is claimed and not resolved when the run is stopped is not sent, and recorded so."""
    stop = threading.Event()
    ledger, ropo = FakeLedger({"A0": decision}, waits={"A0": 1_000}), FakeClient()

    with set_once(lambda: "A0" in ledger.claimed and "B0" in ropo.came, stop):
        done = run([events("A", 4), events("B")], ropo, ledger, stop=stop)

    assert ["B0"] == ropo.came
    assert "unconfirmed" if decision.unconfirmed else "undelivered" == done.ends["A0"]
    assert_all_recorded(ledger, done)
    assert_all_accounted_for([events("A", 4), events("B")], done)


@pytest.mark.parametrize(
    ("decision", "end", "later", "written"),
    [
        (KNOWN, "already_delivered", "delivered", False),
        (CHANGED, "changed", "delivered", True),
        (CLAIMED_ELSEWHERE, "held", "held", False),
        (HOLD, "unconfirmed", "held", True),
    ],
    ids=["known", "changed", "elsewhere", "may have arrived"],
)
def test_known_event(decision: Decision, end: str, later: str, *, written: bool) -> None:
    """A known event is not sent; those before it are, those behind it unless they have to wait for it."""
    ledger, ropo = FakeLedger({"A2": decision}), FakeClient()

    done = run([events("A", 5), events("B")], ropo, ledger)

    ends = {"A0": "delivered", "A1": "delivered", "A2": end, "A3": later, "A4": later}
    assert {**ends, "B0": "delivered"} == done.ends
    assert [event_id for event_id in ends if ends[event_id] == "delivered"] == ropo.came_of("A")
    assert decision.detail == done.details["A2"]
    assert "A2" not in ledger.claimed
    assert ([end] if written else []) == ledger.recorded["A2"]
    assert [later] == ledger.recorded["A4"]
    assert ("waits for the earlier event A2" if later == "held" else "") == done.details["A4"]


@pytest.mark.parametrize(
    ("decision", "end", "later"),
    [
        (CLAIMED_ELSEWHERE, "held", "held"),
        (HOLD, "unconfirmed", "held"),
        (KNOWN, "already_delivered", "delivered"),
        (CHANGED, "changed", "delivered"),
    ],
    ids=["elsewhere", "may have arrived", "known", "changed"],
)
def test_claim_is_refused(decision: Decision, end: str, later: str) -> None:
    """An event whose claim is refused is not sent, nor are those behind it if they have to wait for it."""
    ledger, ropo = FakeLedger(claims={"A2": decision}), FakeClient()

    done = run([events("A", 20), events("B")], ropo, ledger)

    assert {"A0": "delivered", "A1": "delivered", "A2": end, **{f"A{number}": later for number in range(3, 20)}} == {
        event_id: status for event_id, status in done.ends.items() if event_id != "B0"
    }
    assert "A2" not in ropo.came
    assert [] == ledger.recorded["A2"], "the ledger has written that down itself"
    assert set(ledger.claimed) <= set(ledger.recorded)
    assert [later] == ledger.recorded["A3"]
    assert [later] == ledger.recorded["A19"]


def test_what_may_have_arrived_is_sent_again() -> None:
    """An event that may have arrived is sent again, and unconfirmed if that has no end either."""
    ledger = FakeLedger(dict.fromkeys(["A0", "B0"], LOST))

    done = run([events("A"), events("B")], FakeClient({"B0": [AWAY] * 3}), ledger)

    assert {"A0": "delivered", "B0": "unconfirmed"} == done.ends


@pytest.mark.parametrize("number", [1, 12, 900], ids=["claimed", "looked up later", "much later"])
def test_what_may_have_arrived_and_waits(number: int) -> None:
    """An event that may have arrived and has to wait for another is unconfirmed, whenever that is found out."""
    ledger = FakeLedger({f"A{number}": LOST})

    done = run([events("A", 1_000)], FakeClient({"A0": [AWAY] * 3}), ledger)

    assert {"undelivered": 1, "unconfirmed": 1, "held": 998} == done.counts
    assert "unconfirmed" == done.ends[f"A{number}"]
    assert ["unconfirmed"] == ledger.recorded[f"A{number}"], "where its rows say so already, the ledger knows"


class Past(NamedTuple):
    """Places with their numbers of events, how these stand, what their claims and attempts come to."""

    sizes: list[int]
    decisions: dict[str, Decision]
    claims: dict[str, Decision]
    waits: dict[str, int]
    answers: dict[str, Answers]


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Make a few large places and many small ones, with stretches of events that are known in one way or another."""
    sizes = draw(
        st.permutations([*draw(st.lists(st.integers(1, 1_500), max_size=3)), *([3] * draw(st.integers(1, 15)))])
    )
    dice = random.Random(draw(st.integers(0, 10**6)))  # noqa: S311 - no secret
    rare = draw(st.sampled_from([0.0, 0.002, 0.02]))
    stretch = draw(st.sampled_from([2, 20, 300]))
    share = draw(st.sampled_from([0.1, 0.5, 0.9]))
    decisions: dict[str, Decision] = {}
    claims: dict[str, Decision] = {}
    waits: dict[str, int] = {}
    answers: dict[str, Answers] = {}
    for lane in lanes_of(sizes):
        known = False
        for event in lane:
            known = dice.random() < share if dice.random() < 1 / stretch else known
            if dice.random() < rare:
                decisions[event.id] = dice.choice([CHANGED, CLAIMED_ELSEWHERE, HOLD, LOST])
            elif known:
                decisions[event.id] = KNOWN
            elif dice.random() < rare:
                claims[event.id] = CLAIMED_ELSEWHERE
            elif dice.random() < rare:
                answers[event.id] = [dice.choice([REJECTED, AWAY, SILENT])] * 3
            if dice.random() < rare / 4:
                waits[event.id] = dice.randint(1, 3)
    return Past(list(sizes), decisions, claims, waits, answers)


def become(past: Past) -> dict[str, str]:
    """Return the delivery status of each event, taken one after another."""
    ends = {}
    for lane in lanes_of(past.sizes):
        waits = False
        for event in lane:
            decision = past.decisions.get(event.id, SEND)
            if decision.action is not Action.SEND:
                end = STATUS_OF_ACTION[decision.action].value
            elif waits:
                end = "unconfirmed" if decision.unconfirmed else "held"
            elif event.id in past.claims:
                end = STATUS_OF_ACTION[past.claims[event.id].action].value
            else:
                _, end = journey(past.answers.get(event.id, []), unconfirmed=decision.unconfirmed)
            ends[event.id] = end
            waits = waits or end in BLOCKING
    return ends


def assert_in_order(past: Past, ropo: FakeClient) -> None:
    for place, lane in enumerate(lanes_of(past.sizes)):
        came = list(dict.fromkeys(ropo.came_of(f"P{place}-")))
        assert [event.id for event in lane if event.id in set(came)] == came
    assert [] == ropo.overlaps


@settings(max_examples=60)
@given(past=pasts(), workers=st.integers(1, 8), latency=st.sampled_from([0.0, 0.0, 0.002]))
def test_nothing_is_lost_or_doubled(past: Past, workers: int, latency: float) -> None:
    """Whatever is known of the events before, each ends once, as if taken one after another, and none is sent twice."""
    ropo = FakeClient(past.answers)
    ledger = FakeLedger(past.decisions, past.claims, waits=past.waits, latency=latency)
    ends = become(past)

    done = run(lanes_of(past.sizes), ropo, ledger, workers=workers)

    assert done.error is None
    assert ends == done.ends
    assert [] == list(done.unsent)
    answered = {"delivered", "rejected"}
    assert {event_id for event_id, end in ends.items() if end in answered} <= set(ropo.came)
    assert set(ropo.came) <= set(ledger.claimed)
    assert len(ledger.claimed) == len(set(ledger.claimed))
    assert all(end == [ends[event_id]] for event_id, end in ledger.recorded.items())
    assert set(ledger.claimed) <= set(ledger.recorded)
    assert_in_order(past, ropo)
    note(f"largest place: {'>' if max(past.sizes) > LOOK_UP_SIZE else '<='} {LOOK_UP_SIZE}")


@settings(max_examples=60)
@example(past=Past([3, 3], {}, {}, {}, {}), workers=1, latency=0.0, enough=4, fails={"record": (6, NO_LEDGER)})
@given(
    past=pasts(),
    workers=st.integers(1, 8),
    latency=st.sampled_from([0.0, 0.002, 0.01]),
    enough=st.integers(1, 200),
    fails=st.dictionaries(
        st.sampled_from(["look_up", "claim", "record"]),
        st.tuples(st.integers(1, 40), st.sampled_from([NO_LEDGER, SUPERSEDED])),
        max_size=1,
    ),
)
def test_nothing_is_lost_when_it_ends_early(
    past: Past, workers: int, latency: float, enough: int, fails: dict[str, tuple[int, BaseException]]
) -> None:
    """Whenever the run is stopped or the ledger fails, each event has ended or is left, and each claim is closed."""
    stop = threading.Event()
    ropo = FakeClient(past.answers, latency=lambda: 0.001)
    ledger = FakeLedger(past.decisions, past.claims, waits=past.waits, fails=fails, recovers=True, latency=latency)

    def send(event: UsageplaceEvent) -> None:
        if len(ropo.came) >= enough:
            stop.set()
        ropo(event)

    done = run(lanes_of(past.sizes), send, ledger, workers=workers, stop=stop)

    assert (done.error is not None) == ledger.failed.is_set()
    assert_all_accounted_for(lanes_of(past.sizes), done)
    assert all(end == [done.ends[event_id]] for event_id, end in ledger.recorded.items())
    assert ledger.failed_at_the_end or set(ledger.claimed) <= set(ledger.recorded)
    assert set(ropo.came) <= set(done.ends)
    assert_in_order(past, ropo)
    note(f"failed: {ledger.failed.is_set()}")


@pytest.mark.parametrize("error", [NO_LEDGER, SUPERSEDED], ids=["broken", "superseded"])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("method", ["look_up", "claim", "record"])
def test_no_post_without_memory(method: str, at: int, error: RopoLedgerError) -> None:
    """When the ledger fails, nothing is sent any more but what is just under way, and its error comes out."""
    ledger = FakeLedger(fails={method: (at, error)})
    ropo = FakeClient(latency=lambda: 0.002)
    late: list[str] = []

    def send(event: UsageplaceEvent) -> None:
        if ledger.failed.is_set():
            late.append(event.id)
        ropo(event)

    done = run([events(f"P{number}-", 5) for number in range(400)], send, ledger)

    assert error is done.error
    assert len(late) <= 4, "but for what each worker is just about to send"
    assert len(ropo.came) < 400
    assert set(ropo.came) == {event_id for event_id, end in done.ends.items() if end == "delivered"}
    assert_all_accounted_for([events(f"P{number}-", 5) for number in range(400)], done)
    if method != "record" or error is SUPERSEDED:
        assert_all_recorded(ledger, done)


@pytest.mark.parametrize("method", ["look_up", "claim", "record"])
def test_ledger_that_fails_once(method: str) -> None:
    """When the ledger can be written again after a failure, what was delivered is remembered all the same."""
    ledger = FakeLedger(fails={method: (2, NO_LEDGER)}, recovers=True)

    done = run(single_lanes(400), FakeClient(latency=lambda: 0.001), ledger)

    assert NO_LEDGER is done.error
    assert_all_recorded(ledger, done)
    assert_all_accounted_for(single_lanes(400), done)


def test_superseded_while_the_last_deliveries_are_recorded() -> None:
    """Where a failed ledger tells at the end that the run is superseded, all deliveries are recorded all the same."""

    class FailsThenSuperseded(FakeLedger):
        def _failure(self, asked: Round) -> BaseException | None:
            self.calls["record"] += bool(asked.results)
            return {1: NO_LEDGER, 2: SUPERSEDED}.get(self.calls["record"]) if asked.results else None

    ledger = FailsThenSuperseded()
    done = run([events("A", 9), events("B", 9)], FakeClient(latency=lambda: 0.02), ledger)

    assert isinstance(done.error, RopoLedgerError)
    assert {"delivered", "undelivered"} == set(done.ends.values())
    assert_all_recorded(ledger, done)


def test_ledger_that_fails_at_the_end() -> None:
    """A failure to record the last deliveries comes out."""
    all_here = threading.Barrier(3)

    done = run(
        single_lanes(3), lambda _event: all_here.wait(SOON), FakeLedger(fails={"record": (1, NO_LEDGER)}), workers=3
    )

    assert NO_LEDGER is done.error
    assert {"delivered": 3} == done.counts


def test_ledger_that_fails_beside_an_interruption(caplog: pytest.LogCaptureFixture) -> None:
    """An interruption comes out even where the ledger fails too, which the log says."""

    def on_delivery(_delivery: Delivery) -> None:
        raise KeyboardInterrupt

    with caplog.at_level(logging.ERROR):
        done = run(single_lanes(1), FakeClient(), FakeLedger(fails={"record": (1, NO_LEDGER)}), on_delivery=on_delivery)

    assert isinstance(done.error, KeyboardInterrupt)
    assert {"delivered": 1} == done.counts
    assert ["the last deliveries are not recorded: the ledger could not be reached"] == caplog.messages


def test_broken_source_ends_the_run() -> None:
    """What reading the lanes raises comes out, after what is in flight was waited for and remembered."""
    ledger = FakeLedger()

    def lane() -> Iterator[UsageplaceEvent]:
        yield from events("A", 20)
        raise ZeroDivisionError

    done = run([lane()], FakeClient(), ledger)

    assert isinstance(done.error, ZeroDivisionError)
    assert set(ledger.claimed) == set(ledger.recorded) == set(done.ends)


def test_ends_come_soon() -> None:
    """Results are recorded while the run goes on, not only at its end."""
    ledger = FakeLedger()
    recorded_by: dict[str, int] = {}

    def send(event: UsageplaceEvent) -> None:
        recorded_by[event.id] = len(ledger.recorded)
        time.sleep(0.02)

    run([events("A", 40)], send, ledger)

    assert recorded_by["A39"] >= 10


# Meanwhile


def test_what_is_known_is_recorded_while_it_is_shown() -> None:
    """To show a report may take as long as Airflow's API server likes: a kill meanwhile loses no result."""
    ledger, summary = FakeLedger(), DeliverySummary()
    seen: list[tuple[int, int]] = []
    now = time.monotonic()

    def show(_report: object) -> bool:
        until = time.monotonic() + SOON
        while len(ledger.recorded) < summary.events and time.monotonic() < until:
            time.sleep(0.001)
        seen.append((len(ledger.recorded), summary.events))
        return True

    def clock() -> float:
        # It is always time for another report.
        nonlocal now
        now += 60
        return now

    report = Report(summary, show, clock)
    report.start_posting(200)

    run(single_lanes(200), FakeClient(latency=lambda: 0.001), ledger, on_delivery=report.on_delivery, report=report)

    assert 200 == summary.events
    assert len(seen) > 2
    assert [] == [moment for moment in seen if moment[0] < moment[1]]
