"""Time, injected, so that tests need not wait.

Points in time are integer milliseconds since 1970-01-01 UTC; durations are seconds as floats.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

Millis = int


class Clock(Protocol):
    """Tells the wall time. It may step backwards; never subtract two readings for a duration."""

    def now(self) -> Millis:
        """Milliseconds since the epoch."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> Millis:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


def _since_boot() -> float:
    # Where there is one, the clock that goes on while the machine sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SharedClock:
    """Tells another's time, which is asked for now and then; between, it goes by itself.

    Several servers on several machines tell one time by it. Setting this machine's clock changes
    nothing here. Until the other has been heard it is this machine's own time.
    """

    def __init__(self, own: Clock, elapsed: Callable[[], float] = _since_boot) -> None:
        """`elapsed` is in seconds since whenever, and never goes back."""
        self._own = own
        self._elapsed = elapsed
        self._zero = own.now() - 1000 * elapsed()  # the time when `elapsed` was nothing

    def now(self) -> Millis:
        """Milliseconds since the epoch."""
        return round(self._zero + 1000 * self._elapsed())

    @property
    def offset(self) -> Millis:
        """How far this machine's clock is ahead; negative where it is behind."""
        return self._own.now() - self.now()

    async def ask(self, theirs: Callable[[], Awaitable[Millis]]) -> None:
        """Be set by the other's time. Raises what `theirs` raises; then nothing changes.

        It was read at some moment between the question and the answer. What is told here already
        stays as it is where one of these moments allows for it, so a slow answer does no harm.
        """
        asked = 1000 * self._elapsed()
        told = await theirs()
        answered = 1000 * self._elapsed()
        self._zero = min(max(self._zero, told - answered), told - asked)


class ManualClock:
    """A clock that moves when told to."""

    def __init__(self, now: Millis = 1_800_000_000_000) -> None:
        self._now = now

    def now(self) -> Millis:
        """Milliseconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move by `seconds`, which may be negative."""
        self._now += round(seconds * 1000)


def iso(at: Millis) -> str:
    """RFC 3339 with milliseconds, in UTC: `2026-01-30T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at % 1000:03d}Z"
