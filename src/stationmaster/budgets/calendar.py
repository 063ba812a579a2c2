"""The periods of budgets: days, weeks and months of a time zone's calendar."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid

Period = Literal["total", "day", "week", "month"]
"""A week begins on Monday."""

MAX_ZONE_LENGTH = 64


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name in the IANA database. Raises `Invalid`."""
    try:
        if len(name) > MAX_ZONE_LENGTH:
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(
            "time_zone must be a name such as Europe/Berlin or UTC.", param="time_zone"
        ) from None


def span(period: Period, time_zone: str, now: Millis) -> tuple[Millis, Millis | None]:
    """The period that `now` is in: its start, and the start of the next. (0, None) for a total."""
    if period == "total":
        return 0, None
    zone = zone_of(time_zone)
    today = datetime.fromtimestamp(now // 1000, zone).replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0
    )
    if period == "week":
        first = today - timedelta(days=today.weekday())
        after = first + timedelta(days=7)
    elif period == "month":
        first = today.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    else:
        first, after = today, today + timedelta(days=1)
    return _begins(first, zone), _begins(after, zone)


def _begins(day: datetime, zone: ZoneInfo) -> Millis:
    """The first moment of a day. Where the clocks skip midnight, that is when they go on."""
    local = day.replace(tzinfo=zone)
    return int(local.astimezone(UTC).timestamp()) * 1000
