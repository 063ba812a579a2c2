"""Sessions by `/api/execute`: a prompt in, its events out."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Path, Query, Request
from starlette.responses import Response

from stationmaster.http.deps import Caller, Given
from stationmaster.http.job_stream import Item, JobStream
from stationmaster.http.routes.events import STREAM
from stationmaster.http.routes.events import cursor as cursor_of
from stationmaster.http.routes.managed.query import millis
from stationmaster.http.routes.table import add, content
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.services import Services
from stationmaster.http.shapes.execute import (
    OWN_WORKSPACE,
    ExecuteRequest,
    JobSession,
    JobSessionDeleted,
    JobSessionList,
    JobSessionReply,
    JobSessionRequest,
    JobSessions,
    JobStatus,
    Pagination,
    PromptRequest,
)
from stationmaster.http.tags import tags_of
from stationmaster.http.task_request import check_model
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Conflict, Invalid
from stationmaster.kernel.paging import DEFAULT_LIMIT
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.inputs import Interrupt, UserMessage
from stationmaster.sessions.session import Session, SessionFilter, SessionRequest
from stationmaster.sessions.state import Status
from stationmaster.sessions.toolset import NAMES, TOOLSET, tools_of

Policy = Literal["always_allow", "always_ask"]

DAY_MS = 86_400_000
MAX_OFFSET = 1_000_000  # what lies further is walked to with `after`
POLL_S = 5.0  # how late an event comes whose wake-up was lost

SessionId = Annotated[str, Path(description="The session's id, `sesn_…`.")]
LastEventId = Annotated[
    str | None, Header(description="Only what follows this number; `after` by another name.")
]


async def execute(
    request: Request, body: ExecuteRequest, services: Given, caller: Caller
) -> Response:
    """Have an agent do something, in a new session or in one that goes on, and watch it.

    The answer is a stream of server-sent events without names: `connected`, `message`, `thinking`,
    `tool_use`, `tool_result`, `permission_request`, and at last `completed` or `error`.
    """
    resumed, tags = body.resume_session_id, tags_of(request.headers, body.tags)
    if resumed is not None:
        return await _turn(services, caller, resumed, body, tags, resumed=resumed)
    _check_workspace(body.workspace)
    if body.model is not None:
        check_model(body.model, services.gateway, caller)
    caller.require("write:sessions")
    await services.runs.require_room(caller)  # before there is a session without a turn
    policy: Policy = "always_allow" if body.dangerously_skip_permissions else "always_ask"
    made = await _make(services, caller, model=body.model, policy=policy)
    return await _turn(services, caller, made.id, body, tags, resumed=None)


async def stream_prompt(
    request: Request, session_id: SessionId, body: PromptRequest, services: Given, caller: Caller
) -> Response:
    """Say something to a session and watch it. While it is at work: 409."""
    tags = tags_of(request.headers, body.tags)
    return await _turn(services, caller, session_id, body, tags, resumed=None)


async def replay_session(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    after: Annotated[
        int | None, Query(ge=0, le=2**53 - 1, description="Only what follows this number.")
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """What has happened in a session's turns, and goes on to the end of the next one to end."""
    session = await services.sessions.get(caller, session_id)
    start = cursor_of(after, last_event_id)
    await services.sessions.events(caller, session_id, after=start, limit=1)
    hello = _hello(services, session, None)
    return _stream(services, caller, session, after=start, hello=hello)


async def create_job_session(
    body: JobSessionRequest, services: Given, caller: Caller
) -> JobSessionReply:
    """Make a session that waits for its first prompt."""
    _check_workspace(body.workspace)
    made = await _make(services, caller, model=None, policy="always_allow")
    return _reply(services, made, "The session is there.")


async def list_job_sessions(
    services: Given,
    caller: Caller,
    *,
    limit: Limit = DEFAULT_LIMIT,
    offset: Annotated[
        int, Query(ge=0, le=MAX_OFFSET, description="How many to leave out at the beginning.")
    ] = 0,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before; without `offset`.")
    ] = None,
    status: Annotated[
        Status | Literal["archived"] | None, Query(description="Only sessions in this state.")
    ] = None,
    model: Annotated[
        str | None, Query(max_length=128, description="Only sessions whose agent has this model.")
    ] = None,
    from_date: Annotated[
        str | None, Query(max_length=64, description="Only what was made then or later.")
    ] = None,
    to_date: Annotated[
        str | None, Query(max_length=64, description="Only what was made by then; a day counts.")
    ] = None,
) -> JobSessionList:
    """The project's sessions, newest first, however they were made."""
    if after is not None and offset:
        raise Invalid("after goes without offset.", param="after")
    wanted = SessionFilter(
        model=model,
        statuses=() if status is None or status == "archived" else (status,),
        only_archived=status == "archived",
        created_from=millis(from_date, "from_date"),
        created_to=_to(to_date),
    )
    page = await services.sessions.list(caller, wanted, limit=limit, after=after, offset=offset)
    has_more = page.next_cursor is not None
    data = JobSessions(
        sessions=[_view(each) for each in page.items],
        pagination=Pagination(
            total_count=await services.sessions.count(caller, wanted),
            limit=limit,
            offset=offset,
            has_more=has_more,
        ),
    )
    return JobSessionList(
        message=f"{len(data.sessions)} sessions.",
        timestamp=iso(services.clock.now()),
        data=data,
        sessions=data.sessions,
        pagination=data.pagination,
        count=len(data.sessions),
        has_more=has_more,
        next=page.next_cursor,
    )


async def get_job_session(
    session_id: SessionId, services: Given, caller: Caller
) -> JobSessionReply:
    """One session."""
    found = await services.sessions.get(caller, session_id)
    return _reply(services, found, "The session is there.")


async def delete_job_session(
    session_id: SessionId, services: Given, caller: Caller
) -> JobSessionDeleted:
    """Delete a session with its events, its files and what it remembers."""
    await services.sessions.delete(caller, session_id)
    return JobSessionDeleted(sessionId=session_id)


async def get_status(services: Given, caller: Caller) -> JobStatus:
    """Whether runs are at work."""
    caller.require("read:tasks")
    depth = await services.runs.depth()
    return JobStatus(
        status="busy" if depth.running or depth.queued else "idle",
        timestamp=iso(services.clock.now()),
        active=depth.running,
        queued=depth.queued,
    )


# --- within -----------------------------------------------------------------------------------


async def _make(
    services: Services,
    caller: Principal,
    *,
    model: str | None,
    policy: Policy,
) -> Session:
    profile = caller.profile
    # These clients name no tools: a key of a narrow profile has those that it may use.
    denied = [
        name
        for name, tool in NAMES.items()
        if profile is not None and not profile.allows_tool(tool)
    ]
    toolset = {
        "type": TOOLSET,
        "default_config": {"enabled": True, "permission_policy": {"type": policy}},
        "configs": [{"name": name, "enabled": False} for name in denied],
    }
    agent: dict[str, Any] = {
        "type": "inline",
        "name": "job",
        "model": model or services.options.default_model,
        "tools": [toolset],
    }
    return await services.sessions.create(caller, SessionRequest(agent=agent))


async def _turn(
    services: Services,
    caller: Principal,
    session_id: str,
    body: PromptRequest,
    tags: tuple[str, ...],
    *,
    resumed: str | None,
) -> Response:
    session = await services.sessions.get(caller, session_id)
    if session.state.run_id is not None:
        raise Conflict("A turn of the session is at work.", code="session_busy")
    caller.require("write:sessions")
    await services.runs.require_room(caller)
    after = await services.sessions.head(caller, session_id)
    content = [{"type": "text", "text": body.prompt}]
    message = UserMessage(content, tags=tags)
    await services.sessions.send(caller, session_id, [message])
    cancels = body.on_disconnect == "cancel"
    hello = _hello(services, session, resumed)
    return _stream(services, caller, session, after=after, hello=hello, cancels=cancels)


def _stream(
    services: Services,
    caller: Principal,
    session: Session,
    *,
    after: int,
    hello: dict[str, Any],
    cancels: bool = False,
) -> JobStream:
    idle = min(services.options.keepalive, POLL_S)

    def follow(start: int) -> AsyncGenerator[Item, None]:
        return services.sessions.follow(caller, session.id, after=start, idle=idle)

    async def left() -> None:
        if cancels:
            await services.sessions.send(caller, session.id, [Interrupt()])

    return JobStream(services, hello=hello, after=after, follow=follow, left=left)


def _hello(services: Services, session: Session, resumed: str | None) -> dict[str, Any]:
    agent = session.state.agent
    return {
        "sessionId": session.id,
        "resuming": resumed is not None,
        "resumedFrom": resumed,
        "workspace": OWN_WORKSPACE,
        "tools": [] if agent is None else sorted(tools_of(agent, services.offers.tools)),
    }


def _view(session: Session) -> JobSession:
    state = session.state
    created = iso(session.created_at)
    return JobSession(
        sessionId=session.id,
        session_id=session.id,
        id=session.id,
        workspace=OWN_WORKSPACE,
        status=state.status,
        title=state.title,
        model=((state.agent or {}).get("model") or {}).get("id"),
        metadata=state.metadata,
        created=created,
        created_at=created,
        updated_at=iso(max(state.updated_at, session.created_at)),
        archived_at=None if state.archived_at is None else iso(state.archived_at),
    )


def _reply(services: Services, session: Session, message: str) -> JobSessionReply:
    view = _view(session)
    now = iso(services.clock.now())
    return JobSessionReply(**view.model_dump(), data=view, message=message, timestamp=now)


def _to(date: str | None) -> Millis | None:
    """The last moment of `to_date`: of a day its end."""
    whole_day = date is not None and len(date) == len("2026-01-31")
    return millis(date, "to_date", add=DAY_MS - 1 if whole_day else 0)


def _check_workspace(workspace: str | None) -> None:
    if workspace not in {None, OWN_WORKSPACE}:
        raise Invalid(
            f"A session works in a workspace of its own, seen as {OWN_WORKSPACE}.",
            code="unsupported",
            param="workspace",
        )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag = "jobs"
    told: dict[int | str, dict[str, Any]] = {
        200: content(STREAM, "What happens, as it happens", {"type": "string"})
    }
    add(api, "POST", "/api/execute", execute, tag=tag, summary="Have something done and watch it",
        errors=(404, 409, 413, 422, 429), responses=told, response_class=Response)  # fmt: skip
    here = "/api/stream/{session_id}"
    add(api, "POST", here, stream_prompt, tag=tag, summary="Speak to a session and watch it",
        errors=(404, 409, 413, 422, 429), responses=told, response_class=Response)  # fmt: skip
    add(api, "GET", here, replay_session, tag=tag, summary="Watch a session from its beginning",
        errors=(404, 422), responses=told, response_class=Response)  # fmt: skip
    add(api, "POST", "/api/sessions", create_job_session, tag=tag, summary="Make a session",
        reply=JobSessionReply, status=201, errors=(409, 413, 422))  # fmt: skip
    add(api, "GET", "/api/sessions", list_job_sessions, tag=tag, summary="List sessions",
        reply=JobSessionList, errors=(404, 422))  # fmt: skip
    one = "/api/sessions/{session_id}"
    add(api, "GET", one, get_job_session, tag=tag, summary="Show a session",
        reply=JobSessionReply, errors=(404,))  # fmt: skip
    add(api, "DELETE", one, delete_job_session, tag=tag, summary="Delete a session",
        reply=JobSessionDeleted, errors=(404, 409, 413))  # fmt: skip
    add(api, "GET", "/status", get_status, tag=tag, summary="Whether the server is at work",
        reply=JobStatus)  # fmt: skip
