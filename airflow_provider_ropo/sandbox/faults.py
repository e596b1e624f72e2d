"""Scripted trouble: what a real server and a real network do on a bad day, on demand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Fault:
    """What shall happen to one coming request; the default is that nothing unusual does.

    - a busy server: ``Fault(status=503, headers={"Retry-After": "1"})``
    - a page where JSON was expected: ``Fault(status=200, body=b"<html>")``
    - an answer that comes too late: ``Fault(delay=30)``
    - a connection cut after the event was taken in: ``Fault(cut=True, remember=True)``
    - a connection cut before it was: ``Fault(cut=True)``
    """

    status: int | None = None
    """Answer with this status instead of the usual answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    """Seconds before the answer (or the cut). A remembered event is remembered before the wait."""
    remember: bool = False
    """The request takes effect as usual, although its sender gets something else than the usual answer."""
    cut: bool = False
    """Reset the connection instead of answering."""
    usageplacecode: str | None = None
    """Wait for an event of this usage place, and let the events of other places pass."""

    @property
    def takes_effect(self) -> bool:
        """Whether the request is treated as usual, which it always is if its answer is the usual one."""
        return self.remember or (self.status is None and not self.cut)

    @property
    def label(self) -> str:
        """What the list of arrivals calls it."""
        return "scripted fault: connection cut" if self.cut else "scripted fault"


class FaultQueue:
    """Faults in the order in which they were scripted; each is used once."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def extend(self, faults: Iterable[Fault]) -> None:
        """Add faults behind those that still wait."""
        with self._lock:
            self._faults.extend(faults)

    def take(self, usageplacecode: object = None) -> Fault:
        """Take the first fault meant for this usage place or for any, or a harmless one."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.usageplacecode in (None, usageplacecode):
                    return self._faults.pop(index)
        return Fault()

    def clear(self) -> None:
        """Drop the faults that have not been used."""
        with self._lock:
            self._faults.clear()
