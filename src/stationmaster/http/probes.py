"""What every server tells those who watch it. No key is needed.

Not an app of the framework: supervisors ask from the first moment, and a server of workers has
nothing else to answer.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from stationmaster import __version__
from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.http.health import Health
from stationmaster.http.problems import method_not_allowed, respond
from stationmaster.http.services import Services
from stationmaster.http.wire.exchange import Receive, Scope, Send, request_id_of
from stationmaster.kernel.errors import NotFound, StationmasterError

RETRY_AFTER_S = 5
METHODS = ("GET", "HEAD")  # probes ask with HEAD


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at."""

    services: Services
    gatekeeper: Gatekeeper
    health: Health


async def get_health(at: Watched, scope: Scope) -> Response:
    """How the server and its parts are. Always 200: `degraded` says that something is wrong."""
    findings = await at.health.findings()
    known = await at.gatekeeper.known(scope)
    fine = all(finding.status == "ok" for finding in findings)
    return _json(
        {
            "status": "ok" if fine else "degraded",
            "version": __version__,
            "uptime_seconds": round(at.health.uptime, 3),
            "services": {item.component.name: item.tell(known=known) for item in findings},
        }
    )


async def get_readiness(at: Watched, _scope: Scope) -> Response:
    """Whether new work is welcome: 200, or 503 with the reason."""
    reason = await at.health.not_ready_because()
    return _json({"ready": reason is None, "reason": reason}, fine=reason is None)


async def get_liveness(_at: Watched, _scope: Scope) -> Response:
    """The process answers. Nothing else is looked at."""
    return _json({"status": "ok"})


async def check_database(at: Watched, _scope: Scope) -> Response:
    """Whether the database answers: 200, or 503."""
    return await _check(at, "database")


async def check_redis(at: Watched, _scope: Scope) -> Response:
    """Whether Redis answers: 200, or 503. Where none is used, 200 and `unused`."""
    return await _check(at, "redis")


async def check_broker(at: Watched, _scope: Scope) -> Response:
    """Whether word of jobs goes through the broker: 200, or 503. Without one, 200 and `unused`."""
    return await _check(at, "broker")


async def get_metrics(at: Watched, _scope: Scope) -> Response:
    """Metrics for Prometheus, unless switched off."""
    if not at.services.options.metrics_enabled:
        raise NotFound("There is nothing here.")
    body, media_type = at.services.metrics.render()
    return Response(body, headers={"content-type": media_type})


async def _check(at: Watched, name: str) -> Response:
    findings = await at.health.findings()
    found = [finding for finding in findings if finding.component.name == name]
    fine = all(finding.status == "ok" for finding in found)
    return _json({"status": found[0].status if found else "unused"}, fine=fine)


def _json(told: Mapping[str, Any], *, fine: bool = True) -> Response:
    return Response(
        msgspec.json.encode(told),
        status_code=HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE,
        headers=None if fine else {"retry-after": str(RETRY_AFTER_S)},
        media_type="application/json",
    )


ANSWERS: Mapping[str, Callable[[Watched, Scope], Awaitable[Response]]] = {
    "/health": get_health,
    "/ready": get_readiness,
    "/live": get_liveness,
    "/db-check": check_database,
    "/redis-check": check_redis,
    "/broker-check": check_broker,
    "/metrics": get_metrics,
}


class Probes:
    """Pure ASGI."""

    def __init__(self, services: Services, gatekeeper: Gatekeeper) -> None:
        self._watched = Watched(services, gatekeeper, Health(services))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; whatever is no probe is not found."""
        answer = await self._answer(scope)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response:
        refuse = partial(respond, request_id=request_id_of(scope))
        probe = ANSWERS.get(scope["path"])
        if probe is None:
            return refuse(NotFound("There is nothing here."))
        if scope["method"] not in METHODS:
            return method_not_allowed(METHODS, request_id_of(scope))
        try:
            return await probe(self._watched, scope)
        except StationmasterError as error:
            return refuse(error)
