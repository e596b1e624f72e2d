"""Everything that can go wrong, in one tree.

::

    RopoError                        may carry event_id; str() never holds a payload, a token or personal data
    ├── RopoConfigurationError       names the connection and the field                         permanent
    ├── InvalidRowError              names the row's id or number, the column and why           permanent
    ├── RopoTransportError           no answer                                                  transient
    │   ├── RopoConnectError         the request never left: safe to repeat
    │   └── RopoTimeoutError         .may_have_arrived: unconfirmed
    ├── RopoResponseError            an answer that is not a plain 2xx: .status_code .detail
    │   ├── RopoAuthenticationError  sign-in refused, or 401 after one fresh token: stops the run  permanent
    │   ├── RopoRateLimitError       429: .retry_after                                          transient
    │   ├── RopoRejectedError        other 4xx                                                  permanent
    │   └── RopoServerError          5xx, and answers that make no sense (a redirect, HTML)     transient
    │                                a 502 or 504 to an event: .may_have_arrived
    ├── RopoUnavailableError         nothing gets through: the run ends early                    transient
    ├── RopoLedgerError              the ledger's database failed: no post without memory        transient
    │   └── SupersededError          a later try of this task instance is at work: this one stops
    └── DeliveriesFailedError        raised once, at the end, with the summary

Every constructor's keyword arguments have defaults, so that the errors survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class RopoError(Exception):
    """Base of every error this provider raises.

    :param message: what happened and what mends it, in words fit for a log.
    :param event_id: the event it is about, where it is about one.
    """

    #: Is another attempt worth it?
    transient: ClassVar[bool] = False
    #: May the event be at Ropo One all the same? True of an event that got no answer, or only a gateway's word that
    #: it got none: a 502 or 504. Never of a sign-in, with which no event leaves.
    may_have_arrived: bool = False

    def __init__(self, message: str = "", *, event_id: str | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


class RopoConfigurationError(RopoError):
    """A connection or a task is set up in a way that cannot work."""


class InvalidRowError(RopoError):
    """A warehouse row cannot become an event without guessing.

    :param row: the row's id, or its number in reading order, as in ``row 7``.
    :param column: the column the trouble is in.
    :param reason: why, never with the value itself: it may be a customer's.
    :param usageplacecode: the usage place, where the row could be read that far.
    """

    def __init__(
        self,
        row: str = "",
        column: str = "",
        reason: str = "",
        *,
        event_id: str | None = None,
        usageplacecode: str | None = None,
    ) -> None:
        super().__init__(f"{row}: {column}: {reason}", event_id=event_id)
        self.row = row
        self.column = column
        self.reason = reason
        self.usageplacecode = usageplacecode
        self.args = (row, column, reason)

    def __str__(self) -> str:
        """Name the row, the column and the reason."""
        return f"{self.row}: {self.column}: {self.reason}"


class RopoTransportError(RopoError):
    """Ropo One gave no answer."""

    transient = True


class RopoConnectError(RopoTransportError):
    """The request never left, so it is safe to repeat."""


class RopoTimeoutError(RopoTransportError):
    """The request left and no whole answer came back: it may have arrived."""

    may_have_arrived = True


class RopoResponseError(RopoError):
    """Ropo One answered, and not with a plain success.

    :param status_code: the HTTP status.
    :param detail: what the answer said for itself, shortened.
    :param retry_after: seconds the answer asked to wait, from its ``Retry-After`` header.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int = 0,
        detail: str = "",
        retry_after: float | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message, event_id=event_id)
        self.status_code = status_code
        self.detail = detail
        self.retry_after = retry_after


class RopoAuthenticationError(RopoResponseError):
    """Sign-in was refused, or a fresh token was: nothing more can be sent in this run."""


class RopoRateLimitError(RopoResponseError):
    """429: too many requests."""

    transient = True


class RopoRejectedError(RopoResponseError):
    """Ropo One said no to this request, and would say so again."""


class RopoServerError(RopoResponseError):
    """Ropo One is unwell, or something that is not Ropo One answered."""

    transient = True


class RopoUnavailableError(RopoError):
    """Nothing gets through to Ropo One: the run ends early, and the next try takes the rest.

    :param retry_after: seconds Ropo One asked to wait, if it did.
    """

    transient = True

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RopoLedgerError(RopoError):
    """The ledger could not be read or written: nothing more is posted, for it would not be remembered."""

    transient = True


class SupersededError(RopoLedgerError):
    """A later try of this very task instance is at work: this process is a ghost, and stops."""


class DeliveriesFailedError(RopoError):
    """Not every event is at Ropo One. Raised once, after everything that could be sent was.

    :param summary: the counts, as they go to XCom.
    """

    def __init__(self, message: str = "", *, summary: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.summary = dict(summary or {})
