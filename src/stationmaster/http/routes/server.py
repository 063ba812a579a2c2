"""What the server says of itself. No key is needed."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from stationmaster import __version__
from stationmaster.http.deps import Given, gatekeeper_of
from stationmaster.http.health import Health
from stationmaster.http.reference import STYLE, page
from stationmaster.http.routes.table import content, problems
from stationmaster.http.shapes.server import (
    HealthReport,
    Liveness,
    PartStatus,
    Readiness,
    ServerMap,
)
from stationmaster.kernel.errors import NotFound

RETRY_AFTER_S = 5

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


async def get_health(request: Request) -> HealthReport:
    """How the server and its parts are. Always 200: `degraded` says that something is wrong."""
    health = _health(request)
    findings = await health.findings()
    known = await gatekeeper_of(request).known(request.scope)
    fine = all(finding.status == "ok" for finding in findings)
    return HealthReport(
        status="ok" if fine else "degraded",
        version=__version__,
        uptime_seconds=round(health.uptime, 3),
        services={item.component.name: item.tell(known=known) for item in findings},
    )


async def get_readiness(request: Request) -> Response:
    """Whether new work is welcome: 200, or 503 with the reason."""
    reason = await _health(request).not_ready_because()
    view = Readiness(ready=reason is None, reason=reason).model_dump(mode="json")
    if reason is None:
        return JSONResponse(view)
    return JSONResponse(view, status_code=503, headers={"retry-after": str(RETRY_AFTER_S)})


async def check_database(request: Request) -> Response:
    """Whether the database answers: 200, or 503."""
    return await _check(request, "database")


async def check_redis(request: Request) -> Response:
    """Whether Redis answers: 200, or 503. Where none is used, 200 and `unused`."""
    return await _check(request, "redis")


async def check_broker(request: Request) -> Response:
    """Whether word of jobs goes through the broker: 200, or 503. Without one, 200 and `unused`."""
    return await _check(request, "broker")


async def _check(request: Request, name: str) -> Response:
    findings = await _health(request).findings()
    found = [finding for finding in findings if finding.component.name == name]
    view = PartStatus(status=found[0].status if found else "unused").model_dump(mode="json")
    if all(finding.status == "ok" for finding in found):
        return JSONResponse(view)
    return JSONResponse(view, status_code=503, headers={"retry-after": str(RETRY_AFTER_S)})


async def get_liveness() -> Liveness:
    """The process answers. Nothing else is looked at."""
    return Liveness()


async def get_metrics(services: Given) -> Response:
    """Metrics for Prometheus, unless switched off."""
    if not services.options.metrics_enabled:
        raise NotFound("There is nothing here.")
    body, media_type = services.metrics.render()
    return Response(body, headers={"content-type": media_type})


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


def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


def install(api: FastAPI) -> None:
    """Add the routes."""
    _add(api, "/", get_map, "Show where things are", ServerMap)
    install_probes(api)
    for path, endpoint in (
        ("/docs", show_docs),
        ("/redoc", show_reference),
        ("/docs/style.css", get_style),
        ("/openapi.json", get_openapi),
    ):
        api.router.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)


def install_probes(api: FastAPI) -> None:
    """Add the routes that every server has, whatever it does."""
    text = content("text/plain", "In Prometheus' text format", {"type": "string"})
    sick: dict[int | str, dict[str, Any]] = {
        503: {"description": "Not now", "model": Readiness},
    }
    _add(api, "/health", get_health, "Show how the server is", HealthReport)
    _add(api, "/ready", get_readiness, "Ask whether work is welcome", Readiness, responses=sick)
    _add(api, "/live", get_liveness, "Ask whether it lives", Liveness)
    gone: dict[int | str, dict[str, Any]] = {
        503: {"description": "It does not answer", "model": PartStatus},
    }
    _add(api, "/db-check", check_database, "Ask for the database", PartStatus, responses=gone)
    _add(api, "/redis-check", check_redis, "Ask for Redis", PartStatus, responses=gone)
    _add(api, "/broker-check", check_broker, "Ask for the broker", PartStatus, responses=gone)
    metrics = {200: text, **problems(404)}
    _add(
        api,
        "/metrics",
        get_metrics,
        "Show metrics",
        None,
        responses=metrics,
        response_class=Response,
    )


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
