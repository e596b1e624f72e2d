"""A run's claim of a file: a row of the ledger that other runs respect as long as it is refreshed."""

from __future__ import annotations

import datetime as dt
import io
import logging
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, cast

from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.ledger.entries import SENDING, UNPUBLISHED
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.ledger import DeliveryLedger

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

#: Seconds between two rows while a file is claimed and uploaded, at most; and that part of ``claim_timeout``.
LONGEST_INTERVAL, PARTS = 60.0, 4
#: Bytes that an upload reads at a time.
BUFFER_SIZE = 1 << 16


class FileClaim:
    """Claims a file for this run, before its events are claimed.

    What another run writes about the file from then on, it writes after this claim: :meth:`check`, right before the
    file is published, finds it however long this run was asleep.

    :param ledger: used by the thread that made the claim alone.
    :param status: how far the file has come already.
    """

    def __init__(self, ledger: DeliveryLedger, file: FileRecord, status: str = SENDING) -> None:
        self.file = file
        self._ledger = ledger
        self._interval = min(ledger.claim_timeout / PARTS, LONGEST_INTERVAL)
        self._thread = threading.get_ident()
        self._since = self.record(status)

    def record(self, status: str, detail: str = "") -> dt.datetime:
        """Record how far the file has come; return the row's time.

        :param detail: why.
        """
        self._status = status
        self._refresh_at = time.monotonic() + self._interval
        return self._ledger.record_file(self.file, status, detail)

    def withdraw(self, reason: str) -> None:
        """Record that this run does not publish the file."""
        self.record(UNPUBLISHED, reason)

    def refresh(self) -> None:
        """Write the newest row again, if it is time: other runs respect it for ``claim_timeout`` seconds."""
        if time.monotonic() < self._refresh_at or threading.get_ident() != self._thread:
            return
        try:
            self.record(self._status)
        except RopoLedgerError as error:
            # Whether the file is still ours is found out before it is published.
            log.warning("the claim of %s could not be refreshed: %s", self.file.name, error)

    def check(self) -> None:
        """Refuse to go on if another run has taken the file over.

        :raises SupersededError: naming that run.
        """
        self._ledger.check_file_is_mine(self.file, self._since)

    def refreshed_by(self, content: BinaryIO) -> BinaryIO:
        """Return a file of the same content, whose reading refreshes this claim."""
        return cast("BinaryIO", io.BufferedReader(_Refreshing(content, self), BUFFER_SIZE))


class _Refreshing(io.RawIOBase):
    """Reads a file, and refreshes a claim meanwhile. The file stays open."""

    def __init__(self, content: BinaryIO, claim: FileClaim) -> None:
        super().__init__()
        self._content = content
        self._claim = claim

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._claim.refresh()
        view = memoryview(buffer).cast("B")
        data = self._content.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        return self._content.tell()
