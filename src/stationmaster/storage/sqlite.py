"""SQLite: one writer thread that commits what has queued, and a few reader threads.

A commit costs a sync of the disk, whatever it holds. So the writer takes everything that has
queued meanwhile into one `BEGIN IMMEDIATE`, each verb behind the first in its own savepoint,
commits once, and only then answers. There is no timer: a single caller is not delayed.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.database import (
    Database,
    Transaction,
    announce,
    translate,
    with_companion,
)
from stationmaster.storage.prepared import Prepared, Row

T = TypeVar("T")

READER_THREADS = 4
ROWS_AT_ONCE = 16  # in one INSERT; each number is another statement, and the driver keeps 128
MAX_BATCH = 256  # verbs; bounds how long the first waits for the last
BUSY_TIMEOUT_MS = 10_000  # another process of this host may be writing


@dataclass(slots=True)
class _Write:
    verb: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)


class SqliteDatabase(Database):
    """A database in a file, written by one thread of this process."""

    dialect = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL",
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """`on_batch` is told the number of verbs in each commit, on the writer's thread."""
        self._writing = _engine(path, synchronous, 1)
        self._reading = _engine(path, synchronous, READER_THREADS)
        self._on_batch = on_batch
        self._coming: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
        self._queue: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="sqlite-reader")
        self._writer = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._closed = False
        self._connection: Connection | None = None  # the writer's own
        self._writer.start()

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        if self._closed:
            raise Unavailable("The database is closed.", code="database_unavailable")
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, partial(self._read, query)
        )

    def _read(self, query: Callable[[Transaction], T]) -> T:
        try:
            with self._reading.connect() as connection, connection.begin():
                return query(Transaction(connection))
        except Exception as error:
            raise translate(error) from error

    async def write(self, verb: Callable[[Transaction], T]) -> T:
        """See `Database.write`."""
        if self._closed:
            raise Unavailable("The database is closed.", code="database_unavailable")
        loop = asyncio.get_running_loop()
        write = _Write(with_companion(verb), loop, loop.create_future())
        # Waking the writer costs more than many a verb: once for all of one turn of the loop.
        if loop in self._coming:
            self._coming[loop].append(write)
        else:
            self._coming[loop] = [write]
            loop.call_soon(self._hand_over, loop)
        result: T = await write.future
        return result

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        writes = self._coming.pop(loop, None)
        if writes is not None:
            self._queue.put(writes)

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closed:
            return
        self._closed = True
        for loop in list(self._coming):
            self._hand_over(loop)
        self._queue.put(None)
        done: Future[None] = Future()

        def finish() -> None:
            self._writer.join()
            self._readers.shutdown()
            self._reading.dispose()
            self._writing.dispose()
            done.set_result(None)

        threading.Thread(target=finish, name="sqlite-close", daemon=True).start()
        await asyncio.wrap_future(done)

    # --- the writer's thread ------------------------------------------------------------------

    def _run(self) -> None:
        waiting: list[_Write] = []
        coming = True
        while coming or waiting:
            if coming:
                coming = self._receive(waiting)
            if waiting:
                self._commit(waiting[:MAX_BATCH])
                del waiting[:MAX_BATCH]
        self._disconnect()

    def _receive(self, waiting: list[_Write]) -> bool:
        """Add what has queued; where nothing waits, wait for it. False when no more will come."""
        while len(waiting) < MAX_BATCH:
            try:
                writes = self._queue.get(block=not waiting)
            except queue.Empty:
                break
            if writes is None:
                return False
            waiting += writes
        return True

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._writing.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is given up, in whatever state it is
                connection.close()

    def _commit(self, batch: list[_Write]) -> None:
        try:
            connection = self._connect()
            # SQLAlchemy's own way to begin and commit costs more than all that most verbs do.
            transaction = _Transaction(connection)
            transaction.command("BEGIN IMMEDIATE")
            for number, write in enumerate(batch):
                _apply(connection, write, first=number == 0, last=number == len(batch) - 1)
            transaction.command("COMMIT")
            if connection.in_transaction():  # a verb has used SQLAlchemy, which thinks it still is
                connection.commit()
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            self._disconnect()
            translated = translate(error)
            for write in batch:
                write.error = write.error or translated
        if self._on_batch is not None:
            self._on_batch(len(batch))
        loops: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
        for write in batch:
            loops.setdefault(write.loop, []).append(write)
        for loop, writes in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_answer, writes)


class _Transaction(Transaction):
    """Runs prepared statements on the driver itself."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._dialect = connection.dialect
        self.driver: Any = connection.connection.driver_connection

    def run(self, statement: Prepared, parameters: Mapping[str, Any]) -> list[Row]:
        """See `Transaction.run`."""
        compiled = statement.compiled(self._dialect)
        rows: list[Row] = self.command(compiled.sql, compiled.bind(parameters)).fetchall()
        return [compiled.read(row) for row in rows] if compiled.coming else rows

    def run_many(self, statement: Prepared, parameters: Sequence[Mapping[str, Any]]) -> None:
        """See `Transaction.run_many`."""
        compiled = statement.compiled(self._dialect)
        if compiled.row is not None:
            self.insert(
                statement, [[each[name] for name in compiled.parameters] for each in parameters]
            )
            return
        try:
            self.driver.executemany(compiled.sql, [compiled.bind(each) for each in parameters])
        except sqlite3.Error as error:
            raise self._wrapped(compiled.sql, error) from error

    def insert(self, statement: Prepared, rows: Sequence[Sequence[Any]]) -> None:
        """See `Transaction.insert`."""
        compiled = statement.compiled(self._dialect)
        assert compiled.row is not None
        # The driver gives up the interpreter for each statement, and then waits to get it back.
        for at in range(0, len(rows), ROWS_AT_ONCE):
            self.command(*compiled.of_many(rows[at : at + ROWS_AT_ONCE]))

    def command(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run SQL as it is. What fails, fails as with SQLAlchemy."""
        try:
            cursor: sqlite3.Cursor = self.driver.execute(sql, parameters)
        except sqlite3.Error as error:
            raise self._wrapped(sql, error) from error
        return cursor

    def _wrapped(self, sql: str, error: sqlite3.Error) -> BaseException:
        # Without the parameters: an error's text may end up in a log.
        return DBAPIError.instance(sql, None, error, sqlite3.Error, dialect=self._dialect)


def _apply(connection: Connection, write: _Write, *, first: bool, last: bool) -> None:
    transaction = _Transaction(connection)
    try:
        if not first:  # before it there is nothing that must stay when it fails
            transaction.command("SAVEPOINT verb")
        write.result = write.verb(transaction)
        if not first:  # not left to COMMIT: each page is checked against every open savepoint
            transaction.command("RELEASE verb")
    except Exception as error:
        # SQLite may give up the whole transaction, not just the verb.
        if (first and last) or not transaction.driver.in_transaction:
            raise
        if first:
            transaction.command("ROLLBACK")
            transaction.command("BEGIN IMMEDIATE")
        else:
            transaction.command("ROLLBACK TO verb")
            transaction.command("RELEASE verb")
        write.error = translate(error)
        return
    write.callbacks = transaction.callbacks


def _answer(writes: list[_Write]) -> None:
    for write in writes:
        if write.error is None:
            announce(write.callbacks)
        if write.future.done():  # the caller was cancelled
            continue
        if write.error is None:
            write.future.set_result(write.result)
        else:
            write.future.set_exception(write.error)


def _engine(path: Path, synchronous: str, size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # an error's text may end up in a log
        connect_args={"check_same_thread": False, "isolation_level": None, "timeout": 0},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {synchronous}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    # pysqlite would begin on its own, and too late for a reader; the writer has begun by then.
    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN")

    return engine
