"""A look at a PostgreSQL server before anything is built on it, and at its clock."""

from dataclasses import dataclass

from sqlalchemy import text

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.address import arguments, parse, place
from stationmaster.storage.complaint import explain
from stationmaster.storage.database import Database

OLDEST = 13  # what the guides name; older ones get no security fixes
ANSWER_S = 10.0

_LOOK = """
    SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
           current_setting('server_encoding') AS encoding,
           pg_backend_pid() AS pid
"""

_TIME = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    `version` is the major one. `pooled`: PgBouncer or its like is between, and a connection is the
    same one for a transaction only.
    """

    version: int
    pooled: bool


async def survey(url: str) -> Survey | None:
    """Look at the server; None for SQLite, which has none.

    Raises `Unavailable` where it cannot be reached, is too old, or takes no writes, with what to
    do about it, and `Invalid` for an address that is none.
    """
    address = parse(url)
    if address.get_backend_name() == "sqlite":
        return None
    import asyncpg  # heavy, and of no use to SQLite

    try:
        connection = await asyncpg.connect(
            **arguments(address),
            timeout=ANSWER_S,
            command_timeout=ANSWER_S,
            statement_cache_size=0,
        )
        try:
            async with connection.transaction():  # one connection of a pooler's for all of it
                row = await connection.fetchrow(_LOOK)
            version = connection.get_server_version().major
            pid = connection.get_server_pid()
        finally:
            await connection.close(timeout=ANSWER_S)
    except Exception as error:
        raise explain(error, address) from error
    where = place(address)
    if version < OLDEST:
        raise Unavailable(
            f"The database cannot be used: PostgreSQL at {where} is version {version}, and"
            f" {OLDEST} is the oldest that will do. Upgrade it.",
            code="database_too_old",
        )
    if row["read_only"]:
        raise Unavailable(
            f"The database cannot be used: PostgreSQL at {where} takes no writes: it is a standby,"
            " or set to read-only. Name the primary in DATABASE_URL.",
            code="database_read_only",
        )
    if row["encoding"] != "UTF8":
        raise Unavailable(
            f"The database cannot be used: its encoding is {row['encoding']}. Make one with"
            " --encoding=UTF8.",
            code="database_encoding",
        )
    # A pooler hands out a number of its own for the one of the server's process.
    return Survey(version, pooled=row["pid"] != pid)


async def server_time(database: Database) -> Millis:
    """The time by the clock of the machine that PostgreSQL is on. Raises `Unavailable`."""
    return await database.read(lambda tx: int(tx.execute(_TIME).scalar_one()))
