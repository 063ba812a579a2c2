from typing import Any

import pytest

from stationmaster.limits import Rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100", Rate(100)),
        ("0", Rate(0)),
        ("100/minute", Rate(100)),
        ("100 / Minute", Rate(100)),
        ("1000/hour", Rate(1000, 3_600_000)),
        ("5/second", Rate(5, 1_000)),
        ("7/day", Rate(7, 86_400_000)),
        ("100/minute burst 150", Rate(100, burst=150)),
        (" 100 burst 150 ", Rate(100, burst=150)),
    ],
)
def test_what_an_operator_writes(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "-1", "1.5", "100/week", "100 burst 99", "0 burst 5", "100000001", "1e3", "burst 5", "٣",
     "10/minute/hour"],
)  # fmt: skip
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="No such rate"):
        Rate.parse(text)


@pytest.mark.parametrize("wrong", [{"amount": 5, "period_ms": 0}, {"amount": 5, "burst": 4}])
def test_a_rate_makes_sense_however_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="No such rate"):
        Rate(**wrong)


@pytest.mark.parametrize("period", [1, 59, 60, 61, 1_000, 60_000, 86_400_000])
def test_the_slots_cover_the_period(period: int) -> None:
    rate = Rate(10, period)
    assert rate.width_ms * 60 >= period
    assert rate.lifetime_ms >= period + rate.width_ms
    assert rate.width_ms <= max(1, period / 60 + 1)
