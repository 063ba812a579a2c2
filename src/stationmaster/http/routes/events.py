"""A task's events, streamed or polled."""

import re
from functools import partial
from typing import Annotated

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import JSONResponse, Response

from stationmaster.events import Event
from stationmaster.http.deps import Caller, Given
from stationmaster.http.negotiation import preferred
from stationmaster.http.routes.table import add
from stationmaster.http.routes.tasks import TaskId
from stationmaster.http.services import Services
from stationmaster.http.shapes.event import EventPage, TaskEvent
from stationmaster.http.sse import RunStream, event_json
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.runs.state import ENDED

DEFAULT_PAGE = 100
MAX_PAGE = 500
MAX_SEQ = 2**53 - 1  # what every JSON reader can count to
POLL_S = 5.0  # how late an event comes whose wake-up was lost
CATCH_UP = 500  # events that are still sent when the server stops

STREAM = "text/event-stream"
JSON = "application/json"
_NUMBER = re.compile(r"[0-9]{1,16}")


async def follow_events(
    request: Request,
    task_id: TaskId,
    services: Given,
    caller: Caller,
    *,
    after: Annotated[
        int | None,
        Query(ge=0, le=MAX_SEQ, description="Only events that follow this number."),
    ] = None,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=MAX_PAGE,
            description="Of a JSON page; 100 unless given. One of large events ends at 8 MB.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(description="The same as `after`, as event sources send it by themselves."),
    ] = None,
) -> Response:
    """Everything that happens in a task, from its first event on.

    A stream of server-sent events that ends after `run.ended`; with `Accept: application/json`, a
    page of what is there now. Events are numbered: whoever comes back with the last number that it
    has seen misses nothing and gets nothing twice. `agent.delta` is a piece of a message that is
    being written; it has no number and is not kept. `overflow`, `server.stopping` and `error` say
    why a stream ends before the task: come back. A silent stream sends a comment now and then.
    """
    start = cursor(after, last_event_id)
    if preferred(request.headers.get("accept"), (STREAM, JSON)) == JSON:
        page = await _page(services, caller, task_id, start, limit or DEFAULT_PAGE)
        return JSONResponse(page.model_dump(mode="json"))
    if limit is not None:
        raise Invalid("Only a JSON page has a limit.", code="unknown_parameter", param="limit")
    # Whatever is wrong must show before the stream begins with a 200.
    await services.runs.events(caller, task_id, after=start, limit=1)
    runs = services.runs
    idle = min(services.options.keepalive, POLL_S)
    return RunStream(
        services,
        after=start,
        follow=lambda after: runs.follow(caller, task_id, after=after, idle=idle),
        catch_up=lambda after: runs.events(caller, task_id, after=after, limit=CATCH_UP),
        ended=partial(_is_end, task_id),
    )


async def _page(
    services: Services, caller: Principal, task_id: str, after: int, limit: int
) -> EventPage:
    # The state first: what ends after this question is in the next page.
    run = await services.runs.get(caller, task_id)
    events = await services.runs.events(caller, task_id, after=after, limit=limit)
    ended = any(_is_end(task_id, event) for event in events)
    return EventPage(
        events=[TaskEvent.model_validate(event_json(event)) for event in events],
        next=events[-1].seq if events else after,
        ended=ended or (run.state.finished and not events),
    )


def _is_end(task_id: str, event: Event) -> bool:
    return event.type == ENDED and event.data["run_id"] == task_id


def cursor(after: int | None, last_event_id: str | None) -> int:
    """Behind which number to begin. Raises `Invalid` where it is said in two ways that differ."""
    if not last_event_id:
        return after or 0
    if _NUMBER.fullmatch(last_event_id) is None:
        raise Invalid("Last-Event-ID must be a number.", param="Last-Event-ID")
    given = int(last_event_id)
    if after is not None and after != given:
        raise Invalid("after and Last-Event-ID differ.", code="conflicting_cursors", param="after")
    return given


def install(api: FastAPI) -> None:
    """Add the routes."""
    add(
        api,
        "GET",
        "/v1/tasks/{task_id}/events",
        follow_events,
        tag="tasks",
        summary="Follow a task",
        reply=EventPage,
        errors=(404, 422),
        responses={
            200: {
                "content": {
                    STREAM: {"schema": {"type": "string"}},
                    JSON: {"schema": {"$ref": "#/components/schemas/EventPage"}},
                }
            }
        },
    )
