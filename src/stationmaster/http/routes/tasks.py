"""Tasks: made, waited for, shown, listed, cancelled."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stationmaster.events import Event
from stationmaster.http import task_view
from stationmaster.http.deps import Caller, Given
from stationmaster.http.guard import media_type_of, read_json
from stationmaster.http.negotiation import preferred
from stationmaster.http.routes.table import add, content
from stationmaster.http.services import Services
from stationmaster.http.shapes.task import (
    PerformRequest,
    Task,
    TaskAccepted,
    TaskList,
    TaskLog,
    TaskRequest,
)
from stationmaster.http.streams import gone, race
from stationmaster.http.strict_json import parse
from stationmaster.http.task_request import files_of, options_of
from stationmaster.http.uploads import FORM, received_form
from stationmaster.kernel.paging import DEFAULT_LIMIT, MAX_LIMIT
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.runs.files import Upload
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.state import ENDED

EVENTS_READ = 2000  # for one log: twice what it may show
TEXT = "text/plain"
JSON = "application/json"

TaskId = Annotated[str, Path(description="The task's id, `run_…`.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")]


async def perform_task(
    request: Request, task: PerformRequest, services: Given, caller: Caller
) -> Response:
    """Carry a task out and answer when it has ended.

    A task that fails, times out or exceeds its cost is answered with 200 and that status. If the
    client goes away the task is cancelled, unless `on_disconnect` says otherwise. If the server
    stops before the task's turn comes, the answer is 202: the task goes on later, and its links
    tell how to follow it.
    """
    caller.require("read:tasks")
    cancels = task.on_disconnect == "cancel"
    options = options_of(task, caller, services.gateway, request.headers)
    run = await services.runs.start(caller, options, Upload(files=files_of(task)))
    try:
        place, ended = await race(
            services.runs.wait(caller, run.id),
            gone(request.receive),
            services.stopping.wait(),
        )
    except asyncio.CancelledError:
        if cancels:
            await services.runs.cancel(caller, run.id)
        raise
    if place == 1 and cancels:
        await services.runs.cancel(caller, run.id)
    if place == 0:
        run = ended
    else:
        run = await services.runs.get(caller, run.id)
    status = 200 if run.state.finished else 202
    view = await _whole(services, caller, run)
    return JSONResponse(view.model_dump(mode="json"), status_code=status)


async def create_task(request: Request, services: Given, caller: Caller) -> Response:
    """Take a task on and answer at once. Follow it by the links.

    Files come inside the JSON, or as a form: a part `task` with the JSON, a part `archive` (tar,
    tar.gz, tar.bz2, tar.xz or zip), and parts `files`, whose filenames are paths in the workspace.
    The archive is unpacked first, then the files are written over it.
    """
    if media_type_of(request) != FORM:
        task = _task(await read_json(request))
        run = await _start(request, services, caller, task, Upload(files=files_of(task)))
    else:
        caller.require("write:tasks")
        async with received_form(request, services.options.max_upload_size) as form:
            task = _task(parse(form.task))
            upload = Upload(archive=form.archive, files=[*files_of(task), *form.files])
            run = await _start(request, services, caller, task, upload)
    view = task_view.accepted(run)
    headers = {"location": view.links.self}
    return JSONResponse(view.model_dump(mode="json"), status_code=202, headers=headers)


async def _start(
    request: Request, services: Services, caller: Principal, task: TaskRequest, upload: Upload
) -> Run:
    options = options_of(task, caller, services.gateway, request.headers)
    return await services.runs.start(caller, options, upload)


def _task(value: Any) -> TaskRequest:
    try:
        return TaskRequest.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        located = [{**item, "loc": ("body", *item["loc"])} for item in found]
        raise RequestValidationError(located) from None


async def list_tasks(
    services: Given,
    caller: Caller,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before.")
    ] = None,
    status: Annotated[
        str | None, Query(max_length=64, description="Only tasks with this status.")
    ] = None,
) -> TaskList:
    """The project's tasks, newest first."""
    state = task_view.state_of(status)
    page = await services.runs.list(caller, limit=limit, after=after, state=state)
    return TaskList(
        tasks=[task_view.head(run) for run in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_task(task_id: TaskId, services: Given, caller: Caller) -> Task:
    """A task in full, running or ended."""
    return await _whole(services, caller, await services.runs.get(caller, task_id))


async def cancel_task(task_id: TaskId, services: Given, caller: Caller) -> TaskAccepted:
    """Ask a task to stop. One that waits is cancelled at once, one that has ended stays as it is.

    Do it as often as you like: the answer is the task's status.
    """
    return task_view.accepted(await services.runs.cancel(caller, task_id))


async def get_log(request: Request, task_id: TaskId, services: Given, caller: Caller) -> Response:
    """The task's steps, as JSON, or with `Accept: text/plain` as lines for people."""
    run = await services.runs.get(caller, task_id)
    events, more = await _events(services, caller, run)
    entries, cut = task_view.execution_log(run.id, events)
    if preferred(request.headers.get("accept"), (JSON, TEXT)) == TEXT:
        return PlainTextResponse(task_view.as_text(entries))
    view = TaskLog(
        task_id=run.id,
        status=task_view.status_of(run),
        execution_log=entries,
        execution_log_truncated=cut or more,
    )
    return JSONResponse(view.model_dump(mode="json"))


async def _whole(services: Services, caller: Principal, run: Run) -> Task:
    _, place = await services.runs.place(caller, run.id)
    events, more = await _events(services, caller, run)
    return task_view.whole(run, place, events, more=more)


async def _events(services: Services, caller: Principal, run: Run) -> tuple[list[Event], bool]:
    """The first of its events, and whether there are more: a page is bounded by bytes, too."""
    found = list(await services.runs.events(caller, run.id, after=0, limit=EVENTS_READ))
    if not found or found[-1].type == ENDED:
        return found, False
    more = await services.runs.events(caller, run.id, after=found[-1].seq, limit=1)
    return found, bool(more)


# --- what OpenAPI says ------------------------------------------------------------------------

_TASK_REQUEST = {"$ref": "#/components/schemas/TaskRequest"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": _TASK_REQUEST},
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["task"],
                    "additionalProperties": False,
                    "properties": {
                        "task": {**_TASK_REQUEST, "description": "The task, as JSON."},
                        "archive": {
                            "type": "string",
                            "format": "binary",
                            "description": "Files to begin with, as one archive.",
                        },
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Single files; a filename is a path.",
                        },
                    },
                },
                "encoding": {"task": {"contentType": JSON}},
            },
        },
    }
}


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, making = "tasks", (404, 409, 413, 422)
    task = {"$ref": "#/components/schemas/Task"}
    later = content(JSON, "The server stops before the task's turn; it goes on later", task)
    add(
        api,
        "POST",
        "/v1/task",
        perform_task,
        tag=tag,
        summary="Perform a task and wait for it",
        reply=Task,
        errors=making,
        responses={202: later},
    )
    add(
        api,
        "POST",
        "/v1/tasks",
        create_task,
        tag=tag,
        summary="Submit a task",
        reply=TaskAccepted,
        status=202,
        errors=making,
        extra=_BODY,
    )
    add(
        api,
        "GET",
        "/v1/tasks",
        list_tasks,
        tag=tag,
        summary="List tasks",
        reply=TaskList,
        errors=(404, 422),
    )
    for path, name in (("/v1/tasks/{task_id}", "get_task"), ("/v1/task/{task_id}", "poll_task")):
        add(
            api,
            "GET",
            path,
            get_task,
            name=name,
            tag=tag,
            summary="Show a task",
            reply=Task,
            errors=(404,),
        )
    add(
        api,
        "POST",
        "/v1/tasks/{task_id}/cancel",
        cancel_task,
        tag=tag,
        summary="Cancel a task",
        reply=TaskAccepted,
        errors=(404, 413),
    )
    add(
        api,
        "GET",
        "/v1/tasks/{task_id}/log",
        get_log,
        tag=tag,
        summary="Show a task's steps",
        reply=TaskLog,
        errors=(404,),
        responses={
            200: {
                "content": {
                    JSON: {"schema": {"$ref": "#/components/schemas/TaskLog"}},
                    TEXT: {"schema": {"type": "string"}},
                }
            }
        },
    )
