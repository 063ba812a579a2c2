"""PgBouncer in transaction mode between: each transaction may get another server process."""

import asyncio
from functools import partial

from sqlalchemy import bindparam, select

from stationmaster.migrations import HEAD, current, migrate
from stationmaster.storage import Prepared, Transaction, open_database
from tests.support.pgbouncer import pgbouncer
from tests.unit.storage.tables import add, ids, make_notes, notes

CLIENTS, ROUNDS = 40, 5
ONE = Prepared(select(notes.c.id).where(notes.c.id == bindparam("note")))


def find(tx: Transaction, note: int) -> list[tuple[int, ...]]:
    return tx.run(ONE, {"note": note})


async def test_many_clients_share_few_servers(postgres_url: str) -> None:
    with pgbouncer(postgres_url, servers=3) as url:
        databases = [open_database(url, pool_size=20, pooled=True) for _ in range(2)]
        await make_notes(databases[0])

        async def client(number: int) -> None:
            database = databases[number % 2]
            for turn in range(ROUNDS):
                note = number * ROUNDS + turn
                await database.write(partial(add, note_id=note))

                assert await database.read(partial(find, note=note)) == [(note,)]

        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        assert await databases[0].read(ids) == list(range(CLIENTS * ROUNDS))
        for database in databases:
            await database.close()


async def test_the_schema_is_made_through_it_once(postgres_url: str) -> None:
    with pgbouncer(postgres_url, servers=4) as url:
        made = await asyncio.gather(migrate(url), migrate(url))
        assert sorted(made) == [False, True]
        assert await current(url) == HEAD
