"""What carries news between servers: Redis where there is one, else everybody looks for himself."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stationmaster.http.services import Component
from stationmaster.kernel.errors import Unavailable
from stationmaster.live.bus import Bus, MemoryBus
from stationmaster.live.polling import PollingBus
from stationmaster.settings import Settings
from stationmaster.telemetry import Metrics

if TYPE_CHECKING:
    from stationmaster.live.connection import Redis


@dataclass(frozen=True, slots=True)
class News:
    """The bus, and the one Redis client of the server, if it has one. `bus.run` goes on beside."""

    bus: Bus
    redis: "Redis | None"
    components: tuple[Component, ...]


def news(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> News:
    """As the settings have it: Redis, or polling where there may be other servers."""
    if settings.redis_url is None:
        kind, bus = _without_redis(settings)

        async def alone() -> Mapping[str, Any]:
            return {"bus": kind, "shared": False}

        return News(bus, None, (Component("news", alone, critical=False),))
    # Late, so that a server without Redis does not load what it does not use.
    from stationmaster.events.passing import decode, encode
    from stationmaster.live.connection import AWAY, connected, unreached
    from stationmaster.live.redis import RedisBus

    client = connected(settings.redis_url.get_secret_value())
    stack.push_async_callback(client.aclose)
    over_redis = RedisBus(
        client,
        encode=encode,
        decode=decode,
        on_change=lambda shared: metrics.news_shared.set(int(shared)),
        on_lost=metrics.news_lost.inc,
    )

    async def check_news() -> Mapping[str, Any]:
        if not over_redis.shared:
            raise Unavailable("Redis is away: news of other servers comes by polling.")
        return {"bus": "redis", "shared": True}

    async def check_redis() -> Mapping[str, Any]:
        try:
            await client.ping()
        except AWAY as error:
            raise Unavailable(unreached(error), code="redis_away") from error
        return {}

    components = (
        Component("redis", check_redis, critical=False),
        Component("news", check_news, critical=False),
    )
    return News(over_redis, client, components)


def _without_redis(settings: Settings) -> tuple[str, Bus]:
    # Of servers that share a SQLite file the one that wrote is the one that is asked, mostly:
    # the others' readers look when nothing has come for a while.
    if settings.role == "all" and settings.on_sqlite:
        return "memory", MemoryBus()
    return "polling", PollingBus()
