"""Topics over Redis: whatever any of the servers publishes, all of them hear.

    publish ──▶ listeners here, at once
        └─────▶ a bounded queue ──▶ PUBLISH ──▶ the other servers' listeners

Redis may lose a message: it keeps none, and is away now and then. Who may have lost one is told: a
listener when its subscription begins, or begins again; and all listeners everywhere when a server
could not get rid of what it had to say. While Redis is away they are told every polling interval.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from stationmaster.kernel.ids import new_id
from stationmaster.live.bus import MemoryBus, Subscription
from stationmaster.live.connection import AWAY, Breaker, unreached
from stationmaster.live.polling import POLL_S, nudge

log = structlog.get_logger(__name__)

PREFIX = b"stationmaster:live:"
GAPS = b"stationmaster:gaps"
"""Where a server says that it has lost messages. Every server listens to it."""

MESSAGE_BYTES = 64 * 1024
"""The largest message that is passed on. Of a larger one others hear that there is something."""

QUEUE_BYTES = 8 * 1024**2
"""Of messages that wait to be sent. What comes while there are more is lost."""

BATCH = 200  # messages in one round trip
SILENCE_S = 2.0  # after which Redis is asked whether it is there, and may take as long to say so
TIMEOUT_S = (
    2.0  # for a round trip: nobody waits for it, and a busy machine is not one without Redis
)
MAX_PAUSE_S = 5.0  # between two tries to reach it


class RedisBus:
    """A bus over all servers on one Redis. `run` must run, or only this process hears."""

    def __init__(
        self,
        client: Redis,
        *,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        timeout: float = TIMEOUT_S,
        poll: float = POLL_S,
        on_change: Callable[[bool], None] = lambda shared: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`encode` makes bytes of what is published, `decode` the same again; neither may be slow.

        `timeout` and `poll` are in seconds. `on_change` is told whether news passes between
        servers, `on_lost` of each message that others do not get.
        """
        self._client = client
        self._encode = encode
        self._decode = decode
        self._timeout = timeout
        self._poll = poll
        self._on_change = on_change
        self._on_lost = on_lost
        self._local = MemoryBus()
        self._id = new_id("bus").encode()
        self._breaker = Breaker()
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._queued_bytes = 0
        self._lost = False
        self._news = asyncio.Event()
        self._asked: set[str] = set()  # topics that Redis was told of
        self._dirty: set[str] = set()  # topics whose listeners came or went
        self._changed = asyncio.Event()
        self._hears = False
        self._shared: bool | None = None

    @property
    def shared(self) -> bool:
        """Whether news passes between the servers now."""
        return self._hears and self._breaker.closed

    # --- the bus ------------------------------------------------------------------------------

    def publish(self, topic: str, message: Any) -> None:
        """See `Bus.publish`. Those in this process hear it before this returns."""
        self._local.publish(topic, message)
        if not self._breaker.closed:
            self._lose(1)
            return
        try:
            payload = self._encode(message)
        except Exception:
            log.exception("A message cannot be passed on to other servers.", topic=topic)
            payload = b""
        if len(payload) > MESSAGE_BYTES:
            payload = b""
        if self._queued_bytes + len(payload) > QUEUE_BYTES:
            self._lose(1)
            return
        self._queue.append((topic.encode(), payload))
        self._queued_bytes += len(payload)
        self._news.set()

    def subscribe(self, topic: str, *, capacity: int = 1000) -> Subscription:
        """See `Bus.subscribe`. Once Redis knows of it, it is told that it may have `missed`."""
        subscription = self._local.subscribe(topic, capacity=capacity)
        self._note(topic)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """See `Bus.unsubscribe`."""
        self._local.unsubscribe(subscription)
        self._note(subscription.topic)

    def _note(self, topic: str) -> None:
        self._dirty.add(topic)
        self._changed.set()

    def _lose(self, number: int) -> None:
        self._lost = True
        self._news.set()  # they are to hear that there was a gap, even if nothing more comes
        for _ in range(number):
            self._on_lost()

    async def run(self) -> None:
        """See `Bus.run`. What waits to be sent when it is cancelled is sent, if that is quick."""
        self._on_change(False)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen_on())
                group.create_task(self._tell_on())
                group.create_task(nudge(self._local, self._poll, needed=lambda: not self.shared))
        finally:
            if self._queue and self._breaker.closed:
                with suppress(*AWAY):
                    await self._tell()

    # --- telling others -----------------------------------------------------------------------

    async def _tell_on(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._breaker.allows():
                await asyncio.sleep(self._breaker.rest / 4)
                self._news.set()
                continue
            try:
                await self._tell()
            except AWAY as error:
                self._lose(len(self._queue))
                self._queue.clear()
                self._queued_bytes = 0
                self._breaker.failed()
                self._report(error)
            else:
                self._breaker.succeeded()
                self._report()

    async def _tell(self) -> None:
        while self._queue or self._lost:
            batch = [self._queue[number] for number in range(min(BATCH, len(self._queue)))]
            had_lost, self._lost = self._lost, False  # what fails is lost again
            async with asyncio.timeout(self._timeout), self._client.pipeline(False) as pipe:
                for topic, payload in batch:
                    pipe.publish(PREFIX + topic, self._id + b" " + payload)
                if had_lost:
                    pipe.publish(GAPS, self._id)
                await pipe.execute()
            for _ in batch:
                self._queued_bytes -= len(self._queue.popleft()[1])

    # --- hearing others -----------------------------------------------------------------------

    async def _listen_on(self) -> None:
        pause = 0.1
        while True:
            try:
                await self._listen()
            except AWAY as error:
                pause = 0.1 if self._hears else min(2 * pause, MAX_PAUSE_S)
                self._hears = False
                self._report(error)
            # Not all servers at once, when it comes back.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _listen(self) -> None:
        """Hear until Redis is gone. Never ends but by an exception."""
        pubsub = self._client.pubsub()
        asking: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._timeout):
                await pubsub.subscribe(GAPS)
            asking = asyncio.create_task(self._ask_on(pubsub))
            pinged = False
            while True:
                # Not None, which would be for ever: a Redis that hangs says nothing.
                message = await pubsub.get_message(timeout=SILENCE_S)
                if asking.done():
                    asking.result()
                if message is not None:
                    self._receive(message)
                elif pinged:
                    raise TimeoutError("Redis does not answer.")
                pinged = message is None
                if pinged:
                    async with asyncio.timeout(self._timeout):
                        await pubsub.ping()
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            with suppress(*AWAY):
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _ask_on(self, pubsub: PubSub) -> None:
        """Tell Redis what this process listens to, and whenever that changes."""
        self._asked.clear()
        self._dirty.update(self._local.topics())
        while True:
            self._changed.clear()
            dirty, self._dirty = self._dirty, set()
            wanted = {topic for topic in dirty if self._local.listeners(topic)}
            new = wanted - self._asked
            gone = (dirty - wanted) & self._asked
            self._asked = (self._asked | new) - gone
            async with asyncio.timeout(self._timeout):
                if new:
                    await pubsub.subscribe(*(PREFIX + topic.encode() for topic in new))
                if gone:
                    await pubsub.unsubscribe(*(PREFIX + topic.encode() for topic in gone))
            await self._changed.wait()

    def _receive(self, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message["channel"]
        if kind == "subscribe":
            if channel == GAPS:
                self._hears = True
                self._report()
            else:
                # Whatever was published until now has not come here.
                self._local.miss(channel.removeprefix(PREFIX).decode())
        elif kind == "message":
            sender, _, payload = message["data"].partition(b" ")
            if sender != self._id:
                self._hear(channel, payload)

    def _hear(self, channel: bytes, payload: bytes) -> None:
        if channel == GAPS:
            for topic in self._local.topics():
                self._local.miss(topic)
            return
        topic = channel.removeprefix(PREFIX).decode()
        try:
            message = self._decode(payload) if payload else None
        except (ValueError, TypeError):  # another version's, or not ours at all
            log.debug("A message of another server is not understood.", topic=topic)
            message = None
        if message is None:
            self._local.miss(topic)
        else:
            self._local.publish(topic, message)

    def _report(self, error: BaseException | None = None) -> None:
        if self.shared == self._shared:
            return
        self._shared = self.shared
        self._on_change(self.shared)
        if self.shared:
            log.info("News passes between servers through Redis.")
        else:
            reason = "It was cut off." if error is None else unreached(error)
            log.warning("Redis is away: news of other servers comes by polling.", reason=reason)
