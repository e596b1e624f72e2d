"""A run's steps through the ledger, one after another, as the recorder's thread takes them."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.recorder import POLL_INTERVAL

DESTINATION = "https://rc.ropo24.fi 1000011"
#: More rounds than any claim takes to be resolved.
MANY = 1_000

Wait = Callable[[], object]


class LedgerTime:
    """The database's time and the process's monotonic clock; both stand still until a test moves them.

    Called, it is the database's time; :meth:`monotonic` is the clock; :meth:`wait` is what passes between two rounds.
    """

    def __init__(self, hour: int = 12) -> None:
        self.time = dt.datetime(2024, 1, 4, hour)  # noqa: DTZ001 - as the ledger writes it
        self.seconds = 1000.0
        #: The number of waits.
        self.polls = 0
        #: What is to happen during each wait.
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> dt.datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self.time += dt.timedelta(seconds=seconds)
        self.seconds += seconds

    def wait(self) -> None:
        """Let the time between two rounds pass."""
        self.go_on(POLL_INTERVAL)
        self.polls += 1
        self.meanwhile()


def pause() -> None:
    """Wait as long as the recorder does between two rounds."""
    time.sleep(POLL_INTERVAL)


def look_up(ledger: DeliveryLedger, *events: UsageplaceEvent) -> list[PendingClaim]:
    """Look events up, and claim those that are to be sent: one round, after which claims are not verified yet."""
    asked = Round(look_ups=events, claim_limit=len(events), claims_per_place=len(events))
    outcome = ledger.exchange(asked)
    return _in_order(events, [*outcome.unresolved, *outcome.refused, *outcome.postponed])


def verify(ledger: DeliveryLedger, *claims: PendingClaim, wait: Wait = pause) -> list[PendingClaim]:
    """Go through rounds until every claim is ready or refused.

    :param wait: called between two rounds.
    """
    done = [claim for claim in claims if claim.decision.action is not Action.SEND]
    unresolved = [claim for claim in claims if claim.decision.action is Action.SEND]
    for number in range(MANY):
        if not unresolved:
            return _in_order([claim.event for claim in claims], done)
        if number:
            wait()
        outcome = ledger.exchange(Round(unresolved=unresolved))
        done += [*outcome.ready, *outcome.refused]
        unresolved = outcome.unresolved
    raise AssertionError(f"not resolved after {MANY} rounds")


def claim(ledger: DeliveryLedger, *events: UsageplaceEvent, wait: Wait = pause) -> list[PendingClaim]:
    """Look events up, claim and verify: then those whose action is ``SEND`` may be sent."""
    return verify(ledger, *look_up(ledger, *events), wait=wait)


def record(
    ledger: DeliveryLedger, claimed: PendingClaim, status: str = "delivered", detail: str = "", **more: Any
) -> None:
    """Record a delivery status, of an event that was posted once unless ``attempts`` says otherwise."""
    values = {"attempts": 1} | more
    delivery = Delivery(DeliveryStatus(status), claimed.event.id, claimed.event.usageplacecode, detail, **values)
    ledger.exchange(Round(results=[(claimed, delivery)]))


def send(
    ledger: DeliveryLedger, event: UsageplaceEvent, status: str = "delivered", *, wait: Wait = pause, **more: Any
) -> None:
    """Claim an event, and record its delivery status."""
    [claimed] = claim(ledger, event, wait=wait)
    assert claimed.decision.action is Action.SEND
    record(ledger, claimed, status, **more)


def actions(found: Iterable[PendingClaim | Decision]) -> list[Action]:
    """Return what is to be done with each event."""
    return [(each.decision if isinstance(each, PendingClaim) else each).action for each in found]


def written(engine: sa.engine.Engine, event_id: str = "e1", table: str = "ropo_ledger") -> list[Any]:
    """Return the rows about an event, oldest first."""
    with engine.connect() as connection:
        ledger = sa.Table(table, sa.MetaData(), autoload_with=connection)
        query = sa.select(ledger).where(ledger.c.event_id == event_id).order_by(ledger.c.recorded_at)
        return list(connection.execute(query))


def statuses(engine: sa.engine.Engine, event_id: str = "e1") -> list[str]:
    """Return the delivery statuses of the rows about an event, oldest first."""
    return [row.delivery_status for row in written(engine, event_id)]


def _in_order(events: Sequence[UsageplaceEvent], claims: list[PendingClaim]) -> list[PendingClaim]:
    found = {each.event.id: each for each in claims}
    return [found[event.id] for event in events]
