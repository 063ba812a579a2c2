"""Time, injected, so that tests need not wait.

Points in time are integer milliseconds since 1970-01-01 UTC; durations are seconds as floats.
"""

import time
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
