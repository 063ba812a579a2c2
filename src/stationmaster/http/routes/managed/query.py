"""What query parameters of this API mean: pages, moments."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from stationmaster.http.cursors import bad_cursor
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid

PAGE_SIZE = 20

PageLimit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
LongLimit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
PageCursor = Annotated[
    str | None, Query(max_length=128, description="`next_page` of the page before.")
]
Archived = Annotated[bool, Query(description="Whether archived ones are listed too.")]

_AT = "A time by RFC 3339."
CreatedGt = Annotated[str | None, Query(alias="created_at[gt]", max_length=64, description=_AT)]
CreatedGte = Annotated[str | None, Query(alias="created_at[gte]", max_length=64, description=_AT)]
CreatedLt = Annotated[str | None, Query(alias="created_at[lt]", max_length=64, description=_AT)]
CreatedLte = Annotated[str | None, Query(alias="created_at[lte]", max_length=64, description=_AT)]


def after_number(page: str | None) -> int | None:
    """The cursor of a list that goes by numbers. Raises `Invalid` where it is none."""
    if not page:
        return None
    if not (page.isascii() and page.isdigit() and len(page) <= 16):
        raise bad_cursor()
    return int(page)


def millis(text: str | None, param: str, *, add: int = 0) -> Millis | None:
    """A moment in milliseconds, and `add`. Raises `Invalid`. Without a zone it is UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000) + add
    except (ValueError, OverflowError):
        raise Invalid(f"{param} is not a time by RFC 3339.", param=param) from None


def since(after: str | None, at_least: str | None) -> Millis | None:
    """The first millisecond of `created_at[gt]` and `created_at[gte]` together."""
    bounds = (millis(after, "created_at[gt]", add=1), millis(at_least, "created_at[gte]"))
    return max((bound for bound in bounds if bound is not None), default=None)


def until(before: str | None, at_most: str | None) -> Millis | None:
    """The last millisecond of `created_at[lt]` and `created_at[lte]` together."""
    bounds = (millis(before, "created_at[lt]", add=-1), millis(at_most, "created_at[lte]"))
    return min((bound for bound in bounds if bound is not None), default=None)
