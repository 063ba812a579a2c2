"""What the server says of itself. No key is needed."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from stationmaster import __version__
from stationmaster.http import probes
from stationmaster.http.deps import Given
from stationmaster.http.reference import STYLE, page
from stationmaster.http.routes.table import content, problems
from stationmaster.http.shapes.server import (
    HealthReport,
    Liveness,
    PartStatus,
    Readiness,
    ServerMap,
)

# What one would look for first; all of them are in openapi.json, but the socket.
_ENDPOINTS = {
    "messages": "POST /v1/messages",
    "count_tokens": "POST /v1/messages/count_tokens",
    "chat_completions": "POST /v1/chat/completions",
    "responses": "POST /v1/responses",
    "embeddings": "POST /v1/embeddings",
    "models": "GET /v1/models",
    "providers": "GET /v1/providers",
    "route": "POST /v1/route",
    "message_batches": "POST, GET /v1/messages/batches",
    "batches": "POST, GET /v1/batches",
    "stream": "WebSocket /v1/stream",
    "perform_task": "POST /v1/task",
    "tasks": "POST, GET /v1/tasks",
    "task": "GET /v1/tasks/{task_id}",
    "cancel": "POST /v1/tasks/{task_id}/cancel",
    "events": "GET /v1/tasks/{task_id}/events",
    "log": "GET /v1/tasks/{task_id}/log",
    "artifacts": "GET /v1/tasks/{task_id}/artifacts",
    "archive": "GET /v1/tasks/{task_id}/archive",
    "diff": "GET /v1/tasks/{task_id}/diff",
    "agents": "POST, GET /v1/agents",
    "environments": "POST, GET /v1/environments",
    "sessions": "POST, GET /v1/sessions",
    "session_events": "POST, GET /v1/sessions/{session_id}/events",
    "session_stream": "GET /v1/sessions/{session_id}/events/stream",
    "approvals": "GET /v1/approvals",
    "capabilities": "GET /v1/capabilities",
    "files": "POST, GET /v1/files",
    "execute": "POST /api/execute",
    "job_sessions": "POST, GET /api/sessions",
    "job_stream": "POST, GET /api/stream/{session_id}",
    "status": "GET /status",
    "queue": "GET /v1/queue",
    "background_jobs": "GET /v1/jobs",
    "usage": "GET /v1/usage",
    "budgets": "POST, GET /v1/budgets",
    "audit": "GET /v1/audit",
    "organization": "GET /v1/organizations/me",
    "cache": "GET /api/cache/stats",
    "keys": "POST, GET /api/admin/keys",
    "key": "DELETE /api/admin/keys/{key_id}",
}


async def get_map(services: Given) -> ServerMap:
    """Where things are."""
    return ServerMap(
        name="Stationmaster",
        version=__version__,
        docs="/docs",
        openapi="/openapi.json",
        health="/health",
        ready="/ready",
        live="/live",
        metrics="/metrics" if services.options.metrics_enabled else None,
        endpoints=_ENDPOINTS,
    )


async def show_docs(request: Request) -> Response:
    """The API for people, a line for each endpoint; open one for the rest."""
    return HTMLResponse(page(request.app.openapi(), unfolded=False))


async def show_reference(request: Request) -> Response:
    """The API for people, all at once."""
    return HTMLResponse(page(request.app.openapi(), unfolded=True))


async def get_style() -> Response:
    """How those pages look."""
    return Response(STYLE, media_type="text/css")


async def get_openapi(request: Request) -> Response:
    """The API for programs."""
    return JSONResponse(request.app.openapi())


def install(api: FastAPI) -> None:
    """Add the routes."""
    _add(api, "/", get_map, "Show where things are", ServerMap)
    _describe_probes(api)
    for path, endpoint in (
        ("/docs", show_docs),
        ("/redoc", show_reference),
        ("/docs/style.css", get_style),
        ("/openapi.json", get_openapi),
    ):
        api.router.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def _describe_probes(api: FastAPI) -> None:
    """Add the probes to what the API says of itself. They are answered before they come here."""
    text = content("text/plain", "In Prometheus' text format", {"type": "string"})
    sick: dict[int | str, dict[str, Any]] = {
        503: {"description": "Not now", "model": Readiness},
    }
    gone: dict[int | str, dict[str, Any]] = {
        503: {"description": "It does not answer", "model": PartStatus},
    }
    for path, summary, reply, responses in (
        ("/health", "Show how the server is", HealthReport, None),
        ("/ready", "Ask whether work is welcome", Readiness, sick),
        ("/live", "Ask whether it lives", Liveness, None),
        ("/db-check", "Ask for the database", PartStatus, gone),
        ("/redis-check", "Ask for Redis", PartStatus, gone),
        ("/broker-check", "Ask for the broker", PartStatus, gone),
    ):
        _add(api, path, _described(path), summary, reply, responses=responses)
    metrics = {200: text, **problems(404)}
    _add(
        api,
        "/metrics",
        _described("/metrics"),
        "Show metrics",
        None,
        responses=metrics,
        response_class=Response,
    )


def _described(path: str) -> Callable[[], Any]:
    probe = probes.ANSWERS[path]

    async def elsewhere() -> Response:
        raise NotImplementedError(path)

    elsewhere.__name__, elsewhere.__doc__ = probe.__name__, probe.__doc__
    return elsewhere


def _add(
    api: FastAPI,
    path: str,
    endpoint: Callable[..., Any],
    summary: str,
    reply: Any,
    *,
    responses: dict[int | str, dict[str, Any]] | None = None,
    response_class: type[Response] = JSONResponse,
) -> None:
    api.router.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        operation_id=endpoint.__name__,
        response_model=reply,
        response_class=response_class,
        tags=["server"],
        summary=summary,
        responses=responses,
    )
    # Probes ask with HEAD.
    api.router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
