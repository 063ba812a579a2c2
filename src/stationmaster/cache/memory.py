"""Answers in this process's memory: bounded, the longest unused go first."""

from collections import OrderedDict

from stationmaster.cache.answer import Answer, Place
from stationmaster.cache.tier import Size
from stationmaster.kernel.clock import Clock

OVERHEAD = 400
"""Bytes that an entry takes beside what it holds."""


class MemoryTier:
    """Holds at most `limit` bytes."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self.limit = limit
        self._clock = clock
        self._held: OrderedDict[Place, Answer] = OrderedDict()
        self._bytes = 0

    def get(self, place: Place) -> Answer | None:
        """What was put there, unless it has expired or was pushed out."""
        answer = self._held.get(place)
        if answer is None:
            return None
        if answer.expires_at <= self._clock.now():
            self.discard(place)
            return None
        self._held.move_to_end(place)
        return answer

    def put(self, place: Place, answer: Answer) -> None:
        """Keep it, if it is not larger than all that may be kept."""
        self.discard(place)
        weight = answer.weight + OVERHEAD
        if weight > self.limit:
            return
        while self._bytes + weight > self.limit:
            self.discard(next(iter(self._held)))
        self._held[place] = answer
        self._bytes += weight

    def discard(self, place: Place) -> None:
        """Keep it no longer. Idempotent."""
        answer = self._held.pop(place, None)
        if answer is not None:
            self._bytes -= answer.weight + OVERHEAD

    def clear(self, tenant: str) -> int:
        """Forget all that is a tenant's; how many that were."""
        gone = [place for place in self._held if place.tenant == tenant]
        for place in gone:
            self.discard(place)
        return len(gone)

    def size(self, tenant: str | None = None) -> Size:
        """What is kept of a tenant, or of all."""
        if tenant is None:
            return Size(len(self._held), self._bytes)
        found = [each for place, each in self._held.items() if place.tenant == tenant]
        return Size(len(found), sum(each.weight + OVERHEAD for each in found))
