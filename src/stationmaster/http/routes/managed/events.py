"""A session's events: sent, listed, streamed."""

import re
from functools import partial
from typing import Annotated, Literal

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import Response

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.event_view import SHOWN, event_view
from stationmaster.http.routes.managed.history import Wanted, page_of
from stationmaster.http.routes.managed.incoming import inputs_of
from stationmaster.http.routes.managed.query import (
    CreatedGt,
    CreatedGte,
    CreatedLt,
    CreatedLte,
    LongLimit,
    PageCursor,
    since,
    until,
)
from stationmaster.http.routes.managed.sessions import SessionId
from stationmaster.http.routes.managed.stream import SessionStream
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.managed.event import EventSend, SentEvents, SessionEventPage
from stationmaster.http.tags import tags_of
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.threads import primary_id

EVENTS_PAGE = 100
STREAM = "text/event-stream"

Types = Annotated[
    list[Annotated[str, Query(max_length=64)]] | None,
    Query(alias="types[]", max_length=100, description="Only events of these types."),
]
Deltas = Annotated[
    list[Literal["agent.message", "agent.thinking"]] | None,
    Query(alias="event_deltas[]", description="Of which events to send previews."),
]
LastEventId = Annotated[
    str | None, Header(description="Begin behind this event, instead of with what comes next.")
]
STREAMED = {
    "description": "The events, as they happen",
    "content": {STREAM: {"schema": {"type": "string"}}},
}
_NUMBER = re.compile(r"[0-9]{1,16}")


async def send_events(
    request: Request, session_id: SessionId, body: EventSend, services: Given, caller: Caller
) -> SentEvents:
    """Speak to a session: messages, interrupts, confirmations, results of custom tools.

    All of them are taken, or none. A message to a session at work waits for its turn. The turns'
    model calls are counted under the tags of `x-stationmaster-tags`.
    """
    tags, own = tags_of(request.headers), primary_id(session_id)
    inputs = await inputs_of(services, caller, body.events, tags=tags, thread_id=own)
    sent = await services.sessions.send(caller, session_id, inputs)
    return SentEvents(data=[shown for event in sent if (shown := event_view(event)) is not None])


async def list_events(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    *,
    limit: LongLimit = EVENTS_PAGE,
    page: PageCursor = None,
    order: Literal["asc", "desc"] = "asc",
    types: Types = None,
    created_gt: CreatedGt = None,
    created_gte: CreatedGte = None,
    created_lt: CreatedLt = None,
    created_lte: CreatedLte = None,
) -> SessionEventPage:
    """What has happened in a session, oldest first unless told otherwise."""
    wanted = Wanted(
        limit=limit,
        page=page,
        order=order,
        types=None if types is None else frozenset(types),
        since=since(created_gt, created_gte),
        until=until(created_lt, created_lte),
    )
    return await listed(services, caller, session_id, wanted)


async def listed(
    services: Services,
    caller: Principal,
    session_id: str,
    wanted: Wanted,
    thread_id: str | None = None,
) -> SessionEventPage:
    """A page of a session's events, or of one thread's."""
    if wanted.types is not None and not wanted.types <= SHOWN:
        strange = min(wanted.types - SHOWN)
        raise Invalid(f"There are no events of type {strange[:64]!r} here.", param="types")
    head = await services.sessions.head(caller, session_id, thread_id=thread_id)
    return await page_of(
        partial(services.sessions.events, caller, session_id, thread_id=thread_id),
        head,
        wanted,
    )


async def stream_events(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    event_deltas: Deltas = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow a session: server-sent events, beginning with what comes next.

    With `event_deltas`, `event_start` and `event_delta` show what is being written. A silent
    stream sends `ping` events. Whoever was cut off lists the events that it has missed, or comes
    back with `Last-Event-ID`.
    """
    deltas = frozenset[str](event_deltas or ())
    return await followed(services, caller, session_id, deltas=deltas, last_event_id=last_event_id)


async def followed(
    services: Services,
    caller: Principal,
    session_id: str,
    *,
    deltas: frozenset[str],
    last_event_id: str | None,
    thread_id: str | None = None,
) -> Response:
    """The stream of a session, or of one thread."""
    # Before the answer begins: what is sent after it has begun must not be missed.
    head = await services.sessions.head(caller, session_id, thread_id=thread_id)
    after = head
    if last_event_id:
        if _NUMBER.fullmatch(last_event_id) is None or int(last_event_id) > head:
            raise Invalid(
                "Last-Event-ID is not the number of an event here.",
                code="cursor_out_of_range",
                param="Last-Event-ID",
            )
        after = int(last_event_id)
    return SessionStream(
        services,
        lambda idle: services.sessions.follow(
            caller, session_id, after=after, idle=idle, thread_id=thread_id
        ),
        deltas=deltas,
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/sessions/{session_id}/events"
    add(
        api,
        "POST",
        here,
        send_events,
        summary="Send events to a session",
        reply=SentEvents,
        refusals=(404, 409),
    )
    add(
        api,
        "GET",
        here,
        list_events,
        summary="List a session's events",
        reply=SessionEventPage,
        refusals=(404,),
    )
    add(
        api,
        "GET",
        f"{here}/stream",
        stream_events,
        summary="Follow a session",
        refusals=(404,),
        response_class=Response,
        responses={200: STREAMED},
    )
