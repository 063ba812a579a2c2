"""A part of a list that can be walked in both directions by the ids of what it holds."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Row, Select

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.ids import check_id
from stationmaster.storage import Transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window:
    """Which part, newest first: what is older than `after`, or the last newer than `before`."""

    limit: int
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """A part of a list. `has_more` tells of what is beyond it in the direction of walking."""

    items: list[T]
    has_more: bool


def window(
    tx: Transaction, query: Select[Any], column: Column[Any], part: Window, *, prefix: str
) -> Slice[Row[Any]]:
    """The rows of a part. Raises `Invalid` for both directions at once, `NotFound` for an id."""
    if part.after is not None and part.before is not None:
        raise Invalid("after_id and before_id cannot be used together.", param="before_id")
    for name in (part.after, part.before):
        if name is not None:
            check_id(name, prefix)
    if part.before is not None:
        query = query.where(column > part.before).order_by(column)
    else:
        if part.after is not None:
            query = query.where(column < part.after)
        query = query.order_by(column.desc())
    rows = list(tx.execute(query.limit(part.limit + 1)))
    items = rows[: part.limit]
    if part.before is not None:
        items.reverse()
    return Slice(items, len(rows) > part.limit)
