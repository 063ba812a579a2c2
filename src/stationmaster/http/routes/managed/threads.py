"""Threads: a session's own conversation, and those of its sub-agents."""

from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.responses import Response

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.events import (
    EVENTS_PAGE,
    STREAMED,
    Deltas,
    LastEventId,
    followed,
    listed,
)
from stationmaster.http.routes.managed.history import Wanted
from stationmaster.http.routes.managed.query import LongLimit, PageCursor, after_number
from stationmaster.http.routes.managed.sessions import SessionId
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.managed.event import SessionEventPage
from stationmaster.http.shapes.managed.session import Status, Thread, ThreadPage
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.sessions import session as records

THREADS_PAGE = 1000

ThreadId = Annotated[str, Path(description="The thread's id, `sthr_…`.")]
Statuses = Annotated[
    list[Status] | None, Query(alias="statuses[]", description="Only threads with one of these.")
]


async def list_threads(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    *,
    limit: LongLimit = THREADS_PAGE,
    page: PageCursor = None,
    statuses: Statuses = None,
) -> ThreadPage:
    """The session's own thread, then those of its sub-agents, oldest first."""
    start = after_number(page) or 0
    found = await services.sessions.threads(caller, session_id)
    wanted = [item for item in found if statuses is None or item.status in statuses]
    shown = wanted[start : start + limit]
    more = len(wanted) > start + limit
    return ThreadPage(
        data=[_view(item) for item in shown], next_page=str(start + limit) if more else None
    )


async def get_thread(
    session_id: SessionId, thread_id: ThreadId, services: Given, caller: Caller
) -> Thread:
    """One thread."""
    return _view(await _find(services, caller, session_id, thread_id))


async def archive_thread(
    session_id: SessionId, thread_id: ThreadId, services: Given, caller: Caller
) -> Thread:
    """Take a sub-agent's thread out of use, once its work is done. It can still be read.

    The session's own thread is refused: it is archived with its session.
    """
    return _view(await services.sessions.archive_thread(caller, session_id, thread_id))


async def list_thread_events(
    session_id: SessionId,
    thread_id: ThreadId,
    services: Given,
    caller: Caller,
    *,
    limit: LongLimit = EVENTS_PAGE,
    page: PageCursor = None,
) -> SessionEventPage:
    """What has happened in one thread, oldest first."""
    return await listed(services, caller, session_id, Wanted(limit=limit, page=page), thread_id)


async def stream_thread_events(
    session_id: SessionId,
    thread_id: ThreadId,
    services: Given,
    caller: Caller,
    *,
    event_deltas: Deltas = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Follow one thread: server-sent events, beginning with what comes next."""
    deltas = frozenset[str](event_deltas or ())
    return await followed(
        services,
        caller,
        session_id,
        deltas=deltas,
        last_event_id=last_event_id,
        thread_id=thread_id,
    )


async def _find(
    services: Services, caller: Principal, session_id: str, thread_id: str
) -> records.Thread:
    for thread in await services.sessions.threads(caller, session_id):
        if thread.id == thread_id:
            return thread
    raise NotFound("There is no thread with this id.")


def _view(thread: records.Thread) -> Thread:
    agent = {name: value for name, value in thread.agent.items() if name != "multiagent"}
    return Thread(
        id=thread.id,
        session_id=thread.session_id,
        parent_thread_id=thread.parent_id,
        agent=agent,
        status=thread.status,
        created_at=iso(thread.created_at),
        updated_at=iso(thread.updated_at),
        archived_at=None if thread.archived_at is None else iso(thread.archived_at),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/sessions/{session_id}/threads"
    one = f"{here}/{{thread_id}}"
    add(
        api,
        "GET",
        here,
        list_threads,
        summary="List a session's threads",
        reply=ThreadPage,
        refusals=(404,),
    )
    add(api, "GET", one, get_thread, summary="Show a thread", reply=Thread, refusals=(404,))
    add(
        api,
        "POST",
        f"{one}/archive",
        archive_thread,
        summary="Archive a thread",
        reply=Thread,
        refusals=(404, 409),
    )
    add(
        api,
        "GET",
        f"{one}/events",
        list_thread_events,
        summary="List a thread's events",
        reply=SessionEventPage,
        refusals=(404,),
    )
    add(
        api,
        "GET",
        f"{one}/stream",
        stream_thread_events,
        summary="Follow a thread",
        refusals=(404,),
        response_class=Response,
        responses={200: STREAMED},
    )
