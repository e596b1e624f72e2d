"""What to do with a file, by the newest row about it and what is at its destination: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.ledger.entries import IN_PROGRESS, PUBLISHING, SENDING, UPLOADED, LedgerEntry


class Step(StrEnum):
    """What to do next with a file."""

    #: It was never published: write it to its destination.
    UPLOAD = "upload"
    #: It is complete under its temporary name: give it its final name.
    PUBLISH = "publish"
    #: It has arrived.
    DELIVERED = "delivered"
    #: It was collected, or is lost.
    UNCONFIRMED = "unconfirmed"
    #: Another file has its name: a person decides.
    CONFLICT = "conflict"
    #: A person has settled it: what is in it is not sent.
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at the destination under a name.

    :param size: bytes; None: nothing is there.
    :param is_known: False: the destination does not tell.
    """

    size: int | None = None
    is_known: bool = True


UNKNOWN = Seen(is_known=False)
NOTHING = Seen()

#: Newest rows after which the file may have its final name.
_MAYBE_PUBLISHED = frozenset({PUBLISHING, DeliveryStatus.UNCONFIRMED})
#: Newest rows after which it may be complete under its temporary name.
MAYBE_UPLOADED = _MAYBE_PUBLISHED | {UPLOADED}
#: Rows after which nothing is open, unless it is sent again.
_ANSWERS = frozenset(
    {DeliveryStatus.DELIVERED, DeliveryStatus.CLOSED, DeliveryStatus.UNDELIVERED, DeliveryStatus.REJECTED}
)
#: Newest rows after which a look at the destination shows nothing new.
_SETTLED = {DeliveryStatus.DELIVERED.value: Step.DELIVERED, DeliveryStatus.CLOSED.value: Step.CLOSED}


def newest_status(entries: Sequence[LedgerEntry]) -> str | None:
    """Return the delivery status by which a file is judged; None: there is none.

    Of each process, its newest row counts: where one may have published the file, no other can take that back.

    :param entries: the rows about the file, oldest first.
    """
    answers = [index for index, entry in enumerate(entries) if entry.delivery_status in _ANSWERS]
    if answers:
        since = entries[answers[-1] + 1 :]
        if not any(entry.delivery_status == SENDING for entry in since):
            return entries[answers[-1]].delivery_status
        entries = since
    of_process = {entry.claimant: entry.delivery_status for entry in entries}
    if _MAYBE_PUBLISHED.intersection(of_process.values()):
        return PUBLISHING
    return entries[-1].delivery_status if entries else None


def is_left(entries: Sequence[LedgerEntry]) -> bool:
    """Tell whether it is still to be recorded how a file ended, or what a person has said of it.

    :param entries: the rows about the file, oldest first.
    """
    newest = entries[-1]
    if newest.claimant.is_person:
        return True
    # Once a later run has looked for it and recorded that, a person decides.
    return newest.delivery_status != DeliveryStatus.UNCONFIRMED and newest_status(entries) in IN_PROGRESS


def next_step(newest: str | None, size: int, temporary: Seen, final: Seen) -> Step:
    """Return what to do next with a file.

    :param newest: the delivery status of the newest row about it; None: there is none.
    :param size: its size in bytes.
    :param temporary: what is there under its temporary name.
    :param final: what is there under its final name.
    """
    if newest in _SETTLED:
        return _SETTLED[newest]
    if final.size is not None:
        # Its name is made of its content.
        return Step.DELIVERED if final.size == size else Step.CONFLICT
    is_complete = temporary.size == size
    if newest in _MAYBE_PUBLISHED:
        return Step.PUBLISH if is_complete and final.is_known else Step.UNCONFIRMED
    if newest == UPLOADED and is_complete:
        return Step.PUBLISH
    return Step.UPLOAD
