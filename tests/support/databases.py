"""Migrated databases, a fresh one for each test, on SQLite and on PostgreSQL in turn.

Migrating takes long and copying does not: each test worker migrates one database of each kind and
every test gets a copy of it.
"""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import pytest

from stationmaster.migrations import migrate
from stationmaster.storage import Database, open_database
from tests.support.postgres import PostgresServer

Dialect = Literal["sqlite", "postgresql"]
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")


class Databases:
    """Makes migrated databases of one kind. All are gone after the test."""

    def __init__(
        self, dialect: Dialect, make: Callable[[], str], drop: Callable[[str], None]
    ) -> None:
        self.dialect = dialect
        self._make = make
        self._drop = drop
        self._made: list[str] = []
        self._open: list[Database] = []

    def url(self) -> str:
        """The URL of another fresh, migrated database."""
        self._made.append(self._make())
        return self._made[-1]

    def open(self, url: str | None = None) -> Database:
        """Open a fresh database, or one more time the one at `url`; closed after the test."""
        # Power is not cut in tests: without waiting for the disk they take half the time.
        database = open_database(url or self.url(), synchronous="OFF", pool_size=5)
        self._open.append(database)
        return database

    async def close(self) -> None:
        """Close what was opened, and drop what was made."""
        for database in self._open:
            await database.close()
        self._open.clear()
        for url in self._made:
            self._drop(url)
        self._made.clear()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated PostgreSQL database, to be copied."""
    name = postgres_server.create()
    _migrate(postgres_server.url(name))
    return name


def _migrate(url: str) -> None:
    # In a thread of its own: a fixture may be set up while a loop runs in this one.
    worker = threading.Thread(target=lambda: asyncio.run(migrate(url)))
    worker.start()
    worker.join()


@pytest.fixture(params=DIALECTS)
async def databases(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Databases]:
    """Fresh migrated databases, on SQLite and on PostgreSQL in turn."""
    made = _sqlite(request, tmp_path) if request.param == "sqlite" else _postgresql(request)
    yield made
    await made.close()


def _sqlite(request: pytest.FixtureRequest, directory: Path) -> Databases:
    template: Path = request.getfixturevalue("sqlite_template")
    numbers = iter(range(1, 1_000_000))

    def copy() -> str:
        path = directory / f"stationmaster-{next(numbers)}.db"
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"

    return Databases("sqlite", copy, lambda _url: None)


def _postgresql(request: pytest.FixtureRequest) -> Databases:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("postgres_template")
    return Databases(
        "postgresql",
        lambda: server.url(server.create(template)),
        lambda url: server.drop(url.rpartition("/")[2]),
    )


@pytest.fixture
def migrated_url(databases: Databases) -> str:
    """The URL of one fresh, migrated database."""
    return databases.url()


@pytest.fixture
def database(databases: Databases, migrated_url: str) -> Database:
    """One fresh, migrated database, open."""
    return databases.open(migrated_url)
