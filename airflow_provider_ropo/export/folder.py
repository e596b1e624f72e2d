"""Files in a folder of this machine, or one that is mounted."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from airflow_provider_ropo.export.store import FileStore

#: The system's errors where there are no hard links: FAT, some shares.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV})


class FolderStore(FileStore):
    """A folder of this machine, or one that is mounted.

    :param root: what names are relative to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def destination(self) -> str:
        """The folder's address."""
        return self._root.absolute().as_uri().rstrip("/")

    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        """Write a file, and have the system write it to the disk."""
        path = self._root / name
        if replace:
            # Not into what has the name: that may be a link, or be written by a process that was asleep.
            path.unlink(missing_ok=True)
        with path.open("xb") as target:
            try:
                shutil.copyfileobj(file, target)
                target.flush()
                os.fsync(target.fileno())
            except OSError:
                if not replace:
                    path.unlink(missing_ok=True)
                raise

    def publish(self, temporary: str, name: str) -> None:
        """Give a file its final name."""
        before, after = self._root / temporary, self._root / name
        try:
            os.link(before, after)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if after.exists():
                raise FileExistsError(errno.EEXIST, "a file of that name is there", name) from None
            before.rename(after)
        else:
            before.unlink()
        self._sync_folder(after.parent)

    def look(self, name: str) -> int | None:
        """Return a file's size."""
        try:
            return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._root / name).unlink(missing_ok=True)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        # Not every file system can.
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
