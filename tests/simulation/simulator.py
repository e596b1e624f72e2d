"""A deterministic simulator of several runs over one ledger: one seed, one history.

Real are the ledger (:class:`DeliveryLedger`, its protocol, its clock) and the lanes. Virtual are the time, the table,
Ropo One, and what goes wrong. Every process is a set of greenlets that hand over at each statement and at each post,
so a history is a sequence of steps that the seed alone decides.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import greenlet

from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus, end_of
from airflow_provider_ropo.dispatch.lanes import Lane, Lanes
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim, Round
from airflow_provider_ropo.ledger.clock import DatabaseClock
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, LedgerPolicy
from airflow_provider_ropo.ledger.entries import SENDING, Claimant, LedgerEntry
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable

CLAIM_TIMEOUT = 5.0
DESTINATION = "https://rc.ropo24.fi 1000011"
START = dt.datetime(2026, 1, 14, 3)  # noqa: DTZ001 - as the ledger writes it
#: What may go wrong, each with a chance at every step at which it can.
FAULTS = {
    "crash": 0.004,
    "pause": 0.004,
    "clock jump": 0.01,
    "statement fails": 0.02,
    "answer lost": 0.02,
    "database away": 0.003,
    "refused": 0.05,
    "silence": 0.08,
    "never left": 0.05,
    "slow answer": 0.02,
    "odd row": 0.3,
}


@dataclass(frozen=True)
class History:
    """What a history is made of: the same values make the same steps."""

    seed: int
    runs: int = 3
    places: int = 2
    events: int = 5
    faults: frozenset[str] = frozenset(FAULTS)

    def smaller(self) -> Iterator[History]:
        """Yield histories with a little less in them."""
        if self.runs > 1:
            yield replace(self, runs=self.runs - 1)
        if self.events > 1:
            yield replace(self, events=self.events - 1)
        if self.places > 1:
            yield replace(self, places=self.places - 1)
        for fault in sorted(self.faults):
            yield replace(self, faults=self.faults - {fault})


@dataclass(frozen=True)
class Post:
    """An event on its way to Ropo One, as an observer sees it.

    :param verified_at: when the process last read the event's rows.
    :param claimed_at: when the process asked for the time that its newest *sending* has.
    """

    event_id: str
    process: str
    claimant: Claimant
    began: float
    ended: float
    accepted: bool
    answered: bool
    verified_at: float
    claimed_at: float


class Crash(greenlet.GreenletExit):  # type: ignore[misc]
    """The process is gone."""


class World:
    """Time, the table, Ropo One and the processes.

    :param history: what happens.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.random = random.Random(history.seed)  # noqa: S311 - chance, not secrecy
        self.time = 0.0
        self.rows: list[tuple[float, dict[str, Any]]] = []
        self.posts: list[Post] = []
        self.took: set[str] = set()
        self.answered: dict[str, float] = {}
        self.final_end: dict[str, str] = {}
        self.mishaps = True
        self._tasks: list[tuple[float, int, greenlet.greenlet, Process]] = []
        self._number = 0
        self._scheduler = greenlet.getcurrent()

    def happens(self, fault: str) -> bool:
        """Tell whether something goes wrong now."""
        return self.mishaps and fault in self.history.faults and self.random.random() < FAULTS[fault]

    def spawn(self, process: Process, work: Callable[[], object], delay: float = 0.0) -> None:
        """Let a process do something side by side with the rest."""
        task = greenlet.greenlet(work, parent=self._scheduler)
        self._schedule(task, process, delay)

    def rest(self, process: Process, seconds: float | None = None) -> None:
        """Hand over to the others for some time; what may happen to a process meanwhile happens."""
        if self.happens("crash"):
            process.is_dead = True
        if self.happens("pause"):
            process.paused_until = self.time + self.random.uniform(0.5, 3) * CLAIM_TIMEOUT
        if self.happens("clock jump"):
            process.skew += self.random.uniform(-2, 2) * CLAIM_TIMEOUT
        delay = self.random.expovariate(50) if seconds is None else seconds
        self._schedule(greenlet.getcurrent(), process, delay)
        self._scheduler.switch()
        if process.is_dead:
            raise Crash

    def run(self, until: float = 100_000.0) -> None:
        """Go on until nothing is left to be done."""
        while self._tasks:
            self._tasks.sort(key=lambda task: task[:2])
            due, _number, task, process = self._tasks.pop(0)
            self.time = max(self.time, due)
            assert self.time < until, "the history does not end"
            if process.paused_until > self.time and not process.is_dead:
                self._schedule(task, process, process.paused_until - self.time)
                continue
            task.switch()

    def _schedule(self, task: greenlet.greenlet, process: Process, delay: float) -> None:
        self._number += 1
        self._tasks.append((self.time + delay, self._number, task, process))

    def database_time(self) -> dt.datetime:
        """Return the database's clock."""
        return START + dt.timedelta(seconds=self.time)


class VirtualTable(LedgerTable):
    """The table, as one process sees it: each statement takes time, and may fail."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def create_or_upgrade(self) -> None:
        pass

    def release_connection(self) -> None:
        pass

    def database_time(self) -> dt.datetime:
        self._world.rest(self._process)
        now = self._world.database_time()
        self._world.rest(self._process)
        return now

    def _read(
        self,
        event_ids: Sequence[str],
        places: Sequence[str],
        destination: str,
        later_try: tuple[Claimant, dt.datetime] | None,
    ) -> tuple[dict[str, list[LedgerEntry]], dict[str, dt.datetime], bool]:
        world = self._world
        world.rest(self._process)
        self._may_be_away()
        entries: dict[str, list[LedgerEntry]] = defaultdict(list)
        latest: dict[str, dt.datetime] = {}
        is_superseded = False
        wanted = set(event_ids)
        for _committed, row in world.rows:
            who = Claimant(*(row[name] for name in Claimant._fields))
            if row["event_id"] in wanted:
                entry = (row["delivery_status"], row["payload_hash"], row["recorded_at"], who, row["destination"])
                entries[row["event_id"]].append(LedgerEntry(*entry))
            if row["usageplacecode"] in places and row["delivery_status"] == "delivered":
                latest[row["usageplacecode"]] = max(latest.get(row["usageplacecode"], START), row["event_time"])
            if later_try is not None:
                me, since = later_try
                is_superseded |= me.is_earlier_try_of(who) and row["recorded_at"] > since
        for found in entries.values():
            found.sort(key=lambda entry: entry.recorded_at)
        for event_id in wanted:
            self._process.read_at[event_id] = world.time
        world.rest(self._process)
        return entries, latest, is_superseded

    def _insert(self, rows: Sequence[dict[str, Any]], *, again: bool = False) -> None:
        world, process = self._world, self._process
        world.rest(process)
        self._may_be_away()
        if world.happens("statement fails"):
            # Not committed, for certain: the real table does it again.
            world.rest(process)
        if any(row["event_id"] in process.odd for row in rows):
            error = RopoLedgerError("a row cannot be held")
            error.is_about_data = True
            raise error
        world.rows += [(world.time, row) for row in rows]
        for row in rows:
            if row["delivery_status"] == SENDING:
                process.claimed_at[row["event_id"]] = process.asked_at
        world.rest(process)
        if world.happens("answer lost"):
            # Committed, and looked up again by the real table, which finds it complete.
            world.rest(process)
            if world.happens("database away"):
                raise RopoLedgerError("the database is away")

    def _may_be_away(self) -> None:
        if self._world.happens("database away"):
            raise RopoLedgerError("the database is away")


@dataclass
class Process:
    """A try of a task instance, in a process of its own: a small dispatcher over the real lanes and ledger."""

    world: World
    me: Claimant
    events: list[UsageplaceEvent]
    workers: int = 2
    skew: float = 0.0
    drift: float = 1.0
    paused_until: float = 0.0
    is_dead: bool = False
    odd: frozenset[str] = frozenset()
    read_at: dict[str, float] = field(default_factory=dict)
    claimed_at: dict[str, float] = field(default_factory=dict)
    asked_at: float = 0.0
    ends: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    stopped: bool = False
    stopped_by: RopoLedgerError | None = None

    def __post_init__(self) -> None:
        """Open the ledger."""
        self.clock = DatabaseClock(self.table.database_time, self.monotonic, self.wall)
        policy = LedgerPolicy(claim_timeout=CLAIM_TIMEOUT)
        self.ledger = DeliveryLedger(self.table, DESTINATION, self.me, policy, now=self.now, clock=self.monotonic)
        self.results: list[tuple[PendingClaim, Delivery]] = []
        self.in_flight = 0
        self.lane_of: dict[str, Lane] = {}

    @property
    def table(self) -> VirtualTable:
        """The table as this process sees it."""
        return VirtualTable(self.world, self)

    def now(self) -> dt.datetime:
        """Return the database's time, as far as this process knows it; note when that was."""
        answer = self.estimate()
        self.asked_at = self.world.time
        return answer

    def estimate(self) -> dt.datetime:
        """Return the database's time, as far as this process knows it."""
        return self.clock.now()

    def monotonic(self) -> float:
        """Return the process's monotonic clock."""
        return self.world.time * self.drift

    def wall(self) -> float:
        """Return the process's wall clock."""
        return self.world.time + self.skew

    def work(self) -> None:
        """Make a run, to its end or to its crash."""
        lanes = self._lanes()
        begun: set[Lane] = set()
        unresolved: list[PendingClaim] = []
        asked = Round()
        try:
            self.ledger.prepare()
            while True:
                batch = [] if self.stopped else lanes.take(2 * self.workers - len(unresolved), 3)
                begun.update(lane for lane, _ in batch)
                self.lane_of.update({event.id: lane for lane, event in batch})
                results, self.results = self.results, []
                asked = Round(
                    look_ups=[event for lane, event in batch if lane.blocked_by is None],
                    blocked=[event for lane, event in batch if lane.blocked_by is not None],
                    claim_limit=2 * self.workers,
                    claims_per_place=3,
                    unresolved=unresolved,
                    results=results,
                )
                outcome = self.ledger.exchange(asked)
                unresolved = outcome.unresolved
                self._take(outcome, lanes)
                busy = any(lane.is_busy for lane in begun)
                if not (batch or unresolved or self.results or self.in_flight or busy):
                    return
                self.world.rest(self, 0.05 if unresolved or self.in_flight else None)
        except RopoLedgerError as error:
            self.stopped_by = error
            self._give_up(asked, unresolved)
        except Crash:
            self.is_dead = True

    def _give_up(self, asked: Round, unresolved: Sequence[PendingClaim]) -> None:
        """Wait for what is in flight, and record what is known, once more."""
        self.stopped = True
        try:
            while self.in_flight:
                self.world.rest(self, 0.05)
            results = [*asked.results, *self.results]
            if results:
                self.ledger.exchange(Round(results=results))
            del unresolved
        except RopoLedgerError:
            return
        except Crash:
            self.is_dead = True

    def _take(self, outcome: Outcome, lanes: Lanes) -> None:
        touched: dict[Lane, list[UsageplaceEvent]] = {}
        for claim in (*outcome.refused, *outcome.ready, *outcome.postponed, *outcome.unresolved):
            lane = self.lane_of[claim.event.id]
            lane.looking_up.pop(claim.event.id, None)
            touched.setdefault(lane, [])
        for claim in outcome.ready:
            self._ready(self.lane_of[claim.event.id], claim)
        for claim in outcome.refused:
            self._refused(self.lane_of[claim.event.id], claim)
        for claim in outcome.postponed:
            touched[self.lane_of[claim.event.id]].append(claim.event)
        for lane, events in touched.items():
            lane.put_back(events)
            self._go_on(lane, lanes)

    def _ready(self, lane: Lane, claim: PendingClaim) -> None:
        if claim.event.id in lane.held:
            lane.drop(claim.event.id)
            self._end(claim, DeliveryStatus.HELD)
        else:
            lane.queue[claim.event.id] = claim

    def _refused(self, lane: Lane, claim: PendingClaim) -> None:
        status = STATUS_OF_ACTION.get(claim.decision.action, DeliveryStatus.HELD)
        if claim.decision.action is Action.SEND:
            lane.drop(claim.event.id)
            self._end(claim, DeliveryStatus.HELD)
            return
        if status in BLOCKING:
            self._block(lane, claim.event.id)
        lane.drop(claim.event.id)
        self.ends[claim.event.id].append(status.value)

    def _block(self, lane: Lane, event_id: str) -> None:
        for claim in lane.block(event_id):
            lane.drop(claim.event.id)
            self._end(claim, DeliveryStatus.HELD)

    def _end(self, claim: PendingClaim, status: DeliveryStatus, attempts: int = 0) -> None:
        status = DeliveryStatus.UNCONFIRMED if claim.decision.unconfirmed and not attempts else status
        self.ends[claim.event.id].append(status.value)
        self.results.append((claim, end_of(claim.event, status, attempts=attempts)))

    def _go_on(self, lane: Lane, lanes: Lanes) -> None:
        if not self.stopped and (claim := lane.pop_next()) is not None:
            lane.in_flight = True
            self.in_flight += 1
            self.world.spawn(self, lambda: self._post(lane, lanes, claim))
        if len(lane.queue) < 2:
            lanes.request_refill(lane)

    def _post(self, lane: Lane, lanes: Lanes, claim: PendingClaim) -> None:
        """Be a worker with one event."""
        try:
            self.world.rest(self)
            status, attempts = self._send(claim)
        except Crash:
            return
        lane.in_flight = False
        self.in_flight -= 1
        may = claim.decision.unconfirmed and status is DeliveryStatus.UNDELIVERED
        self._end(claim, DeliveryStatus.UNCONFIRMED if may else status, attempts)
        if status in BLOCKING:
            self._block(lane, claim.event.id)
        self._go_on(lane, lanes)

    def _send(self, claim: PendingClaim) -> tuple[DeliveryStatus, int]:
        world, event_id = self.world, claim.event.id
        if self.monotonic() >= claim.holds_until:
            return DeliveryStatus.UNDELIVERED, 0
        if world.happens("never left"):
            return DeliveryStatus.UNDELIVERED, 1
        began = world.time
        accepts, answers = not world.happens("refused"), not world.happens("silence")
        arrives = answers or world.random.random() < 0.5
        number = len(world.posts)
        post = Post(
            event_id, self.me.process, self.me, began, float("inf"), arrives and accepts, answers,
            self.read_at[event_id], self.claimed_at[event_id],
        )  # fmt: skip
        world.posts.append(post)
        if arrives and accepts:
            world.took.add(event_id)
        if arrives:
            world.answered.setdefault(event_id, world.time)
        world.rest(self, CLAIM_TIMEOUT * 1.5 if world.happens("slow answer") else world.random.expovariate(20))
        world.posts[number] = replace(post, ended=world.time)
        if not answers:
            return DeliveryStatus.UNCONFIRMED, 1
        return (DeliveryStatus.DELIVERED if accepts else DeliveryStatus.REJECTED), 1

    def _lanes(self) -> Lanes:
        places: dict[str, list[UsageplaceEvent]] = defaultdict(list)
        for event in self.events:
            places[event.usageplacecode].append(event)
        return Lanes(places.values())


def events_of(history: History) -> list[UsageplaceEvent]:
    """Return the events of a history, by time."""
    noon = dt.datetime(2026, 1, 14, 12, tzinfo=dt.UTC)
    return [
        UsageplaceEvent(f"e{number}", f"P{number % history.places}", UsageplaceStatus.CONNECTED,
                        noon + dt.timedelta(minutes=number))
        for number in range(history.events)
    ]  # fmt: skip


def simulate(history: History, watch: Callable[[World], object] = lambda _world: None) -> list[str]:
    """Run a history, then a quiet last run; return what must not have happened.

    :param watch: takes the world before its first step.
    """
    world, events = World(history), events_of(history)
    watch(world)
    chance = world.random
    odd = frozenset(event.id for event in events if world.happens("odd row"))
    odd = frozenset(sorted(odd)[:1])
    processes = []
    for number in range(history.runs):
        # Runs of a DAG, retries of a run, and the same try in two processes.
        run, attempt = f"run_{chance.randint(0, 1)}", chance.randint(1, 2)
        mine = [event for event in events if chance.random() < 0.8]
        me = Claimant("dag", "report", run, -1, attempt, f"process {number}")
        skew, drift = chance.uniform(-2, 2) * CLAIM_TIMEOUT, chance.uniform(0.999, 1.001)
        process = Process(world, me, mine, skew=skew, drift=drift, odd=odd if number == 0 else frozenset())
        processes.append(process)
        world.spawn(process, process.work, chance.uniform(0, 1.5))
    world.run()
    world.mishaps = False
    world.time += 10 * CLAIM_TIMEOUT
    last = Process(world, Claimant("dag", "report", "last run", -1, 1, "last"), events)
    world.spawn(last, last.work)
    world.run()
    return violations(world, processes, last, odd)


def violations(world: World, processes: Sequence[Process], last: Process, odd: frozenset[str]) -> list[str]:
    """Return what must not have happened, checked from outside: Ropo One's record against the ledger."""
    wrong = []
    events = {event.id: event for event in last.events}
    delivered_at: dict[str, float] = {}
    for committed, row in world.rows:
        if row["delivery_status"] == "delivered":
            delivered_at.setdefault(row["event_id"], committed)
    refused = {row["event_id"] for _, row in world.rows if row["delivery_status"] == "rejected"}
    for event_id in events:
        if event_id not in world.took and event_id not in refused:
            wrong.append(f"{event_id} is lost")
        if len(last.ends[event_id]) != 1:
            wrong.append(f"{event_id} ended {len(last.ends[event_id])} times in the last run: {last.ends[event_id]}")
        if event_id in delivered_at and event_id not in world.took:
            wrong.append(f"{event_id} is recorded as delivered, and Ropo One has not taken it")
    for process in processes:
        wrong += [f"{event_id} ended twice in {process.me}" for event_id, ends in process.ends.items() if len(ends) > 1]
    for post in world.posts:
        if delivered_at.get(post.event_id, float("inf")) < post.verified_at:
            wrong.append(f"{post.event_id} was posted again by {post.process} after it had been recorded as delivered")
        wrong += _out_of_order(post, world, events, processes, last)
    wrong += [
        f"{each.me.process} stopped for one row"
        for each in processes
        if getattr(each.stopped_by, "is_about_data", False)
    ]
    wrong += _side_by_side(world)
    wrong += _unawares(world)
    wrong += [
        f"{post.event_id} was posted by {post.process} though its claim had run out"
        for post in world.posts
        if post.began - post.claimed_at > CLAIM_TIMEOUT * 1.05
    ]
    wrong += _forgotten(world, processes, odd)
    return wrong


def _side_by_side(world: World) -> Iterator[str]:
    """Yield events that two processes posted at the same time, though no claim had run out and no try had given way."""
    for number, one in enumerate(world.posts):
        for other in world.posts[number + 1 :]:
            if one.event_id != other.event_id or one.process == other.process or other.began >= one.ended:
                continue
            ran_out = other.began - one.claimed_at >= CLAIM_TIMEOUT * 0.99
            if not (ran_out or _has_given_way(one, other, world)):
                yield f"{one.event_id} was posted by {one.process} and {other.process} at the same time"


def _has_given_way(one: Post, other: Post, world: World) -> bool:
    """Tell whether a later try of a post's task instance had written about the event before another post was decided.

    That try speaks for the task instance then: others need not wait for the earlier one, which learns of it. Of two
    tries, either may post first.
    """
    tries = (one.claimant, other.claimant), (other.claimant, one.claimant)
    return any(earlier.is_earlier_try_of(later) for earlier, later in tries) or any(
        row["event_id"] == one.event_id
        and committed <= other.verified_at
        and one.claimant.is_earlier_try_of(Claimant(*(row[name] for name in Claimant._fields)))
        for committed, row in world.rows
    )


def _unawares(world: World) -> Iterator[str]:
    """Yield events that arrived twice, the second time claimed after the first, without a word that they might."""
    claimed: dict[tuple[str, str], float] = {}
    #: Event → when, by whom, and of what: the time until which attempts are meant.
    said: dict[str, list[tuple[float, str, float]]] = defaultdict(list)
    for committed, row in world.rows:
        writer = row["event_id"], row["process"]
        if row["delivery_status"] == SENDING:
            claimed[writer] = (row["recorded_at"] - START).total_seconds()
        elif row["delivery_status"] == "unconfirmed":
            said[row["event_id"]].append((committed, row["process"], committed))
        elif row["delivery_status"] == "rejected":
            # A refusal that follows an attempt without an answer says so in its detail.
            said[row["event_id"]].append((committed, row["process"], claimed.get(writer, 0.0)))
    for number, one in enumerate(world.posts):
        for other in world.posts[number + 1 :]:
            is_double = one.event_id == other.event_id and one.process != other.process
            if is_double and one.accepted and other.accepted and other.verified_at > one.began:
                words = (word for word in said[one.event_id] if word[0] <= other.began)
                if not any(_is_about(one, *word) for word in words):
                    yield f"{one.event_id} arrived from {one.process} and {other.process}, unawares"


def _is_about(post: Post, committed: float, process: str, until: float) -> bool:
    # With its claim, a process writes about the attempts before its own.
    return committed > post.began if process == post.process else until > post.claimed_at


def _out_of_order(
    post: Post, world: World, events: dict[str, UsageplaceEvent], processes: Sequence[Process], last: Process
) -> Iterator[str]:
    """Yield earlier events of the same place, known to the process, that Ropo One had not answered before the post."""
    poster = next(each for each in (*processes, last) if each.me.process == post.process)
    for event in poster.events:
        posted = events[post.event_id]
        is_earlier = event.usageplacecode == posted.usageplacecode and event.time < posted.time
        # What the ledger does not take is an invalid row, for which no other waits.
        if is_earlier and event.id not in poster.odd and world.answered.get(event.id, float("inf")) > post.began:
            yield f"{post.event_id} overtook {event.id} in {post.process}"


def _forgotten(world: World, processes: Sequence[Process], odd: frozenset[str]) -> Iterator[str]:
    """Yield deliveries that a process knew, and could have recorded, and did not."""
    recorded = {row["event_id"] for _, row in world.rows if row["delivery_status"] == "delivered"}
    for process in processes:
        if process.is_dead or process.stopped:
            continue
        for event_id, ends in process.ends.items():
            if "delivered" in ends and event_id not in recorded and event_id not in odd:
                yield f"{event_id} was delivered by {process.me.process}, which did not record it"


def failure_of(history: History) -> str | None:
    """Return the first thing that must not have happened in a history, if there is one."""
    try:
        wrong = simulate(history)
    except Exception as error:  # noqa: BLE001 - whatever a broken rule leads to
        return f"{type(error).__name__}: {error}"
    return wrong[0] if wrong else None


def shrink(history: History) -> History:
    """Return a smaller history that fails as well."""
    while True:
        smaller = next((each for each in history.smaller() if failure_of(each)), None)
        if smaller is None:
            return history
        history = smaller


def explore(seeds: Iterable[int]) -> Iterator[tuple[History, str]]:
    """Run a history for each seed; yield those that fail, as small as they get, with what went wrong."""
    for seed in seeds:
        if failure_of(History(seed)):
            small = shrink(History(seed))
            yield small, str(failure_of(small))
