"""The list of the living."""

import asyncio

import pytest

from stationmaster.jobs import Instances
from stationmaster.kernel.clock import ManualClock
from stationmaster.storage import Database

LEASE = 30.0


@pytest.fixture
def pair(database: Database, clock: ManualClock) -> tuple[Instances, Instances]:
    return (
        Instances(database, clock, lease=LEASE),
        Instances(database, clock, lease=LEASE),
    )


async def _bury(database: Database, by: Instances, whom: str) -> bool:
    return await database.write(lambda tx: by.bury(tx, whom))


async def test_an_instance_is_dead_when_its_lease_has_run_out(
    pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, b = pair
    await a.register()
    await b.register()
    clock.advance(LEASE)
    assert await b.renew()
    assert await b.dead() == []
    clock.advance(0.001)
    assert await b.dead() == [a.id]
    assert await a.renew()  # it was only slow
    assert await b.dead() == []


async def test_nobody_takes_itself_for_dead(
    pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, _ = pair
    await a.register()
    clock.advance(10 * LEASE)
    assert await a.dead() == []


async def test_the_living_cannot_be_buried(
    database: Database, pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, b = pair
    await a.register()
    clock.advance(LEASE + 1)
    assert await b.dead() == [a.id]
    await a.renew()  # between the other's look and its deed
    assert not await _bury(database, b, a.id)
    assert await a.renew()


async def test_one_of_many_buries_and_renewing_fails_after_it(
    database: Database, pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, b = pair
    await a.register()
    clock.advance(LEASE + 1)
    buried = await asyncio.gather(*(_bury(database, b, a.id) for _ in range(10)))
    assert sorted(buried) == [False] * 9 + [True]
    assert not await a.renew()
    await a.register()  # it may enter again
    assert await a.renew()


async def test_who_leaves_is_not_dead(
    database: Database, pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, b = pair
    await a.register()
    for _ in range(2):  # idempotent
        await database.write(a.leave)
    clock.advance(LEASE + 1)
    assert await b.dead() == []
    assert not await a.renew()


async def test_listed_are_all_but_the_buried_and_who_asks(
    database: Database, pair: tuple[Instances, Instances], clock: ManualClock
) -> None:
    a, b = pair
    await a.register()
    assert await b.listed() == sorted([a.id, b.id])
    clock.advance(LEASE + 1)
    assert await b.listed() == sorted([a.id, b.id])  # nobody has struck it off yet
    assert await _bury(database, b, a.id)
    assert await b.listed() == [b.id]
