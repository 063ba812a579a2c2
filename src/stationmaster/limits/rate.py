"""A rate: how much in how long, and how much of it at once."""

import re
from dataclasses import dataclass
from typing import Self

MINUTE_MS = 60_000
SLOTS = 60
"""What comes within a 60th of a period is counted, and forgotten, together."""

MOST = 100_000_000
"""Of anything in one period. Times a day's milliseconds it is below 2**53: exact in Lua too."""

_PERIODS_MS = {"second": 1_000, "minute": MINUTE_MS, "hour": 3_600_000, "day": 86_400_000}
_RATE = re.compile(
    r"(\d{1,10})(?: ?/ ?(second|minute|hour|day))?(?: +burst +(\d{1,10}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Rate:
    """Never more than `burst` in any period, nor more than `burst` and `amount` a period beyond it.

    Where `burst` is left out it is the amount: never more than that in any period.
    """

    amount: int
    period_ms: int = MINUTE_MS
    burst: int = -1

    def __post_init__(self) -> None:
        if self.burst < 0:
            object.__setattr__(self, "burst", self.amount)
        if not 0 <= self.amount <= self.burst <= MOST or self.period_ms < 1:
            raise ValueError(f"No such rate: {self}")
        if self.burst and not self.amount:
            raise ValueError(f"No such rate, for a burst would never come back: {self}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `100`, `100/minute`, `1000/hour` or `100/minute burst 150`. Raises `ValueError`."""
        match = _RATE.fullmatch(text.strip().lower())
        if match is None:
            raise ValueError(f"No such rate: {text!r}.")
        amount, period, burst = match.groups()
        return cls(
            int(amount), _PERIODS_MS[period or "minute"], -1 if burst is None else int(burst)
        )

    @property
    def width_ms(self) -> int:
        """Of a slot."""
        return -(-self.period_ms // SLOTS)

    @property
    def lifetime_ms(self) -> int:
        """After this time without use nothing is left of what was counted."""
        drained = -(-self.burst * self.period_ms // max(1, self.amount))
        return max(self.period_ms + self.width_ms, drained)
