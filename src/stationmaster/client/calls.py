"""Each request of the API and how its answer is read; sending is the clients' part."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, TypeVar
from urllib.parse import quote

import httpx

from stationmaster.client.errors import UnexpectedAnswer
from stationmaster.client.models import (
    ApiKey,
    Artifact,
    EventPage,
    Json,
    Page,
    Task,
    TaskEvent,
    TaskOptions,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request. `repeatable` says whether sending it twice does no harm."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    params: dict[str, str] = field(default_factory=dict)
    body: Json | None = None
    parts: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = True


def submit(description: str, options: TaskOptions | None, archive: BinaryIO | None) -> Call[Task]:
    """Start a task, with the files of a tar, tar.gz or zip archive in its workspace."""
    body = {"description": description, **(options or TaskOptions()).to_json()}
    if archive is None:
        return Call("POST", "/v1/tasks", _task, body=body, repeatable=False)
    parts = {
        "task": (None, json.dumps(body), "application/json"),
        "archive": ("files.tar.gz", archive, "application/gzip"),
    }
    return Call("POST", "/v1/tasks", _task, parts=parts, repeatable=False)


def get(task_id: str) -> Call[Task]:
    """One task."""
    return Call("GET", _of(task_id), _task)


def tasks(limit: int | None, after: str | None, status: str | None) -> Call[Page[Task]]:
    """A page of tasks."""
    return Call("GET", "/v1/tasks", _tasks, _params(limit=limit, after=after, status=status))


def cancel(task_id: str) -> Call[Task]:
    """Ask a task to stop."""
    return Call("POST", _of(task_id, "cancel"), _task)


def events(task_id: str, after: int, limit: int | None) -> Call[EventPage]:
    """A page of a task's events."""
    return Call(
        "GET",
        _of(task_id, "events"),
        _event_page,
        _params(after=after, limit=limit),
        headers={"accept": "application/json"},
    )


def log(task_id: str) -> Call[list[Json]]:
    """The steps of a task, one entry each."""
    return Call("GET", _of(task_id, "log"), lambda answer: _items(answer, "execution_log"))


def diff(task_id: str) -> Call[str]:
    """What a task changed, as a unified diff."""
    return Call("GET", _of(task_id, "diff"), lambda answer: answer.text)


def artifacts(task_id: str) -> Call[list[Artifact]]:
    """The files a task changed."""
    return Call("GET", _of(task_id, "artifacts"), _artifacts)


def usage(period: str) -> Call[Json]:
    """The usage of the key's project: `day`, `week` or `month`."""
    return Call("GET", "/v1/usage", _object, {"period": period})


def process(provider: str, model_name: str, said: Json) -> Call[Json]:
    """Call a model. Sent twice it would cost twice."""
    body = {"provider": provider, "model_name": model_name, **said}
    return Call("POST", "/v1/process", _object, body=body, repeatable=False)


def providers() -> Call[list[Json]]:
    """The server's providers."""
    return Call("GET", "/v1/providers", _list)


def provider_models(provider: str) -> Call[Json]:
    """What is known of a provider's models."""
    return Call("GET", f"/v1/providers/{quote(provider, safe='')}/models", _object)


def capabilities() -> Call[Json]:
    """What agents can be given."""
    return Call("GET", "/v1/capabilities", _object)


def route(prompt: str, context_size: int) -> Call[Json]:
    """Which model would be chosen. It changes nothing."""
    return Call("POST", "/v1/route", _object, body={"prompt": prompt, "context_size": context_size})


def queue() -> Call[Json]:
    """What waits for workers."""
    return Call("GET", "/v1/queue", _object)


def health() -> Call[Json]:
    """How the server's parts are."""
    return Call("GET", "/health", _object)


def create_key(name: str, permissions: list[str] | None, days: int | None) -> Call[ApiKey]:
    """Make an API key. Sent twice it would make two."""
    body = {"name": name, "permissions": permissions, "expires_in_days": days}
    given = {name: value for name, value in body.items() if value is not None}
    return Call("POST", "/api/admin/keys", _key, body=given, repeatable=False)


def keys(limit: int | None, after: str | None) -> Call[Page[ApiKey]]:
    """A page of API keys, without their secrets."""
    return Call("GET", "/api/admin/keys", _keys, _params(limit=limit, after=after))


def revoke_key(key_id: str) -> Call[None]:
    """End an API key."""
    return Call("DELETE", f"/api/admin/keys/{quote(key_id, safe='')}", lambda _: None)


def rotate_key(key_id: str, overlap_days: float | None) -> Call[ApiKey]:
    """Replace an API key. Sent twice it would be refused."""
    body = {} if overlap_days is None else {"overlap_days": overlap_days}
    path = f"/api/admin/keys/{quote(key_id, safe='')}/rotate"
    return Call("POST", path, _key, body=body, repeatable=False)


def collect_key(key_id: str) -> Call[ApiKey]:
    """Be given the secret of a key that replaces an old one. Sent twice it would be refused."""
    path = f"/api/admin/keys/{quote(key_id, safe='')}/collect"
    return Call("POST", path, _key, repeatable=False)


def artifact_path(task_id: str, path: str) -> str:
    """Where one file of a task is."""
    return f"{_of(task_id, 'artifacts')}/{quote(path, safe='/')}"


def archive_path(task_id: str) -> str:
    """Where all files of a task are, as a tar.gz."""
    return _of(task_id, "archive")


def stream_path(task_id: str) -> str:
    """Where a task's events are followed."""
    return _of(task_id, "events")


# --- reading answers --------------------------------------------------------------------------


def event_of(seq: int | None, kind: str, data: Json) -> TaskEvent:
    """An event from its record. `seq` and `kind` are those of the frame around it, if any."""
    inner, at = data.get("data"), data.get("created_at")
    return TaskEvent(
        seq,
        str(data.get("type") or kind),
        inner if isinstance(inner, dict) else {},
        at if isinstance(at, str) else None,
    )


def _of(task_id: str, what: str = "") -> str:
    return f"/v1/tasks/{quote(task_id, safe='')}" + (f"/{what}" if what else "")


def _params(**values: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _object(answer: httpx.Response) -> Json:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found


def _list(answer: httpx.Response) -> list[Json]:
    try:
        found = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise UnexpectedAnswer("The answer is not a JSON list. Is this a Stationmaster server?")
    return [item for item in found if isinstance(item, dict)]


def _items(answer: httpx.Response, name: str) -> list[Json]:
    found = _object(answer)
    items = found.get(name)
    if not isinstance(items, list):
        raise UnexpectedAnswer(f"The answer has no list of {name}.")
    return [item for item in items if isinstance(item, dict)]


def _next(answer: httpx.Response) -> str | None:
    cursor = _object(answer).get("next")
    return cursor if isinstance(cursor, str) else None


def _make_task(data: Json) -> Task:
    task_id, status = data.get("task_id"), data.get("status")
    if not isinstance(task_id, str) or not isinstance(status, str):
        raise UnexpectedAnswer("The answer has no task_id and status.")
    return Task(task_id, status, data)


def _task(answer: httpx.Response) -> Task:
    return _make_task(_object(answer))


def _tasks(answer: httpx.Response) -> Page[Task]:
    return Page([_make_task(item) for item in _items(answer, "tasks")], _next(answer))


def _event_page(answer: httpx.Response) -> EventPage:
    found = _object(answer)
    page = [
        event_of(item.get("seq"), str(item.get("type", "")), item)
        for item in _items(answer, "events")
    ]
    return EventPage(page, int(found.get("next", 0)), bool(found.get("ended")))


def _artifacts(answer: httpx.Response) -> list[Artifact]:
    return [
        Artifact(
            str(item.get("path")),
            str(item.get("type")),
            str(item.get("change")),
            int(item.get("size_bytes") or 0),
            item,
        )
        for item in _items(answer, "artifacts")
    ]


def _make_key(data: Json) -> ApiKey:
    secret = data.get("key")
    return ApiKey(str(data.get("id")), str(data.get("name")), str(secret) if secret else None, data)


def _key(answer: httpx.Response) -> ApiKey:
    return _make_key(_object(answer))


def _keys(answer: httpx.Response) -> Page[ApiKey]:
    return Page([_make_key(item) for item in _items(answer, "keys")], _next(answer))
