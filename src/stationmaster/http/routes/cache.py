"""The response cache: what is in it, and forgetting it."""

from typing import Annotated, Literal

from fastapi import FastAPI, Query

from stationmaster.cache import Kind, Stats
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.cache import (
    CacheCleared,
    CacheClearedReply,
    CacheStats,
    CacheStatsReply,
    CacheTier,
)
from stationmaster.kernel.clock import iso

SEE, CLEAR = "read:usage", "write:messages"

_KINDS: dict[str, Kind | None] = {"memory": "memory", "disk": "disk", "redis": "redis", "all": None}


async def get_cache_stats(services: Given, caller: Caller) -> CacheStatsReply:
    """What is kept of your project, and how often it helped. Nobody sees another's."""
    caller.require(SEE)
    cache = services.cache
    stats = Stats(0, 0) if cache is None else await cache.stats(caller.owner)
    found = CacheStats(
        enabled=cache is not None,
        hits=stats.hits,
        misses=stats.misses,
        hit_rate=round(stats.hit_rate, 4),
        entries=max((size.entries for size in stats.sizes.values()), default=0),
        tiers={
            name: CacheTier(entries=size.entries, size_bytes=size.bytes)
            for name, size in stats.sizes.items()
        },
    )
    return CacheStatsReply(
        **dict(found),
        data=found,
        message="The project's part of the response cache.",
        timestamp=iso(services.clock.now()),
    )


async def clear_cache(
    services: Given,
    caller: Caller,
    type: Annotated[
        Literal["memory", "disk", "redis", "all"],
        Query(description="Where: one tier, or every one that there is."),
    ] = "all",
) -> CacheClearedReply:
    """Forget the answers that are kept of your project."""
    caller.require(CLEAR)
    cache = services.cache
    project = caller.owner.project_id
    await services.audit.note(caller, "cache.clear", target=project, details={"type": type})
    gone = {} if cache is None else await cache.clear(caller.owner, _KINDS[type])
    found = CacheCleared(cleared={str(name): count for name, count in gone.items()})
    return CacheClearedReply(
        **dict(found),
        data=found,
        message="They are forgotten.",
        timestamp=iso(services.clock.now()),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    add(
        api,
        "GET",
        "/api/cache/stats",
        get_cache_stats,
        tag="cache",
        summary="Show what the response cache keeps",
        reply=CacheStatsReply,
    )
    add(
        api,
        "DELETE",
        "/api/cache",
        clear_cache,
        tag="cache",
        summary="Forget kept answers",
        reply=CacheClearedReply,
        errors=(422,),
    )
