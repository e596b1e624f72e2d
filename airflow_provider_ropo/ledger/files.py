"""What the ledger remembers of a file: its name, and enough to tell whether it is that file again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

#: What is before and after a file's name in its text.
BEFORE_NAME, AFTER_NAME = "file ", " of "
_TEXT = re.compile(rf"{BEFORE_NAME}(\S+){AFTER_NAME}(\d+) events, (\d+) bytes, SHA-256 ([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of events.

    :param name: its final name, without the folder; no blanks.
    :param events: the number of events in it.
    :param size: bytes.
    :param sha256: the digest of its content, in hexadecimal digits.
    """

    name: str
    events: int
    size: int
    sha256: str

    def __str__(self) -> str:
        """Return it as the ledger's rows have it in ``detail``."""
        return f"{BEFORE_NAME}{self.name}{AFTER_NAME}{self.events} events, {self.size} bytes, SHA-256 {self.sha256}"

    @classmethod
    def parse(cls, detail: str) -> Self | None:
        """Return the file that a row's ``detail`` begins with, if any."""
        found = _TEXT.match(detail)
        return None if found is None else cls(found[1], int(found[2]), int(found[3]), found[4])
