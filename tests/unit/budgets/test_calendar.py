"""Periods tile all time, in every zone."""

from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.budgets.calendar import Period, span
from stationmaster.kernel.errors import Invalid

DAY = 86_400_000
MOMENTS = st.integers(0, 4_102_444_800_000)  # to the year 2100
PERIODS: st.SearchStrategy[Period] = st.sampled_from(["day", "week", "month"])
ZONES = st.sampled_from(sorted(zone for zone in available_timezones() if "/" in zone))
LONGEST = {"day": 2 * DAY, "week": 9 * DAY, "month": 33 * DAY}


@given(PERIODS, ZONES, MOMENTS)
def test_every_moment_is_in_its_period_and_the_next_follows(
    period: Period, zone: str, now: int
) -> None:
    start, end = span(period, zone, now)
    assert end is not None
    assert start <= now < end
    assert end - start <= LONGEST[period]
    assert span(period, zone, start) == (start, end)
    assert span(period, zone, end - 1) == (start, end)
    assert span(period, zone, end)[0] == end


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("total", 0, None),
        ("day", 1_769_731_200_000, 1_769_817_600_000),
        ("week", 1_769_385_600_000, 1_769_990_400_000),  # Monday the 26th
        ("month", 1_767_225_600_000, 1_769_904_000_000),
    ],
)
def test_the_thirtieth_of_january(period: Period, start: int, end: int | None) -> None:
    assert span(period, "UTC", 1_769_774_400_000) == (start, end)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "UTC\0", "a" * 100, "/"])
def test_zones_that_are_none(zone: str) -> None:
    with pytest.raises(Invalid):
        span("day", zone, 0)
