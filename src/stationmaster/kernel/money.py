"""Money: integer micro-dollars (1 USD = 1,000,000)."""

from decimal import Decimal, InvalidOperation
from math import ceil

from stationmaster.kernel.errors import Invalid

MicroDollars = int

PER_DOLLAR = 1_000_000
MAX_DOLLARS = 1_000_000_000


def to_micros(dollars: Decimal) -> MicroDollars:
    """Round up once: a call's exact cost becomes the amount billed."""
    return ceil(dollars * PER_DOLLAR)


def parse_dollars(value: str | int | float, *, param: str) -> MicroDollars:
    """Read an amount of dollars from outside. A float is read as it is written, not as binary."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise Invalid(f"{param} must be an amount in dollars.", param=param) from None
    if not amount.is_finite() or not 0 <= amount <= MAX_DOLLARS:
        raise Invalid(f"{param} must be between 0 and {MAX_DOLLARS} dollars.", param=param)
    return to_micros(amount)


def to_dollars(micros: MicroDollars) -> float:
    """For display and JSON: six decimals are exact in a float up to a billion dollars."""
    return micros / PER_DOLLAR
