"""What every tier of the response cache promises, on the disk and in a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from stationmaster.cache import DiskTier, Place, Size, Tier
from stationmaster.cache.shared import RedisTier
from stationmaster.kernel.clock import ManualClock, SystemClock

LIMIT = 100_000
TEXT = "x" * 3000


def place(question: str, tenant: str = "aa") -> Place:
    return Place(tenant, question)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now())


@pytest.fixture(params=["disk", "redis"])
async def tier(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Tier]:
    if request.param == "disk":
        disk = DiskTier(tmp_path / "cache", LIMIT, clock)
        disk.open()
        yield disk
        return
    async with Redis.from_url(request.getfixturevalue("redis_url")) as client:
        yield RedisTier(client, LIMIT, clock, timeout=20)


def later(clock: ManualClock, seconds: float = 60) -> int:
    return clock.now() + int(seconds * 1000)


async def test_what_is_put_is_got_and_can_be_replaced(tier: Tier, clock: ManualClock) -> None:
    assert await tier.get(place("01")) is None
    await tier.put(place("01"), "one", later(clock))
    await tier.put(place("01"), TEXT, later(clock))
    assert await tier.get(place("01")) == TEXT
    assert await tier.get(place("01", "bb")) is None
    assert (await tier.size()).entries == 1
    before = await tier.size()
    await tier.put(place("01"), TEXT, later(clock))
    assert await tier.size() == before


async def test_what_is_discarded_is_gone_twice_over(tier: Tier, clock: ManualClock) -> None:
    await tier.put(place("01"), TEXT, later(clock))
    await tier.discard(place("01"))
    await tier.discard(place("01"))
    assert await tier.get(place("01")) is None
    assert await tier.size() == Size(0, 0)


async def test_clearing_forgets_one_tenants_and_no_others(tier: Tier, clock: ManualClock) -> None:
    for number in range(5):
        await tier.put(place(f"0{number}"), TEXT, later(clock))
        await tier.put(place(f"0{number}", "bb"), TEXT, later(clock))
    assert await tier.clear("aa") == 5
    assert await tier.clear("aa") == 0
    assert await tier.size("aa") == Size(0, 0)
    assert (await tier.size("bb")).entries == (await tier.size()).entries == 5
    assert await tier.get(place("03", "bb")) == TEXT


async def test_it_never_holds_more_than_its_bound(tier: Tier, clock: ManualClock) -> None:
    for number in range(100):
        await tier.put(place(f"{number:02}"), TEXT, later(clock, 60 + number))
        assert (await tier.size()).bytes <= LIMIT
    assert 10 < (await tier.size()).entries < 100
    assert await tier.get(place("99")) == TEXT
    assert await tier.get(place("00")) is None
    assert (await tier.size()).bytes == (await tier.size("aa")).bytes


async def test_what_is_larger_than_the_bound_is_not_kept(tier: Tier, clock: ManualClock) -> None:
    await tier.put(place("01"), TEXT, later(clock))
    await tier.put(place("02"), "y" * (LIMIT + 1), later(clock))
    assert await tier.get(place("02")) is None
    assert await tier.get(place("01")) == TEXT


async def test_many_at_once_are_counted_right(tier: Tier, clock: ManualClock) -> None:
    names = [f"{number:02}" for number in range(20)]
    await asyncio.gather(*(tier.put(place(name), TEXT, later(clock)) for name in names))
    await asyncio.gather(*(tier.discard(place(name)) for name in names[::2]))
    assert (await tier.size()).entries == 10
    await tier.clear("aa")
    assert await tier.size() == Size(0, 0)


async def test_what_has_expired_is_gone(tier: Tier, clock: ManualClock) -> None:
    await tier.put(place("01"), TEXT, later(clock, -1))
    assert await tier.get(place("01")) is None
    await tier.put(place("02"), TEXT, clock.now() + 30)
    async with asyncio.timeout(10):
        while await tier.get(place("02")) is not None:
            clock.advance(0.01)
            await asyncio.sleep(0.01)  # Redis goes by its own clock
    clock.advance(1)
    await tier.put(place("03"), TEXT, later(clock))
    assert (await tier.size("aa")).entries == 1
