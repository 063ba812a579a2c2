"""Redis while it answers, this process's own counts while it does not."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from stationmaster.limits.grant import Grant, Refusal
from stationmaster.limits.memory import MemoryStore
from stationmaster.limits.plan import Amounts, Plan
from stationmaster.limits.shared import RedisStore
from stationmaster.live.connection import AWAY, REST_S, Breaker

log = structlog.get_logger(__name__)

TIMEOUT_S = 0.25
"""For one decision. Redis takes a tenth of a millisecond; what takes longer than this is away."""


class FallbackStore:
    """Never fails: without Redis, every replica counts for itself from nothing.

    So for as long as Redis is away, and a window beyond, a limit holds for each replica and not
    for all together. A place is given back where it was taken.
    """

    def __init__(
        self,
        shared: RedisStore,
        own: MemoryStore,
        *,
        timeout: float = TIMEOUT_S,
        rest: float = REST_S,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] = lambda shared: None,
    ) -> None:
        """`timeout` and `rest` are in seconds. `on_change` is told whether counts are shared."""
        self._shared = shared
        self._own = own
        self._timeout = timeout
        self._breaker = Breaker(rest=rest, monotonic=monotonic, on_change=on_change)

    @property
    def shared(self) -> bool:
        """Whether Redis answered last time."""
        return self._breaker.closed

    async def take(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        """See `Store`."""
        if not self._breaker.allows():
            return self._own.decide(plan, amounts)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._shared.take(plan, amounts)
        except AWAY as error:
            self._fail(error)
            return self._own.decide(plan, amounts)
        if not self._breaker.closed:
            log.info("Redis answers again: limits hold over all replicas.")
            self._breaker.succeeded()
        return answer

    async def run(self) -> None:
        """See `Store`."""
        while True:
            try:
                await self._shared.run()
            except AWAY as error:
                self._fail(error)
                await asyncio.sleep(self._breaker.rest)

    async def aclose(self) -> None:
        """See `Store`."""
        await self._own.aclose()
        with suppress(*AWAY):
            async with asyncio.timeout(self._timeout):
                await self._shared.aclose()

    def _fail(self, error: Exception) -> None:
        if self._breaker.closed:
            log.warning(
                "Redis is away: limits hold for each replica alone.", error=type(error).__name__
            )
        self._breaker.failed()
