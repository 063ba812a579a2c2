"""A look at a PostgreSQL server before anything is built on it."""

from dataclasses import dataclass

from stationmaster.kernel.clock import Clock, Millis, SystemClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.address import arguments, parse, place
from stationmaster.storage.complaint import explain

OLDEST = 13  # what the guides name; older ones get no security fixes
ANSWER_S = 10.0

_LOOK = """
    SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,
           current_setting('server_encoding') AS encoding,
           pg_backend_pid() AS pid,
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock
"""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    `version` is the major one. `pooled`: PgBouncer or its like is between, and a connection is the
    same one for a transaction only. `skew` is how many milliseconds this machine's clock is ahead
    of the database's; what the question took is counted for nothing.
    """

    version: int
    pooled: bool
    skew: int


async def survey(url: str, clock: Clock | None = None) -> Survey | None:
    """Look at the server; None for SQLite, which has none.

    Raises `Unavailable` where it cannot be reached, is too old, or takes no writes, with what to
    do about it, and `Invalid` for an address that is none.
    """
    address = parse(url)
    if address.get_backend_name() == "sqlite":
        return None
    import asyncpg  # heavy, and of no use to SQLite

    clock = clock or SystemClock()

    try:
        connection = await asyncpg.connect(
            **arguments(address),
            timeout=ANSWER_S,
            command_timeout=ANSWER_S,
            statement_cache_size=0,
        )
        try:
            async with connection.transaction():  # one connection of a pooler's for all of it
                began = clock.now()
                row = await connection.fetchrow(_LOOK)
                ended = clock.now()
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
    return Survey(version, pooled=row["pid"] != pid, skew=_skew(row["clock"], began, ended))


def _skew(theirs: Millis, began: Millis, ended: Millis) -> int:
    return began - theirs if theirs < began else min(ended - theirs, 0)
