"""Rate limits as they are stored with a key, a project or an organisation."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Limits

MAX_RATE = 10**12
NAMES = tuple(field.name for field in fields(Limits))


def check_limits(values: Mapping[str, Any], *, param: str) -> Limits | None:
    """Limits as given; None where there are none. Raises `Invalid`."""
    for name, value in values.items():
        where = f"{param}.{name[:64]}"
        if name not in NAMES:
            raise Invalid(
                f"There is no limit {name[:64]!r}; there are {', '.join(NAMES)}.", param=where
            )
        if value is not None and (type(value) is not int or not 0 <= value <= MAX_RATE):
            raise Invalid(f"{where} must be a whole number, or null.", param=where)
    found = Limits(**values)
    return None if found == Limits() else found


def to_row(limits: Limits | None) -> dict[str, int] | None:
    """As they are stored: those that are set."""
    if limits is None:
        return None
    return {name: value for name in NAMES if (value := getattr(limits, name)) is not None}


def from_row(row: dict[str, int] | None) -> Limits | None:
    """As they were stored. What this version does not know of them is left out."""
    if not row:
        return None
    return Limits(**{name: value for name, value in row.items() if name in NAMES})
