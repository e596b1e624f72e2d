"""The worker's side of :mod:`killed_runs`: makes tries as it is told, each in a process that may be killed.

Reads what to do from standard input, one line of JSON a try; forks, so that what takes a second to import is imported
once; and writes to standard output which process it is, and how that ended.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def make_tries(try_once: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Make one try after another.

    :param try_once: makes one, in a process of its own; returns how it ended.
    """
    logging.disable()
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                _tell(try_once(json.loads(line)))
            except BaseException:  # noqa: BLE001 - the test is told
                _tell({"well": False, "bug": traceback.format_exc()})
            # Not exit(): what is left of the standard input is the parent's.
            os._exit(0)
        _tell({"process": process})
        _, status = os.waitpid(process, 0)
        _tell({"ended": os.waitstatus_to_exitcode(status)})


def _tell(what: dict[str, Any]) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
