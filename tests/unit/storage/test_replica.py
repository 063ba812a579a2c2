"""A real standby beside the primary: read from while it is fresh, and never after."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial

import pytest
from sqlalchemy import text

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Transaction, beside, open_database
from stationmaster.storage.replica import ReplicatedDatabase
from tests.support.postgres import PostgresServer
from tests.unit.storage.tables import add, ids, make_notes

STALENESS = 30.0  # seconds: a loaded machine must not make it old by itself


@pytest.fixture
def standby(postgres_server: PostgresServer, postgres_url: str) -> Iterator[PostgresServer]:
    other = postgres_server.standby()
    yield other
    other.discard()


@pytest.fixture
async def replicated(
    postgres_url: str, standby: PostgresServer
) -> AsyncIterator[ReplicatedDatabase]:
    primary = open_database(postgres_url, pool_size=2)
    second = open_database(standby.url(postgres_url.rpartition("/")[2]), pool_size=2)
    database = beside(primary, second, staleness=STALENESS)
    assert isinstance(database, ReplicatedDatabase)
    await make_notes(database)
    yield database
    await database.close()


def on_a_standby(tx: Transaction) -> bool:
    return bool(tx.execute(text("SELECT pg_is_in_recovery()")).scalar())


async def caught_up(database: ReplicatedDatabase) -> None:
    while not database.fresh:
        await database.look()
        await asyncio.sleep(0.01)


async def test_lists_come_from_the_standby_and_all_else_from_the_primary(
    replicated: ReplicatedDatabase,
) -> None:
    await replicated.write(partial(add, note_id=1))
    assert not await replicated.browse(on_a_standby), "nothing is known of its freshness yet"
    await caught_up(replicated)
    assert await replicated.browse(on_a_standby)
    assert not await replicated.read(on_a_standby)
    while await replicated.browse(ids) != [1]:
        await asyncio.sleep(0.01)


async def test_a_standby_that_is_gone_is_not_missed(
    replicated: ReplicatedDatabase, standby: PostgresServer
) -> None:
    await replicated.write(partial(add, note_id=1))
    await caught_up(replicated)
    standby.pause()
    assert await replicated.browse(ids) == [1]
    assert not replicated.fresh
    with pytest.raises(Unavailable):
        await replicated.look()
    standby.resume()
    await caught_up(replicated)
    assert await replicated.browse(on_a_standby)


async def test_a_standby_that_is_behind_is_left_alone(
    replicated: ReplicatedDatabase, standby: PostgresServer
) -> None:
    second = replicated._standby
    await caught_up(replicated)
    loop = asyncio.get_running_loop()
    # It answers, and believes to be up to date, but takes nothing more from its primary.
    superuser = open_database(standby.url("postgres"), pool_size=1)
    await superuser.read(lambda tx: tx.execute(text("SELECT pg_wal_replay_pause()")).all())
    fresh_at = replicated._fresh_at
    await replicated.write(partial(add, note_id=1))
    await replicated.look()
    await replicated.look()
    assert replicated._fresh_at is not None
    assert fresh_at is not None
    assert replicated._fresh_at <= loop.time()
    reached = replicated._fresh_at
    await replicated.look()
    assert replicated._fresh_at == reached, "it is as old as its last place in the log"
    assert await second.read(ids) == []
    replicated._staleness = 0.0
    assert not replicated.fresh
    assert await replicated.browse(ids) == [1]
    await superuser.close()


async def test_the_primary_given_as_its_own_standby_is_never_taken_for_one(
    postgres_url: str,
) -> None:
    database = beside(open_database(postgres_url), open_database(postgres_url), staleness=STALENESS)
    assert isinstance(database, ReplicatedDatabase)
    await database.look()
    assert not database.fresh
    await database.close()
