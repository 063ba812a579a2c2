"""Answers in Redis: for all servers, sealed, and not missed when Redis is away."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from stationmaster.cache import AnswerCache
from stationmaster.cache.shared import REST_S, RedisTier
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.principal import Owner
from stationmaster.live.connection import connected
from stationmaster.storage.sealing import Sealer
from tests.support.redis import RedisServer, private_redis

OWNER = Owner("org_1", "proj_1")
JSON = (("content-type", "application/json"),)
CANARY = b"the canary sings at seven"
LIMIT = 1024**2


class Server:
    """One of several that share a Redis."""

    def __init__(self, client: Redis) -> None:
        self.now = 0.0
        clock = SystemClock()
        self.tier = RedisTier(client, LIMIT, clock, timeout=20, monotonic=lambda: self.now)
        self.cache = AnswerCache(
            secret=b"s",
            sealer=Sealer([b"k"]),
            clock=clock,
            ttl=60,
            kept=("redis", self.tier, LIMIT),
        )

    def check(self, *, away: bool) -> None:
        assert self.tier.away == away


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with private_redis() as server:
        yield server


@pytest.fixture
async def servers(redis: RedisServer) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        clients = [connected(redis.url) for _ in range(2)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        yield [Server(client) for client in clients]


async def test_what_one_server_keeps_another_tells(servers: list[Server]) -> None:
    one, two = servers
    place = one.cache.place(OWNER, [b"q"])
    assert place == two.cache.place(OWNER, [b"q"])
    await one.cache.put(place, JSON, b"{}", stream=False)
    found = await two.cache.get(place)
    assert found is not None
    assert found.body == b"{}"
    assert (await two.cache.stats(OWNER)).sizes["redis"].entries == 1
    assert await two.cache.clear(OWNER) == {"redis": 1}
    assert await one.cache.get(place) is None


async def test_redis_is_told_no_words(servers: list[Server], redis: RedisServer) -> None:
    cache = servers[0].cache
    place = cache.place(OWNER, [CANARY])
    await cache.put(place, JSON, CANARY, stream=False)
    name = f"{{stationmaster:answers}}:{place.name}"
    told = redis.command("GET", name) + redis.command("KEYS", "*")
    assert place.name.encode() in told
    for word in (CANARY, b"canary", b"org_1", b"content-type"):
        assert word not in told


async def test_without_redis_nothing_is_kept_and_nothing_fails(
    servers: list[Server], redis: RedisServer
) -> None:
    one = servers[0]
    place = one.cache.place(OWNER, [b"q"])
    await one.cache.put(place, JSON, b"{}", stream=False)
    redis.pause()
    assert await one.cache.get(place) is None
    one.check(away=True)
    await one.cache.put(place, JSON, b"{}", stream=False)
    with pytest.raises(Unavailable):  # not a word that would not be true
        await one.cache.clear(OWNER)
    redis.resume()
    assert await one.cache.get(place) is None  # it is left alone for a while
    one.now += REST_S
    assert await one.cache.get(place) is None  # it came back with nothing
    one.check(away=False)
    await one.cache.put(place, JSON, b"{}", stream=False)
    assert await one.cache.get(place) is not None


async def test_a_redis_that_hangs_is_asked_once_and_left_alone(
    servers: list[Server], redis: RedisServer
) -> None:
    one = servers[1]
    one.tier._timeout = 0.05
    place = one.cache.place(OWNER, [b"q"])
    await servers[0].cache.put(place, JSON, b"{}", stream=False)
    redis.hang()
    try:
        for _ in range(50):
            assert await one.cache.get(place) is None
        one.check(away=True)
    finally:
        redis.wake()
    assert await servers[0].cache.get(place) is not None
