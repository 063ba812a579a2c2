"""Money is whole micro-dollars, rounded up once."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import MAX_DOLLARS, PER_DOLLAR, parse_dollars, to_dollars, to_micros

AMOUNTS = st.decimals(0, MAX_DOLLARS, allow_nan=False, allow_infinity=False)


@given(AMOUNTS)
def test_rounding_is_up_and_by_less_than_one(amount: Decimal) -> None:
    micros = to_micros(amount)
    assert isinstance(micros, int)
    assert 0 <= micros - amount * PER_DOLLAR < 1


@given(st.lists(st.decimals(0, 10, places=12), min_size=1, max_size=10))
def test_a_sum_rounded_once_costs_less_than_its_parts_rounded_each(parts: list[Decimal]) -> None:
    once = to_micros(sum(parts, Decimal(0)))
    assert once <= sum(to_micros(part) for part in parts) < once + len(parts)


@given(st.integers(0, MAX_DOLLARS * PER_DOLLAR))
def test_what_is_shown_reads_back_as_it_was(micros: int) -> None:
    assert parse_dollars(to_dollars(micros), param="x") == micros
    assert parse_dollars(str(Decimal(micros) / PER_DOLLAR), param="x") == micros


@given(st.floats(0, MAX_DOLLARS))
def test_a_float_is_read_as_written(amount: float) -> None:
    assert parse_dollars(amount, param="x") == parse_dollars(repr(amount), param="x")


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        (0, 0),
        ("0", 0),
        (0.1, 100_000),
        ("0.1", 100_000),
        (1, 1_000_000),
        ("0.0000001", 1),
        (1e-7, 1),
        ("1e3", 1_000_000_000),
        (MAX_DOLLARS, MAX_DOLLARS * PER_DOLLAR),
    ],
)
def test_amounts(written: str | float, micros: int) -> None:
    assert parse_dollars(written, param="x") == micros


@pytest.mark.parametrize(
    "written",
    ["", "x", "-1", -1, -0.000001, "nan", "inf", "-inf", float("nan"), float("inf"), "sNaN",
     MAX_DOLLARS + 1, "1e1000000", "1\0", "$5"],
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_name(written: str | float) -> None:
    with pytest.raises(Invalid) as caught:
        parse_dollars(written, param="max_cost")
    assert caught.value.param == "max_cost"
