"""Sealed answers in Redis, for every server together."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from stationmaster.cache.answer import Place
from stationmaster.cache.tier import Size
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Unavailable

log = structlog.get_logger(__name__)

PREFIX = "{stationmaster:answers}:"
"""In braces, so that Redis Cluster keeps all of it on one node: a script reaches no further."""

TIMEOUT_S = 0.25
"""For one question. What takes longer than this is away: the provider is asked instead."""

REST_S = 5.0
"""How long Redis is left alone after a failure."""

CLEAR_S = 10.0
"""For all that is a project's to be found and forgotten."""

OVERHEAD = 300
"""Bytes that an entry takes beside its text, with its names in three places."""

SCAN = 500

_AWAY = (RedisError, OSError, TimeoutError)

T = TypeVar("T")


class RedisTier:
    """A `Tier`. Holds at most `limit` bytes, counted over all servers by a script."""

    def __init__(
        self,
        client: Redis,
        limit: int,
        clock: Clock,
        *,
        timeout: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` is in bytes, `timeout` in seconds, by default `TIMEOUT_S`."""
        self.limit = limit
        self._timeout = TIMEOUT_S if timeout is None else timeout
        self._client = client
        self._clock = clock
        self._monotonic = monotonic
        self._rest_until: float | None = None
        script = files(__package__).joinpath("keep.lua").read_text(encoding="utf-8")
        self._keep = client.register_script(script)
        self._keys = [PREFIX + "order", PREFIX + "sizes", PREFIX + "total"]

    @property
    def away(self) -> bool:
        """Whether Redis did not answer last time."""
        return self._rest_until is not None

    async def get(self, place: Place) -> str | None:
        """See `Tier`."""
        found: Any = await self._asked(self._client.get, PREFIX + place.name)
        return found.decode("ascii", "replace") if isinstance(found, bytes) else found

    async def put(self, place: Place, text: str, expires_at: Millis) -> None:
        """See `Tier`."""
        now = self._clock.now()
        arguments = [PREFIX, place.name, text, now, expires_at, self.limit, OVERHEAD]
        await self._asked(self._run, [*self._keys, PREFIX + place.name], arguments)

    async def discard(self, place: Place) -> None:
        """See `Tier`."""
        await self.put(place, "", 0)

    async def clear(self, tenant: str) -> int:
        """See `Tier`."""
        found = await self._of(tenant)
        for name, _ in found:
            _, _, question = name.partition("/")
            await self.discard(Place(tenant, question))
        if self.away:
            raise Unavailable("Redis is away: what it keeps cannot be forgotten now.")
        return len(found)

    async def size(self, tenant: str | None = None) -> Size:
        """See `Tier`."""
        if tenant is None:
            count = await self._asked(self._client.hlen, self._keys[1])
            total = await self._asked(self._client.get, self._keys[2])
            return Size(count or 0, int(total or 0))
        found = await self._of(tenant)
        return Size(len(found), sum(size for _, size in found))

    async def _of(self, tenant: str) -> list[tuple[str, int]]:
        """The names and sizes of a tenant's answers, those that have expired left out."""
        names: dict[str, int] = {}

        async def scan() -> None:
            pairs = self._client.hscan_iter(self._keys[1], match=f"{tenant}/*", count=SCAN)
            async for name, size in pairs:
                names[name.decode() if isinstance(name, bytes) else name] = int(size)

        await self._asked(scan, timeout=CLEAR_S)
        return list(names.items())

    async def _run(self, keys: list[str], arguments: list[Any]) -> Any:
        return await self._keep(keys=keys, args=arguments)

    async def _asked(
        self, ask: Callable[..., Awaitable[T]], *given: Any, timeout: float | None = None
    ) -> T | None:
        """The answer; None where Redis is away, or is being left alone."""
        now = self._monotonic()
        if self._rest_until is not None:
            if now < self._rest_until:
                return None
            self._rest_until = now + REST_S  # the others wait for this one
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout):
                answer = await ask(*given)
        except _AWAY as error:
            if self._rest_until is None:
                log.warning("Redis is away: answers are not kept.", error=type(error).__name__)
            self._rest_until = now + REST_S
            return None
        if self._rest_until is not None:
            self._rest_until = None
            log.info("Redis answers again: answers are kept.")
        return answer
