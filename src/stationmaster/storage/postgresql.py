"""PostgreSQL: a transaction for each verb, on pooled asyncpg connections.

PgBouncer may be between, in transaction mode too: nothing is kept on a connection beyond a
transaction but what all of ours have alike, and statements are then prepared for one use.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, Unpack

import asyncpg
from sqlalchemy import URL, Connection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from stationmaster.kernel.errors import Invalid, Unavailable
from stationmaster.storage.address import arguments, for_driver
from stationmaster.storage.database import (
    NOT_STORABLE,
    Database,
    Transaction,
    announce,
    translate,
    with_companion,
)
from stationmaster.storage.options import ServerOptions
from stationmaster.storage.pulse import Pulse

T = TypeVar("T")

ATTEMPTS = 5  # after a deadlock, a serialization failure or a lost connection
RETRYABLE = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30.0
RECYCLE_S = 3600.0
FROZEN_S = 5  # between two statements of a transaction, which await nothing but the database
AWAY = "The database does not answer."
_UNPREPARED = {
    # A pooler gives each transaction another server process, which knows no statement of before.
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": str,  # the unnamed one, which nobody else can have taken
}
_UNFROZEN = {
    # A process that is stopped within a transaction keeps its locks, and nobody could take over
    # what it was doing. A pooler refuses to be told: there the database itself must be.
    "server_settings": {"idle_in_transaction_session_timeout": f"{FROZEN_S}s"}
}


class _Dialect(PGDialect_asyncpg):
    """SQLAlchemy's, without the questions for each new connection about JSON, which is text here.

    Through a pooler they would fail now and then: they are asked outside of a transaction.
    """

    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        """With what asyncpg takes in a URL alone."""
        [positional, found] = super().create_connect_args(url)  # type: ignore[no-untyped-call]
        return positional, for_driver(found)

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Nothing."""

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Nothing."""


def _ours(url: URL) -> URL:
    registry.register("postgresql.stationmaster", __name__, "_Dialect")  # again is nothing new
    return url.set(drivername="postgresql+stationmaster")


def plain_engine(url: URL, *, timeout: float) -> AsyncEngine:
    """An engine for work on the schema: a connection at a time, nothing kept on it."""
    return create_async_engine(
        _ours(url),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": timeout, **_UNPREPARED},
    )


class PostgresDatabase(Database):
    """A PostgreSQL server."""

    dialect = "postgresql"

    def __init__(self, url: URL, **options: Unpack[ServerOptions]) -> None:
        """`url` is as `address.parse` returns it. Nothing is connected yet."""
        timeout = options.get("statement_timeout", STATEMENT_TIMEOUT_S)
        self._url = url
        self._engine = create_async_engine(
            _ours(url),
            pool_size=options.get("pool_size", 20),
            max_overflow=options.get("max_overflow", 30),
            pool_recycle=round(options.get("recycle", RECYCLE_S)),
            pool_pre_ping=options.get("pre_ping", False),
            pool_timeout=CONNECT_TIMEOUT_S,
            hide_parameters=True,  # an error's text may end up in a log
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": timeout,
                **(_UNPREPARED if options.get("pooled", False) else _UNFROZEN),
            },
        )
        self._pulse = Pulse(self._ask)
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        return await self._shielded(query, "REPEATABLE READ")

    async def write(self, verb: Callable[[Transaction], T]) -> T:
        """See `Database.write`."""
        return await self._shielded(with_companion(verb), "READ COMMITTED")

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closed:
            return
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)
        await self._pulse.aclose()
        await self._engine.dispose()

    async def _shielded(self, work: Callable[[Transaction], T], isolation: str) -> T:
        # A caller that goes away must not cut a transaction: its connection would be lost.
        if self._closed:
            raise Unavailable("The database is closed.", code="database_unavailable")
        if not self._pulse.alive:
            raise Unavailable(AWAY, code="database_unavailable")
        task = asyncio.ensure_future(self._transact(work, isolation))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _transact(self, work: Callable[[Transaction], T], isolation: str) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                result, callbacks = await self._once(work, isolation)
            except DBAPIError as error:
                if _repeatable(error) and attempt < ATTEMPTS:
                    await asyncio.sleep(0.01 * attempt)
                    continue
                if getattr(error.orig, "sqlstate", None) == NOT_STORABLE:
                    raise Invalid("A text holds a character that cannot be kept.") from error
                raise translate(error) from error
            except Exception as error:
                raise translate(error) from error
            announce(callbacks)
            return result
        raise AssertionError  # the loop returns or raises

    async def _once(
        self, work: Callable[[Transaction], T], isolation: str
    ) -> tuple[T, list[Callable[[], None]]]:
        question, answered = object(), True
        self._pulse.asked(question)
        try:
            return await self._attempt(work, isolation)
        except (OSError, TimeoutError):
            answered = False
            raise
        finally:
            self._pulse.over(question, answered=answered)

    async def _attempt(
        self, work: Callable[[Transaction], T], isolation: str
    ) -> tuple[T, list[Callable[[], None]]]:
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level=isolation)
            await connection.begin()

            def run(inner: Connection) -> tuple[T, list[Callable[[], None]]]:
                transaction = Transaction(inner)
                return work(transaction), transaction.callbacks

            try:
                outcome = await connection.run_sync(run)
            except TimeoutError:
                # It may never answer again: undoing what was done would wait as long once more.
                await connection.invalidate()
                raise
            try:
                await connection.commit()
            except (DBAPIError, OSError) as error:
                if getattr(getattr(error, "orig", None), "sqlstate", None) in RETRYABLE:
                    raise
                if isinstance(error, TimeoutError):
                    await connection.invalidate()
                raise Unavailable(
                    "The connection was lost during the commit.", code="commit_unknown"
                ) from error
            return outcome

    async def _ask(self, timeout: float) -> None:
        async with asyncio.timeout(timeout):
            connection = await asyncpg.connect(**arguments(self._url), statement_cache_size=0)
            try:
                await connection.execute("SELECT 1")
            finally:
                connection.terminate()


def _repeatable(error: DBAPIError) -> bool:
    """Whether nothing has happened and it may go better now.

    A pooled connection may have died while it was idle. That shows at its first use, which costs
    less than asking each time whether it still lives: nothing was committed then.
    """
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in RETRYABLE


def _retrieve(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # a cancelled caller never asks; asyncio would log it as lost
