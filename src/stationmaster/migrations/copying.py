"""Move all that is in a SQLite database to an empty PostgreSQL one: counted, checked, resumable.

The source is locked against writers meanwhile. Each batch of rows is committed together with the
note of how far it got, so that a copy that is killed goes on where it was. At the end every row is
read back from both sides and compared. While the note is there, no server starts on the target.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Boolean, Connection, Table, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid
from stationmaster.migrations.connection import engine, locked, run
from stationmaster.migrations.tables import metadata
from stationmaster.migrations.upgrade import HEAD, UNFINISHED, migrate
from stationmaster.storage.address import parse
from stationmaster.storage.complaint import explain
from stationmaster.storage.database import NOT_STORABLE

ROWS = 2000  # of one batch, at most
BYTES = 4 * 1024**2  # of one batch; one row may be larger by itself
_SEEDED = {"admission": 1}  # rows that the schema itself brings

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is: `rows` of `total`, in the table that is being copied or compared."""

    step: str
    table: str
    rows: int
    total: int


@dataclass(frozen=True, slots=True)
class Copied:
    """One table as it is on both sides. `checksum` does not depend on the order of the rows."""

    table: str
    rows: int
    checksum: str


async def copy_database(
    source: str, target: str, clock: Clock, *, tell: Callable[[Progress], None]
) -> list[Copied]:
    """Copy all, or go on where an earlier try was cut off, and compare.

    Raises `Invalid` for other kinds of databases and for text that PostgreSQL cannot keep,
    `Conflict` where the source is in use or of another schema, where the target is not empty, or
    where the two differ in the end, and `Unavailable`.
    """
    path, address = _addresses(source, target)
    with _source(path, clock) as rows:
        origin = str(path.resolve())
        if not await run(address, lambda connection: _begun(connection, origin)):
            await migrate(target)
        async with locked(address):
            await run(address, lambda connection: _note(connection, origin))
            return await _Copy(rows, address, tell).run()


def _addresses(source: str, target: str) -> tuple[Path, URL]:
    from_, to = parse(source), parse(target)
    if from_.get_backend_name() != "sqlite" or to.get_backend_name() != "postgresql":
        raise Invalid("A SQLite database (sqlite:///path) is copied to postgresql://…, no other.")
    path = Path(from_.database or "")
    if not path.is_file():
        raise Invalid(f"There is no file {path}.")
    return path, to


class _Source:
    """The rows of the SQLite file, which nobody writes to meanwhile."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def count(self, table: Table) -> int:
        [number] = self._connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone()
        return int(number)

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[Row]:
        """In the order of the primary key, those behind `after`; one is in memory at a time."""
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        key = ", ".join(f'"{column.name}"' for column in table.primary_key)
        behind = f"WHERE ({key}) > ({', '.join('?' * len(after))})" if after else ""
        query = f'SELECT {columns} FROM "{table.name}" {behind} ORDER BY {key}'
        flags = [isinstance(column.type, Boolean) for column in table.columns]
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(query, tuple(after or ()))
            for row in cursor:
                yield tuple(
                    bool(value) if flag and value is not None else value
                    for flag, value in zip(flags, row, strict=True)
                )


@contextmanager
def _source(path: Path, clock: Clock) -> Iterator[_Source]:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    with closing(connection):
        try:
            connection.execute("BEGIN IMMEDIATE")
            found = _revision(connection)
        except sqlite3.OperationalError:
            raise Conflict(
                "The source is being written to. Stop the server first.", code="database_busy"
            ) from None
        except sqlite3.DatabaseError:
            raise Invalid(f"{path} is no SQLite database.") from None
        if found != HEAD:
            raise Conflict(
                f"The source has schema {found or 'none'}, and this version copies {HEAD}. Run"
                " `stationmaster migrate` on it first.",
                code="schema_error",
            )
        living = "SELECT count(*) FROM instances WHERE lease_until >= ?"
        if connection.execute(living, (clock.now(),)).fetchone()[0]:
            raise Conflict(
                "A server is running on the source, or was killed within its lease (LEASE_TIME)."
                " Stop it, and wait as long.",
                code="database_busy",
            )
        yield _Source(connection)


def _revision(connection: sqlite3.Connection) -> str | None:
    there = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
    if not connection.execute(there).fetchone()[0]:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _begun(connection: Connection, origin: str) -> bool:
    if not inspect(connection).has_table(UNFINISHED):
        return False
    begun = connection.execute(text(f"SELECT origin FROM {UNFINISHED} LIMIT 1")).scalar()
    if begun != origin:
        raise Conflict(f"A copy of {begun} into the target has been begun.", code="not_empty")
    return True


def _note(connection: Connection, origin: str) -> None:
    """Make sure that the target is empty and note that a copy has begun, unless it has."""
    if _begun(connection, origin):
        return
    # Nothing may come in between: a server that is just starting, for instance.
    for table in metadata.sorted_tables:
        connection.execute(text(f'LOCK TABLE "{table.name}" IN SHARE ROW EXCLUSIVE MODE'))
        rows = connection.execute(text(f'SELECT count(*) FROM "{table.name}"')).scalar_one()
        if rows > _SEEDED.get(table.name, 0):
            raise Conflict(
                f"The target is not empty: there are rows in {table.name}. Give it a database of"
                " its own.",
                code="not_empty",
            )
    for name in _SEEDED:
        connection.execute(text(f'DELETE FROM "{name}"'))
    connection.execute(
        text(
            f"CREATE TABLE {UNFINISHED} (name text PRIMARY KEY, origin text NOT NULL,"
            " rows bigint NOT NULL, last_key text)"
        )
    )
    note = text(f"INSERT INTO {UNFINISHED} (name, origin, rows) VALUES (:name, :origin, 0)")
    for table in metadata.sorted_tables:
        connection.execute(note, {"name": table.name, "origin": origin})
    connection.commit()


class _Copy:
    def __init__(self, source: _Source, target: URL, tell: Callable[[Progress], None]) -> None:
        self._source = source
        self._target = target
        self._tell = tell

    async def run(self) -> list[Copied]:
        """Copy what is not there yet, compare all, and strike the note."""
        try:
            async with engine(self._target).connect() as connection:
                for table in metadata.sorted_tables:
                    await self._fill(connection, table)
                found = [
                    await self._compared(connection, table) for table in metadata.sorted_tables
                ]
                await connection.execute(text(f"DROP TABLE {UNFINISHED}"))
                await connection.commit()
        except Exception as error:
            # Some come from SQLAlchemy, and some from the driver itself.
            if isinstance(error, DBAPIError | OSError) or hasattr(error, "sqlstate"):
                raise explain(error, self._target) from error
            raise
        return found

    async def _fill(self, connection: AsyncConnection, table: Table) -> None:
        note = text(f"SELECT rows, last_key FROM {UNFINISHED} WHERE name = :name")
        [done, last_key] = (await connection.execute(note, {"name": table.name})).one()
        await connection.rollback()
        total = self._source.count(table)
        after = None if last_key is None else json.loads(last_key)
        for batch in _batches(self._source.rows(table, after)):
            done += len(batch)
            await self._put(connection, table, batch, done)
            self._tell(Progress("copying", table.name, done, total))

    async def _put(
        self, connection: AsyncConnection, table: Table, batch: list[Row], done: int
    ) -> None:
        names = [column.name for column in table.columns]
        key = [batch[-1][names.index(column.name)] for column in table.primary_key]
        note = text(f"UPDATE {UNFINISHED} SET rows = :rows, last_key = :key WHERE name = :name")
        values = {"rows": done, "key": json.dumps(key), "name": table.name}
        await connection.execute(note, values)  # begins the transaction that the rows are in too
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            await driver.copy_records_to_table(table.name, records=batch, columns=names)
        except Exception as error:
            if getattr(error, "sqlstate", None) == NOT_STORABLE:
                raise Invalid(
                    f"A text in {table.name}, in one of the {len(batch)} rows up to"
                    f" {', '.join(map(str, key))}, holds a character that PostgreSQL cannot keep"
                    " (NUL). Mend it in the source.",
                ) from error
            raise
        await connection.commit()

    async def _compared(self, connection: AsyncConnection, table: Table) -> Copied:
        total = self._source.count(table)
        ours = _Sum()
        for row in self._source.rows(table):
            ours.add(row)
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        # Begins a transaction, which the driver's cursor needs.
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        driver: Any = (await connection.get_raw_connection()).driver_connection
        theirs = _Sum()
        async for record in driver.cursor(f'SELECT {columns} FROM "{table.name}"', prefetch=20):
            theirs.add(tuple(record))
            if theirs.rows % ROWS == 0:
                self._tell(Progress("comparing", table.name, theirs.rows, total))
        await connection.rollback()
        if (ours.rows, ours.hexdigest()) != (theirs.rows, theirs.hexdigest()):
            raise Conflict(
                f"The two differ in {table.name}: {ours.rows} rows in the source, {theirs.rows} in"
                " the target. The source was changed since the copy began: start again, with an"
                " empty target.",
                code="copy_differs",
            )
        self._tell(Progress("comparing", table.name, total, total))
        return Copied(table.name, ours.rows, ours.hexdigest())


class _Sum:
    """A checksum of rows that does not depend on their order, which the two sort differently."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Row) -> None:
        digest = hashlib.sha256(repr(row).encode("utf-8", "surrogatepass")).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % 2**256
        self.rows += 1

    def hexdigest(self) -> str:
        return f"{self._sum:064x}"


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(batch) == ROWS or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
