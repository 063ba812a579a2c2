"""Whatever the order of events: never more than the definition allows, and two stores agree."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from stationmaster.kernel.clock import ManualClock
from stationmaster.limits import Grant, MemoryStore, Rate
from stationmaster.limits.grant import Refusal
from stationmaster.limits.plan import INPUT, REQUESTS, Plan, RateLine, SlotLine
from stationmaster.limits.shared import RedisStore

PERIODS = (60, 1_000, 6_007, 60_000)
QUICK = settings(max_examples=150, deadline=None)
SHARED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def rates(draw: st.DrawFn, periods: tuple[int, ...] = PERIODS) -> Rate:
    amount = draw(st.integers(1, 30))
    burst = draw(st.one_of(st.just(amount), st.integers(amount, 3 * amount)))
    return Rate(amount, draw(st.sampled_from(periods)), burst)


# Pauses as parts of a period, so that all of them matter whatever the period is.
steps = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.05), st.floats(0, 2.5)),
        st.integers(1, 12),
        st.booleans(),
    ),
    min_size=1,
    max_size=120,
)


# As these, and to the last moment of a period that began with something that passed: a whole number
# is which of those before.
edges = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.02), st.floats(0, 1.5), st.integers(0, 9)),
        st.integers(1, 12),
        st.booleans(),
    ),
    min_size=1,
    max_size=120,
)


def go_on(clock: ManualClock, rate: Rate, pause: float, passed: list[tuple[int, int]]) -> None:
    if not isinstance(pause, int):
        clock.advance(pause * rate.period_ms / 1000)
    elif passed:
        began, _ = passed[-1 - pause % len(passed)]
        clock.advance(max(0, began + rate.period_ms - 1 - clock.now()) / 1000)


def single(rate: Rate, index: int = REQUESTS, subject: str = "s") -> Plan:
    return Plan((RateLine.of("key", index, subject, rate),))


def held_to(rate: Rate, passed: list[tuple[int, int]]) -> None:
    """Check every window of what has passed, as (when, how much), against the definition."""
    for first in range(len(passed)):
        start = passed[first][0]
        total = 0
        for at, amount in passed[first:]:
            total += amount
            if at - start < rate.period_ms:
                assert total <= rate.burst, "in one period"
            allowed = rate.burst + rate.amount * (at - start) / rate.period_ms
            assert total <= allowed, "over a longer time"


@QUICK
@given(rates(), edges, st.integers(0, 10**6))
def test_never_more_than_the_definition_in_any_window(
    rate: Rate, taken: list[tuple[float, int, bool]], origin: int
) -> None:
    clock = ManualClock(1_800_000_000_000 + origin)
    store = MemoryStore(clock)
    passed: list[tuple[int, int]] = []
    for pause, amount, _ in taken:
        go_on(clock, rate, pause, passed)
        if isinstance(store.decide(single(rate), (amount, 0, 0)), Grant):
            passed.append((clock.now(), amount))
    held_to(rate, passed)


@QUICK
@given(rates(), steps)
def test_the_wait_is_true(rate: Rate, taken: list[tuple[float, int, bool]]) -> None:
    """A millisecond earlier it does not pass; then it does."""
    clock = ManualClock()
    store, plan = MemoryStore(clock), single(rate)
    for pause, amount, _ in taken:
        clock.advance(pause * rate.period_ms / 1000)
        answer = store.decide(plan, (amount, 0, 0))
        if isinstance(answer, Grant):
            continue
        if answer.wait_ms is None:
            assert amount > rate.burst
            continue
        assert answer.wait_ms > 0
        assert rate.burst > rate.amount or answer.wait_ms <= rate.period_ms
        clock.advance((answer.wait_ms - 1) / 1000)
        assert isinstance(store.decide(plan, (amount, 0, 0)), Refusal)
        clock.advance(0.001)
        assert isinstance(store.decide(plan, (amount, 0, 0)), Grant)


@QUICK
@given(rates(), st.integers(0, 10**6))
def test_a_steady_client_below_the_rate_is_never_refused(rate: Rate, origin: int) -> None:
    """The slots cost it a sixtieth, and no more."""
    clock = ManualClock(1_800_000_000_000 + origin)
    store = MemoryStore(clock)
    line = RateLine.of("key", REQUESTS, "s", rate)
    lasting = line.period + line.width
    for _ in range(3 * rate.amount):
        assert isinstance(store.decide(Plan((line,)), (1, 0, 0)), Grant)
        clock.advance(-(-lasting // rate.amount) / 1000)


@QUICK
@given(rates(), steps, st.integers(0, 3))
def test_corrections_never_make_room_that_is_not_there(
    rate: Rate, taken: list[tuple[float, int, bool]], late: int
) -> None:
    """What was granted and not given back keeps to the definition; nothing becomes negative."""
    clock, passed = ManualClock(), {}
    store, plan = MemoryStore(clock), single(rate, INPUT)
    waiting: list[tuple[int, Grant]] = []
    for number, (pause, amount, gives_back) in enumerate(taken):
        clock.advance(pause * rate.period_ms / 1000)
        answer = store.decide(plan, (1, amount, 0))
        if isinstance(answer, Grant):
            passed[number] = (clock.now(), min(amount, rate.burst))
            waiting.append((number, answer))
        if gives_back and len(waiting) > late:
            done, grant = waiting.pop(0)
            grant.finish(0, None)
            grant.finish(0, None)
            del passed[done]
        window = store._young[plan.rates[0].key]
        assert window.total >= 0
        assert window.debt >= 0
        assert window.total == sum(count for *_, count in window.slots)
        assert all(count >= 0 for *_, count in window.slots)
        assert len(window.slots) <= 62
        held_to(rate, [passed[key] for key in sorted(passed)])


@QUICK
@given(rates(), st.lists(st.tuples(st.floats(0, 0.4), st.floats(-5, 5)), min_size=5, max_size=150))
def test_a_clock_that_steps_back_gives_nothing_away(
    rate: Rate, steps: list[tuple[float, float]]
) -> None:
    clock, true, passed = ManualClock(), 0, []
    store, plan = MemoryStore(clock), single(rate)
    for pause, step in steps:
        passing = round(pause * rate.period_ms)
        true += passing
        clock.advance(passing / 1000)
        clock.advance(min(0.0, step) * rate.period_ms / 1000)
        if isinstance(store.decide(plan, (1, 0, 0)), Grant):
            passed.append((true, 1))
    held_to(rate, passed)


@QUICK
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["take", "finish", "again"]), st.integers(0, 9))),
)
def test_places_never_leak(most: int, steps: list[tuple[str, int]]) -> None:
    store = MemoryStore(ManualClock())
    plan = Plan(slots=(SlotLine("key", "calls", "a", most), SlotLine("project", "calls", "p", 3)))
    held: list[Grant] = []
    done: list[Grant] = []
    for what, which in steps:
        if what == "take":
            answer = store.decide(plan, (1, 0, 0))
            assert isinstance(answer, Grant) == (len(held) < min(most, 3))
            held += [answer] if isinstance(answer, Grant) else []
        elif what == "finish" and held:
            done.append(held.pop(which % len(held)))
            done[-1].finish()
        elif done:
            done[which % len(done)].finish(5, 5)
        assert store.places == 2 * len(held)
    for grant in held:
        grant.finish()
    assert store.places == 0
    assert not store._places


@SHARED
@given(data=st.data())
def test_both_stores_decide_alike(redis_url: str, data: st.DataObject) -> None:
    # Redis drops what is over by its own time, so the periods outlast the test.
    rate, other = data.draw(rates((600_000, 3_600_007))), data.draw(rates((600_000,)))
    taken = data.draw(edges)
    finishing = data.draw(st.lists(st.integers(0, 20), min_size=len(taken), max_size=len(taken)))
    back = data.draw(st.sampled_from([0.0, 0.0, 3_000.0]))
    asyncio.run(_alike(redis_url, (rate, other), taken, (finishing, back)))


async def _alike(
    url: str, pair: tuple[Rate, Rate], taken: list[Any], more: tuple[list[int], float]
) -> None:
    clock, (finishing, back) = ManualClock(), more
    plan = Plan(
        (
            RateLine.of("key", REQUESTS, "r", pair[0]),
            RateLine.of("project", INPUT, "i", pair[1]),
        ),
        (SlotLine("key", "calls", "c", 4),),
    )
    async with Redis.from_url(url) as client:
        await client.flushall()
        here, there = MemoryStore(clock), RedisStore(client, now=clock.now, lease=1e6)
        held: list[tuple[Grant, Grant]] = []
        passed: list[tuple[int, int]] = []
        for (pause, amount, ends), used in zip(taken, finishing, strict=True):
            go_on(clock, pair[0], pause, passed)
            if used == 13:
                clock.advance(-back)
            amounts = (min(amount, 3), amount, 0)
            one, two = here.decide(plan, amounts), await there.take(plan, amounts)
            assert _told(one) == _told(two)
            if isinstance(one, Grant) and isinstance(two, Grant):
                held.append((one, two))
                passed.append((clock.now(), amount))
            if ends and held:
                for grant in held.pop(used % len(held)):
                    grant.finish(used, None)
                await there.tell()


def _told(answer: Grant | Refusal) -> object:
    standing = [quota and (quota.limit, quota.remaining, quota.reset) for quota in answer.standing]
    if isinstance(answer, Grant):
        return standing
    return answer.line, answer.wait_ms, standing


@SHARED
@given(data=st.data())
def test_two_replicas_together_keep_to_the_definition(redis_url: str, data: st.DataObject) -> None:
    rate, taken = data.draw(rates((600_000, 3_600_007))), data.draw(edges)
    asyncio.run(_together(redis_url, rate, taken))


async def _together(url: str, rate: Rate, taken: list[tuple[float, int, bool]]) -> None:
    clock = ManualClock()
    passed: list[tuple[int, int]] = []
    async with Redis.from_url(url) as one, Redis.from_url(url) as two:
        await one.flushall()
        stores = [RedisStore(client, now=clock.now, lease=1e6) for client in (one, two)]
        for pause, amount, other in taken:
            go_on(clock, rate, pause, passed)
            if isinstance(await stores[other].take(single(rate), (amount, 0, 0)), Grant):
                passed.append((clock.now(), amount))
    held_to(rate, passed)


async def test_two_replicas_with_clocks_apart_share_one_rate(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is the server's: what a replica's own clock says does not matter."""
    now, now_ns, hours = time.time, time.time_ns, itertools.cycle((-7200, 0, 7200, 86_400))
    monkeypatch.setattr(time, "time", lambda: now() + next(hours))
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + next(hours) * 10**9)
    plan = Plan((RateLine.of("key", REQUESTS, "both", Rate(50)),))
    async with Redis.from_url(redis_url) as first, Redis.from_url(redis_url) as second:
        stores = [RedisStore(first), RedisStore(second)]
        answers = await asyncio.gather(
            *(stores[number % 2].take(plan, (1, 0, 0)) for number in range(120))
        )
    assert len([answer for answer in answers if isinstance(answer, Grant)]) == 50
