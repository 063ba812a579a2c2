"""The response cache, as it is looked at."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply
from stationmaster.http.shapes.execute import Enveloped


class CacheTier(Reply):
    """What one tier keeps."""

    entries: int
    size_bytes: int


class CacheStats(Reply):
    """The project's part of the cache."""

    enabled: Annotated[bool, Field(description="`CACHE_ENABLED`.")]
    hits: Annotated[int, Field(description="Of this server, since it started.")]
    misses: Annotated[int, Field(description="Of this server, since it started.")]
    hit_rate: Annotated[float, Field(description="From 0 to 1.")]
    entries: Annotated[int, Field(description="Different answers that are kept, at most.")]
    tiers: Annotated[
        dict[Literal["memory", "disk", "redis"], CacheTier],
        Field(description="Those that the server has: memory and disk, or Redis."),
    ]


class CacheStatsReply(CacheStats, Enveloped):
    """The same as members, and in `data`."""

    data: CacheStats


class CacheCleared(Reply):
    """What was forgotten."""

    cleared: Annotated[dict[str, int], Field(description="Answers, by tier.")]


class CacheClearedReply(CacheCleared, Enveloped):
    """The same as members, and in `data`."""

    data: CacheCleared
