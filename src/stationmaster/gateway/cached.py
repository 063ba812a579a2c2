"""A call that may be answered from the cache, and whose answer may go into it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from typing import Literal

from stationmaster.cache import Answer, AnswerCache, Flight, Place
from stationmaster.gateway.attempt import IGNORED_HEADER, Attempt
from stationmaster.gateway.cacheable import Wish
from stationmaster.gateway.call import Following, GatewayCall
from stationmaster.kernel.clock import Clock
from stationmaster.providers.base import Headers

PATIENCE_S = 60.0
"""How long a call waits for another with the same question; then it asks for itself."""

PIECE = 64 * 1024
"""Bytes of a stream that is told again go out in pieces of this size."""

_KEPT_HEADERS = frozenset({"content-type", IGNORED_HEADER})
"""Of an answer's headers: the others are about the one call that it answered."""


class CachedCall(GatewayCall):
    """A call whose hold is placed as any other's; what follows may cost nothing.

    Of those who ask the same at the same time, one asks the provider and the others wait. If it
    gets no answer that can be shared, or goes away, the next one asks. Only whole answers of the
    first provider are kept: no errors, nothing that broke off, nothing of a fallback.
    """

    def __init__(
        self,
        attempt: Attempt,
        following: Following | None,
        *,
        cache: AnswerCache,
        place: Place,
        wish: Wish,
        clock: Clock,
    ) -> None:
        super().__init__(attempt, following)
        self._first = attempt
        self._cache = cache
        self._place = place
        self._wish = wish
        self._clock = clock
        self._flight: Flight | None = None
        self._found: Answer | None = None
        self._recorded: bytearray | None = None

    @property
    def cache(self) -> Literal["hit", "miss"]:
        """Whether the answer is from the cache, once there is one."""
        return "miss" if self._found is None else "hit"

    @property
    def status(self) -> int:
        """See `GatewayCall`."""
        return super().status if self._found is None else HTTPStatus.OK

    @property
    def headers(self) -> Headers:
        """See `GatewayCall`. A kept answer tells its age, in seconds."""
        if self._found is None:
            return super().headers
        age = max(0, self._clock.now() - self._found.kept_at) // 1000
        return (*self._found.headers, ("age", str(age)))

    @property
    def body(self) -> bytes | None:
        """See `GatewayCall`."""
        if self._found is None:
            return super().body
        return None if self._found.stream else self._found.body

    @property
    def between_events(self) -> bool:
        """See `GatewayCall`."""
        return self._found is not None or super().between_events

    async def start(self) -> None:
        """See `GatewayCall`. Where the answer is kept, or comes to another, nothing is sent."""
        if not self._wish.anew:
            self._found = await self._find()
        owner = self.context.owner
        self._cache.count(owner, hit=self._found is not None)
        if self._found is not None:
            await self._first.answered_elsewhere()
            return
        await super().start()
        if not self._may_be_kept():
            self._land(None)
        elif self.body is not None:
            await self._keep(self.body, stream=False)
        else:
            self._recorded = bytearray()

    def _told(self) -> AsyncGenerator[bytes, None]:
        if self._found is not None:
            return _pieces(self._found.body)
        return super()._told() if self._recorded is None else self._recording(self._recorded)

    async def aclose(self) -> None:
        """See `GatewayCall`. Whoever waits for this one's answer asks for himself."""
        try:
            await super().aclose()
        finally:
            self._land(None)

    async def _find(self) -> Answer | None:
        """The answer, kept or just come to another; None where this call must ask."""
        give_up = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            flight, leads = self._cache.join(self._place)
            if leads:
                self._flight = flight
                found = await self._cache.get(self._place)
                if found is None or not self._wish.accepts(found, self._clock.now()):
                    return None
                self._land(found)
                return found
            try:
                async with asyncio.timeout_at(give_up):
                    found = await flight.landed()
            except TimeoutError:
                return None
            if found is not None and self._wish.accepts(found, self._clock.now()):
                return found

    def _may_be_kept(self) -> bool:
        if self.status != HTTPStatus.OK or self._attempt is not self._first:
            return False
        return self.body is None or self._served_whole()

    def _served_whole(self) -> bool:
        return self.entry is not None and self.entry.outcome == "complete"

    async def _recording(self, recorded: bytearray) -> AsyncGenerator[bytes, None]:
        async with aclosing(super()._told()) as chunks:
            async for chunk in chunks:
                if self._recorded is not None:
                    recorded += chunk
                    if len(recorded) > self._cache.largest:
                        self._recorded = None
                        self._land(None)
                yield chunk
        if self._recorded is not None and self._served_whole():
            await self._keep(bytes(recorded), stream=True)

    async def _keep(self, body: bytes, *, stream: bool) -> None:
        kept = tuple(item for item in super().headers if item[0] in _KEPT_HEADERS)
        self._land(await self._cache.put(self._place, kept, body, stream=stream))

    def _land(self, answer: Answer | None) -> None:
        if self._flight is not None:
            self._flight.land(answer)
            self._flight = None


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
