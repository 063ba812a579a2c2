"""Pages of a list, newest first, walked by an opaque cursor."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from stationmaster.kernel.errors import Invalid

T = TypeVar("T")

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A slice of a list. `next_cursor` is None on the last page."""

    items: list[T]
    next_cursor: str | None


def check_limit(limit: int | None) -> int:
    """Return the page size; raise `Invalid` outside 1 to 100 rather than cut silently."""
    if limit is None:
        return DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", param="limit")
    return limit
