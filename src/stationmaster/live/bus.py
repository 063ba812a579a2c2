"""Topics that pass messages on to whoever listens now."""

import asyncio
from collections import deque
from typing import Any, Protocol


class Subscription:
    """One listener's bounded queue.

    When more than `capacity` messages wait, all are dropped and `overflowed` is set: the listener
    must read what it missed from the log, or give up. `missed` says that something may have been
    published that did not come here: the listener must look for itself, and what waits is in order
    all the same.
    """

    def __init__(self, topic: str, capacity: int) -> None:
        self.topic = topic
        self.overflowed = False
        self.missed = False
        self._capacity = capacity
        self._messages: deque[Any] = deque()
        self._ready = asyncio.Event()

    def put(self, message: Any) -> None:
        """Add a message, on the event loop. Never blocks."""
        if self.overflowed:
            return
        if len(self._messages) >= self._capacity:
            self.overflowed = True
            self._messages.clear()
        else:
            self._messages.append(message)
        self._ready.set()

    def miss(self) -> None:
        """Say that something may have been missed. Never blocks."""
        self.missed = True
        self._ready.set()

    def reset(self) -> None:
        """Forget all messages, the overflow and what was missed."""
        self._messages.clear()
        self.overflowed = self.missed = False
        self._ready.clear()

    async def wait(self, timeout: float) -> bool:
        """Wait until something is here; False after `timeout` seconds of nothing."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def take(self) -> list[Any]:
        """All waiting messages, in order. What was `missed` is the caller's to see to, before."""
        messages = list(self._messages)
        self._messages.clear()
        self.missed = False
        if not self.overflowed:
            self._ready.clear()
        return messages


class Bus(Protocol):
    """Best effort: a message may be lost, never reordered within a topic from one publisher.

    Whoever may have lost one is told so (`Subscription.missed`). Nobody is told before `run` runs.
    """

    def publish(self, topic: str, message: Any) -> None:
        """Pass `message` on to the present subscribers. Never blocks, never raises."""
        ...

    def subscribe(self, topic: str, *, capacity: int = 1000) -> Subscription:
        """Start listening. What is published after this call is received."""
        ...

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening. Idempotent."""
        ...

    async def run(self) -> None:
        """What goes on beside. Never ends by itself."""
        ...


class MemoryBus:
    """A bus within one process."""

    def __init__(self) -> None:
        self._topics: dict[str, set[Subscription]] = {}

    def publish(self, topic: str, message: Any) -> None:
        """See `Bus.publish`."""
        for subscription in self._topics.get(topic, ()):
            subscription.put(message)

    def subscribe(self, topic: str, *, capacity: int = 1000) -> Subscription:
        """See `Bus.subscribe`."""
        subscription = Subscription(topic, capacity)
        self._topics.setdefault(topic, set()).add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """See `Bus.unsubscribe`."""
        listeners = self._topics.get(subscription.topic)
        if listeners is None:
            return
        listeners.discard(subscription)
        if not listeners:
            del self._topics[subscription.topic]

    async def run(self) -> None:
        """See `Bus.run`: there is nothing."""
        await asyncio.Event().wait()

    def listeners(self, topic: str) -> int:
        """How many listen to `topic` now."""
        return len(self._topics.get(topic, ()))

    def topics(self) -> list[str]:
        """What is listened to now."""
        return list(self._topics)

    def miss(self, topic: str) -> None:
        """Tell the listeners of a topic that they may have missed something."""
        for subscription in self._topics.get(topic, ()):
            subscription.miss()
