"""Redis that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from stationmaster.kernel.clock import ManualClock
from stationmaster.limits import Grant, MemoryStore, Rate
from stationmaster.limits.fallback import FallbackStore
from stationmaster.limits.plan import INPUT, REQUESTS, Plan, RateLine, SlotLine
from stationmaster.limits.shared import PREFIX, RedisStore
from stationmaster.live.connection import connected
from tests.support.redis import RedisServer, private_redis

HOURLY = Plan((RateLine.of("key", REQUESTS, "a", Rate(10, 3_600_000)),))
ONE_CALL = Plan(slots=(SlotLine("key", "calls", "a:calls", 1),))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with private_redis() as running:
        yield running


class Replica:
    """A store as a server has it, and the time that its breaker goes by."""

    def __init__(self, client: Redis, *, timeout: float = 30.0) -> None:
        self.now = 0.0
        self.changes: list[bool] = []
        self.redis = RedisStore(client)
        self.store = FallbackStore(
            self.redis,
            MemoryStore(ManualClock()),
            timeout=timeout,
            rest=1.0,
            monotonic=lambda: self.now,
            on_change=self.changes.append,
        )

    async def passes(self, plan: Plan = HOURLY, most: int = 50) -> int:
        for number in range(most):
            if not isinstance(await self.store.take(plan, (1, 0, 0)), Grant):
                return number
        return most


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    async with connected(server.url) as made:
        yield made


async def test_without_redis_each_replica_counts_for_itself_and_later_together_again(
    server: RedisServer, client: Redis
) -> None:
    async with connected(server.url) as another:
        one, two = Replica(client), Replica(another)
        assert await one.passes() == 10
        assert await two.passes() == 0
        server.pause()
        assert await one.passes() == 10
        assert await two.passes() == 10
        assert [one.store.shared, two.store.shared] == [False, False]
        server.resume()
        assert await one.passes() == 0, "the breaker rests"
        one.now = two.now = 1.0
        assert await one.passes() == 10, "its counts were lost with it"
        assert await two.passes() == 0
        assert one.changes == [True, False, True]


async def test_a_redis_that_hangs_keeps_nobody_waiting(server: RedisServer, client: Redis) -> None:
    replica = Replica(client, timeout=0.02)
    await client.ping()
    server.hang()
    try:
        answers = await asyncio.gather(*(replica.store.take(HOURLY, (1, 0, 0)) for _ in range(30)))
    finally:
        server.wake()
    assert len([answer for answer in answers if isinstance(answer, Grant)]) == 10
    assert not replica.store.shared


async def test_only_one_request_tries_a_redis_that_was_away(
    server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(client)
    server.pause()
    await replica.passes(most=1)
    replica.now = 1.0
    asked = 0
    really = replica.redis.take

    async def counted(plan: Plan, amounts: tuple[int, int, int]) -> object:
        nonlocal asked
        asked += 1
        return await really(plan, amounts)

    monkeypatch.setattr(replica.redis, "take", counted)
    await asyncio.gather(*(replica.store.take(HOURLY, (1, 0, 0)) for _ in range(20)))
    assert asked == 1


async def test_a_place_is_given_back_where_it_was_taken(server: RedisServer, client: Redis) -> None:
    replica = Replica(client)
    shared = await replica.store.take(ONE_CALL, (1, 0, 0))
    server.pause()
    own = await replica.store.take(ONE_CALL, (1, 0, 0))
    assert isinstance(shared, Grant)
    assert isinstance(own, Grant)
    assert await replica.passes(ONE_CALL) == 0
    own.finish()
    shared.finish()
    assert await replica.passes(ONE_CALL) == 1
    await replica.store.aclose()


async def test_places_of_a_replica_that_was_killed_become_free(
    client: Redis,
) -> None:
    clock = ManualClock()
    killed = RedisStore(client, now=clock.now, lease=30.0)
    alive = RedisStore(client, now=clock.now, lease=30.0)
    assert isinstance(await killed.take(ONE_CALL, (1, 0, 0)), Grant)
    clock.advance(29.9)
    assert not isinstance(await alive.take(ONE_CALL, (1, 0, 0)), Grant)
    clock.advance(0.2)
    held = await alive.take(ONE_CALL, (1, 0, 0))
    assert isinstance(held, Grant)
    for _ in range(10):
        clock.advance(10)
        await alive._renew_all()
        assert not isinstance(await killed.take(ONE_CALL, (1, 0, 0)), Grant), "it is renewed"


async def test_what_ends_is_told_beside_the_requests(client: Redis) -> None:
    store = RedisStore(client)
    running = asyncio.create_task(store.run())
    tokens = Plan((RateLine.of("key", INPUT, "a", Rate(100, 86_400_000)),), ONE_CALL.slots)
    try:
        for _ in range(5):
            grant = await store.take(tokens, (1, 100, 0))
            assert isinstance(grant, Grant)
            grant.finish(0, 0)
            while store._ended:
                await asyncio.sleep(0)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_what_is_kept_in_redis_does_not_stay_for_ever(client: Redis) -> None:
    store = RedisStore(client)
    await store.take(Plan(HOURLY.rates, ONE_CALL.slots), (1, 0, 0))
    keys = [key async for key in client.scan_iter()]
    assert sorted(key.decode() for key in keys) == sorted(
        [PREFIX + HOURLY.rates[0].key, PREFIX + ONE_CALL.slots[0].key]
    )
    for key in keys:
        assert await client.pttl(key) > 0


async def test_a_decision_is_one_round_trip(client: Redis) -> None:
    store = RedisStore(client)
    lines = tuple(RateLine.of("key", REQUESTS, f"level {n}", Rate(5)) for n in range(8))
    await store.take(Plan(lines, ONE_CALL.slots), (1, 0, 0))
    before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await store.take(Plan(lines, ONE_CALL.slots), (1, 0, 0))
    after = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before == 1
