"""Order and rate over real HTTP: a server that answers at random speed, fails at random and sometimes not at all."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.retry import Backoff
from airflow_provider_ropo.sandbox import Fault, Sandbox
from airflow_provider_ropo.timezones import find_timezone

ZONE = find_timezone("Europe/Helsinki")
NOON = dt.datetime(2024, 1, 4, 12, tzinfo=ZONE)
#: Seconds: the client's timeout, and an answer that comes too late for it.
TIMEOUT, TOO_LATE = 0.2, 0.4

TROUBLE: dict[str, dict[str, Any]] = {
    "unwell": {"status": 500},
    "busy": {"status": 429},
    "no": {"status": 400},
    "cut before": {"cut": True},
    "cut after": {"cut": True, "remember": True},
    "too late": {"delay": TOO_LATE},
}


class Load(NamedTuple):
    """Events by place and minute, in the order in which the table has them; and the trouble of some places."""

    rows: list[tuple[int, int]]
    trouble: list[tuple[int, str]]
    seed: int


@st.composite
def loads(draw: st.DrawFn) -> Load:
    """Make some places with a few events, and a hot one with many, out of order."""
    sizes = [draw(st.integers(8, 30)), *draw(st.lists(st.integers(1, 4), max_size=8))]
    rows = draw(st.permutations([(place, minute) for place, size in enumerate(sizes) for minute in range(size)]))
    where, what = st.integers(0, len(sizes) - 1), st.sampled_from(sorted(TROUBLE))
    return Load(rows, draw(st.lists(st.tuples(where, what), max_size=5)), draw(st.integers(0, 99)))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Run a local Ropo One."""
    with Sandbox() as running:
        yield running


def faults(load: Load) -> Iterator[Fault]:
    """Yield what the server shall do to each place's requests, one after another."""
    moods = random.Random(load.seed)  # noqa: S311 - no secret
    script: dict[int, list[str]] = defaultdict(list)
    for place, what in load.trouble:
        script[place] += [what]
    for place, _minute in load.rows:
        what = script[place].pop(0) if script[place] else ""
        delays: dict[str, Any] = {"delay": moods.choice([0, 0, 0.005, 0.02])}
        yield Fault(usageplacecode=f"P{place}", **{**delays, **TROUBLE.get(what, {})})


def post(load: Load, server: str, workers: int, rate_limit: float | None) -> dict[str, Delivery]:
    """Post everything; return the delivery status of each event."""
    settings = RopoSettings("ropo", server, "1000011", "sandbox", timeout=TIMEOUT)
    ends: dict[str, Delivery] = {}
    client = RopoClient(settings)
    with Spool(ZONE) as spool:
        for number, (place, minute) in enumerate(load.rows):
            when = NOON + dt.timedelta(minutes=minute)
            name, status = f"P{place}-{minute:02}", UsageplaceStatus.CONNECTED
            spool.add(number, UsageplaceEvent(name, f"P{place}", status, when, description="Usage place connected"))
        spool.merge_rows(merges_invoices=True)
        Dispatcher(
            lambda event: client.post_usageplace_event(event.to_payload()),
            lambda delivery: ends.update({str(delivery.event_id): delivery}),
            ledger=None,
            max_workers=workers,
            rate_limit=rate_limit,
            stop=threading.Event(),
            backoff=Backoff(max_attempts=2, initial=0.001),
        ).run(spool.lanes())
    client.close()
    return ends


@settings(max_examples=20)
@given(load=loads(), workers=st.integers(1, 12))
def test_the_arrival_order_is_the_order_of_time(sandbox: Sandbox, load: Load, workers: int) -> None:
    """Of every usage place, events arrive by their time, whatever happens to them and to the others."""
    sandbox.clear()
    sandbox.script(faults(load))

    ends = post(load, sandbox.url, workers, None)

    came: dict[str, list[str]] = defaultdict(list)
    for arrival in sandbox.arrivals:
        came[arrival.payload["usageplacecode"]].append(arrival.payload["id"])
    assert [sorted(ids) for ids in came.values()] == list(came.values())
    accepted = {payload["id"] for payload in sandbox.events}
    by_status: dict[str, set[str]] = defaultdict(set)
    for event_id, delivery in ends.items():
        may_be_in = "may have arrived" in delivery.detail
        by_status["rejected, but perhaps in" if may_be_in else delivery.status.value].add(event_id)
    assert {f"P{place}-{minute:02}" for place, minute in load.rows} == ends.keys()
    assert by_status["delivered"] <= accepted
    assert accepted <= by_status["delivered"] | by_status["unconfirmed"] | by_status["rejected, but perhaps in"]
    assert set() == by_status["held"] & {event_id for ids in came.values() for event_id in ids}


@settings(max_examples=5)
@given(load=loads(), workers=st.integers(2, 12))
def test_the_rate_holds_whatever_happens(sandbox: Sandbox, load: Load, workers: int) -> None:
    """All workers together, and every further attempt, keep to the rate."""
    rate = 150.0
    sandbox.clear()
    sandbox.script(faults(load))
    started = time.time()

    post(load, sandbox.url, workers, rate)

    arrived = [dt.datetime.fromisoformat(arrival.received_at).timestamp() for arrival in sandbox.arrivals]
    # Only upwards: a busy machine may be slower than the rate, at any time.
    assert [number for number, time_of in enumerate(arrived) if time_of - started < number / rate - 0.001] == []
