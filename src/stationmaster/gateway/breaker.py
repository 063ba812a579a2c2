"""A circuit breaker: an upstream that fails again and again is left alone for a while.

closed ──failures──▶ open ──recovery──▶ half open ──a success──▶ closed
                       ▲                    │
                       └─────a failure──────┘
"""

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class Breaker:
    """Opens after `threshold` failures in a row, for `recovery` seconds; then one call may try.

    A threshold of 0 never opens. `now` is a monotonic clock in seconds.
    """

    def __init__(
        self, *, threshold: int, recovery: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = threshold
        self._recovery = recovery
        self._now = now
        self._failures = 0
        self._open_until: float | None = None
        self._entered = 0
        self._trial: int | None = None  # the number of the call that tries, while one does

    @property
    def state(self) -> State:
        """How it is now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._now() < self._open_until else "half_open"

    @property
    def ready(self) -> bool:
        """Whether a call would be let through now."""
        return self._open_until is None or (self.state == "half_open" and self._trial is None)

    @property
    def retry_after(self) -> float:
        """Seconds until the next call may try; 0 where one may now."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - self._now())

    def enter(self) -> int | None:
        """Ask to make a call: its number, or None where it may not be made.

        Whoever got one says how it went: `succeeded` or `failed`, and `left` when it is over.
        """
        if self._open_until is not None and not self.ready:
            return None
        self._entered += 1
        if self._open_until is not None:
            self._trial = self._entered
        return self._entered

    def succeeded(self) -> None:
        """The upstream answered."""
        self._failures = 0
        self._open_until = None
        self._trial = None

    def failed(self, call: int) -> None:
        """The upstream failed. While it is left alone, only the call that tries tells something."""
        self._failures += 1
        if self._open_until is None:
            opens = bool(self._threshold) and self._failures >= self._threshold
        else:
            opens = call == self._trial
        if opens:
            self._open_until = self._now() + self._recovery
            self._trial = None

    def left(self, call: int) -> None:
        """The call is over. Where it was to try and found nothing, the next one may."""
        if call == self._trial:
            self._trial = None
