from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import FileConflictError, FileStoreError
from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.formats import CsvFormat, JsonLinesFormat
from airflow_provider_ropo.export.marker import ControlFile, Marker
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from file_runs import Ended, FileRuns, StoreOf, rows

DELIVERED, ALREADY_DELIVERED, HELD, INVALID = (
    DeliveryStatus.DELIVERED,
    DeliveryStatus.ALREADY_DELIVERED,
    DeliveryStatus.HELD,
    DeliveryStatus.INVALID,
)
UNDELIVERED, UNCONFIRMED = DeliveryStatus.UNDELIVERED, DeliveryStatus.UNCONFIRMED


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ids(folder: Path) -> list[str]:
    """Return the ids of the events in all JSON Lines files of a folder."""
    return [json.loads(line)["id"] for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]


class Lost(StoreOf):
    """A store whose answer to a rename is lost, and whose files are collected at once.

    :param happens: the rename happens.
    :param collected: the file is gone right after.
    """

    def __init__(self, store: FolderStore, *, happens: bool, collected: bool = False, tells: bool = True) -> None:
        super().__init__(store)
        self._happens = happens
        self._collected = collected
        self._tells = tells

    def publish(self, temporary: str, name: str) -> None:
        if self._happens:
            super().publish(temporary, name)
            if self._collected:
                self.remove(name)
        raise ConnectionResetError("gone")

    def look(self, name: str) -> int | None:
        if not self._tells:
            raise PermissionError("not told")
        return super().look(name)


def test_whole_run(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """All events are in one file, in the order of their usage places, and each is recorded step by step."""
    ended = runs.run(rows(4, places=2), store)

    assert (4, None) == (ended.number(DELIVERED), ended.stopped)
    (name,) = names(folder)
    assert ["e0", "e2", "e1", "e3"] == ids(folder)
    assert ["sending", "uploaded", "publishing", "delivered"] == runs.statuses(name)
    assert ["sending", "delivered"] == runs.statuses("e0")
    (sending, _) = runs.rows_of("e0")
    assert sending.detail.startswith(f"file {name} of 4 events, ")


def test_known_events_are_not_sent_again(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A later run sends only what the ledger does not know, and no file if that is nothing."""
    runs.run(rows(2), store)

    again = runs.run(rows(2), store, run_id="again")
    more = runs.run(rows(3), store, run_id="more")

    assert (2, 0) == (again.number(ALREADY_DELIVERED), again.number(DELIVERED))
    assert (2, 1) == (more.number(ALREADY_DELIVERED), more.number(DELIVERED))
    assert 2 == len(names(folder))
    assert ["e0", "e1", "e2"] == sorted(ids(folder))


def test_same_events_same_name(runs: FileRuns, tmp_path: Path) -> None:
    """The same events make the same name and the same bytes, wherever and whenever."""
    made = []
    for place in ("here", "there"):
        folder = tmp_path / place
        folder.mkdir()
        runs.run(reversed(rows(5)) if place == "there" else rows(5), FolderStore(folder), run_id=place)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})

    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("format_", "ending"), [(CsvFormat(), ".csv"), (CsvFormat(encoding="latin-1"), ".csv")], ids=["utf-8", "latin-1"]
)
def test_character_that_the_format_lacks(
    runs: FileRuns, store: FolderStore, folder: Path, format_: CsvFormat, ending: str
) -> None:
    """An event that the format cannot hold is an invalid row, and the others are sent."""
    given = rows(3)
    given[1]["description"] = "5 €"

    ended = runs.run(given, store, format=format_)

    (name,) = names(folder)
    assert name.endswith(ending)
    lacks = format_.encoding == "latin-1"
    assert (lacks, 3 - lacks) == (ended.number(INVALID), ended.number(DELIVERED))
    assert (["invalid"] if lacks else ["sending", "delivered"]) == runs.statuses("e1")


@pytest.mark.parametrize("tells", [True, False], ids=["looked for", "cannot look"])
def test_answer_is_lost_after_the_rename(runs: FileRuns, store: FolderStore, folder: Path, *, tells: bool) -> None:
    """A rename whose answer is lost is looked for; where that cannot be, its events are unconfirmed."""
    ended = runs.run(rows(3), Lost(store, happens=True, tells=tells))

    assert 3 == ended.number(DELIVERED if tells else UNCONFIRMED)
    assert (ended.stopped is None) == tells

    again = runs.run(rows(3), store, try_number=2)

    assert 3 == again.number(ALREADY_DELIVERED if tells else DELIVERED)
    assert 1 == len(names(folder))


def test_rename_that_did_not_happen(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A rename that did not happen leaves its events undelivered, and the next try sends them under the same name."""
    ended = runs.run(rows(3), Lost(store, happens=False))

    assert 3 == ended.number(UNDELIVERED)
    (left,) = names(folder)

    again = runs.run(rows(3), store, try_number=2)

    assert 3 == again.number(DELIVERED)
    assert [left.removesuffix(".part")] == names(folder)


def test_collected_at_once(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file that is collected before its rename is answered is unconfirmed, and sent again with the same name."""
    ended = runs.run(rows(3), Lost(store, happens=True, collected=True))

    assert 3 == ended.number(UNCONFIRMED)
    assert isinstance(ended.stopped, FileStoreError)
    assert ["sending", "unconfirmed"] == runs.statuses("e0")
    sent = runs.rows_of("e0")[0].detail

    again = runs.run(rows(3), store, try_number=2, name="another_time")

    assert 3 == again.number(DELIVERED)
    (name,) = names(folder)
    assert sent.startswith(f"file {name} ")


def test_collected_and_answered(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file that is collected before anybody could look for it is delivered, if its rename was answered."""

    class Collected(StoreOf):
        def publish(self, temporary: str, name: str) -> None:
            super().publish(temporary, name)
            self.remove(name)

    ended = runs.run(rows(3), Collected(store))

    assert 3 == ended.number(DELIVERED)


def test_hold(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """What may have arrived is held if that is wanted, and so are later events of its usage places alone."""
    runs.run(rows(2), Lost(store, happens=True, collected=True))
    later = [*rows(3), {"id": "late", "usageplacecode": "RE0", "status": "connected", "time": "2026-01-15 08:00:00"}]

    ended = runs.run(later, store, try_number=2, policy={"on_unconfirmed": "hold"})

    assert (2, 1, 1) == tuple(ended.number(status) for status in (UNCONFIRMED, HELD, DELIVERED))
    assert ["e2"] == ids(folder)
    assert ["held"] == runs.statuses("late")


def test_new_events_beside_a_file_that_is_sent_again(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file that is sent again has the very same events, and new ones go out in another."""
    runs.run(rows(2), Lost(store, happens=True, collected=True))

    ended = runs.run(rows(4), store, try_number=2)

    assert 4 == ended.number(DELIVERED)
    assert [2, 2] == [len(path.read_text().splitlines()) for path in folder.iterdir()]


@pytest.mark.parametrize("given", [rows(1), rows(1, first=1)], ids=["one is not read", "the other"])
def test_file_that_cannot_be_made_again(
    runs: FileRuns, store: FolderStore, folder: Path, given: list[dict[str, Any]]
) -> None:
    """A file that may have arrived, of which an event is not read any more, is held."""
    runs.run(rows(2), Lost(store, happens=True, collected=True))

    ended = runs.run(given, store, try_number=2)

    assert 1 == ended.number(UNCONFIRMED)
    assert "cannot be made again" in ended.summary.failures[0].detail
    assert [] == names(folder)


def test_another_file_has_the_name(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file of another size under the same name is left alone, and both are named."""
    runs.run(rows(2), store)
    (name,) = names(folder)
    (folder / name).write_text("something else")

    ended = runs.run(rows(2), store, run_id="again", policy={"redeliver": "always"})

    assert isinstance(ended.stopped, FileConflictError)
    assert f"{name} at {store.destination} has 14 bytes" in str(ended.stopped)
    assert str(len((folder / name).read_bytes())) in str(ended.stopped)
    assert "something else" == (folder / name).read_text()
    assert 2 == ended.number(UNDELIVERED)


def test_upload_fails(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """An upload that fails publishes nothing, and leaves its events for the next try."""

    class Full(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            (folder / name).write_bytes(file.read(10))
            raise OSError(28, "No space left on device")

    ended = runs.run(rows(3), Full(store))

    assert "No space left on device" in str(ended.stopped)
    assert (3, []) == (ended.number(UNDELIVERED), ids(folder))
    assert ["sending", "undelivered"] == runs.statuses("e0")
    assert 3 == runs.run(rows(3), store, try_number=2).number(DELIVERED)


def test_half_an_upload_that_looked_whole(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """An upload is not published if its size at the destination is another."""

    class Short(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            (folder / name).write_bytes(file.read()[:-1])

    ended = runs.run(rows(3), Short(store))

    assert isinstance(ended.stopped, FileStoreError)
    assert 3 == ended.number(UNDELIVERED)
    assert [] == ids(folder)


@pytest.mark.parametrize(
    ("paths", "path"),
    [
        (FilePaths("in"), "in/{}"),
        (FilePaths("in/", "upload/"), "in/{}"),
        (FilePaths("", None), "{}"),
        (FilePaths("in", ".tmp"), "in/{}"),
    ],
    ids=["folder", "folder beside", "no temporary name", "ending"],
)
def test_paths(runs: FileRuns, store: FolderStore, folder: Path, paths: FilePaths, path: str) -> None:
    """A file gets its final name in its folder, wherever it was before, and nothing else is left."""
    for name in ("in", "upload"):
        (folder / name).mkdir()

    ended = runs.run(rows(2), store, paths=paths)

    assert 2 == ended.number(DELIVERED)
    (made,) = [found for found in folder.rglob("*") if found.is_file()]
    assert path.format(made.name) == str(made.relative_to(folder))


@pytest.mark.parametrize("marker", [Marker(".done"), ControlFile()], ids=["empty", "control file"])
def test_marker(runs: FileRuns, store: FolderStore, folder: Path, marker: Marker) -> None:
    """A marker follows the file; a control file has its name, events, bytes and SHA-256."""
    import hashlib

    runs.run(rows(2), store, marker=marker)

    (made,) = folder.glob("*.jsonl")
    content = (folder / (made.name + marker.suffix)).read_bytes()
    data = made.read_bytes()
    expected = {"file": made.name, "events": 2, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (b"" if type(marker) is Marker else json.dumps(expected).encode() + b"\n") == content
    assert 2 == len(names(folder))


def test_marker_is_written_by_the_next_try(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file whose marker could not be written is unconfirmed, and the next try writes the marker alone."""

    class NoMarker(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            if name.endswith(".done"):
                raise OSError("no")
            super().put(file, name, replace=replace)

    first = runs.run(rows(2), NoMarker(store), marker=Marker(".done"))
    second = runs.run(rows(2), store, try_number=2, marker=Marker(".done"))

    assert "marker could not be written" in str(first.stopped)
    assert (2, 2) == (first.number(UNCONFIRMED), second.number(DELIVERED))
    assert 2 == len(names(folder))


@pytest.mark.parametrize("sends_empty", [True, False])
def test_no_rows(runs: FileRuns, store: FolderStore, folder: Path, *, sends_empty: bool) -> None:
    """A run without rows sends an empty file if that is wanted, once."""
    for number in (1, 2):
        assert runs.run([], store, try_number=number, sends_empty=sends_empty).stopped is None
        assert sends_empty == len(names(folder))
        for path in folder.iterdir():
            assert path.read_bytes() == b""
            path.unlink()
            sends_empty = False


def test_told_to_stop(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A run that is told to stop before the file is published sends nothing, and says so."""
    stop = threading.Event()
    stop.set()

    ended = runs.run(rows(2), store, stop=stop)

    assert 2 == ended.number(UNDELIVERED)
    assert "told to stop" in str(ended.stopped)
    assert [] == names(folder)


def test_runs_side_by_side(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """Of runs side by side, no two send the same event."""
    ends: list[Ended] = []

    def run(number: int) -> None:
        ends.append(runs.run(rows(40), store, run_id=f"run {number}"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs.run(rows(40), store, run_id="last")

    assert sorted(ids(folder)) == sorted(f"e{number}" for number in range(40))
    assert 40 >= sum(end.number(DELIVERED) for end in ends)


def test_later_events_wait_for_one_that_another_run_sends(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """Events of a place wait while another run sends an earlier one, and events of other places do not."""

    class Meanwhile(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            ends.append(runs.run(rows(4, places=2), store, run_id="other"))
            super().put(file, name, replace=replace)

    ends: list[Ended] = []

    first = runs.run(rows(1, places=2), Meanwhile(store), run_id="first")

    assert 1 == first.number(DELIVERED)
    (other,) = ends
    assert (2, 2) == (other.number(HELD), other.number(DELIVERED))
    assert ["e0", "e1", "e3"] == sorted(ids(folder))


def test_superseded(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A try that comes back after the next try has taken its file over publishes nothing."""

    class Asleep(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            super().put(file, name, replace=replace)
            ends.append(runs.run(rows(2), store, try_number=2))
            with suppress(FileNotFoundError):
                for path in folder.glob("*.jsonl"):
                    path.rename(folder.parent / path.name)

        def look(self, name: str) -> int | None:
            raise PermissionError("not told")

    ends: list[Ended] = []

    first = runs.run(rows(2), Asleep(store))

    assert 2 == ends[0].number(DELIVERED)
    assert "stops" in str(first.stopped)
    assert [] == ids(folder)


def test_closed_by_a_person(
    runs: FileRuns, store: FolderStore, folder: Path, make_engine: Callable[[str], Any]
) -> None:
    """A file that a person has closed is not sent again, and neither are its events."""
    runs.run(rows(2), Lost(store, happens=True, collected=True))
    name = runs.rows_of("e0")[0].detail.split()[1]
    runs.settle(name, "closed")

    ended = runs.run(rows(2), store, try_number=2)

    assert 2 == ended.number(DeliveryStatus.CLOSED)
    assert [] == names(folder)


def test_settled_as_not_delivered(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file that a person has settled as undelivered is sent again, also where such files are held."""
    runs.run(rows(2), Lost(store, happens=True, collected=True))
    name = runs.rows_of("e0")[0].detail.split()[1]
    runs.settle(name, "undelivered")

    ended = runs.run(rows(2), store, try_number=2, policy={"on_unconfirmed": "hold"})

    assert 2 == ended.number(DELIVERED)
    assert ["e0", "e1"] == ids(folder)


def killed_at_the_rename(runs: FileRuns, store: FolderStore, *, happens: bool, count: int = 3) -> str:
    """Let a run be killed at its rename; return the file's name."""

    class Killed(Lost):
        def publish(self, temporary: str, name: str) -> None:
            with suppress(ConnectionResetError):
                super().publish(temporary, name)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(
            rows(count),
            Killed(store, happens=happens),
            run_id="killed",
            wrap=lambda ledger: cast("DeliveryLedger", Mute(ledger)),
        )
    return str(runs.rows_of("e0")[0].detail.split()[1])


class Mute:
    """A ledger of a process that is killed: nothing is written as it ends."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def record_unsent(self, *_values: Any, **_named: Any) -> list[Any]:
        return []


NO_PATIENCE = {"claim_timeout": 0.000_001}


@pytest.mark.parametrize("happens", [True, False], ids=["renamed", "not renamed"])
@pytest.mark.parametrize("read", [0, 1, 2], ids=["no rows", "another row", "some of them"])
def test_left_file_is_finished(runs: FileRuns, store: FolderStore, folder: Path, read: int, *, happens: bool) -> None:
    """A later run of the task finishes a file that a killed run has left, also if its query reads no event in it."""
    name = killed_at_the_rename(runs, store, happens=happens)
    given = [[], rows(1, first=7), rows(2)][read]

    ended = runs.run(given, store, run_id="later", name="later", policy=NO_PATIENCE)

    assert (None, read) == (ended.stopped, ended.number(DELIVERED))
    assert name in names(folder)
    assert [["sending", "delivered"]] * 3 == [runs.statuses(f"e{number}") for number in range(3)]
    assert runs.statuses(name)[-1] == "delivered"
    assert runs.rows_of("e2")[0].payload_hash == runs.rows_of("e2")[1].payload_hash


def test_left_file_that_was_never_published(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """Events of a file that was never published are recorded as such, and the run that reads them sends them."""
    name = killed_at_the_rename(runs, store, happens=False)
    (folder / f"{name}.part").write_bytes(b"half")
    with runs.database() as database:
        database.execute("DELETE FROM ropo_ledger WHERE delivery_status IN ('uploaded', 'publishing')")

    runs.run(rows(1, first=7), store, run_id="later", name="later", policy=NO_PATIENCE)

    assert [["sending", "unpublished"]] * 3 == [runs.statuses(f"e{number}") for number in range(3)]
    assert "it was never published" in runs.rows_of("e1")[-1].detail
    assert 1 == len(names(folder))
    assert 3 == runs.run(rows(3), store, run_id="killed", try_number=2).number(DELIVERED)


def test_left_file_that_is_nowhere(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """Events of a file that was collected or is lost are unconfirmed, once, and a person settles them by its name."""
    name = killed_at_the_rename(runs, store, happens=True)
    (folder / name).unlink()

    for run_id in ("second", "third"):
        ended = runs.run(rows(1, first=7), store, run_id=run_id, policy=NO_PATIENCE)

        assert ended.stopped is None
        assert [["sending", "unconfirmed"]] * 3 == [runs.statuses(f"e{number}") for number in range(3)]
    runs.settle(name, "closed")
    for run_id in ("fourth", "fifth"):
        runs.run([], store, run_id=run_id, policy=NO_PATIENCE)

    assert [["sending", "unconfirmed", "closed"]] * 3 == [runs.statuses(f"e{number}") for number in range(3)]


@pytest.mark.parametrize("other", [{"run_id": "killed", "try_number": 2}, {"run_id": "later"}], ids=["try", "run"])
def test_left_file_of_a_run_that_is_alive(
    runs: FileRuns, store: FolderStore, folder: Path, other: dict[str, Any]
) -> None:
    """A file that another run may still be sending is left to it, and taken over from an earlier try."""
    name = killed_at_the_rename(runs, store, happens=False)

    runs.run(rows(1, first=7), store, name="later", **other)

    assert (name in names(folder)) == ("try_number" in other)
    assert runs.statuses("e0")[1:] == ["delivered"] * ("try_number" in other)


def test_left_file_of_another_task(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A file of another task is none of a run's business."""
    name = killed_at_the_rename(runs, store, happens=False)
    with runs.database() as database:
        database.execute("UPDATE ropo_ledger SET task_id = 'another'")

    runs.run(rows(1, first=7), store, run_id="later", name="later", policy=NO_PATIENCE)

    assert f"{name}.part" in names(folder)
    assert ["sending"] == runs.statuses("e0")


def test_claim_is_refreshed(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """While a file is read for its upload, its claim is written again, so that other runs respect it."""

    class Slow(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            for _ in range(3):
                assert file.read(10)
            ends.append(runs.run(rows(2), store, run_id="other"))
            file.seek(0)
            super().put(file, name, replace=replace)

    ends: list[Ended] = []

    ended = runs.run(rows(2), Slow(store), policy=NO_PATIENCE)

    assert (2, 2) == (ended.number(DELIVERED), ends[0].number(HELD))
    (name,) = names(folder)
    statuses = runs.statuses(name)
    assert statuses.count("sending") > 1
    assert ["uploaded", "publishing", "delivered"] == statuses[-3:]


def test_upload_does_not_follow_a_link(runs: FileRuns, store: FolderStore, folder: Path, tmp_path: Path) -> None:
    """What has the temporary name is replaced, and not written to: it may be a link to somebody's file."""
    runs.run(rows(2), store)
    (path,) = folder.iterdir()
    path.unlink()
    other = tmp_path / "other"
    other.write_text("somebody's")
    path.with_name(f"{path.name}.part").symlink_to(other)

    ended = runs.run(rows(2), store, run_id="again", policy={"redeliver": "always"})

    assert 2 == ended.number(DELIVERED)
    assert "somebody's" == other.read_text()
    assert path.read_text()


def test_destination_with_a_bug(runs: FileRuns, store: FolderStore, folder: Path) -> None:
    """A user's store that fails in its own way leaves no claim behind, also if it cannot be closed."""

    class Broken(StoreOf):
        def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
            raise KeyError(name)

        def close(self) -> None:
            raise KeyError("close")

    with pytest.raises(KeyError):
        runs.run(rows(2), Broken(store))

    assert ["sending", "undelivered"] == runs.statuses("e0")
    assert 2 == runs.run(rows(2), store, run_id="other").number(DELIVERED)


@pytest.mark.parametrize("where", ["open", "write", "close"])
def test_format_with_a_bug(runs: FileRuns, store: FolderStore, folder: Path, where: str) -> None:
    """A user's format that fails at any point sends nothing, and the next run sends everything."""

    class Broken(JsonLinesFormat):
        def __getattribute__(self, name: str) -> Any:
            if name == where:
                raise ZeroDivisionError
            return super().__getattribute__(name)

    with pytest.raises(ZeroDivisionError):
        runs.run(rows(2), store, format=Broken())

    assert [] == names(folder)
    assert 2 == runs.run(rows(2), store, run_id="other").number(DELIVERED)
