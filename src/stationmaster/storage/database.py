"""The two calls that everything else is made of: `read` and `write`."""

import abc
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, CursorResult, Executable, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from stationmaster.kernel.errors import StationmasterError, Unavailable
from stationmaster.storage.prepared import Prepared, Row

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Transaction:
    """What a verb works with: statements now, callbacks after the commit.

    `on_commit` callbacks run on the event loop, in the order of the commits, before the verb's
    caller is answered; they are dropped if the verb or the commit fails. They must not block.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.callbacks: list[Callable[[], None]] = []

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`: for a statement that only one of them has, to spare trips."""
        return self._connection.dialect.name

    def execute(
        self, statement: Executable, parameters: Sequence[dict[str, Any]] | dict[str, Any] = ()
    ) -> CursorResult[Any]:
        """Run one statement."""
        if parameters:
            return self._connection.execute(statement, parameters)
        return self._connection.execute(statement)

    def run(self, statement: Prepared, parameters: Mapping[str, Any]) -> list[Row]:
        """Run a prepared statement and return its rows, if it has any, as plain tuples."""
        result = self._connection.execute(statement.statement, parameters)
        return [tuple(row) for row in result] if result.returns_rows else []

    def run_many(self, statement: Prepared, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Run a prepared statement once for each set of parameters. It returns no rows."""
        self._connection.execute(statement.statement, parameters)

    def insert(self, statement: Prepared, rows: Sequence[Sequence[Any]]) -> None:
        """Run a prepared INSERT of whole rows: each of all the table's columns, in their order."""
        names = statement.columns
        self.run_many(statement, [dict(zip(names, row, strict=True)) for row in rows])

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the transaction is durable."""
        self.callbacks.append(callback)


class Database(abc.ABC):
    """A database that is open."""

    dialect: str

    @abc.abstractmethod
    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run `query` in a snapshot that sees one point in time. Raises `Unavailable`."""

    async def browse(self, query: Callable[[Transaction], T]) -> T:
        """As `read`, of a state that may be a stated time old: for lists and reports.

        Where nothing older is kept it is `read`. Never decide by what it says.
        """
        return await self.read(query)

    @abc.abstractmethod
    async def write(self, verb: Callable[[Transaction], T]) -> T:
        """Run `verb` as one transaction and return after it is durable.

        An exception from `verb` undoes what it did and passes on. A verb may run more than once
        (after a deadlock, for instance), so it must have no effect but on the database. If the
        caller is cancelled the verb still completes. Raises `Unavailable` where the database is
        away, locked or full; then nothing has changed, except that a connection lost during the
        commit itself leaves the outcome unknown (`code` is `commit_unknown`).
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish queued writes and close. Idempotent."""

    async def check(self) -> None:
        """Raise `Unavailable` where the database does not answer."""
        await self.read(lambda tx: tx.execute(_PING).scalar())


_PING = text("SELECT 1")

_COMPANION: ContextVar[Callable[[Transaction], None] | None] = ContextVar("companion", default=None)


@contextmanager
def accompanied(companion: Callable[[Transaction], None]) -> Iterator[None]:
    """Let `companion` run at the end of every transaction that is written in this block.

    What it writes is committed with the transaction, or not at all. Tasks that begin in the block
    take it with them, and may outlive it: whoever sets it must know when it is over.
    """
    token = _COMPANION.set(companion)
    try:
        yield
    finally:
        _COMPANION.reset(token)


def with_companion(verb: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """The verb, and what accompanies it here. For implementations of `write`."""
    companion = _COMPANION.get()
    if companion is None:
        return verb

    def both(tx: Transaction) -> T:
        result = verb(tx)
        companion(tx)
        return result

    return both


# Told by the driver's code, never by its words: they may quote what a caller sent.
_SQLITE_CODES = {
    sqlite3.SQLITE_BUSY: "database_busy",
    sqlite3.SQLITE_LOCKED: "database_busy",
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_READONLY: "database_read_only",
}
_POSTGRES_CODES = {
    "55P03": "database_busy",  # lock_not_available
    "53100": "disk_full",
    "25006": "database_read_only",  # read_only_sql_transaction
}
_MESSAGES = {
    "database_busy": "The database is locked by another process.",
    "disk_full": "The disk that holds the database is full.",
    "database_read_only": "The database is read-only.",
    "database_unavailable": "The database does not answer.",
}
NOT_STORABLE = "22021"  # a NUL within a text, whichever field of a request it stood in
_AWAY = frozenset({"08", "53", "57"})  # classes: connection, resources, operator intervention


def translate(error: BaseException) -> BaseException:
    """Turn a driver's complaint about the database's state into `Unavailable`; pass on the rest."""
    if isinstance(error, StationmasterError):
        return error
    if isinstance(error, DBAPIError):
        code = _state(error)
    elif isinstance(error, OSError | TimeoutError | PoolTimeout):
        code = "database_unavailable"
    else:
        return error
    return error if code is None else Unavailable(_MESSAGES[code], code=code)


def _state(error: DBAPIError) -> str | None:
    number = getattr(error.orig, "sqlite_errorcode", None)
    if number is not None and (number & 0xFF) in _SQLITE_CODES:  # the rest tells it in detail
        return _SQLITE_CODES[number & 0xFF]
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate in _POSTGRES_CODES:
        return _POSTGRES_CODES[sqlstate]
    if number == sqlite3.SQLITE_ERROR:  # the statement itself is wrong: a fault of ours
        return None
    away = isinstance(error, OperationalError) or error.connection_invalidated
    return "database_unavailable" if away or (sqlstate or "")[:2] in _AWAY else None


def announce(callbacks: Sequence[Callable[[], None]]) -> None:
    """Run what waited for the commit. What one raises must keep nobody from being answered."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            log.exception("What was to follow a commit failed.")
