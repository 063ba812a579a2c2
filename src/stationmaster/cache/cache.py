"""The cache as the gateway sees it: places, answers, flights, and what became of them."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import structlog

from stationmaster.cache.answer import Answer, Place
from stationmaster.cache.flight import Flight, Flights
from stationmaster.cache.memory import MemoryTier
from stationmaster.cache.tier import Size, Tier
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.principal import Owner
from stationmaster.storage.sealing import SealBroken, Sealer

log = structlog.get_logger(__name__)

Kind = Literal["memory", "disk", "redis"]

LARGEST_SHARE = 8
"""One answer takes at most this part of its tier, so that it cannot push out all others."""

COUNTED_TENANTS = 10_000
"""Of so many projects, those that asked last, hits and misses are remembered."""


@dataclass(slots=True)
class Counts:
    """What became of the questions of a project since the server started."""

    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """`sizes` has the tiers that there are."""

    hits: int
    misses: int
    sizes: dict[Kind, Size] = field(default_factory=dict)

    @property
    def hit_rate(self) -> float:
        """Of the questions that the cache was asked; 0 where there were none."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


Cleared = dict[Kind, int]
"""How many answers were forgotten, by tier."""


class AnswerCache:
    """Keeps whole answers, each for the project whose call it answered and for nobody else.

    Alone, a server keeps them in its memory and, sealed, on its disk. Servers together keep them in
    Redis, sealed, and nowhere else: what is cleared through one is gone for all.
    """

    def __init__(
        self,
        *,
        secret: bytes,
        sealer: Sealer,
        clock: Clock,
        ttl: float,
        memory: MemoryTier | None = None,
        kept: tuple[Kind, Tier, int] | None = None,
        on_lookup: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        """`secret` is the server's, `ttl` in seconds; `kept` is a tier with its name and bound.

        `on_lookup` is told of each question whether it was answered.
        """
        self._secret = hashlib.blake2b(secret, person=b"answer cache").digest()
        self._sealer = sealer
        self._clock = clock
        self._ttl = ttl
        self._memory = memory
        self._kept = kept
        self._on_lookup = on_lookup
        self._flights = Flights()
        self._counts: OrderedDict[str, Counts] = OrderedDict()
        limits = [memory.limit] if memory is not None else []
        limits += [kept[2]] if kept is not None else []
        self.largest = max(limits, default=0) // LARGEST_SHARE
        self.hits = 0
        self.misses = 0

    def place(self, owner: Owner, question: Iterable[bytes]) -> Place:
        """Where the answer to a question is, told in parts of any length."""
        tenant = self._tenant(owner)
        told = hashlib.blake2b(key=self._secret, digest_size=24)
        for part in (tenant.encode(), *question):
            told.update(b"%d:" % len(part))  # so that no two lists of parts read the same
            told.update(part)
        return Place(tenant, told.hexdigest())

    def join(self, place: Place) -> tuple[Flight, bool]:
        """The flight to a place, and whether the caller leads it: then it must land it."""
        return self._flights.join(place)

    async def get(self, place: Place) -> Answer | None:
        """What is kept there."""
        answer = self._memory.get(place) if self._memory is not None else None
        if answer is None and self._kept is not None:
            answer = await self._unsealed(place, self._kept[1])
            if answer is not None and self._memory is not None:
                self._memory.put(place, answer)
        return answer

    async def put(
        self, place: Place, headers: tuple[tuple[str, str], ...], body: bytes, *, stream: bool
    ) -> Answer:
        """Keep an answer, if it is not too large. Never fails: what cannot be kept is not."""
        now = self._clock.now()
        answer = Answer(headers, body, stream, now, now + int(self._ttl * 1000))
        if answer.weight > self.largest:
            return answer
        if self._memory is not None:
            self._memory.put(place, answer)
        if self._kept is not None:
            sealed = await asyncio.to_thread(self._sealed, place, answer)
            await self._kept[1].put(place, sealed, answer.expires_at)
        return answer

    def count(self, owner: Owner, *, hit: bool) -> None:
        """Note what became of a question."""
        self._on_lookup(hit)
        tenant = self._tenant(owner)
        counts = self._counts.setdefault(tenant, Counts())
        self._counts.move_to_end(tenant)
        if len(self._counts) > COUNTED_TENANTS:
            self._counts.popitem(last=False)
        if hit:
            counts.hits += 1
            self.hits += 1
        else:
            counts.misses += 1
            self.misses += 1

    async def stats(self, owner: Owner | None = None) -> Stats:
        """What is kept of a project, and what became of its questions; or of all."""
        if owner is None:
            return Stats(self.hits, self.misses, await self._sizes(None))
        tenant = self._tenant(owner)
        counts = self._counts.get(tenant, Counts())
        return Stats(counts.hits, counts.misses, await self._sizes(tenant))

    async def clear(self, owner: Owner, kind: Kind | None = None) -> Cleared:
        """Forget a project's answers, in one tier or in all. A tier that is not there has none."""
        tenant = self._tenant(owner)
        gone: Cleared = {}
        if self._memory is not None and kind in {None, "memory"}:
            gone["memory"] = self._memory.clear(tenant)
        if self._kept is not None and kind in {None, self._kept[0]}:
            gone[self._kept[0]] = await self._kept[1].clear(tenant)
        return gone

    async def _sizes(self, tenant: str | None) -> dict[Kind, Size]:
        found: dict[Kind, Size] = {}
        if self._memory is not None:
            found["memory"] = self._memory.size(tenant)
        if self._kept is not None:
            found[self._kept[0]] = await self._kept[1].size(tenant)
        return found

    async def _unsealed(self, place: Place, tier: Tier) -> Answer | None:
        sealed = await tier.get(place)
        if sealed is None:
            return None
        try:
            answer = await asyncio.to_thread(self._opened, place, sealed)
        except (SealBroken, msgspec.DecodeError):
            log.warning("A kept answer cannot be read; it is forgotten.")
            await tier.discard(place)
            return None
        return answer if answer.expires_at > self._clock.now() else None

    def _sealed(self, place: Place, answer: Answer) -> str:
        return self._sealer.seal(answer.packed(), purpose=f"cache:{place.name}")

    def _opened(self, place: Place, sealed: str) -> Answer:
        return Answer.unpacked(self._sealer.open(sealed, purpose=f"cache:{place.name}"))

    def _tenant(self, owner: Owner) -> str:
        told = f"{owner.organization_id}\0{owner.project_id}".encode()
        return hashlib.blake2b(told, key=self._secret, digest_size=16).hexdigest()
