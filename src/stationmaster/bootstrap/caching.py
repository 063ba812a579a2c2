"""The response cache: where answers are kept, and what is told of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stationmaster.bootstrap.parts import Core
from stationmaster.cache import AnswerCache, DiskTier, MemoryTier
from stationmaster.http.services import Component
from stationmaster.settings import Settings
from stationmaster.telemetry import Metrics

if TYPE_CHECKING:
    from stationmaster.live.connection import Redis

MEASURE_S = 5.0
SWEEP_S = 60.0
MB = 1024**2
MEMORY_SHARE = 4
"""One part of so many is the memory's, where the rest is the disk's."""


@dataclass(frozen=True, slots=True)
class Caching:
    """What the rest of the server is given."""

    cache: AnswerCache
    component: Component
    metrics: Metrics
    disk: DiskTier | None

    async def run(self) -> None:
        """Tell its size, and delete what has expired. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + SWEEP_S
        while True:
            for name, size in (await self.cache.stats()).sizes.items():
                self.metrics.cache_size(name, entries=size.entries, size=size.bytes)
            if self.disk is not None and loop.time() >= sweep_at:
                await self.disk.sweep()
                sweep_at = loop.time() + SWEEP_S
            await asyncio.sleep(MEASURE_S)


async def caching(core: Core, settings: Settings) -> Caching | None:
    """The cache as the settings have it; None where it is off.

    Raises `OSError` where the disk cannot be used.
    """
    if not settings.cache_enabled:
        return None
    limit = settings.cache_size_mb * MB
    if core.news.redis is not None:
        return _shared(core, settings, core.news.redis, limit)
    memory = MemoryTier(limit // MEMORY_SHARE, core.clock)
    disk = DiskTier(settings.data_dir / "cache", limit - memory.limit, core.clock)
    await asyncio.to_thread(disk.open)
    cache = _cache(core, settings, memory=memory, kept=("disk", disk, disk.limit))

    async def check() -> Mapping[str, Any]:
        kept = await disk.size()
        return {"store": "disk", "entries": kept.entries, "bytes": kept.bytes}

    component = Component("cache", check, critical=False)
    return Caching(cache, component, core.metrics, disk)


def _shared(core: Core, settings: Settings, client: "Redis", limit: int) -> Caching:
    # Late, so that a server without Redis does not load what it does not use.
    from stationmaster.cache.shared import RedisTier
    from stationmaster.kernel.errors import Unavailable

    tier = RedisTier(client, limit, core.clock)
    cache = _cache(core, settings, kept=("redis", tier, limit))

    async def check() -> Mapping[str, Any]:
        kept = await tier.size()
        if tier.away:
            raise Unavailable("Redis is away: answers are not kept.")
        return {"store": "redis", "entries": kept.entries, "bytes": kept.bytes}

    return Caching(cache, Component("cache", check, critical=False), core.metrics, None)


def _cache(core: Core, settings: Settings, **tiers: Any) -> AnswerCache:
    return AnswerCache(
        secret=core.secret.encode(),
        sealer=core.record.sealer,
        clock=core.clock,
        ttl=settings.cache_ttl,
        on_lookup=lambda hit: core.metrics.cache_lookup(hit=hit),
        **tiers,
    )
