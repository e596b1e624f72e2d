"""Test doubles that more than one test file uses: a clock, a bound of time, a task instance and a task's context.

Imported as ``from doubles import FakeClock``. Nothing here imports Airflow, so that a test of what works without it
may use them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

#: Seconds: more than a busy machine takes, less than an implementation that waits for what does not come.
HANGS = 30.0


class FakeClock:
    """A clock that stands still until a test moves it, or code waits on it.

    Called, it is ``time.monotonic``; :meth:`wait` is ``threading.Event().wait``, which takes no real time.

    :param stop_at: the wait, counted from one, at which it asks to stop.
    """

    def __init__(self, *, stop_at: int | None = None) -> None:
        #: The time, in seconds.
        self.now = 1000.0
        #: The seconds of each wait, in order.
        self.waits: list[float] = []
        self._stop_at = stop_at

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """Let that many seconds pass; return whether to stop."""
        self.waits.append(seconds)
        self.now += seconds
        return len(self.waits) == self._stop_at


class FakeTaskInstance:
    """A try of a task instance, as a task finds it in its context; keeps what is pushed to XCom."""

    dag_id, task_id, map_index = "dag", "report", -1

    def __init__(self, run_id: str = "first", try_number: int = 1) -> None:
        self.run_id = run_id
        self.try_number = try_number
        #: XCom key → value.
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value


def fake_context(ti: FakeTaskInstance | None = None, **entries: Any) -> Context:
    """Return a task's context in which there are these entries and nothing else.

    :param ti: the task instance; by default, the first try of the first run.
    """
    return cast("Context", {"ti": ti or FakeTaskInstance(), **entries})
