"""The response cache, for plain code and for asyncio."""

from typing import Any, Literal

import httpx

from stationmaster.client.asynchronous import AsyncClient
from stationmaster.client.calls import Call
from stationmaster.client.errors import UnexpectedAnswer
from stationmaster.client.models import Json
from stationmaster.client.synchronous import Client

Where = Literal["memory", "disk", "redis", "all"]


class CacheClient:
    """The cache through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def stats(self) -> Json:
        """What is kept of the key's project, and how often it helped."""
        return self._client.call(_STATS)

    def clear(self, where: Where = "all") -> dict[str, int]:
        """Forget it; return how many answers, by tier."""
        return _cleared(self._client.call(_clear(where)))


class AsyncCacheClient:
    """As `CacheClient`, through an `AsyncClient`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def stats(self) -> Json:
        """What is kept of the key's project, and how often it helped."""
        return await self._client.call(_STATS)

    async def clear(self, where: Where = "all") -> dict[str, int]:
        """Forget it; return how many answers, by tier."""
        return _cleared(await self._client.call(_clear(where)))


def _object(answer: httpx.Response) -> Json:
    try:
        found: Any = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found


_STATS = Call("GET", "/api/cache/stats", _object)


def _clear(where: Where) -> Call[Json]:
    return Call("DELETE", "/api/cache", _object, {"type": where})


def _cleared(found: Json) -> dict[str, int]:
    cleared = found.get("cleared")
    return cleared if isinstance(cleared, dict) else {}
