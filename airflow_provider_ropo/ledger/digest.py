"""A digest of an event's content: tells whether two contents are the same, and little else.

The whole content has one digest of 128 bits. Each field has 4 bits more: enough to name most fields that differ, too
few to confirm a guess of one. Both are keyed with the event's id and destination, so that equal values of two events
have nothing in common. Who knows every other field of an event can still try all values of the last one: the digest
is no encryption.
"""

from __future__ import annotations

import hashlib
import re
from functools import cached_property, lru_cache

from airflow_provider_ropo.event import UsageplaceEvent

FIELDS = ("usageplacecode", "status", "time", "customernumber", "contract_no", "description", "invoices")
#: Hexadecimal digits of the digest of the whole content; one more a field follows.
_WHOLE = 32
#: The layout before: 64 bits a field, not keyed. Such rows are still recognised.
_UNKEYED_DIGITS = 16
_UNKEYED = len(FIELDS) * _UNKEYED_DIGITS
#: How the digest of an invalid row begins; no content's digest begins like that.
_INVALID = "invalid:"
#: A row's number in reading order, which another run's query may change.
_ROW_NUMBER = re.compile(r"\brow \d+")


class ContentDigest:
    """What would be sent now, as far as the ledger knows it.

    :param event: the event.
    :param destination: where it goes.
    """

    def __init__(self, event: UsageplaceEvent, destination: str) -> None:
        self._event = event
        self._key = _key(event.id, destination)
        self._values = _values(event)

    @cached_property
    def text(self) -> str:
        """The digest, as it is written to ``payload_hash``."""
        fields = zip(FIELDS, self._values, strict=True)
        return self._whole + "".join(self._digest(repr(field), 1)[0] for field in fields)

    @cached_property
    def _whole(self) -> str:
        return self._digest(repr(self._values), _WHOLE // 2)

    def _digest(self, text: str, size: int) -> str:
        return hashlib.blake2b(text.encode(), digest_size=size, key=self._key).hexdigest()

    def matches(self, payload_hash: str | None) -> bool:
        """Tell whether a row is about this content; a row without a digest stands for any content."""
        if not payload_hash:
            return True
        if len(payload_hash) == _UNKEYED:
            return payload_hash == unkeyed(self._event)
        return payload_hash[:_WHOLE] == self._whole

    def differing_fields(self, payload_hash: str) -> list[str]:
        """Return the names of the fields that certainly differ from those of a row with this digest."""
        if len(payload_hash) == _UNKEYED:
            pieces = range(0, _UNKEYED, _UNKEYED_DIGITS)
            mine, other = (
                [text[at : at + _UNKEYED_DIGITS] for at in pieces] for text in (unkeyed(self._event), payload_hash)
            )
        else:
            mine, other = list(self.text[_WHOLE:]), list(payload_hash[_WHOLE:])
        return [name for name, one, another in zip(FIELDS, mine, other, strict=False) if one != another]


def invalid_digest(detail: str, event_id: str) -> str:
    """Return the digest of an invalid row, which has no content: of the reason why it is invalid.

    The row's number is left out: the same row may have another one in the next run.

    :param detail: the reason, as the ledger has it in ``detail``.
    """
    reason = _ROW_NUMBER.sub("row", detail).encode()
    return _INVALID + hashlib.blake2b(reason, digest_size=_WHOLE // 2, key=_key(event_id, "")).hexdigest()


def is_of_invalid(payload_hash: str | None) -> bool:
    """Tell whether a digest is that of an invalid row."""
    return payload_hash is not None and payload_hash.startswith(_INVALID)


def without_fields(payload_hash: str | None) -> str | None:
    """Return as much of a digest as tells whether two contents are the same, and nothing of any single field.

    Of the layout before, that is nothing: its digests of single fields are not keyed. Such a row then stands for any
    content.
    """
    if payload_hash is None or is_of_invalid(payload_hash):
        return payload_hash
    return None if len(payload_hash) == _UNKEYED else payload_hash[:_WHOLE]


def _key(event_id: str, destination: str) -> bytes:
    return hashlib.blake2b(f"{destination}\0{event_id}".encode(), digest_size=32).digest()


def _values(event: UsageplaceEvent) -> tuple[str | None, ...]:
    # Sorted: in which order a query returns an event's rows, an invoice each, means nothing.
    invoices = repr(sorted(repr((invoice.invoicenumber, invoice.jobid)) for invoice in event.invoices))
    return (
        event.usageplacecode,
        event.status.value,
        # As Ropo One is told it: whole seconds of the wall clock.
        event.time.isoformat(" ", "seconds")[: len("2024-01-04 10:41:40")],
        event.customernumber,
        event.contract_no,
        event.description,
        invoices,
    )


@lru_cache(maxsize=1024)
def unkeyed(event: UsageplaceEvent) -> str:
    """Return an event's digest as the layout before wrote it."""
    return "".join(
        "-" * _UNKEYED_DIGITS
        if value is None
        else hashlib.blake2b(value.encode(), digest_size=_UNKEYED_DIGITS // 2).hexdigest()
        for value in _values(event)
    )
