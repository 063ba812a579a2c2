"""What every store of counts promises, and that two agree on every decision."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from stationmaster.kernel.clock import ManualClock
from stationmaster.limits import Grant, MemoryStore, Rate, Store
from stationmaster.limits.grant import Refusal
from stationmaster.limits.plan import INPUT, OUTPUT, REQUESTS, Plan, RateLine, SlotLine
from stationmaster.limits.shared import RedisStore


@dataclass
class Bench:
    """A store, and the time that it goes by."""

    clock: ManualClock
    store: Store

    async def take(self, plan: Plan, amount: int = 1, *tokens: int) -> Grant | Refusal:
        return await self.store.take(plan, (amount, *(tokens or (0, 0))))  # type: ignore[arg-type]

    async def granted(self, plan: Plan, amount: int = 1, *tokens: int) -> Grant:
        answer = await self.take(plan, amount, *tokens)
        assert isinstance(answer, Grant)
        return answer

    async def refused(self, plan: Plan, amount: int = 1, *tokens: int) -> Refusal:
        answer = await self.take(plan, amount, *tokens)
        assert isinstance(answer, Refusal)
        return answer

    async def settled(self) -> None:
        if isinstance(self.store, RedisStore):
            await self.store.tell()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    clock = ManualClock()
    if request.param == "memory":
        yield Bench(clock, MemoryStore(clock))
        return
    async with Redis.from_url(request.getfixturevalue("redis_url")) as client:
        yield Bench(clock, RedisStore(client, now=clock.now))


def line(rate: Rate, subject: str = "a", index: int = REQUESTS) -> RateLine:
    return RateLine.of("key", index, subject, rate)


def plan(*rates: Rate) -> Plan:
    return Plan(tuple(line(rate, f"subject {number}") for number, rate in enumerate(rates)))


def places(most: int, subject: str = "a") -> Plan:
    return Plan(slots=(SlotLine("key", "calls", f"{subject}:calls", most),))


async def test_as_many_as_the_rate_and_not_one_more(bench: Bench) -> None:
    tight = plan(Rate(100))
    for number in range(100):
        grant = await bench.granted(tight)
        assert grant.standing[0] is not None
        assert grant.standing[0].remaining == 99 - number
    refusal = await bench.refused(tight)
    assert refusal.line is tight.rates[0]
    assert refusal.standing[0] is not None
    assert [refusal.standing[0].limit, refusal.standing[0].remaining] == [100, 0]


async def test_the_wait_that_is_told_is_the_shortest_that_works(bench: Bench) -> None:
    tight = plan(Rate(3))
    for seconds in (0, 7.3, 11.9):
        bench.clock.advance(seconds)
        await bench.granted(tight)
    refusal = await bench.refused(tight)
    assert refusal.wait_ms is not None
    bench.clock.advance((refusal.wait_ms - 1) / 1000)
    again = await bench.refused(tight)
    assert again.wait_ms == 1
    bench.clock.advance(0.001)
    await bench.granted(tight)
    assert (await bench.refused(tight)).wait_ms is not None


async def test_a_burst_comes_at_once_and_then_only_the_rate(bench: Bench) -> None:
    bursting = plan(Rate(100, burst=150))
    for _ in range(150):
        await bench.granted(bursting)
    await bench.refused(bursting)
    bench.clock.advance(61)
    counts = []
    for _ in range(3):
        passed = 0
        while isinstance(await bench.take(bursting), Grant):
            passed += 1
        counts.append(passed)
        bench.clock.advance(61)
    assert counts == [101, 102, 102], "a minute's rate, and that of the second between"


async def test_the_wait_after_a_burst_is_true(bench: Bench) -> None:
    bursting = plan(Rate(2, burst=5))
    for _ in range(8):
        while isinstance(refusal := await bench.take(bursting), Grant):
            pass
        assert refusal.wait_ms is not None
        bench.clock.advance((refusal.wait_ms - 1) / 1000)
        await bench.refused(bursting)
        bench.clock.advance(0.001)
        await bench.granted(bursting)


async def test_a_refusal_takes_nothing_from_any_level(bench: Bench) -> None:
    wide, narrow = line(Rate(10), "wide"), line(Rate(1), "narrow")
    both = Plan((wide, narrow), places(5).slots)
    await bench.granted(both)
    for _ in range(20):
        assert (await bench.refused(both)).line is narrow
    grant = await bench.granted(Plan((wide,)))
    assert grant.standing[0] is not None
    assert grant.standing[0].remaining == 8
    for _ in range(4):
        await bench.granted(places(5))
    await bench.refused(places(5))


async def test_the_level_that_keeps_longest_is_told(bench: Bench) -> None:
    minute, hour = line(Rate(1), "a"), line(Rate(1, 3_600_000), "a")
    for order in ((minute, hour), (hour, minute)):
        await bench.take(Plan(order))
        refusal = await bench.refused(Plan(order))
        assert refusal.line is hour
        assert refusal.wait_ms is not None
        assert refusal.wait_ms > 60_000


async def test_zero_is_never(bench: Bench) -> None:
    for nothing in (plan(Rate(0)), Plan((line(Rate(0), index=INPUT),)), places(0)):
        refusal = await bench.refused(nothing, 1, 10, 10)
        assert refusal.wait_ms is None


async def test_more_than_there_ever_is_takes_all_of_the_tokens(bench: Bench) -> None:
    tokens = Plan((line(Rate(1000), index=OUTPUT),))
    await bench.granted(tokens, 1, 0, 32_000)
    refusal = await bench.refused(tokens, 1, 0, 1)
    assert refusal.wait_ms is not None


async def test_what_was_expected_is_put_right(bench: Bench) -> None:
    tokens = Plan((line(Rate(1000), index=INPUT), line(Rate(500), index=OUTPUT)))
    grant = await bench.granted(tokens, 1, 900, 500)
    await bench.refused(tokens, 1, 200, 0)
    grant.finish(100, 50)
    grant.finish(0, 0)  # once is all
    await bench.settled()
    second = await bench.granted(tokens, 1, 900, 450)
    assert [quota and quota.remaining for quota in second.standing] == [None, 0, 0]


async def test_more_than_was_expected_keeps_others_waiting(bench: Bench) -> None:
    tokens = Plan((line(Rate(1000), index=INPUT),))
    grant = await bench.granted(tokens, 1, 100, 0)
    bench.clock.advance(30)
    grant.finish(5_000, None)
    await bench.settled()
    refusal = await bench.refused(tokens, 1, 1, 0)
    assert refusal.standing[1] is not None
    assert refusal.standing[1].remaining == 0, "never negative"
    assert refusal.wait_ms is not None
    assert refusal.wait_ms > 59_000, "it counts from when it became known"


async def test_what_is_given_back_late_is_given_back_once(bench: Bench) -> None:
    for rate in (Rate(100), Rate(100, burst=200)):
        tokens = Plan((line(rate, index=INPUT),))
        grant = await bench.granted(tokens, 1, rate.burst, 0)
        bench.clock.advance(500)
        await bench.granted(tokens, 1, 60, 0)
        grant.finish(0, 0)
        await bench.settled()
        answer = await bench.take(tokens, 1, rate.burst - 60, 0)
        assert isinstance(answer, Grant)
        assert isinstance(await bench.take(tokens, 1, 1, 0), Refusal)
        bench.clock.advance(500)


async def test_places_are_taken_and_given_back(bench: Bench) -> None:
    two = places(2)
    first, second = await bench.granted(two), await bench.granted(two)
    refusal = await bench.refused(two)
    assert refusal.line is two.slots[0]
    assert refusal.wait_ms
    first.finish()
    first.finish()
    await bench.settled()
    await bench.granted(two)
    await bench.refused(two)
    second.finish()
    await bench.settled()
    await bench.granted(two)


async def test_subjects_do_not_meet(bench: Bench) -> None:
    for subject in "abc":
        await bench.granted(Plan((line(Rate(1), subject),)))
        await bench.granted(places(1, subject))
        await bench.refused(Plan((line(Rate(1), subject),)))


async def test_a_clock_that_steps_back_frees_nothing_and_blocks_for_a_period_at_most(
    bench: Bench,
) -> None:
    for rate in (Rate(5), Rate(5, burst=8)):
        steady = Plan((line(rate, f"{rate.burst}"),))
        for _ in range(rate.burst):
            await bench.granted(steady)
        bench.clock.advance(-86_400)
        refusal = await bench.refused(steady)
        assert refusal.wait_ms is not None
        assert refusal.wait_ms <= 61_000
        bench.clock.advance(61)
        await bench.granted(steady)


async def test_many_at_once_get_what_there_is(bench: Bench) -> None:
    shared = Plan((line(Rate(30), "x"), line(Rate(40), "y")), places(20).slots)
    answers = await asyncio.gather(*(bench.take(shared) for _ in range(100)))
    grants = [answer for answer in answers if isinstance(answer, Grant)]
    assert len(grants) == 20
    for grant in grants:
        grant.finish()
    await bench.settled()
    answers = await asyncio.gather(*(bench.take(shared) for _ in range(100)))
    assert len([answer for answer in answers if isinstance(answer, Grant)]) == 10


async def test_a_caller_that_is_cancelled_leaves_no_place_taken(bench: Bench) -> None:
    one = places(1)
    for ticks in range(6):
        asking = asyncio.ensure_future(bench.take(one))
        for _ in range(ticks):
            await asyncio.sleep(0)
        asking.cancel()
        outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        if isinstance(outcome, Grant):
            outcome.finish()
        elif isinstance(bench.store, RedisStore):
            while bench.store._abandoned:
                await asyncio.wait(bench.store._abandoned)
                await asyncio.sleep(0)
        await bench.settled()
        (await bench.granted(one)).finish()
        await bench.settled()


async def test_closing_frees_every_place(bench: Bench) -> None:
    await bench.granted(places(1))
    await bench.store.aclose()
    await bench.granted(places(1))
