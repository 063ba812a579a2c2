"""The tags that a request carries."""

from collections.abc import Sequence

from starlette.datastructures import Headers

from stationmaster.budgets.definition import check_tags
from stationmaster.gateway.asked import TAGS_HEADER


def tags_of(headers: Headers | None, given: Sequence[str] = ()) -> tuple[str, ...]:
    """What a request wants its model calls counted under: its header's words, then `given`.

    Raises `Invalid`.
    """
    words = "" if headers is None else ",".join(headers.getlist(TAGS_HEADER))
    named = [word.strip() for word in words.split(",")] if words else []
    return check_tags((*named, *given))
