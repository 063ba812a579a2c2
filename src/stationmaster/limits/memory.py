"""Counts in this process, for this process alone."""

import asyncio

from stationmaster.kernel.clock import Clock, Millis
from stationmaster.limits.grant import UNLIMITED, Grant, Quota, Refusal, Standing
from stationmaster.limits.plan import INPUT, REQUESTS, Amounts, Plan, RateLine
from stationmaster.limits.window import Window

CAPACITY = 50_000
"""Windows of one generation, some 400 bytes each. There are two generations at most."""

PLACE_WAIT_MS = 1_000
"""When to ask again for a place: nobody knows when one becomes free."""


class MemoryStore:
    """Takes no locks: a decision is made without a pause, on the event loop's thread.

    Windows are kept in two generations. One that is used moves into the young generation; the old
    one is dropped when nothing in it can count any more. Should more than `capacity` windows be in
    use, it is dropped earlier, and with it the counts of those that were used least of late.
    """

    def __init__(self, clock: Clock, *, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._young: dict[str, Window] = {}
        self._old: dict[str, Window] = {}
        self._turned_at = clock.now()
        self._lifetime = 0
        self._places: dict[str, int] = {}

    async def take(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        """See `Store`. Never waits."""
        return self.decide(plan, amounts)

    async def run(self) -> None:
        """See `Store`. There is nothing to do."""
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """See `Store`."""
        self._places.clear()

    def decide(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        """`take`, for callers that cannot wait."""
        now = self._clock.now()
        young = self._young.get
        fits = True
        states: list[_State] = []
        for line in plan.rates:
            window = young(line.key) or self._settle_in(line, now)
            free = window.move(line, now)
            wanted = line.wanted(amounts)
            if free < wanted or not line.burst:
                fits = False
            states.append((line, window, wanted, free))
        if not fits:
            return _refused(states, now)
        places = self._places
        for place in plan.slots:
            if places.get(place.key, 0) >= place.most:
                wait = PLACE_WAIT_MS if place.most else None
                return Refusal(place, wait, _standing(states, now))
        for line, window, wanted, _ in states:
            window.add(line, wanted, now)
        for place in plan.slots:
            places[place.key] = places.get(place.key, 0) + 1
        return Grant(plan, amounts, now, _standing(states, now, taken=True), finish=self._finish)

    def free(self, line: RateLine) -> int:
        """How much of a line is left. Takes nothing."""
        now = self._clock.now()
        return (self._young.get(line.key) or self._settle_in(line, now)).move(line, now)

    def __len__(self) -> int:
        """How many windows are kept."""
        return len(self._young) + len(self._old)

    @property
    def places(self) -> int:
        """How many places are taken."""
        return sum(self._places.values())

    def _settle_in(self, line: RateLine, now: Millis) -> Window:
        self._lifetime = max(self._lifetime, line.lifetime)
        self._turned_at = min(self._turned_at, now)
        if now - self._turned_at > self._lifetime or len(self._young) >= self._capacity:
            self._old, self._young, self._turned_at = self._young, {}, now
        window = self._old.pop(line.key) if line.key in self._old else Window()
        self._young[line.key] = window
        return window

    def _finish(self, grant: Grant, input_tokens: int | None, output_tokens: int | None) -> None:
        places = self._places
        for place in grant.plan.slots:
            left = places.get(place.key, 0) - 1
            if left > 0:
                places[place.key] = left
            else:
                places.pop(place.key, None)
        for line in grant.plan.rates:
            if line.index == REQUESTS:
                continue
            really = input_tokens if line.index == INPUT else output_tokens
            if really is not None:
                self._correct(line, grant, really)

    def _correct(self, line: RateLine, grant: Grant, really: int) -> None:
        difference = really - line.wanted(grant.amounts)
        if not difference:
            return
        now = self._clock.now()
        window = self._young.get(line.key) or self._settle_in(line, now)
        window.move(line, now)
        if difference < 0:
            window.give_back(line, -difference, at=grant.at, now=now)
        else:
            window.add(line, difference, now)


_State = tuple[RateLine, Window, int, int]
"""A line and its window, how much is wanted of it, and how much was left before."""


def _refused(states: list[_State], now: Millis) -> Refusal:
    slowest: RateLine | None = None
    longest = -1
    for line, window, wanted, free in states:
        if free >= wanted and line.burst:
            continue
        wait = window.wait(line, wanted, now)
        if wait is None:
            return Refusal(line, None, _standing(states, now))
        if wait > longest:
            slowest, longest = line, wait
    assert slowest is not None
    return Refusal(slowest, longest, _standing(states, now))


def _standing(states: list[_State], now: Millis, *, taken: bool = False) -> Standing:
    if not states:
        return UNLIMITED
    found: list[Quota | None] = [None, None, None]
    for line, window, wanted, free in states:
        left = free - wanted if taken else free
        known = found[line.index]
        if known is None or left < known.remaining:
            found[line.index] = Quota(line.burst, left, window.reset(line, now), now)
    for quota in found:
        if quota is not None and quota.remaining < 0:
            quota.remaining = 0
    return found[0], found[1], found[2]
