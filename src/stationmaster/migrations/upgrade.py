"""Bring a database to the present schema, under a lock, or refuse.

Alembic is heavy to import, so a database that is up to date never loads it.
"""

import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog
from sqlalchemy import URL, Connection, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from stationmaster.kernel.errors import StationmasterError, Unavailable
from stationmaster.storage.address import parse
from stationmaster.storage.complaint import explain

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEAD = "0013"
LOCK_ID = 7_302_517_311  # any number that no other program takes as its advisory lock
CONNECT_TIMEOUT_S = 10


class SchemaError(StationmasterError):
    """The database's schema does not fit this version."""

    code = "schema_error"


async def current(url: str) -> str | None:
    """The schema revision of the database; None where it is empty.

    Raises `Unavailable`, and `Invalid` for an address that is none.
    """
    return await _run(parse(url), _revision)


async def migrate(url: str) -> bool:
    """Bring the database to `HEAD`; False where it was there already.

    Safe for several servers at once: one migrates, the others wait. It blocks the event loop on
    SQLite: call it before anything is served. Raises `SchemaError` for a schema that is newer than
    this version, half applied or another program's, `Unavailable` where the database cannot be
    reached, and `Invalid` for an address that is none.
    """
    parsed = parse(url)
    if await _run(parsed, _present):
        return False
    async with _lock(parsed):
        return await _run(parsed, _bring_up)


def _bring_up(connection: Connection) -> bool:
    if _present(connection):
        return False
    _upgrade(connection, _revision(connection))
    return _present(connection)


def _present(connection: Connection) -> bool:
    """Whether the schema is this version's. Raises `SchemaError` where it only says so."""
    if _revision(connection) != HEAD:
        return False
    from stationmaster.migrations.tables import metadata

    there = {tuple(row) for row in connection.execute(text(_COLUMNS[connection.dialect.name]))}
    connection.rollback()
    for table in metadata.sorted_tables:
        for column in table.columns:
            if (table.name, column.name) not in there:
                raise SchemaError(
                    f"The database says that it has schema {HEAD}, but {table.name}.{column.name}"
                    " is not there: it was changed by hand, or restored in part. Restore a whole"
                    " backup.",
                    code="schema_incomplete",
                )
    return True


_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    " WHERE m.type = 'table'",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = current_schema()",
}


def _upgrade(connection: Connection, revision: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    if revision is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(revision)
        except CommandError:
            raise SchemaError(
                f"The database has schema {revision}, which is newer than this version of"
                f" stationmaster knows ({HEAD}). Start the version that made it, or restore a"
                " backup.",
                code="schema_too_new",
            ) from None
    elif tables := set(inspect(connection).get_table_names()) - {"alembic_version"}:
        if "streams" in tables:  # ours since the first schema
            raise SchemaError(
                "The database has stationmaster's tables, but does not say of which schema: it was"
                " changed by hand, or restored in part. Restore a whole backup.",
                code="schema_incomplete",
            )
        raise SchemaError(
            "The database has tables, but none of them says that they are stationmaster's."
            " Give it a database of its own.",
            code="schema_foreign",
        )
    log.info("The database is being migrated.", from_revision=revision, to_revision=HEAD)
    command.upgrade(config, "head")
    connection.commit()


def _revision(connection: Connection) -> str | None:
    found = None
    if inspect(connection).has_table("alembic_version"):
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    connection.rollback()
    return None if found is None else str(found)


async def _run(url: URL, work: Callable[[Connection], T]) -> T:
    if url.get_backend_name() == "sqlite":
        try:
            return _run_sqlite(url, work)
        except (DBAPIError, OSError) as error:
            raise _of_sqlite(error, url) from error
    try:
        async with _engine(url).connect() as connection:
            return await connection.run_sync(work)
    except (DBAPIError, OSError, TimeoutError) as error:
        raise explain(error, url) from error


def _engine(url: URL) -> "AsyncEngine":
    from stationmaster.storage.postgresql import plain_engine

    return plain_engine(url, timeout=CONNECT_TIMEOUT_S)


def _run_sqlite(url: URL, work: Callable[[Connection], T]) -> T:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"isolation_level": None})

    # Python's driver would commit each statement that changes the schema by itself.
    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as connection:
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
async def _lock(url: URL) -> AsyncIterator[None]:
    """Keep every other program of ours from changing this schema meanwhile."""
    if url.get_backend_name() == "sqlite":
        with _file_lock(f"{url.database}.migrate.lock"):
            yield
        return
    # Held by a transaction on a connection of its own: it ends with this process, however that
    # ends, and a pooler leaves it where it is.
    try:
        async with _engine(url).begin() as holder:
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
