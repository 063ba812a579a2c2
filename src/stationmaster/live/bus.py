"""Topics that pass messages on to whoever listens now."""

import asyncio
from collections import deque
from typing import Any, Protocol


class Subscription:
    """One listener's bounded queue.

    When more than `capacity` messages wait, all are dropped and `overflowed` is set: the listener
    must read what it missed from the log, or give up.
    """

    def __init__(self, topic: str, capacity: int) -> None:
        self.topic = topic
        self.overflowed = False
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

    def reset(self) -> None:
        """Forget all messages and the overflow."""
        self._messages.clear()
        self.overflowed = False
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
        """All waiting messages, in order."""
        messages = list(self._messages)
        self._messages.clear()
        if not self.overflowed:
            self._ready.clear()
        return messages


class Bus(Protocol):
    """Best effort: a message may be lost, never reordered within a topic from one publisher."""

    def publish(self, topic: str, message: Any) -> None:
        """Pass `message` on to the present subscribers. Never blocks, never raises."""
        ...

    def subscribe(self, topic: str, *, capacity: int = 1000) -> Subscription:
        """Start listening. What is published after this call is received."""
        ...

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop listening. Idempotent."""
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

    def listeners(self, topic: str) -> int:
        """How many listen to `topic` now."""
        return len(self._topics.get(topic, ()))
