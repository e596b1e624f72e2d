"""Scripted faults: errors of a server or a network, produced on demand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Fault:
    """A fault for one future request; by default, the request is handled as usual.

    - a busy server: ``Fault(status=503, headers={"Retry-After": "1"})``
    - a web page instead of JSON: ``Fault(status=200, body=b"<html>")``
    - an answer that comes too late: ``Fault(delay=30)``
    - a connection reset after the event was accepted: ``Fault(cut=True, remember=True)``
    - a connection reset before it was accepted: ``Fault(cut=True)``
    """

    status: int | None = None
    """Answer with this status instead of the usual answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    """Seconds before the answer (or the reset). With ``remember``, the event is recorded before the delay."""
    remember: bool = False
    """The request takes effect as usual, although the client does not get the usual answer."""
    cut: bool = False
    """Reset the connection instead of answering."""
    usageplacecode: str | None = None
    """Apply only to an event of this usage place; events of other places are not affected."""

    @property
    def takes_effect(self) -> bool:
        """True if the request takes effect as usual; always so if its answer is the usual one."""
        return self.remember or (self.status is None and not self.cut)

    @property
    def label(self) -> str:
        """The name of the fault in the list of arrivals."""
        return "scripted fault: connection reset" if self.cut else "scripted fault"


class FaultQueue:
    """Queue of scripted faults; each is used once."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def extend(self, faults: Iterable[Fault]) -> None:
        """Add faults at the end of the queue."""
        with self._lock:
            self._faults.extend(faults)

    def take(self, usageplacecode: object = None) -> Fault:
        """Remove and return the first fault for this usage place or for any; if there is none, one without effect."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.usageplacecode in (None, usageplacecode):
                    return self._faults.pop(index)
        return Fault()

    def clear(self) -> None:
        """Drop the faults that have not been used."""
        with self._lock:
            self._faults.clear()
