from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import run_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.claims import Round
from airflow_provider_ropo.ledger.decisions import Action, LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.states import open_events
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.sandbox import Sandbox
from airflow_provider_ropo.timezones import find_timezone
from ledger_steps import DESTINATION, actions, claim, look_up, record, send

ME = Claimant("dag", "report", "run_1", -1, 1, "me")
LATER = ME._replace(run_id="run_2", process="later")

WORK = """
CREATE TABLE {}.work (
    id VARCHAR(20), usageplacecode BIGINT, status VARCHAR(20), time DATETIME, description TEXT,
    invoicenumber DECIMAL(12), jobid INT
)
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run a local Ropo One."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[RopoClient]:
    """Return a client of the local Ropo One."""
    with closing(RopoClient(RopoSettings("ropo_test", sandbox.url, sandbox.cid, sandbox.apicode))) as client:
        yield client


@pytest.fixture
def events(make_event: Callable[..., UsageplaceEvent]) -> list[UsageplaceEvent]:
    """Return two hundred events, four of each usage place."""
    return [make_event(f"e{number}", f"RE{number % 50}", f"10:{number // 50:02}") for number in range(200)]


def open_ledger(engine: sa.engine.Engine, me: Claimant = ME, name: str = "ropo_ledger") -> DeliveryLedger:
    ledger = DeliveryLedger(LedgerTable(engine, name), DESTINATION, me, LedgerPolicy())
    ledger.prepare()
    return ledger


def lanes_of(events: list[UsageplaceEvent]) -> list[list[UsageplaceEvent]]:
    places = dict.fromkeys(event.usageplacecode for event in events)
    return [[event for event in events if event.usageplacecode == place] for place in places]


def post_all(
    lanes: Any,
    client: RopoClient,
    ledger: DeliveryLedger,
    on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
) -> Counter[str]:
    ends: Counter[str] = Counter()

    def count(delivery: Delivery) -> None:
        ends[delivery.status.value] += 1
        on_delivery(delivery)

    def send(event: UsageplaceEvent) -> object:
        return client.post_usageplace_event(event.to_payload())

    Dispatcher(send, count, ledger=ledger, max_workers=8, stop=threading.Event()).run(lanes)
    return ends


def states(engine: sa.engine.Engine, table: str = "ropo_ledger") -> Counter[str]:
    """Count the newest states, read as a user would."""
    newest = f"""
        SELECT delivery_status, count(*) AS events FROM (
            SELECT delivery_status, row_number() OVER (PARTITION BY event_id ORDER BY recorded_at DESC) AS age
            FROM {table}
        ) AS entry WHERE age = 1 GROUP BY delivery_status
    """
    with engine.connect() as connection:
        return Counter({row.delivery_status: row.events for row in connection.execute(sa.text(newest))})


def test_the_table_is_made_once(engine: sa.engine.Engine) -> None:
    """The table and its indexes are created if they are missing, and not changed if they exist."""
    table = LedgerTable(engine, "ropo_ledger")

    before = table.exists()
    table.create_or_upgrade()
    table.create_or_upgrade()

    inspector = sa.inspect(engine)
    assert (False, True) == (before, table.exists())
    assert {"event_id", "usageplacecode", "run_id", "map_index", "try_number"} == {
        name for index in inspector.get_indexes("ropo_ledger") for name in index["column_names"]
    }


def test_an_event_is_remembered(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """An event is unknown, then being sent, then delivered, and the next run recognises it."""
    event = make_event()
    ledger = open_ledger(engine)

    before = claim(ledger, event)
    meanwhile = open_ledger(engine, LATER).decide([event])
    record(ledger, before[0])
    after = open_ledger(engine, LATER).decide([event])

    assert [Action.SEND, Action.CLAIMED_ELSEWHERE, Action.ALREADY_DELIVERED] == actions([*before, *meanwhile, *after])


def test_microseconds_are_kept(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """``recorded_at`` comes back to the microsecond: what happens within a second keeps its order."""
    moment = dt.datetime(2026, 1, 14, 5, 0, 0, 123456)  # noqa: DTZ001 - as the ledger writes it
    table = LedgerTable(engine, "ropo_ledger")
    ledger = DeliveryLedger(table, DESTINATION, ME, LedgerPolicy(), now=lambda: moment)
    ledger.prepare()

    send(ledger, make_event())

    entries = table.entries(["e1"])["e1"]
    assert [("sending", moment), ("delivered", moment + dt.timedelta(microseconds=1))] == [
        (entry.delivery_status, entry.recorded_at) for entry in entries
    ]


@pytest.mark.parametrize(
    "name",
    [
        "ropo_ledger",
        "{database}.ropo_ledger",
        "`Ropo Ledger`",
        '"Ropo Ledger"',
        "{database}.`Ropo Ledger`",
        '"{database}"."Ropo % Ledger"',
        "`{database}`.`order`",
    ],
)
def test_names(name: str, engine: sa.engine.Engine, database: str, make_event: Callable[..., UsageplaceEvent]) -> None:
    """The table may be named with its database, and be quoted in MariaDB's way or in the standard's."""
    name = name.format(database=database)

    send(open_ledger(engine, name=name), make_event())

    [decision] = open_ledger(engine, LATER, name).decide([make_event()])
    assert Action.ALREADY_DELIVERED is decision.action


def test_letter_case_of_ids_counts(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """Ids that differ in letter case alone are different events."""
    ledger = open_ledger(engine)
    send(ledger, make_event("a"))

    decisions = ledger.decide([make_event("A"), make_event("a")])

    assert [Action.SEND, Action.ALREADY_DELIVERED] == [decision.action for decision in decisions]


def test_letter_case_of_places_counts(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """Each of two usage places that differ in letter case alone has a latest event of its own."""
    ledger = open_ledger(engine)
    send(ledger, make_event("e1", "re1", "11:00"))
    send(ledger, make_event("e2", "RE1", "10:00"))

    latest = LedgerTable(engine, "ropo_ledger").latest_deliveries(["RE1", "re1"], DESTINATION)

    assert {"re1": "11:00", "RE1": "10:00"} == {place: f"{time:%H:%M}" for place, time in latest.items()}
    assert 0 == ledger.stale


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1"])
@pytest.mark.parametrize(
    "words", ["Pääkytkin rikki – ei avainta", "🔌 50 % 'cut' \\ \"off\""], ids=["Finnish", "signs"]
)
def test_words_come_back(
    words: str, charset: str, mariadb: Any, database: str, make_event: Callable[..., UsageplaceEvent]
) -> None:
    """The text of Ropo One's answer is stored unchanged, in any language, whatever the database's character set."""
    mariadb.execute(f"ALTER DATABASE {database} CHARACTER SET {charset}")
    event = make_event()
    engine = mariadb.engine(database)
    ledger = open_ledger(engine)
    [claimed] = claim(ledger, event)

    record(ledger, claimed, "rejected", words, http_status=400)

    with engine.connect() as connection:
        query = sa.text("SELECT detail FROM ropo_ledger WHERE delivery_status = 'rejected'")
        assert words == connection.execute(query).scalar_one()
    engine.dispose()


def test_reading_and_adding_are_enough(
    mariadb: Any, database: str, engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]
) -> None:
    """Once there is a table, a user who may read it and add to it, and nothing else, is enough."""
    open_ledger(engine)
    user = f"ropo_{database[-8:]}"
    mariadb.execute(f"CREATE USER {user}", f"GRANT SELECT, INSERT ON {database}.ropo_ledger TO {user}")
    modest = mariadb.engine(database, user)

    send(open_ledger(modest), make_event())
    [decision] = open_ledger(modest, LATER).decide([make_event()])

    modest.dispose()
    mariadb.execute(f"DROP USER {user}")
    assert Action.ALREADY_DELIVERED is decision.action


def test_a_ledger_that_may_not_be_written(
    mariadb: Any, database: str, engine: sa.engine.Engine, client: RopoClient, events: list[UsageplaceEvent]
) -> None:
    """If *sending* cannot be written, nothing is posted, and the error has MariaDB's message."""
    open_ledger(engine)
    user = f"ropo_{database[-8:]}"
    mariadb.execute(f"CREATE USER {user}", f"GRANT SELECT ON {database}.ropo_ledger TO {user}")
    reader = mariadb.engine(database, user)

    with pytest.raises(RopoLedgerError, match=r"could not be written: .*INSERT command denied"):
        post_all(lanes_of(events), client, open_ledger(reader))

    reader.dispose()
    mariadb.execute(f"DROP USER {user}")
    assert {} == states(engine)


@pytest.mark.parametrize(
    "odd", [("e" * 300, "RE1"), ("odd", "R" * 300)], ids=["an id of 300 characters", "a place of 300 characters"]
)
def test_an_odd_event_stops_no_other(
    odd: tuple[str, str], engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]
) -> None:
    """An event that does not fit the columns is refused with the reason; results and other claims are written once."""
    ledger = open_ledger(engine)
    ready = claim(ledger, *(make_event(f"e{number}", f"RE{number}") for number in range(24)))
    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]

    outcome = ledger.exchange(
        Round(look_ups=[make_event(*odd), make_event("next", "RE92")], claim_limit=2, results=results)
    )

    assert ["next"] == [each.event.id for each in outcome.unresolved]
    assert [(odd[0], Action.UNREADABLE)] == [(each.event.id, each.decision.action) for each in outcome.refused]
    assert "Data too long for column" in outcome.refused[0].decision.detail
    assert {"delivered": 24, "sending": 1} == states(engine)
    with engine.connect() as connection:
        query = sa.text("SELECT count(*) FROM ropo_ledger WHERE delivery_status = 'delivered'")
        assert 24 == connection.execute(query).scalar_one()


def test_a_long_detail_of_four_byte_characters(
    engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]
) -> None:
    """A detail is cut by characters, whatever their bytes."""
    ledger = open_ledger(engine)
    [claimed] = claim(ledger, make_event())

    record(ledger, claimed, "rejected", "🔌" * 1_500)

    with engine.connect() as connection:
        query = sa.text("SELECT detail FROM ropo_ledger WHERE delivery_status = 'rejected'")
        assert "🔌" * 1_000 == connection.execute(query).scalar_one()


def test_open_events(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """The query of open events runs in MariaDB, too."""
    ledger = open_ledger(engine)
    send(ledger, make_event("e1"))
    send(ledger, make_event("e2", "RE2"), "rejected")
    look_up(ledger, make_event("e3", "RE3"))

    with engine.connect() as connection:
        rows = connection.execute(open_events(define_table("ropo_ledger"))).all()

    assert [("e2", "rejected"), ("e3", "sending")] == sorted((row.event_id, row.delivery_status) for row in rows)


def test_an_earlier_layout_is_upgraded(engine: sa.engine.Engine, make_event: Callable[..., UsageplaceEvent]) -> None:
    """A table without the columns of today gets them, and a row written by hand is a valid row."""
    with engine.begin() as connection:
        LedgerTable(engine, "ropo_ledger").create_or_upgrade()
        connection.execute(sa.text("ALTER TABLE ropo_ledger DROP COLUMN destination, DROP COLUMN process"))
    ledger = open_ledger(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO ropo_ledger (event_id, delivery_status) VALUES ('e1', 'delivered')"))

    decisions = ledger.decide([make_event("e1"), make_event("e2")])

    assert [Action.ALREADY_DELIVERED, Action.SEND] == actions(decisions)


def test_the_second_run_recognises_all(
    engine: sa.engine.Engine, sandbox: Sandbox, client: RopoClient, events: list[UsageplaceEvent]
) -> None:
    """A run delivers every event and remembers it; the next run recognises every one and posts none."""
    first = post_all(lanes_of(events), client, open_ledger(engine))
    second = post_all(lanes_of(events), client, open_ledger(engine, LATER))

    assert {"delivered": 200} == first
    assert {"already_delivered": 200} == second
    assert sorted(event.id for event in events) == sorted(payload["id"] for payload in sandbox.events)
    assert {"delivered": 200} == states(engine)


def test_two_runs_at_once(
    mariadb: Any, database: str, engine: sa.engine.Engine, sandbox: Sandbox, client: RopoClient, events: Any
) -> None:
    """Of two runs over the same events at once, each event is posted by one; a third finds all of them delivered."""
    open_ledger(engine)
    ends: list[Counter[str]] = []

    def run(me: Claimant) -> None:
        with closing(open_ledger(mariadb.engine(database), me)) as ledger:
            ends.append(post_all(lanes_of(events), client, ledger))

    threads = [
        threading.Thread(target=run, args=(ME._replace(run_id=f"run_{number}", process=f"{number}"),))
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = post_all(lanes_of(events), client, open_ledger(engine, ME._replace(run_id="last", process="last")))

    assert {1} == set(Counter(payload["id"] for payload in sandbox.events).values())
    assert {200} == {end.total() for end in [*ends, last]}
    assert 200 == sum(end["delivered"] for end in [*ends, last])
    assert {"delivered": 200} == states(engine)


def test_from_the_warehouse_to_ropo(
    mariadb: Any, database: str, engine: sa.engine.Engine, sandbox: Sandbox, client: RopoClient
) -> None:
    """A MariaDB table is read, posted and remembered in the same database, with its own types."""
    row = "'w1', 643007572062443672, 'cut off', '2026-01-14 08:12:40', 'Pylväs', 594294, 1234"
    mariadb.execute(WORK.format(database), f"INSERT INTO {database}.work VALUES ({row})")
    zone = find_timezone("Europe/Helsinki")

    with Spool(zone) as spool:
        with (
            closing(mariadb.connect(database)) as connection,
            run_query(connection, "SELECT * FROM work") as query,
        ):
            reader = RowReader(query.names, statuses={"cut off": "disconnected"}, timezone=zone)
            for number, values in enumerate(query.rows, 1):
                spool.add(number, reader.read(values, number))
        spool.merge_rows(merges_invoices=reader.merges_invoices)
        ends = post_all(spool.lanes(), client, open_ledger(engine))

    assert {"delivered": 1} == ends
    assert [
        {
            "id": "w1",
            "usageplacecode": "643007572062443672",
            "status": "disconnected",
            "time": "2026-01-14 08:12:40",
            "description": "Pylväs",
            "invoices": [{"jobid": 1234, "invoicenumber": "594294"}],
        }
    ] == sandbox.events
