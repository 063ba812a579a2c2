"""Sessions: made, shown, listed, changed, archived, deleted."""

from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query, Request

from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.event_view import cache_creation
from stationmaster.http.routes.managed.incoming import inputs_of, unsupported
from stationmaster.http.routes.managed.money import cents, micros
from stationmaster.http.routes.managed.query import (
    PAGE_SIZE,
    Archived,
    CreatedGt,
    CreatedGte,
    CreatedLt,
    CreatedLte,
    LongLimit,
    PageCursor,
    since,
    until,
)
from stationmaster.http.routes.managed.resource_view import mount_of, resource_view
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.managed.session import (
    CacheCreation,
    Session,
    SessionCreate,
    SessionFork,
    SessionPage,
    SessionStats,
    SessionUpdate,
    SessionUsage,
    Status,
)
from stationmaster.http.shapes.managed.terms import Amount, Deleted, SessionBudget
from stationmaster.http.tags import tags_of
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import NotFound
from stationmaster.sessions import session as records
from stationmaster.sessions.session import SessionFilter, SessionPatch, SessionRequest
from stationmaster.sessions.state import SessionState

SessionId = Annotated[str, Path(description="The session's id, `sesn_…`.")]
Statuses = Annotated[
    list[Status] | None, Query(alias="statuses[]", description="Only sessions with one of these.")
]
Absent = Annotated[str | None, Query(max_length=128, description="There are none: an empty list.")]


async def create_session(
    request: Request, body: SessionCreate, services: Given, caller: Caller
) -> Session:
    """Make a session, and send it its first events in the same transaction."""
    if body.vault_ids:
        raise unsupported("vault_ids", "A vault")
    for index, event in enumerate(body.initial_events):
        if event.type != "user.message":
            raise unsupported(f"initial_events.{index}.type", f"A first event {event.type}")
    tags = tags_of(request.headers)
    first = await inputs_of(services, caller, body.initial_events, "initial_events", tags=tags)
    wanted = SessionRequest(
        agent=body.agent,
        environment_id=body.environment_id,
        title=body.title,
        metadata=body.metadata,
        budget=micros(body.budget),
        on_crash=body.on_crash,
        rules=tuple(body.rules),
        resources=tuple(
            mount_of(each, f"resources.{index}.") for index, each in enumerate(body.resources)
        ),
    )
    return session_view(services, await services.sessions.create(caller, wanted, first))


async def get_session(session_id: SessionId, services: Given, caller: Caller) -> Session:
    """One session."""
    return session_view(services, await services.sessions.get(caller, session_id))


async def list_sessions(
    services: Given,
    caller: Caller,
    *,
    limit: LongLimit = PAGE_SIZE,
    page: PageCursor = None,
    order: Literal["asc", "desc"] = "desc",
    agent_id: Annotated[str | None, Query(max_length=64)] = None,
    agent_version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    statuses: Statuses = None,
    include_archived: Archived = False,
    created_gt: CreatedGt = None,
    created_gte: CreatedGte = None,
    created_lt: CreatedLt = None,
    created_lte: CreatedLte = None,
    deployment_id: Absent = None,
    memory_store_id: Absent = None,
) -> SessionPage:
    """The project's sessions, newest first unless told otherwise. Tasks are not among them."""
    wanted = SessionFilter(
        agent_id=agent_id,
        agent_version=agent_version if agent_id else None,
        statuses=tuple(statuses or ()),
        created_from=since(created_gt, created_gte),
        created_to=until(created_lt, created_lte),
        include_archived=include_archived,
        order=order,
    )
    after = id_cursor(page, "sesn")
    if deployment_id or memory_store_id:
        caller.require("read:sessions")
        return SessionPage(data=[], next_page=None)
    found = await services.sessions.list(caller, wanted, limit=limit, after=after)
    data = [session_view(services, item) for item in found.items]
    return SessionPage(data=data, next_page=found.next_cursor)


async def update_session(
    session_id: SessionId, body: SessionUpdate, services: Given, caller: Caller
) -> Session:
    """Change a session. What is new applies from its next turn on."""
    fields = body.model_dump(exclude_unset=True)
    if fields.pop("vault_ids", None):
        raise unsupported("vault_ids", "A vault")
    if "budget" in fields:
        fields["budget"] = micros(body.budget)
    changed = await services.sessions.update(caller, session_id, SessionPatch(fields))
    return session_view(services, changed)


async def archive_session(session_id: SessionId, services: Given, caller: Caller) -> Session:
    """Take a session out of use. It can still be read."""
    return session_view(services, await services.sessions.archive(caller, session_id))


async def fork_session(
    session_id: SessionId, body: SessionFork, services: Given, caller: Caller
) -> Session:
    """Make a session that goes on from the end of a past turn of this one.

    It has the same agent and environment, a copy of the files as they are now, and a book of its
    own. A part of ours: Anthropic's API has none.
    """
    made = await services.sessions.fork(caller, session_id, run_id=body.run_id)
    return session_view(services, made)


async def delete_session(session_id: SessionId, services: Given, caller: Caller) -> Deleted:
    """Delete a session with its events, its files and what it remembers."""
    await services.sessions.delete(caller, session_id)
    return Deleted(id=session_id, type="session_deleted")


def session_view(services: Services, session: records.Session) -> Session:
    """A session as the API shows it. Raises `NotFound` for a task's."""
    state = session.state
    if state.agent is None:
        raise NotFound("There is no session with this id.")
    now = services.clock.now()
    ended = state.updated_at if state.status == "terminated" else now
    running = 0 if state.running_since is None else max(0, now - state.running_since)
    active = (state.active_ms + running) / 1000
    budget = state.budget
    return Session(
        id=session.id,
        status=state.status,
        title=state.title,
        agent=state.agent,
        environment_id=session.environment_id or "",
        metadata=state.metadata,
        budget=None
        if budget is None
        else SessionBudget(max_list_cost=Amount(amount=cents(budget))),
        usage=_usage(state, active),
        stats=SessionStats(
            active_seconds=active,
            duration_seconds=max(0, ended - session.created_at) / 1000,
        ),
        resources=[resource_view(each) for each in state.resources],
        created_at=iso(session.created_at),
        updated_at=iso(max(state.updated_at, session.created_at)),
        archived_at=None if state.archived_at is None else iso(state.archived_at),
    )


def _usage(state: SessionState, active: float) -> SessionUsage:
    counted = state.usage.get
    return SessionUsage(
        input_tokens=counted("input_tokens", 0),
        output_tokens=counted("output_tokens", 0),
        cache_read_input_tokens=counted("cache_read_tokens", 0),
        cache_creation=CacheCreation(**cache_creation(state.usage)),
        list_cost=Amount(amount=cents(state.cost)),
        active_seconds=active,
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/sessions"
    one = f"{here}/{{session_id}}"
    add(
        api,
        "POST",
        here,
        create_session,
        summary="Make a session",
        reply=Session,
        refusals=(404, 409, 413),
    )
    add(api, "GET", here, list_sessions, summary="List sessions", reply=SessionPage)
    add(api, "GET", one, get_session, summary="Show a session", reply=Session, refusals=(404,))
    add(
        api,
        "POST",
        one,
        update_session,
        summary="Change a session",
        reply=Session,
        refusals=(404, 409),
    )
    add(
        api,
        "DELETE",
        one,
        delete_session,
        summary="Delete a session",
        reply=Deleted,
        refusals=(404, 409),
    )
    add(
        api,
        "POST",
        f"{one}/fork",
        fork_session,
        summary="Go on from a session's past in another",
        reply=Session,
        refusals=(404, 409),
    )
    add(
        api,
        "POST",
        f"{one}/archive",
        archive_session,
        summary="Archive a session",
        reply=Session,
        refusals=(404, 409),
    )
