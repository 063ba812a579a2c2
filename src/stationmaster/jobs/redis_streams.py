"""Jobs through Redis: a stream for each lane, with one group of consumers.

What a worker has taken and not acknowledged, as it was killed, is taken over by another after a
while. A Redis that restarts without what it had loses messages, and a message is only a doorbell.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from stationmaster.jobs.broker import (
    AT_ONCE,
    LANES,
    MOST_DEAD,
    MOST_KEPT,
    Delivery,
    Lane,
    Ring,
    Wellness,
    away,
    pauses,
    within,
)
from stationmaster.kernel.errors import Unavailable
from stationmaster.live.connection import AWAY, unreached

log = structlog.get_logger(__name__)

PREFIX = "stationmaster:jobs:"
DEAD = PREFIX + "dead"
GROUP = "workers"
FIELD = b"ring"

PULSE_S = 2.0  # between two looks at whether it is there
BLOCK_S = 1.0  # for which Redis is asked to wait for a message
SOCKET_TIMEOUT_S = 3.0  # for an answer; longer than it was asked to wait
TIMEOUT_S = 10.0  # for all that is asked at once
TAKE_OVER_S = 30.0  # after which what another took and did not acknowledge is somebody else's
NEVER_MS = 2**40  # longer than anything is kept
FORGET_S = 3600.0  # after which a consumer that holds nothing and asks for nothing is struck off


class RedisStreams:
    """A `Broker` over one Redis, 6.2 or newer."""

    kind = "redis"

    def __init__(
        self,
        client: Redis,
        *,
        consumer: str,
        pulse: float = PULSE_S,
        take_over: float = TAKE_OVER_S,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[bool], None] = lambda well: None,
    ) -> None:
        """`client` waits for an answer longer than `BLOCK_S`. `consumer` is this process's name.

        `pulse` and `take_over` are in seconds.
        """
        self._client = client
        self._consumer = consumer
        self._pulse = pulse
        self._take_over = take_over
        self._monotonic = monotonic
        self._wellness = Wellness("Redis", on_change)
        self._taken_over: dict[Lane, float] = {}
        self.waiting = 0

    @property
    def trouble(self) -> Unavailable | None:
        """See `Broker.trouble`."""
        return self._wellness.trouble

    async def run(self) -> None:
        """See `Broker.run`."""
        waits = pauses()
        while True:
            try:
                self.waiting = await self._asked(self._look())
            except AWAY as error:
                self._wellness.is_away(_reason(error))
                await asyncio.sleep(next(waits))
            else:
                self._wellness.is_well()
                waits = pauses()
                await asyncio.sleep(self._pulse)

    async def _look(self) -> int:
        """See that the streams are there; how much waits in them."""
        for lane in LANES:
            try:
                await self._client.xgroup_create(PREFIX + lane, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            if self.trouble is not None:
                # Takes nothing. A Redis that is too old would otherwise show so only later.
                name = PREFIX + lane
                await self._client.xautoclaim(name, GROUP, self._consumer, NEVER_MS, count=1)
        return sum([int(await self._client.xlen(PREFIX + lane)) for lane in LANES])

    async def publish(self, rings: Sequence[Ring]) -> None:
        """See `Broker.publish`."""
        if self.trouble is not None:
            raise away("Redis is away.")
        try:
            await self._asked(self._add(rings))
        except AWAY as error:
            self._wellness.is_away(_reason(error))
            raise _reason(error) from error

    async def _add(self, rings: Sequence[Ring]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for ring in rings:
                pipe.xadd(
                    PREFIX + ring.lane, {FIELD: ring.encode()}, maxlen=MOST_KEPT, approximate=True
                )
            await pipe.execute()

    async def receive(self, lane: Lane) -> list[Delivery]:
        """See `Broker.receive`."""
        waits = pauses()
        while True:
            await self._wellness.wait()
            try:
                deliveries: list[Delivery] = await self._asked(self._next(lane))
            except AWAY as error:
                if not _without_group(error):  # as a Redis that was emptied is
                    self._wellness.is_away(_reason(error))
                await asyncio.sleep(next(waits))
            else:
                waits = pauses()
                if deliveries:
                    return deliveries

    async def _asked(self, asked: Coroutine[Any, Any, Any]) -> Any:
        """What Redis answers.

        Our own cancellation does not go through the library's code, which loses one that comes
        while it connects.
        """
        return await within(TIMEOUT_S, asked, give_up=lambda: None)

    async def _next(self, lane: Lane) -> list[Delivery]:
        return await self._understood(lane, await self._left_over(lane) or await self._new(lane))

    async def _new(self, lane: Lane) -> list[tuple[bytes, Any]]:
        answer = await self._client.xreadgroup(
            GROUP,
            self._consumer,
            {PREFIX + lane: ">"},
            count=AT_ONCE[lane],
            block=round(BLOCK_S * 1000),
        )
        return _entries(answer)

    async def _left_over(self, lane: Lane) -> list[tuple[bytes, Any]]:
        """What somebody has taken who is gone. Asked now and then."""
        now = self._monotonic()
        if now - self._taken_over.get(lane, -self._take_over) < self._take_over:
            return []
        key = PREFIX + lane
        idle = round(self._take_over * 1000)
        answer = await self._client.xautoclaim(
            key, GROUP, self._consumer, idle, "0-0", count=AT_ONCE[lane]
        )
        found: list[tuple[bytes, Any]] = list(answer[1])
        if not found:
            self._taken_over[lane] = now
            for each in await self._client.xinfo_consumers(key, GROUP):
                if not each["pending"] and each["idle"] > FORGET_S * 1000:
                    await self._client.xgroup_delconsumer(key, GROUP, each["name"])
        return found

    async def _understood(self, lane: Lane, found: list[tuple[bytes, Any]]) -> list[Delivery]:
        deliveries = []
        for entry, fields in found:
            if not fields:  # dropped since, as one of too many
                await self._done(PREFIX + lane, [entry])
                continue
            try:
                ring = Ring.decode(fields.get(FIELD, b""))
            except ValueError:
                log.warning("A message is not understood; it is with the dead letters.", lane=lane)
                await self._client.xadd(DEAD, fields, maxlen=MOST_DEAD, approximate=True)
                await self._done(PREFIX + lane, [entry])
            else:
                deliveries.append(Delivery(ring, (PREFIX + lane, entry)))
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Broker.acknowledge`."""
        entries: dict[str, list[bytes]] = {}
        for delivery in deliveries:
            key, entry = delivery.token
            entries.setdefault(key, []).append(entry)
        for key, found in entries.items():
            try:
                await self._asked(self._done(key, found))
            except AWAY as error:
                self._wellness.is_away(_reason(error))

    async def _done(self, key: str, entries: list[bytes]) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.xack(key, GROUP, *entries)
            pipe.xdel(key, *entries)
            await pipe.execute()


def _entries(answer: Any) -> list[tuple[bytes, Any]]:
    """Of one stream, in either of the protocol's forms: a list of pairs, or a map."""
    if not answer:
        return []
    if isinstance(answer, dict):
        [entries] = answer.values()
        return list(entries[0]) if entries and isinstance(entries[0], list) else list(entries)
    return list(answer[0][1])


def _without_group(error: BaseException) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("NOGROUP")


def _reason(error: BaseException) -> Unavailable:
    if isinstance(error, AuthenticationError):
        return away(unreached(error), "broker_refused")
    if isinstance(error, NoPermissionError):
        return away("The user of REDIS_URL may not use streams.", "broker_refused")
    if isinstance(error, ResponseError):
        return away(
            "Redis is too old: 6.2 is the oldest that will do. Upgrade it.", "broker_refused"
        )
    return away(unreached(error))
