"""The baseline of the book: INSERTs of the same rows in the same batches, and nothing else."""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import msgspec

from stationmaster.events import NewEvent

_COLUMNS = (
    "stream_id varchar(64) NOT NULL, seq bigint NOT NULL, at bigint NOT NULL, type text NOT NULL,"
    " version integer NOT NULL, data text NOT NULL, PRIMARY KEY (stream_id, seq)"
)
_CREATE = f"CREATE TABLE bare_events ({_COLUMNS})"
_CLEAR = "DELETE FROM bare_events"

Row = tuple[Any, ...]


class BareInserts(Protocol):
    """A database without a book."""

    async def open(self, writers: int) -> None:
        """Connect `writers` times and make the table."""
        ...

    async def rate(self, new: Sequence[NewEvent], writers: int, seconds: float) -> float:
        """Rows a second by so many writers, each committing `new` again and again."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


def _rows(stream: str, first: int, new: Sequence[NewEvent]) -> list[Row]:
    at = time.time_ns() // 1_000_000
    return [
        (stream, first + i, at, one.type, one.version, msgspec.json.encode(one.data).decode())
        for i, one in enumerate(new)
    ]


class SqliteInserts:
    """One connection in a thread: more of them would only wait for each other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    async def open(self, writers: int) -> None:
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=10
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(_CREATE)

    async def rate(self, new: Sequence[NewEvent], writers: int, seconds: float) -> float:
        return await asyncio.to_thread(self._rate, new, seconds)

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _rate(self, new: Sequence[NewEvent], seconds: float) -> float:
        connection = self._connection
        assert connection is not None
        connection.execute(_CLEAR)
        statement = "INSERT INTO bare_events VALUES (?, ?, ?, ?, ?, ?)"
        began = time.perf_counter()
        count = 0
        while time.perf_counter() - began < seconds:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, _rows("bare", count, new))
            connection.execute("COMMIT")
            count += len(new)
        return count / (time.perf_counter() - began)


class PostgresInserts:
    """A connection of asyncpg for each writer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connections: list[asyncpg.Connection] = []

    async def open(self, writers: int) -> None:
        for _ in range(writers):
            self._connections.append(await asyncpg.connect(self._url))
        await self._connections[0].execute(_CREATE)

    async def rate(self, new: Sequence[NewEvent], writers: int, seconds: float) -> float:
        await self._connections[0].execute("TRUNCATE bare_events")
        began = time.perf_counter()
        counts = await asyncio.gather(
            *(
                self._write(connection, f"bare-{index}", new, began + seconds)
                for index, connection in enumerate(self._connections[:writers])
            )
        )
        return sum(counts) / (time.perf_counter() - began)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()

    async def _write(
        self, connection: asyncpg.Connection, stream: str, new: Sequence[NewEvent], until: float
    ) -> int:
        statement = "INSERT INTO bare_events VALUES ($1, $2, $3, $4, $5, $6)"
        for batch in itertools.count():
            if time.perf_counter() >= until:
                return batch * len(new)
            # executemany is a transaction of its own: all rows or none.
            await connection.executemany(statement, _rows(stream, batch * len(new), new))
        raise AssertionError("unreachable")
