from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from airflow_provider_ropo.dispatch.lanes import Lane, Lanes
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus

NOON = dt.datetime(2024, 1, 4, 12, tzinfo=dt.UTC)


def events(place: str, count: int) -> list[UsageplaceEvent]:
    return [UsageplaceEvent(f"{place}{number}", place, UsageplaceStatus.CONNECTED, NOON) for number in range(count)]


def ids(taken: list[UsageplaceEvent]) -> list[str]:
    return [event.id for event in taken]


def taken_of(lanes: Lanes, count: int, of_a_lane: int) -> list[str]:
    return [event.id for _, event in lanes.take(count, of_a_lane)]


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


def test_hungry_lanes_come_before_new_ones() -> None:
    """A lane that has begun and wants more comes before those that have not begun, in the order of asking."""
    lanes = Lanes(events(place, 4) for place in "ABC")
    first, second = dict.fromkeys(lane for lane, _ in lanes.take(4, 2))
    lanes.request_refill(second)
    lanes.request_refill(first)

    assert ["B2", "B3", "A2", "A3", "C0", "C1"] == taken_of(lanes, 9, 2)


def test_lane_is_fed_once() -> None:
    """A lane that asks twice is fed once; one that has ended is not asked again."""
    lanes = Lanes([events("A", 4)])
    lane = lanes.take(2, 2)[0][0]
    lanes.request_refill(lane)
    lanes.request_refill(lane)
    assert ["A2", "A3"] == taken_of(lanes, 9, 2)

    lanes.request_refill(lane)
    assert [] == taken_of(lanes, 9, 2)
    lanes.request_refill(lane)

    assert lane.exhausted
    assert not lane.wants_refill


def test_waiting_gathers_hungry_lanes() -> None:
    """While all that is left is on its way, it waits until half of the lanes want more, or enough for a batch."""
    lanes = Lanes(events(place, 10) for place in "ABCD")
    begun = list(dict.fromkeys(lane for lane, _ in lanes.take(8, 2)))
    assert not lanes.should_batch(4, 8), "there are lanes that have not begun, for all it knows"
    assert [] == lanes.take(1, 2)
    for lane in begun:
        lane.in_flight = True

    waits = []
    for lane in begun[:2]:
        waits.append(lanes.should_batch(4, 8))
        lanes.request_refill(lane)

    assert [True, True, False] == [*waits, lanes.should_batch(4, 8)]
    assert not lanes.should_batch(100, 2)
    assert lanes.should_batch(100, 3)


def test_lane_that_has_nothing_on_its_way_is_not_kept_waiting() -> None:
    """Where a lane that wants a refill has nothing on its way, there is no waiting for others."""
    lanes = Lanes([events("A", 10)])
    lane = lanes.take(2, 1)[0][0]
    lanes.take(1, 1)
    lanes.request_refill(lane)

    assert not lanes.should_batch(100, 8)
    lane.in_flight = True
    assert lanes.should_batch(100, 8)


def test_nothing_on_its_way_never_waits() -> None:
    """Where nothing is on its way, there is nothing to wait for."""
    lanes = Lanes([])
    lanes.take(1, 1)

    assert not lanes.should_batch(0, 8)
