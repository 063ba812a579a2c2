"""One of many holds a lease; another has it when that one is gone."""

import asyncio
from collections.abc import Callable

import pytest

from stationmaster.jobs import Lease
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database

LENGTH = 30.0

Make = Callable[..., Lease]


@pytest.fixture
def lease(database: Database, clock: ManualClock) -> Make:
    def make(holder: str, name: str = "scheduler", length: float = LENGTH) -> Lease:
        return Lease(database, clock, name, holder=holder, length=length)

    return make


async def test_one_of_many_has_it_until_it_lets_go(lease: Make) -> None:
    several = [lease(f"ins_{number}") for number in range(8)]
    taken = await asyncio.gather(*(each.take() for each in several))
    assert sorted(taken) == [False] * 7 + [True]
    holder = several[taken.index(True)]
    other = several[taken.index(False)]
    assert [holder.held, other.held] == [True, False]
    assert await holder.take(), "it renews"
    for _ in range(2):  # idempotent
        await other.release()  # does nothing to what is another's
    assert not await other.take()
    await holder.release()
    assert await other.take()
    assert not await holder.take()


async def test_what_is_not_renewed_is_another_s(lease: Make, clock: ManualClock) -> None:
    one, two = lease("ins_a"), lease("ins_b")
    assert await one.take()
    clock.advance(LENGTH)
    assert not await two.take(), "it holds to its end"
    clock.advance(0.001)
    assert await two.take()
    assert not await one.take()


async def test_two_names_are_two_leases(lease: Make) -> None:
    assert await lease("ins_a").take()
    assert await lease("ins_b", "other").take()


class Work:
    """What is done under a lease."""

    def __init__(self) -> None:
        self.going = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> None:
        self.going += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.going -= 1
            self.ended.set()


async def test_work_is_done_by_one_and_taken_over_when_that_stops(lease: Make) -> None:
    one, two = Work(), Work()
    first = asyncio.create_task(lease("ins_a", length=0.03).lead(one))
    async with asyncio.timeout(30):
        await one.begun.wait()
        second = asyncio.create_task(lease("ins_b", length=0.03).lead(two))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert one.going == 0
        await two.begun.wait()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert two.going == 0


async def test_who_has_lost_it_stops_working(lease: Make, clock: ManualClock) -> None:
    one = Work()
    leading = asyncio.create_task(lease("ins_a", length=0.03).lead(one))
    async with asyncio.timeout(30):
        await one.begun.wait()
        other = lease("ins_b", length=3600.0)
        while not await other.take():  # as after a sleep: the clock has gone on meanwhile
            clock.advance(1.0)
        await one.ended.wait()
    assert one.going == 0
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)
    assert await other.take(), "its end did not free another's"


async def test_without_the_database_it_works_on_until_another_may_have_it(
    lease: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, held = Work(), lease("ins_a", length=3.0)
    leading = asyncio.create_task(held.lead(one))
    tries = 0

    async def away() -> bool:
        nonlocal tries
        tries += 1
        assert tries > 1 or one.going == 1, "it stopped at once"
        raise Unavailable("The database is away.")

    async with asyncio.timeout(30):
        await one.begun.wait()
        monkeypatch.setattr(held, "take", away)
        await one.ended.wait()
    assert tries > 1
    assert not held.held
    leading.cancel()
    await asyncio.gather(leading, return_exceptions=True)


async def test_what_the_work_raises_comes_out(lease: Make) -> None:
    async def fails() -> None:
        raise ValueError("no")

    held = lease("ins_a", length=0.03)
    with pytest.raises(ValueError, match="no"):
        await held.lead(fails)
    assert await lease("ins_b").take(), "it was let go"
