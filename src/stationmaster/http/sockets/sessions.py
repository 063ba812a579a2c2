"""What happens in a session, as the frames of `/v1/stream`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from stationmaster.events import Live, Overflow
from stationmaster.http.routes.managed.event_view import event_view
from stationmaster.http.services import Services
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.session import SessionEvent

_PIECES = {"text": "token", "thinking": "thinking_token"}


async def start_of(
    services: Services, principal: Principal, session_id: str, after: int | None
) -> int:
    """Where to begin: behind `after`, else behind the last. Raises `NotFound`, `Invalid`."""
    head = await services.sessions.head(principal, session_id)
    if after is not None and after > head:
        raise Invalid(
            "The cursor is beyond the end of the stream.",
            code="cursor_out_of_range",
            param="after",
        )
    return head if after is None else after


async def session_frames(
    services: Services, principal: Principal, session_id: str, after: int, *, idle: float
) -> AsyncGenerator[dict[str, Any], None]:
    """Tell a session's events behind the number `after`, until it is deleted.

    What is in the book has its number as `seq`; pieces of what is being written have none, nor has
    a message that is told a second time, when its turn begins.
    """
    follow, behind = services.sessions.follow, True
    while behind:
        # A reader that has fallen behind is let go by the log, and comes back by its cursor.
        behind = False
        async with aclosing(follow(principal, session_id, after=after, idle=idle)) as items:
            async for item in items:
                frame = None
                if isinstance(item, Overflow):
                    behind = True
                elif isinstance(item, Live):
                    frame = _piece(item)
                elif isinstance(item, SessionEvent):
                    frame = _told(item, after)
                    after = max(after, item.event.seq)
                if frame is not None:
                    yield {**frame, "session_id": session_id}


def _told(item: SessionEvent, after: int) -> dict[str, Any] | None:
    shown = event_view(item)
    if shown is None:
        return None
    seq = {"seq": item.event.seq} if item.event.seq > after else {}
    return {"type": "session_event", "event": shown, **seq}


def _piece(live: Live) -> dict[str, Any] | None:
    kind = _PIECES.get(str(live.data.get("kind")))
    if kind is None:
        return None
    return {"type": kind, "content": live.data["text"], "event_id": live.data.get("event_id")}
