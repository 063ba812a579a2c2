"""The one writer: what is committed together, and what a file can suffer."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from stationmaster.kernel.errors import Conflict, Unavailable
from stationmaster.storage import Transaction
from stationmaster.storage import sqlite as module
from stationmaster.storage.sqlite import SqliteDatabase
from tests.unit.storage.tables import add, ids, make_notes


class _Batches:
    """Counts commits, and holds the writer up so that verbs queue."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go_on = threading.Event()
        self._busy = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def block(self, _tx: Transaction) -> None:
        self._loop.call_soon_threadsafe(self._busy.set)
        assert self.go_on.wait(30)

    async def blocked(self) -> None:
        await self._busy.wait()


@pytest.fixture
async def batches() -> _Batches:
    return _Batches()


@pytest.fixture
async def sqlite(tmp_path: Path, batches: _Batches) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "test.db", on_batch=batches.sizes.append)
    await make_notes(database)
    batches.sizes.clear()
    yield database
    batches.go_on.set()
    await database.close()


async def _queue(
    sqlite: SqliteDatabase, batches: _Batches, *verbs: Callable[[Transaction], object]
) -> list[object]:
    """Run `verbs` in one batch; return their results and errors."""
    blocker = asyncio.create_task(sqlite.write(batches.block))
    await batches.blocked()
    tasks = [asyncio.create_task(sqlite.write(verb)) for verb in verbs]
    await asyncio.sleep(0)  # let each of them queue
    batches.go_on.set()
    await blocker
    return list(await asyncio.gather(*tasks, return_exceptions=True))


async def test_what_has_queued_is_committed_once(sqlite: SqliteDatabase, batches: _Batches) -> None:
    order: list[int] = []

    def verb(tx: Transaction, number: int) -> int:
        tx.on_commit(lambda: order.append(number))
        return add(tx, number)

    results = await _queue(sqlite, batches, *(partial(verb, number=n) for n in range(100)))
    assert results == list(range(100))
    assert batches.sizes == [1, 100]
    assert order == list(range(100))


async def test_a_failing_verb_of_a_batch_is_undone_alone(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    def fail(tx: Transaction) -> None:
        add(tx, 2)
        raise Conflict("no")

    results = await _queue(sqlite, batches, partial(add, note_id=1), fail, partial(add, note_id=3))
    assert batches.sizes == [1, 3]
    assert (results[0], results[2]) == (1, 3)
    assert isinstance(results[1], Conflict)
    assert await sqlite.read(ids) == [1, 3]


async def test_the_first_verb_of_a_batch_is_undone_alone_too(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    def fail(tx: Transaction) -> None:
        add(tx, 1)
        raise Conflict("no")

    results = await _queue(sqlite, batches, fail, fail, partial(add, note_id=3), fail)
    assert batches.sizes == [1, 4]
    assert [type(result) for result in results] == [Conflict, Conflict, int, Conflict]
    assert await sqlite.read(ids) == [3]


async def test_a_caller_cancelled_while_queued_is_still_served(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    blocker = asyncio.create_task(sqlite.write(batches.block))
    await batches.blocked()
    caller = asyncio.create_task(sqlite.write(partial(add, note_id=1)))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    batches.go_on.set()
    await blocker
    assert await sqlite.write(partial(add, note_id=2)) == 2
    assert await sqlite.read(ids) == [1, 2]


async def test_a_batch_is_bounded(
    sqlite: SqliteDatabase, batches: _Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH", 8)
    await _queue(sqlite, batches, *(partial(add, note_id=n) for n in range(20)))
    assert batches.sizes == [1, 8, 8, 4]


async def test_reads_go_on_while_the_writer_is_busy(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    blocker = asyncio.create_task(sqlite.write(batches.block))
    await batches.blocked()
    assert await sqlite.read(ids) == []
    batches.go_on.set()
    await blocker


async def test_locked_by_another_process_is_unavailable_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 20)
    database = SqliteDatabase(tmp_path / "test.db")
    await make_notes(database)
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        await database.write(partial(add, note_id=1))
    assert caught.value.error_code == "database_busy"
    assert await database.read(ids) == []  # readers do not mind
    other.execute("ROLLBACK")
    other.close()
    await database.write(partial(add, note_id=2))
    assert await database.read(ids) == [2]
    await database.close()


async def _fill(sqlite: SqliteDatabase) -> None:
    """Let the file grow by a few pages only."""
    pages = await sqlite.write(lambda tx: tx.execute(text("PRAGMA page_count")).scalar_one())
    await sqlite.write(lambda tx: tx.execute(text(f"PRAGMA max_page_count = {pages + 4}")))


async def test_a_full_disk_is_unavailable_and_passes(sqlite: SqliteDatabase) -> None:
    await _fill(sqlite)
    with pytest.raises(Unavailable) as caught:
        await sqlite.write(lambda tx: add(tx, 1, "x" * 200_000))
    assert caught.value.error_code == "disk_full"
    assert await sqlite.read(ids) == []
    await sqlite.write(lambda tx: add(tx, 2, "fits"))
    await sqlite.write(lambda tx: tx.execute(text("PRAGMA max_page_count = 100000")))
    await sqlite.write(lambda tx: add(tx, 3, "x" * 200_000))
    assert await sqlite.read(ids) == [2, 3]


async def test_a_disk_that_fills_up_within_a_batch_half_commits_nothing(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    await _fill(sqlite)
    results = await _queue(
        sqlite,
        batches,
        partial(add, note_id=1),
        lambda tx: add(tx, 2, "x" * 200_000),
        partial(add, note_id=3),
    )
    assert isinstance(results[1], Unavailable)
    assert results[1].error_code == "disk_full"
    # Whoever was told so is in the file, and nobody else.
    answered = [result for result in results if isinstance(result, int)]
    assert await sqlite.read(ids) == answered
    refused = [result for result in results if not isinstance(result, int)]
    assert all(isinstance(error, Unavailable) for error in refused)


async def test_a_transaction_that_sqlite_gives_up_fails_the_batch_as_a_whole(
    sqlite: SqliteDatabase, batches: _Batches
) -> None:
    def give_up(tx: Transaction) -> None:
        add(tx, 2)
        tx.execute(text("ROLLBACK"))  # as SQLite itself does after some errors
        raise Conflict("gone")

    results = await _queue(
        sqlite, batches, partial(add, note_id=1), give_up, partial(add, note_id=3)
    )
    assert all(isinstance(result, Exception) for result in results)
    assert await sqlite.read(ids) == []
    assert await sqlite.write(partial(add, note_id=4)) == 4


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "directory.db").mkdir()
    database = SqliteDatabase(tmp_path / "directory.db")
    with pytest.raises(Unavailable):
        await database.check()
    with pytest.raises(Unavailable):
        await database.write(ids)
    await database.close()


async def test_a_statement_that_is_wrong_is_not_called_an_outage(sqlite: SqliteDatabase) -> None:
    with pytest.raises(Exception, match="no such table") as caught:
        await sqlite.read(lambda tx: tx.execute(text("SELECT 1 FROM nowhere")))
    assert not isinstance(caught.value, Unavailable)
