"""PostgreSQL: a transaction for each verb, on pooled asyncpg connections."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from stationmaster.kernel.errors import Invalid, Unavailable
from stationmaster.storage.database import (
    Database,
    Transaction,
    announce,
    translate,
    with_companion,
)

T = TypeVar("T")

ATTEMPTS = 5  # after a deadlock, a serialization failure or a lost connection
NOT_STORABLE = "22021"  # a NUL within a text, whichever field of a request it stood in
RETRYABLE = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
CONNECT_TIMEOUT_S = 5
COMMAND_TIMEOUT_S = 30
RECYCLE_S = 3600


class PostgresDatabase(Database):
    """A PostgreSQL server."""

    dialect = "postgresql"

    def __init__(self, url: URL, *, pool_size: int = 20, max_overflow: int = 30) -> None:
        """`url` has the driver name `postgresql+asyncpg`."""
        self._engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_recycle=RECYCLE_S,
            pool_timeout=CONNECT_TIMEOUT_S,
            hide_parameters=True,  # an error's text may end up in a log
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": COMMAND_TIMEOUT_S},
        )
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
        await self._engine.dispose()

    async def _shielded(self, work: Callable[[Transaction], T], isolation: str) -> T:
        # A caller that goes away must not cut a transaction: its connection would be lost.
        if self._closed:
            raise Unavailable("The database is closed.", code="database_unavailable")
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
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level=isolation)
            await connection.begin()

            def run(inner: Connection) -> tuple[T, list[Callable[[], None]]]:
                transaction = Transaction(inner)
                return work(transaction), transaction.callbacks

            outcome = await connection.run_sync(run)
            try:
                await connection.commit()
            except (DBAPIError, OSError) as error:
                if getattr(getattr(error, "orig", None), "sqlstate", None) in RETRYABLE:
                    raise
                raise Unavailable(
                    "The connection was lost during the commit.", code="commit_unknown"
                ) from error
            return outcome


def _repeatable(error: DBAPIError) -> bool:
    """Whether nothing has happened and it may go better now.

    A pooled connection may have died while it was idle. That shows at its first use, which costs
    less than asking each time whether it still lives: nothing was committed then.
    """
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in RETRYABLE


def _retrieve(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # a cancelled caller never asks; asyncio would log it as lost
