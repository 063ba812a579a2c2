"""A task as asked for becomes the options of a run and the files it begins with."""

import base64
import binascii

import msgspec
from starlette.datastructures import Headers

from stationmaster.gateway import Gateway
from stationmaster.http.shapes.task import TaskFile, TaskRequest
from stationmaster.http.tags import tags_of
from stationmaster.kernel.errors import Denied, Invalid, NotFound, TooLarge
from stationmaster.kernel.money import parse_dollars
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.runs.options import RunOptions
from stationmaster.sessions.runs.workspace import UploadedFile

MAX_CONTEXT_BYTES = 64 * 1024
DEFAULT_PROJECT = "default"  # whatever project the key is of
_LONG_CONTEXT = "[1m]"  # the agent's own suffix to a model's name

_CONTEXT = "What the caller knows about the task, as JSON:\n"


def options_of(
    task: TaskRequest,
    principal: Principal,
    gateway: Gateway,
    headers: Headers | None = None,
) -> RunOptions:
    """Check what concerns only this form of a task. Raises `Denied`, `Invalid`, `TooLarge`.

    `headers` are those of the request, for the tags in them.
    """
    check_project(task.project_id, principal)
    if task.model is not None:
        check_model(task.model, gateway, principal)
    cost = task.max_cost
    return RunOptions(
        prompt=task.description,
        system_prompt=_instructions(task),
        model=task.model,
        tools=None if task.allow_tools is None else tuple(task.allow_tools),
        agents=tuple(task.allow_agents),
        skills=tuple(task.allow_skills),
        mcp_servers=tuple(task.mcp_servers),
        max_turns=task.max_turns,
        max_cost=None if cost is None else parse_dollars(cost, param="max_cost"),
        timeout=task.timeout,
        permission_mode=task.permission_mode,
        workspace=task.workspace,
        working_directory=task.working_directory,
        metadata=task.metadata,
        tags=tags_of(headers, task.tags),
        priority=task.priority,
    )


def check_project(project_id: str | None, principal: Principal) -> None:
    """Raise `Denied` where a request names another project than the key's own."""
    if project_id not in {None, DEFAULT_PROJECT, principal.owner.project_id}:
        raise Denied(
            "The key is of another project.", code="project_not_allowed", param="project_id"
        )


def files_of(task: TaskRequest) -> list[UploadedFile]:
    """The files inside the request. Raises `Invalid` for base64 that is none."""
    return [
        UploadedFile(file.path, _content(file, place), 0o700 if file.executable else 0o600)
        for place, file in enumerate(task.files)
    ]


def _content(file: TaskFile, place: int) -> bytes:
    if file.encoding == "utf-8":
        return file.content.encode()
    try:
        return base64.b64decode(file.content, validate=True)
    except (binascii.Error, ValueError):
        param = f"files.{place}.content"
        raise Invalid(f"{param} is not base64.", code="invalid_base64", param=param) from None


def check_model(name: str, gateway: Gateway, principal: Principal) -> None:
    """Raise `Invalid` for a model that nobody knows, `Denied` for one the key may not use."""
    try:
        gateway.check_model(name.removesuffix(_LONG_CONTEXT), principal)
    except NotFound:
        raise Invalid(f"There is no model {name!r}.", code="unknown_model", param="model") from None


def _instructions(task: TaskRequest) -> str | None:
    """The system prompt with the context behind it: the description stays as it was given."""
    if not task.context:
        return task.system_prompt
    encoded = msgspec.json.encode(task.context)
    if len(encoded) > MAX_CONTEXT_BYTES:
        raise TooLarge(f"context is larger than {MAX_CONTEXT_BYTES} bytes.", param="context")
    context = _CONTEXT + encoded.decode()
    return f"{task.system_prompt}\n\n{context}" if task.system_prompt else context
