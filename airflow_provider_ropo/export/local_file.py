"""A file of events on this machine's disk, before it goes to its destination."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from airflow_provider_ropo.errors import InvalidRowError, SpoolError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import row_label
from airflow_provider_ropo.export.formats import FileFormat
from airflow_provider_ropo.intake.spool import temporary_folder
from airflow_provider_ropo.ledger.files import FileRecord

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Bytes that are written and digested at a time.
BUFFER_SIZE = 1 << 18
#: Hexadecimal digits of the content's digest in a file's name.
DIGEST_LENGTH = 12


class LocalFile:
    """Write events to a temporary file that has no name, so that it is gone with the process, however that ends.

    :param format_: how events are written.
    :raises SpoolError: from every method, if the disk is full or fails.
    """

    def __init__(self, format_: FileFormat) -> None:
        self._format = format_
        self._events = 0
        with _disk_errors():
            self._disk: BinaryIO = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115 - closed in __exit__
            self._raw = _Digested(self._disk)
            self._stream = io.BufferedWriter(self._raw, BUFFER_SIZE)
            try:
                format_.open(cast("BinaryIO", self._stream))
            except BaseException:
                self.__exit__(None, None, None)
                raise

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the file."""
        self._raw.is_discarded = True
        self._stream.close()
        self._disk.close()

    def write(self, event: UsageplaceEvent) -> None:
        """Write an event.

        :raises InvalidRowError: if the format cannot hold it.
        """
        try:
            self._format.write(event)
        except OSError as error:
            raise _disk_error(error) from error
        except UnicodeEncodeError as error:
            reason = f"has a character that the file's encoding {error.encoding} lacks"
            place = event.usageplacecode
            label = row_label(None, event.id)
            raise InvalidRowError(label, "a field", reason, event_id=event.id, usageplacecode=place) from None
        self._events += 1

    def finish(self, name: str) -> FileRecord:
        """End the file; return what the ledger remembers of it.

        :param name: what its name begins with; the digest of its content and the format's extension follow.
        """
        with _disk_errors():
            self._format.close()
            if not self._stream.closed:
                self._stream.flush()
        digest = self._raw.digest.hexdigest()
        full = f"{name}_{digest[:DIGEST_LENGTH]}.{self._format.extension}"
        return FileRecord(full, self._events, self._raw.size, digest)

    def content(self) -> BinaryIO:
        """Return the finished file, to be read from its beginning."""
        self._disk.seek(0)
        return self._disk


class _Digested(io.RawIOBase):
    """Digest and count what is written to a file."""

    def __init__(self, disk: BinaryIO) -> None:
        super().__init__()
        self._disk = disk
        self.digest = hashlib.sha256()
        self.size = 0
        #: The file is not wanted any more, nor what is still in a buffer.
        self.is_discarded = False

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if not self.is_discarded:
            self._disk.write(data)
            self.digest.update(data)
            self.size += size
        return size


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _disk_error(error) from error


def _disk_error(error: OSError) -> SpoolError:
    return SpoolError(
        f"the file does not fit on the disk, or that failed ({error}): it is made in {temporary_folder()}; make room "
        "there, or set the worker's environment variable SQLITE_TMPDIR (or TMPDIR) to another folder"
    )
