"""Example events, and calls made side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.errors import (
    RopoError,
)

#: Makes a client of a server, given as such or by its address.
Connect = Callable[..., RopoClient]
EVENT = {
    "id": "1a2b3c4d5",
    "usageplacecode": "643007572062443672",
    "customernumber": "A123456",
    "contract_no": "555555b",
    "invoices": [{"jobid": 123456, "invoicenumber": "594294"}],
    "time": "2024-01-04 10:41:40",
    "status": "disconnected",
    "description": "Usage place disconnected",
}
CUSTOMERS_DATA = ("A123456", "555555b", "123456", "594294")


def event(number: int) -> dict[str, Any]:
    return {**EVENT, "id": f"e{number}", "usageplacecode": f"RE{number}"}


def results(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return what each call gives, all started at once in a thread of its own, an error as it is."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except RopoError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))
