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
        self._trying = False

    @property
    def state(self) -> State:
        """How it is now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._now() < self._open_until else "half_open"

    @property
    def ready(self) -> bool:
        """Whether a call would be let through now."""
        return self._open_until is None or (self.state == "half_open" and not self._trying)

    @property
    def retry_after(self) -> float:
        """Seconds until the next call may try; 0 where one may now."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - self._now())

    def enter(self) -> bool:
        """Ask to make a call. Whoever got True says how it went: `succeeded`, `failed`, `left`."""
        if not self.ready:
            return False
        if self._open_until is not None:
            self._trying = True
        return True

    def succeeded(self) -> None:
        """The upstream answered."""
        self._failures = 0
        self._open_until = None
        self._trying = False

    def failed(self) -> None:
        """The upstream failed."""
        self._failures += 1
        self._trying = False
        tried_in_vain = self._open_until is not None and self.state == "half_open"
        if self._threshold and (self._failures >= self._threshold or tried_in_vain):
            self._open_until = self._now() + self._recovery

    def left(self) -> None:
        """The call ended without a word on the upstream's health: its client went away."""
        self._trying = False
