"""Where files go: four methods, so that another kind of store is one class of the user's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import BinaryIO, ClassVar, Self


class FileStore(ABC):
    """A place for files: an SFTP server, a bucket, a folder.

    Names are relative to the store, with ``/`` between folders; a store makes no folders. What fails is raised as an
    ``OSError``; a connection that can never work as a ``RopoConfigurationError``. A store is used by one thread, and
    may be used again after an error.
    """

    #: False where a file appears under its final name at once and whole: then nothing has a temporary name.
    can_rename: ClassVar[bool] = True

    @property
    @abstractmethod
    def destination(self) -> str:
        """The name under which the ledger remembers this place, such as ``sftp://ropo@example.com:22``."""

    @abstractmethod
    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        """Write a whole file.

        When this returns, the store has all of it, as far as the store can tell.

        :param file: read from where it stands to its end.
        :param replace: True: what is there under that name is replaced. False: it is left, and an error is raised.
        :raises FileExistsError: if something is there, and is not to be replaced.
        """

    @abstractmethod
    def publish(self, temporary: str, name: str) -> None:
        """Give a file its final name, if nothing has it.

        :raises FileExistsError: if something has that name. A store may raise another error then.
        """

    @abstractmethod
    def look(self, name: str) -> int | None:
        """Return a file's size in bytes, or None if there is none of that name.

        :raises PermissionError: if this store does not tell.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; there need not be one."""

    def close(self) -> None:  # noqa: B027 - not every store has something to close
        """Let the store go; the next call connects again."""

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the store go."""
        self.close()
