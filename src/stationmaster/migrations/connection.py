"""Reaching a database to work on its schema: a connection at a time, and a lock for all of ours."""

import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.complaint import explain

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

LOCK_ID = 7_302_517_311  # any number that no other program takes as its advisory lock
CONNECT_TIMEOUT_S = 10


async def run(url: URL, work: Callable[[Connection], T]) -> T:
    """Do something on a connection. Raises `Unavailable`, with what to do about it."""
    if url.get_backend_name() == "sqlite":
        try:
            return _run_sqlite(url, work)
        except (DBAPIError, OSError) as error:
            raise _of_sqlite(error, url) from error
    try:
        async with engine(url).connect() as connection:
            return await connection.run_sync(work)
    except (DBAPIError, OSError, TimeoutError) as error:
        raise explain(error, url) from error


def engine(url: URL) -> "AsyncEngine":
    """An engine for PostgreSQL."""
    from stationmaster.storage.postgresql import plain_engine

    return plain_engine(url, timeout=CONNECT_TIMEOUT_S)


def _run_sqlite(url: URL, work: Callable[[Connection], T]) -> T:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    sqlite = create_engine(url, poolclass=NullPool, connect_args={"isolation_level": None})

    # Python's driver would commit each statement that changes the schema by itself.
    @event.listens_for(sqlite, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with sqlite.connect() as connection:
        return work(connection)


_SQLITE = {
    sqlite3.SQLITE_BUSY: ("database_busy", "another program has locked it"),
    sqlite3.SQLITE_READONLY: (
        "database_read_only",
        "this user may not write to it. Change the owner of the file and of its directory",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "database_unavailable",
        "it cannot be opened. Is it a directory, or may this user not read it?",
    ),
    sqlite3.SQLITE_FULL: ("disk_full", "its disk is full. Make room"),
    sqlite3.SQLITE_NOTADB: (
        "database_unavailable",
        "it is no SQLite database. Correct DATABASE_URL, or restore a backup",
    ),
    sqlite3.SQLITE_CORRUPT: ("database_unavailable", "it is damaged. Restore a backup"),
}


def _of_sqlite(error: DBAPIError | OSError, url: URL) -> Unavailable:
    number = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    known = None if number is None else _SQLITE.get(number & 0xFF)
    if known is None and isinstance(error, OSError):
        known = ("database_unavailable", f"{error.strerror or type(error).__name__}")
    code, why = known or ("database_unavailable", f"SQLite says {number}")
    return Unavailable(f"The database cannot be used: {url.database}: {why}.", code=code)


@asynccontextmanager
async def locked(url: URL) -> AsyncIterator[None]:
    """Keep every other program of ours from changing this schema meanwhile."""
    if url.get_backend_name() == "sqlite":
        with _file_lock(f"{url.database}.migrate.lock"):
            yield
        return
    # Held by a transaction on a connection of its own: it ends with this process, however that
    # ends, and a pooler leaves it where it is.
    try:
        async with engine(url).begin() as holder:
            await holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            await holder.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
            yield
    except (DBAPIError, OSError, TimeoutError) as error:
        raise explain(error, url) from error


@contextmanager
def _file_lock(path: str) -> Iterator[None]:
    with Path(path).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
