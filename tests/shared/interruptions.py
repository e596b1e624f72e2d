"""Interruptions of a thread at any instruction of some functions, as a signal's handler may raise them.

Imported as ``from interruptions import interruption``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interruption(at: int, error: BaseException, *functions: Callable[..., Any]) -> Iterator[list[str]]:
    """Raise an error in this thread at one of the instructions that some Python functions run.

    :param at: the number of the instruction, counted from one over all calls.
    :return: where it was raised; empty: the functions did not run that many instructions.
    """
    codes = {function.__code__ for function in functions}
    raised: list[str] = []
    count = 0

    def trace_call(frame: FrameType, _event: str, _argument: object) -> Callable[..., Any] | None:
        if frame.f_code not in codes:
            return None
        return trace

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal count
        # Here, not in trace_call: Python 3.13 heeds it only in a frame that is traced already.
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == at:
                raised.append(f"{frame.f_code.co_name}, line {frame.f_lineno}")
                raise error
        return trace

    before = sys.gettrace()
    # From Python 3.12 on, instructions are traced only if some frame wanted that when the tracing began.
    sys._getframe().f_trace_opcodes = True  # noqa: SLF001 - its documented name
    sys.settrace(trace_call)
    try:
        yield raised
    finally:
        sys.settrace(before)
