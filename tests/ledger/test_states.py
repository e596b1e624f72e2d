from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_ropo.delivery import SUCCESSFUL
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.decisions import Action, LedgerPolicy, decide, latest, of_destination
from airflow_provider_ropo.ledger.digest import ContentDigest
from airflow_provider_ropo.ledger.entries import KNOWN_STATUSES, Claimant, LedgerEntry
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.states import LookUp, history, open_events, states
from ledger_steps import DESTINATION

NOON = dt.datetime(2024, 1, 4, 12)  # noqa: DTZ001 - as the ledger writes it
TEST = "https://test 1"
LEDGER = define_table("ropo_ledger")
ME = Claimant("dag", "report", "now", -1, 1, "me")


def content_of(customernumber: str) -> ContentDigest:
    moment = dt.datetime(2024, 1, 4, 10, tzinfo=dt.UTC)
    return ContentDigest(UsageplaceEvent("e1", "RE1", UsageplaceStatus.CONNECTED, moment, customernumber), DESTINATION)


ONE, OTHER = content_of("A1"), content_of("A2")

#: A row: delivery status, content (None: written by hand), destination, and who wrote it.
Row = tuple[str, ContentDigest | None, str | None, int]


def story(*rows: Row) -> list[dict[str, Any]]:
    """Return the rows about one event, oldest first, a second each."""
    empty = dict.fromkeys(LEDGER.c.keys())
    return [
        {
            **empty,
            "destination": destination,
            "event_id": "e1",
            "delivery_status": status,
            "payload_hash": content and content.text,
            "attempts": 0,
            "dag_id": "dag",
            "task_id": "report",
            "run_id": f"run {writer}",
            "map_index": -1,
            "try_number": 1,
            "process": f"process {writer}",
            "recorded_at": NOON + dt.timedelta(seconds=number),
        }
        for number, (status, content, destination, writer) in enumerate(rows)
    ]


def listed(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> list[tuple[str | None, str]]:
    """Return the destination and the status of each row that the query lists, in a ledger of these rows alone."""
    connection.execute(LEDGER.delete())
    connection.execute(LEDGER.insert(), list(rows))
    return sorted((row.destination, row.delivery_status) for row in connection.execute(open_events(LEDGER)))


def is_open(rows: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a run that comes much later, with the newest row's content, would not call the event done."""
    entries = of_destination(
        [
            LedgerEntry(
                row["delivery_status"],
                row["payload_hash"],
                row["recorded_at"],
                Claimant("dag", "report", row["run_id"], -1, 1, row["process"]),
                row["destination"],
            )
            for row in rows
        ],
        DESTINATION,
    )
    newest = entries[-1]
    # A newest row without a digest stands for any content, so for the one that was delivered.
    delivered = latest(entries, "delivered")
    digest = newest.payload_hash or (delivered.payload_hash if delivered else None)
    content = OTHER if digest == OTHER.text else ONE
    decision = decide(entries, content, ME, LedgerPolicy(), NOON + dt.timedelta(days=1))
    is_done = decision.action in {Action.ALREADY_DELIVERED, Action.CLOSED}
    return not is_done and newest.delivery_status not in SUCCESSFUL


@pytest.fixture(scope="module")
def memory() -> Iterator[sa.Connection]:
    """Return a connection to an empty ledger in memory."""
    engine = sa.create_engine("sqlite://")
    LEDGER.create(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


statuses = st.sampled_from(sorted(KNOWN_STATUSES))
writers = st.integers(1, 3)
named = st.lists(st.tuples(statuses, st.sampled_from([ONE, OTHER]), st.just(DESTINATION), writers), min_size=1)
by_hand = st.lists(
    st.tuples(statuses, st.sampled_from([ONE, OTHER, None]), st.sampled_from([DESTINATION, None, ""]), writers),
    min_size=1,
)


@given(rows=named)
def test_the_query_and_a_run_agree(rows: list[Row], memory: sa.Connection) -> None:
    """An event is listed if and only if a run would not call it delivered or closed."""
    written = story(*rows)

    assert is_open(written) is bool(listed(memory, written))


@given(rows=by_hand)
def test_every_event_has_one_state(rows: list[Row], memory: sa.Connection) -> None:
    """An event has one state at each destination, and is open in it if and only if the query of open events has it."""
    found = listed(memory, story(*rows))

    state = [(row.destination, row.delivery_status) for row in memory.execute(states(LEDGER))]
    assert len({destination for destination, _ in state}) == len(state) > 0
    assert found == sorted((each for each in state if each[1] not in SUCCESSFUL), key=str)


@given(rows=by_hand)
@example(rows=[("unconfirmed", ONE, DESTINATION, 1), ("delivered", None, None, 2)])
@example(rows=[("rejected", ONE, DESTINATION, 1), ("closed", None, None, 2)])
@example(rows=[("delivered", ONE, DESTINATION, 1), ("undelivered", ONE, None, 2)])
def test_the_query_and_a_run_agree_about_rows_written_by_hand(rows: list[Row], memory: sa.Connection) -> None:
    """Rows without a destination or a digest, early or late, count in the query as they do in a run."""
    written = story(*rows)

    assert is_open(written) is bool(listed(memory, written))


@pytest.fixture
def connection(engine: sa.engine.Engine) -> Iterator[sa.Connection]:
    """Return a connection to an empty ledger."""
    LEDGER.create(engine)
    with engine.connect() as connection:
        yield connection


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([("sending", ONE, DESTINATION, 1)], [(DESTINATION, "sending")], id="being sent"),
        pytest.param(
            [("delivered", ONE, DESTINATION, 1), ("undelivered", ONE, DESTINATION, 2)], [], id="delivered, then not"
        ),
        pytest.param(
            [("delivered", ONE, DESTINATION, 1), ("changed", OTHER, DESTINATION, 2)],
            [(DESTINATION, "changed")],
            id="another content is there",
        ),
        pytest.param(
            [("delivered", ONE, DESTINATION, 1), ("delivered", OTHER, DESTINATION, 2)], [], id="delivered again"
        ),
        pytest.param(
            [("delivered", None, DESTINATION, 1), ("undelivered", OTHER, DESTINATION, 2)], [], id="any content"
        ),
        pytest.param([("unconfirmed", ONE, DESTINATION, 1), ("closed", ONE, DESTINATION, 2)], [], id="closed"),
        pytest.param(
            [("delivered", ONE, TEST, 1), ("undelivered", ONE, DESTINATION, 2)],
            [(DESTINATION, "undelivered")],
            id="delivered elsewhere",
        ),
        pytest.param([("undelivered", ONE, None, 1)], [(None, "undelivered")], id="of the earlier layout"),
        pytest.param(
            [("undelivered", ONE, None, 1), ("delivered", ONE, DESTINATION, 2)],
            [],
            id="of the earlier layout, and delivered since",
        ),
        pytest.param(
            [("undelivered", ONE, None, 1), ("rejected", ONE, DESTINATION, 2)],
            [(DESTINATION, "rejected")],
            id="of the earlier layout, and rejected since",
        ),
    ],
)
def test_open_events(rows: list[Row], expected: list[tuple[str | None, str]], connection: sa.Connection) -> None:
    """Of each event that is not at its destination, the newest row is listed."""
    assert expected == listed(connection, story(*rows))


@pytest.mark.parametrize(("name", "is_listed"), [("e1", False), ("e1.jsonl", True)], ids=["the file", "in the file"])
def test_a_file_that_was_given_up(name: str, connection: sa.Connection, *, is_listed: bool) -> None:
    """A file that was never published is not listed among open events; the events in it are."""
    (row,) = story(("unpublished", None, DESTINATION, 1))

    found = listed(connection, [row | {"detail": f"file {name} of 2 events, 300 bytes, SHA-256 {'0' * 64}"}])

    assert ([(DESTINATION, "unpublished")] if is_listed else []) == found


def test_all_columns_are_listed(connection: sa.Connection) -> None:
    """The query returns the ledger's columns, in their order, and no others."""
    connection.execute(LEDGER.insert(), story(("rejected", ONE, DESTINATION, 1)))

    [row] = connection.execute(open_events(LEDGER))

    assert list(LEDGER.c.keys()) == list(row._fields)
    assert "rejected" == row.delivery_status


def test_events_do_not_mix(connection: sa.Connection) -> None:
    """What is delivered of one event says nothing about another."""
    rows = story(("undelivered", ONE, DESTINATION, 1)) + [
        row | {"event_id": "e2"} for row in story(("delivered", ONE, DESTINATION, 1))
    ]

    assert [(DESTINATION, "undelivered")] == listed(connection, rows)


# Looking up.


@pytest.fixture
def four(connection: sa.Connection) -> sa.Connection:
    """Return a connection to a ledger of four events, a minute apart, and one of them at two destinations."""
    events = {
        "e1": ("RE1", [("sending", ONE, DESTINATION, 1), ("delivered", ONE, DESTINATION, 1)]),
        "e2": ("RE1", [("rejected", ONE, DESTINATION, 1), ("closed", ONE, DESTINATION, 2)]),
        "e3": ("RE2", [("sending", ONE, DESTINATION, 1), ("unconfirmed", ONE, DESTINATION, 1)]),
        "e4": ("RE2", [("delivered", ONE, TEST, 1), ("rejected", ONE, DESTINATION, 1)]),
    }
    for number, (event_id, (place, rows)) in enumerate(events.items()):
        later = dt.timedelta(minutes=number)
        for row in story(*rows):
            written = {"event_id": event_id, "usageplacecode": place, "recorded_at": row["recorded_at"] + later}
            connection.execute(LEDGER.insert(), row | written)
    return connection


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(LookUp(), ["e1 delivered", "e2 closed", "e3 unconfirmed", "e4 delivered", "e4 rejected"],
                     id="all"),
        pytest.param(LookUp(only_open=True), ["e3 unconfirmed", "e4 rejected"], id="open"),
        pytest.param(LookUp(event_ids=["e1", "e3", "e9"]), ["e1 delivered", "e3 unconfirmed"], id="events"),
        pytest.param(LookUp(place="RE1"), ["e1 delivered", "e2 closed"], id="place"),
        pytest.param(LookUp(place="RE1", event_ids=["e2", "e3"]), ["e2 closed"], id="events of a place"),
        pytest.param(LookUp(status="delivered"), ["e1 delivered", "e4 delivered"], id="status"),
        pytest.param(LookUp(destination=TEST), ["e4 delivered"], id="destination"),
        pytest.param(LookUp(since=NOON + dt.timedelta(seconds=121)), ["e3 unconfirmed", "e4 delivered", "e4 rejected"],
                     id="since, inclusive"),
        pytest.param(LookUp(until=NOON + dt.timedelta(seconds=61)), ["e1 delivered"], id="until, exclusive"),
        pytest.param(LookUp(since=NOON + dt.timedelta(seconds=2), until=NOON + dt.timedelta(seconds=62)), ["e2 closed"],
                     id="a period"),
    ],
)  # fmt: skip
def test_looking_up(asked: LookUp, expected: list[str], four: sa.Connection) -> None:
    """Events are found by each condition, and by several together."""
    assert expected == sorted(f"{row.event_id} {row.delivery_status}" for row in four.execute(states(LEDGER, asked)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(LookUp(event_ids=["e3"]), ["e3 sending", "e3 unconfirmed"], id="event"),
        pytest.param(LookUp(only_open=True), ["e3 sending", "e3 unconfirmed", "e4 rejected"], id="open"),
        pytest.param(LookUp(status="closed"), ["e2 closed", "e2 rejected"], id="status"),
        pytest.param(LookUp(place="RE1", since=NOON + dt.timedelta(seconds=1), until=NOON + dt.timedelta(seconds=61)),
                     ["e1 delivered", "e2 rejected"], id="a period"),
        pytest.param(LookUp(event_ids=["e4"]), ["e4 delivered", "e4 rejected"], id="two destinations"),
    ],
)  # fmt: skip
def test_history(asked: LookUp, expected: list[str], four: sa.Connection) -> None:
    """All rows about the events that are found are returned, within the times that are asked for."""
    assert expected == sorted(f"{row.event_id} {row.delivery_status}" for row in four.execute(history(LEDGER, asked)))


def test_a_row_without_a_destination_is_in_each_history(connection: sa.Connection) -> None:
    """A row that counts for two destinations is shown for both, with their names."""
    rows = story(("undelivered", ONE, None, 1), ("rejected", ONE, DESTINATION, 1), ("rejected", ONE, TEST, 1))
    connection.execute(LEDGER.insert(), rows)

    found = connection.execute(history(LEDGER, LookUp(event_ids=["e1"]))).all()

    assert list(LEDGER.c.keys()) == list(found[0]._fields)
    assert sorted([*[(DESTINATION, each) for each in ("rejected", "undelivered")],
                   *[(TEST, each) for each in ("rejected", "undelivered")]]) == sorted(
        (row.destination, row.delivery_status) for row in found
    )  # fmt: skip


def test_the_state_of_a_delivered_event_is_its_delivery(connection: sa.Connection) -> None:
    """The row that is shown of a delivered event is the newest that says so, whatever is newer."""
    rows = story(
        ("delivered", ONE, DESTINATION, 1), ("delivered", ONE, DESTINATION, 2), ("undelivered", ONE, DESTINATION, 3)
    )
    connection.execute(LEDGER.insert(), rows)

    [state] = connection.execute(states(LEDGER))

    assert ("delivered", "process 2") == (state.delivery_status, state.process)


def test_a_purged_digest_is_recognised(connection: sa.Connection) -> None:
    """A delivery of which only the digest's beginning is left is that of the same content, and of no other."""
    same, other = (story(("delivered", ONE, DESTINATION, 1), ("undelivered", content, DESTINATION, 2))
                   for content in (ONE, OTHER))  # fmt: skip
    for rows in (same, other):
        rows[0]["payload_hash"] = ONE.text[:32]

    assert [] == listed(connection, same)
    assert [(DESTINATION, "undelivered")] == listed(connection, other)
