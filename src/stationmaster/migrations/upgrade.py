"""Bring a database to the present schema, under a lock, or refuse.

Alembic is heavy to import, so a database that is up to date never loads it.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import structlog
from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from stationmaster.kernel.errors import StationmasterError, Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEAD = "0012"
LOCK_ID = 7_302_517_311  # any number that no other program takes as its advisory lock
CONNECT_TIMEOUT_S = 10


class SchemaError(StationmasterError):
    """The database's schema does not fit this version."""

    code = "schema_error"


async def current(url: str) -> str | None:
    """The schema revision of the database; None where it is empty. Raises `Unavailable`."""
    return await _run(make_url(url), _revision)


async def migrate(url: str) -> bool:
    """Bring the database to `HEAD`; False where it was there already.

    Safe for several servers at once: one migrates, the others wait. It blocks the event loop on
    SQLite: call it before anything is served. Raises `SchemaError` for a schema that is newer than
    this version or another program's, `Unavailable` where the database cannot be reached.
    """
    parsed = make_url(url)
    if await _run(parsed, _revision) == HEAD:
        return False
    sqlite = parsed.get_backend_name() == "sqlite"
    with _file_lock(f"{parsed.database}.migrate.lock") if sqlite else nullcontext():
        return await _run(parsed, _bring_up)


def _bring_up(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        # Held by the connection, and so let go of if this process dies.
        connection.execute(text("SELECT pg_advisory_lock(:id)"), {"id": LOCK_ID})
        connection.commit()
    revision = _revision(connection)
    if revision == HEAD:
        return False
    _upgrade(connection, revision)
    return True


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
    elif inspect(connection).get_table_names():
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
    try:
        if url.get_backend_name() == "sqlite":
            return _run_sqlite(url, work)
        # Brings SQLAlchemy's mapper, which nothing here needs.
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            poolclass=NullPool,
            connect_args={"timeout": CONNECT_TIMEOUT_S},
        )
        async with engine.connect() as connection:
            return await connection.run_sync(work)
    except (DBAPIError, OSError, TimeoutError) as error:
        lines = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        raise Unavailable(
            f"The database cannot be used: {lines[0]}", code="database_unavailable"
        ) from error


def _run_sqlite(url: URL, work: Callable[[Connection], T]) -> T:
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, poolclass=NullPool, connect_args={"isolation_level": None})

    # Python's driver would commit each statement that changes the schema by itself.
    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.connect() as connection:
        return work(connection)


@contextmanager
def _file_lock(path: str) -> Iterator[None]:
    with Path(path).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
