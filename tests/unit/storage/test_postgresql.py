"""What a server can do to us: go away, come back, deadlock, and run out of connections."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.util import await_only

from stationmaster.kernel.errors import Invalid, Unavailable
from stationmaster.storage import Transaction, open_database, pulse
from stationmaster.storage import postgresql as module
from stationmaster.storage.postgresql import PostgresDatabase
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy
from tests.unit.storage.tables import add, change, ids, make_notes

KILL_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


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


async def refused_at_once(database: PostgresDatabase) -> None:
    """Return once what is asked is refused without asking the server."""
    while database._pulse.alive:
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="does not answer"):
        await database.read(ids)


async def answers_again(database: PostgresDatabase) -> None:
    while not database._pulse.alive:
        await asyncio.sleep(0.01)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PATIENCE_S", 0.5)
    monkeypatch.setattr(pulse, "EVERY_S", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_hangs_is_noticed_and_found_again(
    postgres: PostgresDatabase, postgres_server: PostgresServer
) -> None:
    await postgres.write(partial(add, note_id=1))
    postgres_server.hang()
    try:
        owed = asyncio.create_task(postgres.write(partial(add, note_id=2)))
        await refused_at_once(postgres)
        assert not owed.done()
    finally:
        postgres_server.wake()
    assert await owed == 2
    await answers_again(postgres)
    assert await postgres.read(ids) == [1, 2]


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_is_cut_off_without_a_word(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    async with Proxy(postgres_server.port) as proxy:
        url = make_url(postgres_url).set(port=proxy.port).render_as_string(hide_password=False)
        database = open_database(url, pool_size=2, statement_timeout=1.0)
        assert isinstance(database, PostgresDatabase)
        await make_notes(database)
        proxy.dropping = True
        owed = asyncio.create_task(database.write(partial(add, note_id=1)))
        await refused_at_once(database)
        with pytest.raises(Unavailable):
            await owed
        proxy.dropping = False
        await answers_again(database)
        await database.write(partial(add, note_id=2))
        assert await database.read(ids) == [2]
        await database.close()


@pytest.mark.usefixtures("impatient")
async def test_a_slow_statement_is_no_outage(postgres: PostgresDatabase) -> None:
    slow = asyncio.create_task(
        postgres.read(lambda tx: tx.execute(text("SELECT pg_sleep(2)")).all())
    )
    while not slow.done():
        assert postgres._pulse.alive
        await asyncio.sleep(0.01)
    await slow
    assert await postgres.read(ids) == []


async def test_a_statement_that_takes_too_long_is_given_up(postgres_url: str) -> None:
    database = open_database(postgres_url, statement_timeout=0.3)
    with pytest.raises(Unavailable):
        await database.read(lambda tx: tx.execute(text("SELECT pg_sleep(60)")).all())
    busy = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' ||''")
    while await database.read(lambda tx: tx.execute(busy).scalar()):
        await asyncio.sleep(0.01)
    await database.close()


async def test_connections_that_are_killed_are_not_missed(
    postgres_url: str, postgres: PostgresDatabase
) -> None:
    for pre_ping in (False, True):
        other = open_database(postgres_url, pool_size=3, pre_ping=pre_ping, recycle=3600.0)
        await asyncio.gather(*(other.read(ids) for _ in range(3)))
        await postgres.read(lambda tx: tx.execute(KILL_OTHERS).all())
        await asyncio.gather(*(other.write(partial(change, note_id=0, text="")) for _ in range(9)))
        await other.close()


async def test_statements_are_logged_on_demand_without_their_values(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = open_database(postgres_url, echo=True)
    try:
        await make_notes(database)
        await database.write(partial(add, note_id=1, text="a word of the caller's"))
        assert "INSERT INTO notes" in caplog.text
        assert "a word of the caller's" not in caplog.text
    finally:
        logging.getLogger("sqlalchemy.engine").setLevel(logging.NOTSET)
        await database.close()
