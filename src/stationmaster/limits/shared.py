"""Counts in Redis, for every replica together."""

import asyncio
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.ids import new_id
from stationmaster.limits.grant import UNLIMITED, Grant, Quota, Refusal, Standing
from stationmaster.limits.plan import INPUT, OUTPUT, Amounts, Plan, SlotLine

PREFIX = "{stationmaster:limits}:"
"""In braces, so that Redis Cluster keeps all of it on one node: a script reaches no further."""

LEASE_S = 30.0
"""How long the places of a replica stay taken that was killed."""

_RENEWED_AT_ONCE = 500


class RedisStore:
    """One script for each decision: one round trip, and atomic over all lines.

    The time is the server's own, the same for every replica, whatever their clocks say. What ends
    is told behind the caller's back, by `run`, which also renews the leases of places.
    """

    def __init__(
        self,
        client: Redis,
        *,
        now: Callable[[], Millis] | None = None,
        lease: float = LEASE_S,
    ) -> None:
        """`lease` is in seconds. `now` replaces the server's time, for tests."""
        self._client = client
        self._now = now
        self._lease = lease
        library = _script("window")
        self._take = client.register_script(library + _script("take"))
        self._end = client.register_script(library + _script("finish"))
        self._renew = client.register_script(library + _script("renew"))
        self._held: dict[str, tuple[SlotLine, ...]] = {}
        self._ended: deque[tuple[list[str], list[Any]]] = deque()
        self._news = asyncio.Event()
        self._abandoned: set[asyncio.Task[Grant | Refusal]] = set()

    async def take(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        """See `Store`. Raises `RedisError` or `OSError` where Redis cannot be asked."""
        if not plan.slots:
            return await self._ask(plan, amounts)
        # A place that is given while nobody waits any more must be given back.
        asking = asyncio.ensure_future(self._ask(plan, amounts))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._abandoned.add(asking)
            asking.add_done_callback(self._abandon)
            raise

    async def run(self) -> None:
        """See `Store`."""
        while True:
            try:
                async with asyncio.timeout(self._lease / 3):
                    await self._news.wait()
            except TimeoutError:
                await self._renew_all()
            await self.tell()

    async def tell(self) -> None:
        """Tell Redis of the grants that are finished. Raises `RedisError` or `OSError`."""
        self._news.clear()
        while self._ended:
            keys, arguments = self._ended[0]
            await self._end(keys=keys, args=[self._time(), *arguments])
            self._ended.popleft()

    async def aclose(self) -> None:
        """See `Store`. The client stays open."""
        for ticket, places in self._held.items():
            self._ended.append(([PREFIX + place.key for place in places], [0, ticket, 0]))
        self._held.clear()
        await self.tell()

    async def _ask(self, plan: Plan, amounts: Amounts) -> Grant | Refusal:
        ticket = new_id("slot") if plan.slots else ""
        keys = [PREFIX + line.key for line in plan.rates]
        keys += [PREFIX + place.key for place in plan.slots]
        arguments: list[Any] = [self._time(), len(plan.rates), ticket, int(self._lease * 1000)]
        for line in plan.rates:
            arguments += (line.amount, line.period, line.burst, line.width)
            arguments += (line.wanted(amounts), line.lifetime)
        arguments += [place.most for place in plan.slots]
        at, refused, wait, *rest = await self._take(keys=keys, args=arguments)
        standing = _standing(plan, rest, at)
        if refused:
            line_or_place = [*plan.rates, *plan.slots][refused - 1]
            return Refusal(line_or_place, None if wait < 0 else wait, standing)
        if plan.slots:
            self._held[ticket] = plan.slots
        return Grant(plan, amounts, at, standing, finish=self._finish, ticket=ticket)

    def _finish(self, grant: Grant, input_tokens: int | None, output_tokens: int | None) -> None:
        used = {INPUT: input_tokens, OUTPUT: output_tokens}
        keys, arguments = [], []
        for line in grant.plan.rates:
            really = used.get(line.index)
            difference = 0 if really is None else really - line.wanted(grant.amounts)
            if difference:
                keys.append(PREFIX + line.key)
                arguments += [line.amount, line.period, line.burst, line.width]
                arguments += [line.lifetime, difference]
        windows = len(keys)
        places = self._held.pop(grant.ticket, ())
        keys += [PREFIX + place.key for place in places]
        if keys:
            self._ended.append((keys, [windows, grant.ticket, grant.at, *arguments]))
            self._news.set()

    def _abandon(self, asking: "asyncio.Task[Grant | Refusal]") -> None:
        self._abandoned.discard(asking)
        if not asking.cancelled() and asking.exception() is None:
            grant = asking.result()
            if isinstance(grant, Grant):
                grant.finish(0, 0)

    async def _renew_all(self) -> None:
        held = [(place.key, ticket) for ticket, places in self._held.items() for place in places]
        for start in range(0, len(held), _RENEWED_AT_ONCE):
            some = held[start : start + _RENEWED_AT_ONCE]
            await self._renew(
                keys=[PREFIX + key for key, _ in some],
                args=[self._time(), int(self._lease * 1000), *(ticket for _, ticket in some)],
            )

    def _time(self) -> Millis | str:
        return "" if self._now is None else self._now()


def _script(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def _standing(plan: Plan, rest: list[int], at: Millis) -> Standing:
    if not rest:
        return UNLIMITED
    found: list[Quota | None] = [None, None, None]
    for number, line in enumerate(plan.rates):
        free, reset = rest[2 * number], rest[2 * number + 1]
        known = found[line.index]
        if known is None or free < known.remaining:
            found[line.index] = Quota(line.burst, free, reset, at)
    for quota in found:
        if quota is not None and quota.remaining < 0:
            quota.remaining = 0
    return found[0], found[1], found[2]
