"""The error classes of this provider, as a tree.

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
    │   └── RopoServerError          5xx, and unexpected answers (a redirect, HTML)             transient
    │                                a 502 or 504 to an event: .may_have_arrived
    ├── RopoUnavailableError         posts keep failing: the run ends early                      transient
    ├── RopoLedgerError              the ledger's database failed: posting stops                 transient
    │   └── SupersededError          a later try of this task instance is running: this one stops
    ├── FileStoreError               the file could not be written or published                   transient
    │   └── FileConflictError        another file has its name: a person has to decide            permanent
    ├── SpoolError                   the temporary folder is full, or failed: posting stops       transient
    ├── RunRefusedError              refused before the first post: too much, or not what was approved  permanent
    └── DeliveriesFailedError        raised once, at the end, with the counts

Every constructor's keyword arguments have defaults, so that the errors survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class RopoError(Exception):
    """Base class of every error this provider raises.

    :param message: what happened and how to fix it; safe to log.
    :param event_id: the id of the event, if the error is about one event.
    """

    #: True if another attempt may succeed.
    transient: ClassVar[bool] = False
    #: True if the event may have arrived despite the error: there was no answer, or a gateway (502 or 504) reported
    #: that it got none. Never true for a sign-in, which sends no event.
    may_have_arrived: bool = False

    def __init__(self, message: str = "", *, event_id: str | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


class RopoConfigurationError(RopoError):
    """The configuration of a connection or a task cannot work."""


class InvalidRowError(RopoError):
    """A warehouse row cannot become an event without guessing.

    :param row: the row's id, or its number in reading order, as in ``row 7``.
    :param column: the column with the invalid value.
    :param reason: why it is invalid; never the value itself, which may be personal data.
    :param usageplacecode: the usage place, if it could be read from the row.
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
        """Return the row, the column and the reason."""
        return f"{self.row}: {self.column}: {self.reason}"


class RopoTransportError(RopoError):
    """There was no answer from Ropo One."""

    transient = True


class RopoConnectError(RopoTransportError):
    """The request was not sent, so it is safe to repeat."""


class RopoTimeoutError(RopoTransportError):
    """The request was sent, but no complete answer came back: it may have arrived."""

    may_have_arrived = True


class RopoResponseError(RopoError):
    """Ropo One answered, but not with a plain success.

    :param status_code: the HTTP status.
    :param detail: the explanation in the answer, shortened.
    :param retry_after: seconds to wait, from the answer's ``Retry-After`` header.
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
    """The sign-in or a fresh token was refused: nothing more can be sent in this run."""


class RopoRateLimitError(RopoResponseError):
    """429: too many requests."""

    transient = True


class RopoRejectedError(RopoResponseError):
    """Ropo One rejected this request, and would reject it again."""


class RopoServerError(RopoResponseError):
    """Ropo One has a fault, or the answer came from something that is not Ropo One."""

    transient = True


class RopoUnavailableError(RopoError):
    """Posts to Ropo One keep failing: the run ends early, and the next try sends the rest.

    :param retry_after: seconds to wait, if Ropo One asked for a wait.
    """

    transient = True

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RopoLedgerError(RopoError):
    """The ledger could not be read or written: posting stops, because results could not be recorded."""

    transient = True
    #: The database refuses a row, whichever others are written with it.
    is_about_data: bool = False
    #: It breaks a constraint of the table.
    is_constraint: bool = False


class SupersededError(RopoLedgerError):
    """A later try of the same task instance is running: this process is superseded, and stops."""


class FileStoreError(RopoError):
    """A file could not be written to its destination, or published there."""

    transient = True


class FileConflictError(FileStoreError):
    """Another file is there under the name of ours: nothing is published until a person has decided."""

    transient = False


class SpoolError(RopoError):
    """The events that were read do not fit into the temporary folder, or it failed: another try may find room."""

    transient = True


class RunRefusedError(RopoError):
    """Nothing was posted: more would be than ``max_events`` allows, or anything else than what was ``approved``.

    :param counts: the number of events of each status that would be posted.
    """

    def __init__(self, message: str = "", *, counts: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.counts = dict(counts or {})


class DeliveriesFailedError(RopoError):
    """Not every event is at Ropo One. Raised once, after everything that can be sent was sent.

    :param summary: the counts, as in the XCom.
    """

    def __init__(self, message: str = "", *, summary: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.summary = dict(summary or {})
