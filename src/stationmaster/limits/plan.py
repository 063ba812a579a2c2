"""What a request counts against: a list of lines, made once for each caller and kind of request."""

from dataclasses import dataclass
from typing import Literal

from stationmaster.limits.rate import Rate

Level = Literal["global", "organization", "project", "user", "key", "address", "class"]
Unit = Literal["requests", "input_tokens", "output_tokens", "calls", "sockets"]

REQUESTS, INPUT, OUTPUT = 0, 1, 2
"""Where an amount stands in `Amounts`, by a line's `index`."""

_UNITS: tuple[Unit, Unit, Unit] = ("requests", "input_tokens", "output_tokens")

Amounts = tuple[int, int, int]
"""Requests, input tokens, output tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class RateLine:
    """One rate. The fields beside `rate` are its own, at hand for the hot path."""

    level: Level
    unit: Unit
    index: int
    key: str
    rate: Rate
    amount: int
    period: int
    burst: int
    width: int
    lifetime: int
    bursting: bool

    @classmethod
    def of(cls, level: Level, index: int, subject: str, rate: Rate) -> "RateLine":
        """A line for `subject`, whose counts are kept apart by unit and period."""
        unit = _UNITS[index]
        return cls(
            level=level,
            unit=unit,
            index=index,
            key=f"{subject}:{unit}:{rate.period_ms}",
            rate=rate,
            amount=rate.amount,
            period=rate.period_ms,
            burst=rate.burst,
            width=rate.width_ms,
            lifetime=rate.lifetime_ms,
            bursting=rate.burst > rate.amount,
        )

    def wanted(self, amounts: Amounts) -> int:
        """What is taken of it. More tokens than there are ever are as many as there are."""
        wanted = amounts[self.index]
        return self.burst if wanted > self.burst and self.index else wanted


@dataclass(frozen=True, slots=True, eq=False)
class SlotLine:
    """How many there may be at the same time."""

    level: Level
    unit: Unit
    key: str
    most: int


Line = RateLine | SlotLine


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Every line that a request counts against. It passes all of them or takes nothing."""

    rates: tuple[RateLine, ...] = ()
    slots: tuple[SlotLine, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is limited."""
        return not self.rates and not self.slots
