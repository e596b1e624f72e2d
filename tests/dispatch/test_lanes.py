from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from airflow_provider_ropo.dispatch.lanes import Lane, Lanes
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.claims import PendingClaim
from airflow_provider_ropo.ledger.decisions import Action, Decision

NOON = dt.datetime(2024, 1, 4, 12, tzinfo=dt.UTC)


def events(place: str, count: int) -> list[UsageplaceEvent]:
    return [UsageplaceEvent(f"{place}{number}", place, UsageplaceStatus.CONNECTED, NOON) for number in range(count)]


def ids(taken: list[UsageplaceEvent]) -> list[str]:
    return [event.id for event in taken]


def taken_of(lanes: Lanes, count: int, of_a_lane: int) -> list[str]:
    return [event.id for _, event in lanes.take(count, of_a_lane)]


def claim(lane: Lane, *event_ids: str) -> list[PendingClaim]:
    """Let the ledger answer that these events, which are being looked up, are claimed and may be sent."""
    claims = [PendingClaim(lane.looking_up.pop(each), Decision(Action.SEND), is_claimed=True) for each in event_ids]
    lane.queue.update({each.event.id: each for each in claims})
    return claims


def finish_all(lane: Lane) -> None:
    """Let all events that were taken of a lane come to their end."""
    for event_id in list(lane.queue):
        lane.drop(event_id)


# One lane


def test_lane_is_taken_in_order() -> None:
    """A lane gives its events in their order, a few at a time, and knows when there are no more."""
    lane = Lane(iter(events("A", 5)))

    pieces = [(ids(lane.take(2)), lane.exhausted) for _ in range(4)]

    assert [(["A0", "A1"], False), (["A2", "A3"], False), (["A4"], True), ([], True)] == pieces


def test_what_was_put_back_comes_first() -> None:
    """Events put back come before the lane's later ones, in their order, and bring an ended lane back to life."""
    lane = Lane(iter(events("A", 5)))
    taken = lane.take(9)
    assert lane.exhausted

    lane.put_back(taken[2:])

    assert not lane.exhausted
    assert ["A0", "A1"] == list(lane.queue)
    assert ["A2", "A3"] == ids(lane.take(2))
    lane.put_back(taken[3:4])
    assert (["A3", "A4"], True) == (ids(lane.take(3)), lane.exhausted)


def test_lane_is_read_no_further_than_asked() -> None:
    """Of a lane's source no more is read than was asked for."""
    read: list[str] = []

    def source() -> Iterator[UsageplaceEvent]:
        for event in events("A", 100):
            read.append(event.id)
            yield event

    lane = Lane(source())
    lane.put_back(lane.take(3)[1:])
    lane.take(4)

    assert ["A0", "A1", "A2", "A3", "A4"] == read


def test_claims_are_sent_in_order() -> None:
    """Claims come one after another, in the order of the events, whichever the ledger resolved first."""
    lane = Lane(iter(events("A", 3)))
    lane.take(3)

    (third,) = claim(lane, "A2")
    assert lane.pop_next() is None, "A0 is still with the ledger"
    (first,) = claim(lane, "A0")
    assert first is lane.pop_next()
    assert lane.pop_next() is None, "A1 is still with the ledger"
    (second,) = claim(lane, "A1")

    assert [second, third, None] == [lane.pop_next() for _ in range(3)]


def test_one_at_a_time() -> None:
    """While an event of the lane is in flight, none follows."""
    lane = Lane(iter(events("A", 2)))
    lane.take(2)
    first, _ = claim(lane, "A0", "A1")

    lane.in_flight = True
    assert lane.pop_next() is None
    lane.in_flight = False

    assert first is lane.pop_next()


def test_event_that_is_not_sent_makes_way() -> None:
    """An event that came to its end unsent does not keep the next one waiting."""
    lane = Lane(iter(events("A", 2)))
    lane.take(2)
    (second,) = claim(lane, "A1")

    lane.drop("A0")

    assert second is lane.pop_next()
    assert {} == lane.looking_up


def test_block_holds_what_comes_later() -> None:
    """An event that is not sent holds back those behind it, claimed or not, and none of those before it."""
    lane = Lane(iter(events("A", 6)))
    lane.take(5)
    first, fourth = claim(lane, "A0", "A3")

    held = lane.block("A1")
    lane.drop("A3")

    assert [fourth] == held
    assert {"A2": "A1", "A4": "A1"} == lane.held
    assert ["A0", "A1", "A2", "A4"] == list(lane.queue)
    assert "A1" == lane.blocked_by
    assert first is lane.pop_next()


def test_block_by_the_event_in_flight_holds_all() -> None:
    """An event that did not arrive holds back all of its lane; what another held already names that other."""
    lane = Lane(iter(events("A", 5)))
    lane.take(5)
    claim(lane, "A0", "A1")
    assert lane.pop_next() is not None
    lane.block("A3")

    held = lane.block("A0")
    lane.drop("A1")

    assert ["A1"] == [each.event.id for each in held]
    assert {"A2": "A0", "A3": "A0", "A4": "A3"} == lane.held


def test_lane_is_busy_until_its_events_have_ended() -> None:
    """A lane is busy while an event is with the ledger, claimed, or in flight."""
    lane = Lane(iter(events("A", 1)))
    seen = [lane.is_busy]

    lane.take(1)
    seen.append(lane.is_busy)
    claim(lane, "A0")
    seen.append(lane.is_busy)
    lane.pop_next()
    lane.in_flight = True
    seen.append(lane.is_busy)
    lane.in_flight = False

    assert [False, True, True, True, False] == [*seen, lane.is_busy]


# All lanes


def test_new_lanes_are_begun_one_by_one() -> None:
    """Lanes are begun only as far as their events are wanted; one lane's events stay together."""
    begun: list[str] = []

    def sources() -> Iterator[list[UsageplaceEvent]]:
        for place in "ABCD":
            begun.append(place)
            yield events(place, 3)

    lanes = Lanes(sources())

    assert ["A0", "A1", "B0", "B1"] == taken_of(lanes, 3, 2)
    assert ["A", "B"] == begun


def test_lanes_that_have_begun_come_before_new_ones() -> None:
    """A lane that has begun and wants more comes before those that have not begun, in the order of asking."""
    lanes = Lanes(events(place, 4) for place in "ABC")
    first, second = dict.fromkeys(lane for lane, _ in lanes.take(4, 2))
    for lane in (second, first):
        finish_all(lane)
        lanes.request_refill(lane)

    assert ["B2", "B3", "A2", "A3", "C0", "C1"] == taken_of(lanes, 9, 2)


def test_lane_is_refilled_once() -> None:
    """A lane that asks twice is refilled once; one that has ended is not refilled."""
    lanes = Lanes([events("A", 4)])
    lane = lanes.take(2, 2)[0][0]
    finish_all(lane)
    lanes.request_refill(lane)
    lanes.request_refill(lane)
    assert ["A2", "A3"] == taken_of(lanes, 2, 2)
    finish_all(lane)
    assert [] == taken_of(lanes, 9, 2)

    lanes.request_refill(lane)
    assert [] == taken_of(lanes, 9, 2)
    lanes.request_refill(lane)

    assert lane.exhausted
    assert not lane.wants_refill


def test_lane_is_not_refilled_before_its_look_up_is_answered() -> None:
    """Events may yet be put back: no later ones of the lane are looked up before that is known."""
    lanes = Lanes([events("A", 4)])
    (lane, _), (_, second) = lanes.take(2, 2)
    claim(lane, "A0")
    lanes.request_refill(lane)
    assert [] == taken_of(lanes, 9, 2)

    lane.put_back([second])
    lanes.request_refill(lane)

    assert ["A1"] == taken_of(lanes, 1, 2)


@pytest.mark.parametrize(("of_a_lane", "more"), [(2, ["A2"]), (4, ["A2"]), (6, ["A2", "A3", "A4"])])
def test_lane_is_filled_up(of_a_lane: int, more: list[str]) -> None:
    """Of a lane no more events are taken than may be on their way, and at least one."""
    lanes = Lanes([events("A", 9)])
    lane = lanes.take(2, 2)[0][0]
    claim(lane, "A0", "A1")
    lane.in_flight = True
    lanes.request_refill(lane)

    assert more == taken_of(lanes, 1, of_a_lane)


def test_what_remains() -> None:
    """What was put back and what was never taken remains, each once and in its lane's order; what is out does not."""
    lanes = Lanes(events(place, 4) for place in "ABCD")
    first, second, third = dict.fromkeys(lane for lane, _ in lanes.take(6, 2))
    first.put_back(list(first.looking_up.values())[1:])
    finish_all(second)
    lanes.request_refill(second)

    remaining = ids(list(lanes.remaining([first, second, third])))

    assert ["A1", "A2", "A3", "B2", "B3", "C2", "C3", "D0", "D1", "D2", "D3"] == remaining
