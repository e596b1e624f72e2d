"""Bring one file to its destination, and record how far it has come before and after each step."""

from __future__ import annotations

import io
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import FileConflictError, FileStoreError, SupersededError
from airflow_provider_ropo.export.file_claim import FileClaim
from airflow_provider_ropo.export.marker import Marker
from airflow_provider_ropo.export.resume import MAYBE_UPLOADED, NOTHING, UNKNOWN, Seen, Step, newest_status, next_step
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.ledger.entries import PUBLISHING, SENDING, UNPUBLISHED, UPLOADED
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.ledger import DeliveryLedger

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilePaths:
    """Where a file is put.

    :param folder: the folder, relative to the store; empty: the store's own.
    :param temporary: the ending that a file's name has while it is uploaded; with ``/`` at its end, the folder that it
        is in meanwhile. None: it has its final name from the start.
    """

    folder: str = ""
    temporary: str | None = ".part"

    def final(self, name: str) -> str:
        """Return the final path of a file."""
        return "/".join(filter(None, (self.folder.rstrip("/") or self.folder, name)))

    def before(self, name: str) -> str | None:
        """Return the path of a file while it is uploaded; None: there is none."""
        if self.temporary is None:
            return None
        return f"{self.temporary}{name}" if self.temporary.endswith("/") else self.final(name) + self.temporary


class FilePublisher:
    """Publishes files, and looks after those of earlier tries.

    Every method may raise a :class:`RopoLedgerError`, and a :class:`FileStoreError` whose ``may_have_arrived`` tells
    whether the file may have got its final name.

    :param store: where files go.
    :param paths: their names there.
    :param ledger: remembers how far they came.
    :param marker: the file that follows each; None: none does.
    """

    def __init__(self, store: FileStore, paths: FilePaths, ledger: DeliveryLedger, marker: Marker | None) -> None:
        self._store = store
        self._paths = paths
        self._ledger = ledger
        self._marker = marker

    def next_step(self, file: FileRecord) -> Step:
        """Return what to do next with a file, by the ledger and by what is at the destination.

        :raises FileConflictError: if another file has its name.
        """
        return self._next_step(file, newest_status(self._ledger.file_entries(file.name)))

    def claim(self, file: FileRecord) -> FileClaim:
        """Claim a file for this run: before its events, so that who finds one of them claimed finds the file, too."""
        return FileClaim(self._ledger, file)

    def send(self, claim: FileClaim, content: BinaryIO) -> None:
        """Upload a file and publish it.

        :param content: read from its beginning; of the size that the record has.
        """
        if self._next_step(claim.file, SENDING) is Step.UPLOAD:
            content = claim.refreshed_by(content)
            temporary = self._temporary(claim.file.name)
            if temporary is not None:
                self._upload(claim, content, temporary)
                claim.record(UPLOADED)
            self._publish(claim, content)
        self.finish(claim.file)

    def complete(self, file: FileRecord) -> None:
        """Publish a file that an earlier try has uploaded."""
        self._publish(FileClaim(self._ledger, file, UPLOADED), None)
        self.finish(file)

    def finish(self, file: FileRecord) -> None:
        """Write the marker of a file that is published, and record that it is."""
        if self._marker is not None:
            try:
                self._put_marker(self._paths.final(file.name) + self._marker.suffix, self._marker.content(file))
            except OSError as error:
                failure = self._failure(file, "is published, but its marker could not be written", error)
                failure.may_have_arrived = True
                raise failure from error
        self._ledger.record_file(file, DeliveryStatus.DELIVERED)

    def take_over(self, file: FileRecord) -> bool:
        """Take a file that was never published away from the try that was sending it.

        :return: False: another run is sending it after all.
        """
        self._ledger.record_file(file, UNPUBLISHED, "what is in it goes out in another file")
        # Who is about to publish it has written that before, or reads this after.
        is_published = newest_status(self._ledger.file_entries(file.name)) == PUBLISHING
        if is_published or self._ledger.senders_of_file(file.name):
            return False
        temporary = self._temporary(file.name)
        if temporary is not None:
            # Then a process that was only asleep cannot publish it either.
            try:
                self._store.remove(temporary)
            except OSError as error:
                log.warning("%s is left at %s: %s", temporary, self._store.destination, _reason(error))
        return True

    def _temporary(self, name: str) -> str | None:
        return self._paths.before(name) if self._store.can_rename else None

    def _upload(self, claim: FileClaim, content: BinaryIO, temporary: str) -> None:
        file = claim.file
        try:
            self._store.put(content, temporary, replace=True)
        except OSError as error:
            claim.withdraw(_reason(error))
            raise self._failure(file, "could not be uploaded", error) from error
        seen = self._look(temporary)
        if seen.is_known and seen.size != file.size:
            claim.withdraw(f"its upload has {seen.size or 0} bytes")
            raise FileStoreError(f"the upload of {file} has {seen.size or 0} bytes at {self._store.destination}")

    def _publish(self, claim: FileClaim, content: BinaryIO | None) -> None:
        file = claim.file
        claim.record(PUBLISHING)
        try:
            claim.check()
        except SupersededError:
            claim.withdraw("another run has taken it over")
            raise
        temporary, final = self._temporary(file.name), self._paths.final(file.name)
        try:
            if temporary is not None:
                self._store.publish(temporary, final)
            else:
                assert content is not None  # noqa: S101 - only what has a temporary name is published without it
                self._store.put(content, final, replace=False)
        except OSError as error:
            self._look_after(file, error)

    def _look_after(self, file: FileRecord, error: OSError) -> None:
        """Find out whether a file has its final name although that failed.

        :raises FileStoreError: if it has not, or that cannot be found out.
        """
        try:
            step = self._next_step(file, PUBLISHING)
        except FileConflictError:
            raise
        except FileStoreError:
            step = Step.UNCONFIRMED
        if step is Step.DELIVERED:
            log.info("%s is published, although that ended with an error: %s", file.name, _reason(error))
            return
        is_lost = isinstance(error, ConnectionError | TimeoutError) and step is Step.UNCONFIRMED
        failure = self._failure(file, "may have been published" if is_lost else "could not be published", error)
        failure.may_have_arrived = is_lost
        if not is_lost:
            self._ledger.record_file(file, UNPUBLISHED, _reason(error))
        raise failure from error

    def _next_step(self, file: FileRecord, newest: str | None) -> Step:
        temporary, final = self._temporary(file.name), self._paths.final(file.name)
        seen = self._look(final)
        before = self._look(temporary) if temporary is not None and newest in MAYBE_UPLOADED else NOTHING
        step = next_step(newest, file.size, before, seen)
        if step is Step.CONFLICT:
            raise FileConflictError(
                f"{final} at {self._store.destination} has {seen.size} bytes, and the {file} was to get that name; "
                "move one of them away, or close its events"
            )
        return step

    def _look(self, path: str) -> Seen:
        try:
            return Seen(self._store.look(path))
        except PermissionError:
            return UNKNOWN
        except OSError as error:
            raise FileStoreError(f"{self._store.destination} does not answer: {_reason(error)}") from error

    def _put_marker(self, path: str, content: bytes) -> None:
        temporary = self._temporary(path.rpartition("/")[2])
        if self._look(path).size is not None:
            return
        with suppress(FileExistsError):
            if temporary is None or not content:
                self._store.put(io.BytesIO(content), path, replace=False)
            else:
                self._store.put(io.BytesIO(content), temporary, replace=True)
                self._store.publish(temporary, path)

    def _failure(self, file: FileRecord, what: str, error: OSError) -> FileStoreError:
        return FileStoreError(f"the {file} {what} at {self._store.destination}: {_reason(error)}")


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
