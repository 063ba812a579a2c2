"""What both databases promise of `read` and `write`."""

import asyncio
import itertools
from functools import partial

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.storage import Database, Transaction, open_database
from tests.support.databases import Databases
from tests.unit.storage.tables import add, ids, make_notes, notes


async def test_a_verb_returns_its_result_and_is_durable(
    databases: Databases, migrated_url: str
) -> None:
    database = databases.open(migrated_url)
    await make_notes(database)
    assert await database.write(lambda tx: add(tx, 7)) == 7
    await database.close()
    assert await databases.open(migrated_url).read(ids) == [7]


async def test_a_failing_verb_leaves_nothing(database: Database) -> None:
    await make_notes(database)

    def verb(tx: Transaction) -> None:
        add(tx, 1)
        raise Conflict("no")

    with pytest.raises(Conflict, match="no"):
        await database.write(verb)
    assert await database.read(ids) == []


async def test_one_failing_verb_of_many_is_undone_alone(database: Database) -> None:
    await make_notes(database)

    def verb(tx: Transaction, number: int) -> int:
        add(tx, number)
        if number % 3 == 0:
            raise Conflict(str(number))
        return number

    results = await asyncio.gather(
        *(database.write(partial(verb, number=number)) for number in range(30)),
        return_exceptions=True,
    )
    for number, result in enumerate(results):
        if number % 3 == 0:
            assert isinstance(result, Conflict)
            assert result.message == str(number)
        else:
            assert result == number
    assert await database.read(ids) == [number for number in range(30) if number % 3]


async def test_a_broken_constraint_is_the_callers_own_error(database: Database) -> None:
    await make_notes(database)
    await database.write(lambda tx: add(tx, 1))
    words = "the disk is full, the database is locked and busy and readonly"
    results = await asyncio.gather(
        database.write(lambda tx: add(tx, 1, words)),
        database.write(lambda tx: add(tx, 2, words)),
        return_exceptions=True,
    )
    assert isinstance(results[0], IntegrityError)
    assert results[1] == 2


async def test_callbacks_come_after_the_commit_in_order_and_before_the_answer(
    database: Database,
) -> None:
    await make_notes(database)
    seen: list[str] = []

    def verb(tx: Transaction) -> None:
        add(tx, 1)
        tx.on_commit(lambda: seen.append("first"))
        tx.on_commit(lambda: seen.append("second"))
        seen.append("verb")

    await database.write(verb)
    assert seen == ["verb", "first", "second"]


async def test_callbacks_of_a_failed_verb_are_dropped(database: Database) -> None:
    seen: list[str] = []

    def verb(tx: Transaction) -> None:
        tx.on_commit(lambda: seen.append("failed"))
        raise Invalid("no")

    fine = database.write(lambda tx: tx.on_commit(lambda: seen.append("fine")))
    results = await asyncio.gather(database.write(verb), fine, return_exceptions=True)
    assert isinstance(results[0], Invalid)
    assert seen == ["fine"]


async def test_a_callback_that_fails_keeps_nobody_from_being_answered(database: Database) -> None:
    seen: list[str] = []

    def verb(tx: Transaction) -> str:
        tx.on_commit(lambda: seen.remove("missing"))
        tx.on_commit(lambda: seen.append("next"))
        return "done"

    async with asyncio.timeout(30):
        first, second = await asyncio.gather(
            database.write(verb), database.write(lambda _tx: "other")
        )
    assert (first, second) == ("done", "other")
    assert seen == ["next"]


async def test_a_cancelled_callers_verb_still_completes(database: Database) -> None:
    await make_notes(database)
    committed = asyncio.Event()

    def verb(tx: Transaction) -> None:
        add(tx, 1)
        tx.on_commit(committed.set)

    caller = asyncio.create_task(database.write(verb))
    await asyncio.sleep(0)  # let it begin
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(30):
        await committed.wait()
    assert await database.read(ids) == [1]


async def test_callers_that_hang_up_leave_no_transaction_open(database: Database) -> None:
    await make_notes(database)
    for number in range(40):  # twice the connections there are
        work = database.write(lambda tx, number=number: add(tx, number))  # type: ignore[misc]
        caller = asyncio.create_task(work)
        reader = asyncio.create_task(database.read(ids))
        await asyncio.sleep(0)
        caller.cancel()
        reader.cancel()
        await asyncio.gather(caller, reader, return_exceptions=True)
    async with asyncio.timeout(60):
        await database.write(lambda tx: add(tx, 1000))
        assert 1000 in await database.read(ids)


async def test_a_read_sees_one_point_in_time(database: Database) -> None:
    await make_notes(database)
    await database.write(lambda tx: add(tx, 0))
    stop = asyncio.Event()

    def add_pair(tx: Transaction, number: int) -> None:
        add(tx, number)
        add(tx, -number)

    async def write_pairs() -> None:
        for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count(1)):
            await database.write(partial(add_pair, number=number))

    def twice(tx: Transaction) -> tuple[int, int]:
        count = select(func.count()).select_from(notes)
        first = tx.execute(count).scalar_one()
        for _ in range(5):
            tx.execute(select(notes)).all()
        return first, tx.execute(count).scalar_one()

    writer = asyncio.create_task(write_pairs())
    counts: list[tuple[int, int]] = []
    async with asyncio.timeout(60):
        while len(set(counts)) < 10:  # so that something was written meanwhile
            counts.append(await database.read(twice))
    stop.set()
    await writer
    assert all(first == second and first % 2 == 1 for first, second in counts)


async def test_close_finishes_what_is_queued(databases: Databases, migrated_url: str) -> None:
    database = databases.open(migrated_url)
    await make_notes(database)
    writes = [
        asyncio.create_task(database.write(lambda tx, number=number: add(tx, number)))  # type: ignore[misc]
        for number in range(50)
    ]
    await asyncio.sleep(0)
    await database.close()
    await database.close()  # idempotent
    assert await asyncio.gather(*writes) == list(range(50))
    assert await databases.open(migrated_url).read(ids) == list(range(50))


async def test_a_closed_database_is_unavailable(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable):
        await database.write(lambda _tx: None)
    with pytest.raises(Unavailable):
        await database.read(lambda _tx: None)
    with pytest.raises(Unavailable):
        await database.check()


async def test_writers_from_everywhere_lose_no_update(database: Database) -> None:
    await make_notes(database)
    await database.write(lambda tx: add(tx, 1, "0"))

    def increment(tx: Transaction) -> None:
        row = tx.execute(select(notes).where(notes.c.id == 1).with_for_update()).one()
        tx.execute(notes.update().where(notes.c.id == 1).values(text=str(int(row.text) + 1)))

    await asyncio.gather(*(database.write(increment) for _ in range(60)))
    assert await database.read(lambda tx: tx.execute(select(notes.c.text)).scalar()) == "60"


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/name", "sqlite://", "sqlite:///:memory:"]
)
def test_a_url_of_no_use_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        open_database(url)
