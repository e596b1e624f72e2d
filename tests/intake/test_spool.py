from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.errors import InvalidRowError, RopoError, SpoolError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.intake.spool import BATCH, MAX_INVOICES, Spool
from airflow_provider_ropo.timezones import find_timezone

ROOT = Path(__file__).parents[2]

MakeEvent = Callable[..., UsageplaceEvent]

HELSINKI = find_timezone("Europe/Helsinki")
ONE, TWO, THREE = Invoice("594294", 1234), Invoice("594295", 1235), Invoice("594296", 1236)


def merged(rows: Iterable[UsageplaceEvent | InvalidRowError], *, merges_invoices: bool = True) -> Spool:
    """Return a spool that took these rows, numbered from 1."""
    spool = Spool(HELSINKI)
    for number, row in enumerate(rows, 1):
        if isinstance(row, InvalidRowError):
            spool.reject(number, row)
        else:
            spool.add(number, row)
    spool.merge_rows(merges_invoices=merges_invoices)
    return spool


def lanes_of(spool: Spool) -> list[list[UsageplaceEvent]]:
    return [list(lane) for lane in spool.lanes()]


def ids_of(spool: Spool) -> list[list[str]]:
    return [[event.id for event in lane] for lane in spool.lanes()]


def bad(number: int, event_id: str | None = None) -> InvalidRowError:
    return InvalidRowError(f"row {number}", "time", "is missing", event_id=event_id)


def test_event_is_the_same_after_the_spool(make_event: MakeEvent) -> None:
    """An event comes back exactly as it went in, fraction of a second, odd characters, long numbers and all."""
    event = make_event(
        "1e5",
        "007",
        "10:41:40.123456",
        status=UsageplaceStatus.NOTDISCONNECTED,
        customernumber="A\0B",
        contract_no="0012",
        description="Portti lukossa 🔒",
        invoices=(ONE, Invoice(None, 10**99), Invoice("0007", None)),
    )

    with merged([event]) as spool:
        assert [[event]] == lanes_of(spool)
        assert HELSINKI is lanes_of(spool)[0][0].time.tzinfo


def test_bare_event_is_the_same_after_the_spool(make_event: MakeEvent) -> None:
    """What an event does not have, it does not gain in the spool."""
    event = make_event(description=None)

    with merged([event]) as spool:
        assert [[event]] == lanes_of(spool)


def test_order_within_a_place(make_event: MakeEvent) -> None:
    """Events of a place come by time, and those of one moment in reading order, not by id."""
    rows = [
        make_event("e4", time="12:00"),
        make_event("e9", time="11:00"),
        make_event("e1", time="11:00"),
        make_event("e5", time="11:00"),
        make_event("e2", time="10:00"),
    ]

    with merged(rows) as spool:
        assert [["e2", "e9", "e1", "e5", "e4"]] == ids_of(spool)


def test_order_within_a_second(make_event: MakeEvent) -> None:
    """Fractions of a second, though not sent, tell which came first."""
    with merged([make_event("e1", time="10:00:00.2"), make_event("e2", time="10:00:00.1")]) as spool:
        assert [["e2", "e1"]] == ids_of(spool)


def test_order_when_clocks_go_back(make_event: MakeEvent) -> None:
    """Aware times around the autumn change keep their order, though the wall clock that is sent goes back."""
    rows = [
        make_event("e3", time="2024-10-27T03:05+02:00"),
        make_event("e4", time="2024-10-27T04:00+02:00"),
        make_event("e2", time="2024-10-27T03:50+03:00"),
        make_event("e1", time="2024-10-27T02:59+03:00"),
    ]

    with merged(rows) as spool:
        lane = lanes_of(spool)[0]

    assert ["e1", "e2", "e3", "e4"] == [event.id for event in lane]
    assert ["02:59:00", "03:50:00", "03:05:00", "04:00:00"] == [event.to_payload()["time"][11:] for event in lane]


def test_order_before_1970(make_event: MakeEvent) -> None:
    """Times before the epoch are times like others."""
    rows = [make_event("e2", time="1969-12-31T23:59:59.5Z"), make_event("e1", time="1921-05-01T10:00:00.7Z")]

    with merged(rows) as spool:
        assert [[rows[1], rows[0]]] == lanes_of(spool)


def test_each_place_is_one_lane(make_event: MakeEvent) -> None:
    """A place's events stand together, and the place that has waited longest comes first."""
    rows = [
        make_event("a1", "A", "12:00"),
        make_event("b1", "B", "11:00"),
        make_event("c1", "C", "10:30"),
        make_event("b2", "B", "13:00"),
        make_event("a2", "A", "10:00"),
        make_event("c2", "C", "10:30"),
    ]

    with merged(rows) as spool:
        assert [["a2", "a1"], ["c1", "c2"], ["b1", "b2"]] == ids_of(spool)


def test_places_of_one_moment_do_not_mix(make_event: MakeEvent) -> None:
    """Places whose first events are of one moment stay apart all the same."""
    rows = [make_event(f"e{number}", "BA"[number % 2]) for number in range(6)]

    with merged(rows) as spool:
        assert [["e1", "e3", "e5"], ["e0", "e2", "e4"]] == ids_of(spool)


def test_lookalike_codes_are_different_places(make_event: MakeEvent) -> None:
    """Codes are text: a leading zero or a letter's case makes another place."""
    codes = ["7", "07", "7.0", "re1", "RE1"]

    with merged(make_event(code, code) for code in codes) as spool:
        assert sorted([code] for code in codes) == sorted(ids_of(spool))


def test_identical_rows_are_one_event(make_event: MakeEvent) -> None:
    """Rows that say the same are one event."""
    with merged([make_event(invoices=(ONE,))] * 3) as spool:
        assert [[make_event(invoices=(ONE,))]] == lanes_of(spool)
        assert 1 == spool.count()
        assert [] == list(spool.invalid())


def test_rows_within_a_second_are_identical(make_event: MakeEvent) -> None:
    """Rows that differ in what is not sent are identical: the first one counts."""
    with merged([make_event(time="10:00:00.9"), make_event(time="10:00:00.1")]) as spool:
        assert [[make_event(time="10:00:00.9")]] == lanes_of(spool)


@pytest.mark.parametrize("apart", [0, BATCH + 1], ids=["together", "apart"])
def test_invoices_are_merged(apart: int, make_event: MakeEvent) -> None:
    """Rows of one event with an invoice each are one event with all of them, in reading order, each once."""
    rows = [make_event(invoices=(invoice,)) for invoice in (TWO, ONE, TWO)]
    others = [make_event(f"o{number}", f"P{number}", "11:00") for number in range(apart)]

    with merged([*rows, *others, make_event(invoices=(THREE,)), make_event()]) as spool:
        assert [make_event(invoices=(TWO, ONE, THREE))] == lanes_of(spool)[0]
        assert 1 + apart == spool.count()


def test_merged_event_keeps_its_place_in_reading_order(make_event: MakeEvent) -> None:
    """A merged event stands where its first row stood."""
    rows = [make_event("e2", invoices=(ONE,)), make_event("e1"), make_event("e2", invoices=(TWO,))]

    with merged(rows) as spool:
        assert [["e2", "e1"]] == ids_of(spool)


DIFFERENCES: list[tuple[str, dict[str, Any]]] = [
    ("usageplacecode", {"place": "RE2"}),
    ("status", {"status": UsageplaceStatus.DISCONNECTED}),
    ("time", {"time": "10:00:01"}),
    ("customernumber", {"customernumber": "A1"}),
    ("contract_no", {"contract_no": "A1"}),
    ("description", {"description": "Usage place  connected"}),
]


@pytest.mark.parametrize(("field", "change"), DIFFERENCES, ids=[field for field, _ in DIFFERENCES])
def test_one_id_with_differing_content(field: str, change: dict[str, Any], make_event: MakeEvent) -> None:
    """Where one id says different things all its rows are invalid: which one is right would be a guess."""
    rows = [make_event(), make_event("e2"), make_event(), make_event(**change)]

    with merged(rows) as spool:
        invalid = list(spool.invalid())

        assert [["e2"]] == ids_of(spool)

    assert ["row 1 (id e1)", "row 3 (id e1)", "row 4 (id e1)"] == [error.row for error in invalid]
    assert {("id", "e1", f"stands on another row with a different {field}")} == {
        (error.column, error.event_id, error.reason) for error in invalid
    }


def test_differences_are_all_named(make_event: MakeEvent) -> None:
    """A contradiction names every field of it."""
    rows = [make_event(), make_event(place="RE2", time="11:00")]

    with merged(rows) as spool:
        assert {"stands on another row with a different time, usageplacecode"} == {
            error.reason for error in spool.invalid()
        }


@pytest.mark.parametrize("other", [(TWO,), (ONE, TWO), ()], ids=["other", "more", "none"])
def test_differing_lists_of_invoices(other: tuple[Invoice, ...], make_event: MakeEvent) -> None:
    """Where a row lists all of an event's invoices, two lists that differ contradict each other."""
    rows = [make_event(invoices=(ONE,)), make_event(invoices=other)]

    with merged(rows, merges_invoices=False) as spool:
        assert (0, 2) == (spool.count(), len(list(spool.invalid())))
        assert {"stands on another row with a different invoices"} == {error.reason for error in spool.invalid()}


def test_equal_lists_of_invoices(make_event: MakeEvent) -> None:
    """Rows that list the same invoices are identical."""
    with merged([make_event(invoices=(ONE, TWO))] * 2, merges_invoices=False) as spool:
        assert [[make_event(invoices=(ONE, TWO))]] == lanes_of(spool)


def test_most_invoices(make_event: MakeEvent) -> None:
    """An event may have as many invoices as the limit says, however often they are repeated."""
    numbers = [*range(MAX_INVOICES), *range(BATCH)]

    with merged(make_event(invoices=(Invoice(None, number),)) for number in numbers) as spool:
        lanes = lanes_of(spool)

        assert [] == list(spool.invalid())

    assert [[[Invoice(None, number) for number in range(MAX_INVOICES)]]] == [
        [list(e.invoices) for e in x] for x in lanes
    ]


@pytest.mark.parametrize("listed", [False, True], ids=["merged", "listed"])
def test_too_many_invoices(listed: bool, make_event: MakeEvent) -> None:  # noqa: FBT001
    """An event with an absurd number of invoices is invalid, all its rows: no event may fill the memory."""
    invoices = [Invoice(None, number) for number in range(MAX_INVOICES + 1)]
    rows = [make_event(invoices=tuple(invoices))] if listed else [make_event(invoices=(one,)) for one in invoices]

    with merged([make_event(), *rows, make_event("e2")], merges_invoices=not listed) as spool:
        reasons = [error.reason for error in spool.invalid()]

        assert [["e2"]] == ids_of(spool)

    assert 1 + len(rows) == len(reasons)
    assert all("is that of an event with more than 10,000 invoices" in reason for reason in reasons)


@pytest.mark.parametrize("conflict", [False, True], ids=["identical", "conflicting"])
def test_many_rows_of_one_id_need_no_memory(conflict: bool, make_event: MakeEvent) -> None:  # noqa: FBT001
    """However many rows share an id, what they come to is found out in the memory of a few."""
    count = 10 * BATCH
    event = make_event(invoices=(ONE,))
    with Spool(HELSINKI) as spool:
        for number in range(1, count):
            spool.add(number, event)
        spool.add(count, make_event(place="RE2") if conflict else event)

        tracemalloc.start()
        spool.merge_rows(merges_invoices=True)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert peak < 200_000
        assert ((0, count) if conflict else (1, 0)) == (spool.count(), len(list(spool.invalid())))


def test_id_with_line_breaks_among_conflicting_rows(make_event: MakeEvent) -> None:
    """An id is shown on one line, and kept as it is."""
    rows = [make_event("e\n1\0"), make_event("e\n1\0", time="11:00")]

    with merged(rows) as spool:
        invalid = list(spool.invalid())

    assert ["row 1 (id e\\n1\\x00)", "row 2 (id e\\n1\\x00)"] == [error.row for error in invalid]
    assert {"e\n1\0"} == {error.event_id for error in invalid}


@pytest.mark.parametrize("bad_first", [True, False], ids=["first", "last"])
def test_event_with_an_invalid_row(bad_first: bool, make_event: MakeEvent) -> None:  # noqa: FBT001
    """An event of which one row is invalid is not sent by halves: its other rows name that row."""
    others = [make_event(invoices=(ONE,)), make_event(invoices=(TWO,)), make_event("e2")]
    rows: list[UsageplaceEvent | InvalidRowError] = [*others]
    rows = [bad(1, "e1"), *others] if bad_first else [*others, bad(4, "e1")]
    row = "row 1" if bad_first else "row 4"

    with merged(rows) as spool:
        reasons = {error.reason for error in spool.invalid()}

        assert [["e2"]] == ids_of(spool)
        assert 3 == len(list(spool.invalid()))

    assert {"is missing", f"belongs to an event with an invalid row ({row}: time: is missing)"} == reasons


def test_invalid_row_without_an_id(make_event: MakeEvent) -> None:
    """An invalid row whose event is not known takes no other row with it."""
    with merged([bad(1), make_event("e1"), bad(3), make_event("e2", "RE2")]) as spool:
        assert [["e1"], ["e2"]] == ids_of(spool)
        assert ["row 1", "row 3"] == [error.row for error in spool.invalid()]


def test_invalid_rows_come_in_reading_order(make_event: MakeEvent) -> None:
    """Invalid rows come in reading order, those found at the end among them, each whole."""
    contradiction: list[UsageplaceEvent | InvalidRowError] = [
        make_event("e9"),
        bad(2),
        make_event("e9", time="11:00"),
        bad(4, "e5"),
    ]

    with merged(contradiction) as spool:
        invalid = list(spool.invalid())

    assert ["row 1 (id e9)", "row 2", "row 3 (id e9)", "row 4"] == [error.row for error in invalid]
    assert vars(bad(4, "e5")) == vars(invalid[3])
    assert str(bad(2)) == str(invalid[1])


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_batches(count: int, make_event: MakeEvent) -> None:
    """No row is lost at the edges of a batch, neither events nor invalid ones, nor what they share."""
    rows: list[UsageplaceEvent | InvalidRowError] = []
    for number in range(count):
        event = make_event(f"e{number}", f"P{number}")
        rows += [event, bad(3 * number + 2), event]

    with merged(rows) as spool:
        assert (count, count) == (spool.count(), len(list(spool.invalid())))
        assert [[f"e{number}"] for number in range(count)] == sorted(ids_of(spool), key=lambda lane: int(lane[0][1:]))


def test_batches_of_invalid_rows() -> None:
    """Invalid rows go to the disk, too, and none is lost on the way."""
    count = 2 * BATCH + 1

    with merged(bad(number) for number in range(1, count + 1)) as spool:
        assert [f"row {number}" for number in range(1, count + 1)] == [error.row for error in spool.invalid()]
        assert 0 == spool.count()


def test_lanes_may_be_left_early(make_event: MakeEvent) -> None:
    """A lane that is not read to its end does not disturb the next one."""
    rows = [make_event(f"{place}{hour}", place, f"{hour}:00") for place in "ABC" for hour in (10, 11, 12)]

    with merged(rows) as spool:
        assert ["A10", "B10", "C10"] == [next(lane).id for lane in spool.lanes()]


def test_spool_may_go_before_its_lanes(make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where posting breaks off, lanes that outlive their spool go without a sound."""
    sounds: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", sounds.append)
    with merged([make_event("e1"), make_event("e2"), bad(3), bad(4)]) as spool:
        lanes, invalid = spool.lanes(), spool.invalid()
        lane = next(lanes)
        next(lane)
        next(invalid)

    del lanes, lane, invalid
    gc.collect()

    assert [] == sounds


def test_spool_can_be_read_twice(make_event: MakeEvent) -> None:
    """Reading the events takes none away."""
    with merged([make_event("e1"), make_event("e2", "RE2")]) as spool:
        assert ids_of(spool) == ids_of(spool)
        assert 2 == spool.count()


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: writing fails there as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that spools are in."""
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    return tmp_path


def fill(spool: Spool, make_event: MakeEvent, count: int = 20_000) -> None:
    for number in range(count):
        spool.add(number, make_event(f"e{number}", f"P{number:0200}", description="x" * 200))


def test_disk_is_full_while_rows_are_read(folder: Path, make_event: MakeEvent) -> None:
    """A full disk is an error that another try may not meet, which names the folder and the setting that moves it."""
    with (
        Spool(HELSINKI) as spool,
        small_files(1_000_000),
        pytest.raises(SpoolError, match=rf"{folder}; .*SQLITE_TMPDIR") as caught,
    ):
        fill(spool, make_event)

    assert isinstance(caught.value, RopoError)
    assert caught.value.transient


@pytest.mark.parametrize("step", ["merge", "sort", "reject"])
def test_disk_is_full_later(step: str, folder: Path, make_event: MakeEvent) -> None:
    """A disk that gets full while rows are merged, lanes are sorted or rows are rejected is the same error."""

    def reject() -> None:
        for number in range(20_000):
            spool.reject(number, bad(number, "e" * 200))

    with Spool(HELSINKI) as spool:
        steps = {
            "merge": lambda: spool.merge_rows(merges_invoices=True),
            "sort": lambda: next(spool.lanes()),
            "reject": reject,
        }
        fill(spool, make_event)
        if step == "sort":
            spool.merge_rows(merges_invoices=True)
        with small_files(1_000_000), pytest.raises(SpoolError, match=rf"{folder}; .*SQLITE_TMPDIR"):
            steps[step]()


def test_failure_while_lanes_are_read(make_event: MakeEvent) -> None:
    """A disk that fails in the middle of a lane is the same error, and the events before it were given."""
    count = 30_000
    with merged(make_event(f"e{number}", description="x" * 200) for number in range(count)) as spool:
        lane = next(spool.lanes())
        given = [next(lane) for _ in range(64)]
        # The folder itself is out of reach here; what SQLite cannot read any more is a table that is gone.
        spool._database.execute("DROP TABLE event")  # noqa: SLF001 - a disk that fails here
        with pytest.raises(SpoolError, match="SQLITE_TMPDIR"):
            list(lane)

    assert 64 == len(given)


# What a fresh process, whose SQLite asks the environment once, has open besides what every process has.
LOOK = """
from pathlib import Path
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.intake.spool import Spool, temporary_folder
row = {"usageplacecode": "R", "status": "connected", "time": "2024-01-04 10:41:40"}
event = UsageplaceEvent.from_row(row | {"id": "e", "description": "x" * 9_000})
with Spool(event.time.tzinfo) as spool:
    for number in range(2_000):
        spool.add(number, event)
    links = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    print(temporary_folder(), *{link.parent for link in links if link.name.startswith("etilqs_")})
"""


@pytest.mark.parametrize(
    ("sqlite_tmpdir", "tmpdir", "expected"),
    [("{0}/one", "{0}/two", "{0}/one"), ("{0}/absent", "{0}/two", "{0}/two"), ("", "{0}/absent", "/var/tmp")],  # noqa: S108
    ids=["SQLITE_TMPDIR", "TMPDIR", "neither"],
)
def test_folder_of_the_spool(sqlite_tmpdir: str, tmpdir: str, expected: str, tmp_path: Path) -> None:
    """The folder that an error names is the one in which SQLite keeps the spool."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    environment = {"SQLITE_TMPDIR": sqlite_tmpdir.format(tmp_path), "TMPDIR": tmpdir.format(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )

    assert [expected.format(tmp_path)] * 2 == done.stdout.split()


def test_spools_are_private(make_event: MakeEvent) -> None:
    """Two spools of one process know nothing of each other."""
    with merged([make_event("e1")]) as one, merged([make_event("e2")]) as other:
        assert ([["e1"]], [["e2"]]) == (ids_of(one), ids_of(other))
