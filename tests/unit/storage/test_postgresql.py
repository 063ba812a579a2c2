"""What a server can do to us: go away, come back, deadlock, and run out of connections."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import event, text
from sqlalchemy.util import await_only

from stationmaster.kernel.errors import Invalid, Unavailable
from stationmaster.storage import Transaction, open_database
from stationmaster.storage import postgresql as module
from stationmaster.storage.postgresql import PostgresDatabase
from tests.support.postgres import PostgresServer
from tests.unit.storage.tables import add, change, ids, make_notes


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    database = open_database(postgres_url, pool_size=5)
    assert isinstance(database, PostgresDatabase)
    await make_notes(database)
    yield database
    await database.close()


async def test_a_server_that_stops_is_unavailable_and_is_found_again(
    postgres: PostgresDatabase, postgres_server: PostgresServer
) -> None:
    await postgres.write(partial(add, note_id=1))
    postgres_server.pause()
    try:
        with pytest.raises(Unavailable):
            await postgres.write(partial(add, note_id=2))
        with pytest.raises(Unavailable):
            await postgres.read(ids)
        with pytest.raises(Unavailable):
            await postgres.check()
    finally:
        postgres_server.resume()
    await postgres.write(partial(add, note_id=3))
    assert await postgres.read(ids) == [1, 3]


async def test_a_connection_cut_in_the_middle_of_a_verb_is_unavailable(
    postgres: PostgresDatabase,
) -> None:
    def verb(tx: Transaction) -> None:
        add(tx, 1)
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable) as caught:
        await postgres.write(verb)
    assert caught.value.error_code == "database_unavailable"
    assert await postgres.read(ids) == []


async def test_a_connection_cut_before_the_commit_tells_that_the_outcome_is_unknown(
    postgres: PostgresDatabase,
) -> None:
    pid = 0

    def verb(tx: Transaction) -> None:
        nonlocal pid
        add(tx, 1)
        pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()

    committing = asyncio.Event()
    cut = asyncio.Event()

    @event.listens_for(postgres._engine.sync_engine, "commit", once=True)
    def before_commit(_connection: object) -> None:
        committing.set()
        await_only(cut.wait())

    writing = asyncio.create_task(postgres.write(verb))
    await committing.wait()
    await postgres.read(
        lambda tx: tx.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    )
    cut.set()
    with pytest.raises(Unavailable) as caught:
        await writing
    assert caught.value.error_code == "commit_unknown"
    assert await postgres.read(ids) == []


async def test_a_deadlock_is_tried_again(postgres: PostgresDatabase) -> None:
    await postgres.write(lambda tx: (add(tx, 1), add(tx, 2)))
    attempts = 0
    gate = text("SELECT pg_advisory_xact_lock_shared(1)")

    def cross(tx: Transaction, first: int, second: int) -> None:
        nonlocal attempts
        attempts += 1
        change(tx, first, f"by {first}")
        tx.execute(gate)
        change(tx, second, f"by {first}")

    held = open_database(postgres._engine.url.render_as_string(hide_password=False))
    started = asyncio.Event()
    opened = asyncio.Event()

    async def hold() -> None:
        def verb(tx: Transaction) -> None:
            tx.execute(text("SELECT pg_advisory_xact_lock(1)"))
            started.set()
            await_only(opened.wait())

        await held.write(verb)

    holder = asyncio.create_task(hold())
    await started.wait()
    both = asyncio.gather(
        postgres.write(partial(cross, first=1, second=2)),
        postgres.write(partial(cross, first=2, second=1)),
    )
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    while await postgres.read(lambda tx: tx.execute(waiting).scalar_one()) < 2:
        await asyncio.sleep(0)
    opened.set()
    await both
    await holder
    await held.close()
    assert attempts == 3, "one of the two was not the victim of a deadlock"


async def test_a_verb_that_always_conflicts_is_given_up(postgres: PostgresDatabase) -> None:
    attempts = 0

    def verb(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(Exception, match="again"):
        await postgres.write(verb)
    assert attempts == module.ATTEMPTS


async def test_no_free_connection_is_unavailable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    database = open_database(postgres_url, pool_size=1, max_overflow=0)
    busy, done = asyncio.Event(), asyncio.Event()

    def occupy(_tx: Transaction) -> None:
        busy.set()
        await_only(done.wait())

    holder = asyncio.create_task(database.write(occupy))
    await busy.wait()
    with pytest.raises(Unavailable):
        await database.check()
    done.set()
    await holder
    await database.check()
    await database.close()


async def test_an_address_where_nobody_listens_is_unavailable() -> None:
    database = open_database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(Unavailable):
        await database.check()
    await database.close()


async def test_words_of_a_caller_are_not_taken_for_an_outage(postgres: PostgresDatabase) -> None:
    with pytest.raises(Invalid, match="cannot be kept") as caught:
        await postgres.write(lambda tx: add(tx, 1, "the disk is full\0 and locked"))
    assert "disk" not in caught.value.message
