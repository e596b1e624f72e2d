"""Digest of what a run would post, and where: a preview leaves it, and a person approves just that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from airflow_provider_ropo.delivery import quantity
from airflow_provider_ropo.errors import RopoConfigurationError

#: Events whose fingerprints are in the digest, so that a difference can be counted; beyond, only the totals are.
MAX_FINGERPRINTS = 1_000
_ID_SIZE, _CONTENT_SIZE = 5, 2
_TEXT = re.compile(r"ropo1:(?P<where>[0-9a-f]{16}):(?P<what>[0-9a-f]{64}):(?P<count>\d+):(?P<fingerprints>[\w=-]*)")


class ApprovalDigest(NamedTuple):
    """What would be posted, in few bytes.

    :param where: of the destination.
    :param what: of the destination and every payload; the order in which they are added makes no difference.
    :param events: their number.
    :param fingerprints: of each event's id, and of its payload; empty if there are too many events.
    """

    where: str
    what: str
    events: int
    fingerprints: Mapping[bytes, bytes]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a digest's text.

        :raises RopoConfigurationError: if it is none.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise RopoConfigurationError(
                "`approved` is not the digest of a preview: it takes what a task with preview=True left in the XCom "
                "ropo_digest"
            )
        data = base64.urlsafe_b64decode(match["fingerprints"])
        size = _ID_SIZE + _CONTENT_SIZE
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        prints = {piece[:_ID_SIZE]: piece[_ID_SIZE:] for piece in pieces}
        return cls(match["where"], match["what"], int(match["count"]), prints)

    def __str__(self) -> str:
        """Return the text that goes to XCom."""
        prints = b"".join(key + self.fingerprints[key] for key in sorted(self.fingerprints))
        return f"ropo1:{self.where}:{self.what}:{self.events}:{base64.urlsafe_b64encode(prints).decode()}"

    def differences(self, approved: ApprovalDigest) -> str | None:
        """Return how this differs from what was approved; None if it does not."""
        if self.where != approved.where:
            return "the preview was for another destination"
        if self.what == approved.what:
            return None
        if len(self.fingerprints) != self.events or len(approved.fingerprints) != approved.events:
            return f"the preview had {approved.events:,} events, this run has {self.events:,}, and not all are the same"
        more = self.fingerprints.keys() - approved.fingerprints.keys()
        fewer = approved.fingerprints.keys() - self.fingerprints.keys()
        both = self.fingerprints.keys() & approved.fingerprints.keys()
        changed = sum(self.fingerprints[key] != approved.fingerprints[key] for key in both)
        parts = [
            more and f"{quantity(len(more), 'event')} more",
            fewer and f"{quantity(len(fewer), 'event')} fewer",
            changed and f"{quantity(changed, 'event')} with other content",
        ]
        return ", ".join(part for part in parts if part) or "the content of an event differs"


class ApprovalDigestBuilder:
    """Makes a digest, event by event.

    :param destination: where the events go.
    """

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._sum = 0
        self._count = 0
        self._fingerprints: dict[bytes, bytes] = {}

    def add(self, event_id: str, payload: Mapping[str, Any]) -> None:
        """Add one event."""
        text = json.dumps([self._destination, payload], sort_keys=True, ensure_ascii=False)
        content = hashlib.sha256(text.encode()).digest()
        # A sum: independent of the order, and a million events need no more memory than one.
        self._sum = (self._sum + int.from_bytes(content)) % 2**256
        self._count += 1
        if self._count <= MAX_FINGERPRINTS:
            key = hashlib.sha256(event_id.encode()).digest()[:_ID_SIZE]
            self._fingerprints[key] = content[:_CONTENT_SIZE]

    def build(self) -> ApprovalDigest:
        """Return the digest of what was added."""
        where = hashlib.sha256(self._destination.encode()).hexdigest()[:16]
        prints = self._fingerprints if self._count <= MAX_FINGERPRINTS else {}
        return ApprovalDigest(where, self._sum.to_bytes(32).hex(), self._count, prints)
