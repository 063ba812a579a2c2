"""How long an upstream call may take, step by step."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total` bounds the whole call, from its start to its last byte.

    `first_byte` is for streams: an answer in one piece has none before all of it is written.
    """

    connect: float = 5.0
    first_byte: float = 120.0
    inactivity: float = 120.0
    total: float = 900.0


class Alarm:
    """Calls `ring` once the time that was `set` last has passed.

    To set it is to note a number: most times are set and replaced without ever being due, and a
    timer of the event loop for each would cost more than all else that a connection does.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Ring at `due`, in the event loop's time, and at no other time."""
        self._due = due
        timer = self._timer
        if timer is None or timer.when() > due:
            self._arm()

    def stop(self) -> None:
        """Never ring. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.stop()
        self._timer = self._loop.call_at(self._due, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._arm()
        else:
            self._ring()
