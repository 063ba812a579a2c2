"""Errors on the wire: problem+json (RFC 9457), everywhere but on the routes of other vendors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from stationmaster.http.entrance import CLIENT_GONE
from stationmaster.http.wire.exchange import RequestGoneError
from stationmaster.idempotency import KeyReused
from stationmaster.kernel import errors
from stationmaster.kernel.text import scrub

MEDIA_TYPE = "application/problem+json"
URN = "urn:stationmaster:error:"

_MAX_TOLD = 20  # fields named in one answer
_MAX_FIELD = 128  # characters of a field's name that a client chose
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a class of errors shows. `title` is the same for all of a class."""

    kind: type[errors.StationmasterError]
    status: int
    title: str


# In the order of asking: the first class that an error is of decides.
MEANINGS: tuple[Meaning, ...] = (
    Meaning(errors.TooLarge, 413, "Too large"),
    Meaning(KeyReused, 422, "Another request"),
    Meaning(errors.Invalid, 400, "Invalid request"),
    Meaning(errors.Unauthenticated, 401, "Authentication required"),
    Meaning(errors.Denied, 403, "Not permitted"),
    Meaning(errors.NotFound, 404, "Not found"),
    Meaning(errors.NotAsExpected, 412, "Not as expected"),
    Meaning(errors.Conflict, 409, "Conflict"),
    Meaning(errors.BudgetExceeded, 429, "Budget used up"),
    Meaning(errors.Exhausted, 429, "Limit reached"),
    Meaning(errors.Unavailable, 503, "Not available now"),
    Meaning(errors.UpstreamTimeout, 504, "The model provider did not answer"),
    Meaning(errors.Upstream, 502, "The model provider failed"),
)
_UNKNOWN = Meaning(errors.StationmasterError, 500, "Internal error")

# Official clients retry 409 and 429 by themselves; here it cannot help.
_FINAL = (errors.BudgetExceeded, errors.Conflict)


def meaning(error: Exception) -> Meaning:
    """What an error means; 500 for one that is not ours."""
    return next((known for known in MEANINGS if isinstance(error, known.kind)), _UNKNOWN)


def respond(error: Exception, request_id: str) -> Response:
    """The answer to a request that failed. Of an error that is not ours nothing is told."""
    known = meaning(error)
    if not isinstance(error, errors.StationmasterError):
        error = errors.StationmasterError("Something went wrong in this server.")
    return _response(
        known.status,
        known.title,
        error.error_code,
        error.message,
        request_id,
        param=error.param,
        headers=_headers(error, known.status),
    )


def not_offered(error: errors.StationmasterError, request_id: str) -> Response:
    """The 501 for what a request of another system's shape asks for, and there is not here."""
    return _response(
        HTTPStatus.NOT_IMPLEMENTED,
        "Not offered",
        error.error_code,
        error.message,
        request_id,
        param=error.param,
        headers={"x-should-retry": "false"},
    )


def body_of(error: errors.StationmasterError) -> dict[str, str]:
    """An error inside an answer that has begun already."""
    return {"code": error.error_code, "message": error.message}


def _headers(error: errors.StationmasterError, status: int) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"www-authenticate": "Bearer"}
    if isinstance(error, _FINAL):
        return {"x-should-retry": "false"}
    after = getattr(error, "retry_after", None)
    if after is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        after = _RETRY_AFTER_S
    if after is not None:
        return {"retry-after": str(max(0, math.ceil(after)))}
    if status == HTTPStatus.TOO_MANY_REQUESTS:  # no time to wait for: waiting cannot help
        return {"x-should-retry": "false"}
    return {}


def _response(
    status: int,
    title: str,
    code: str,
    detail: str,
    request_id: str,
    *,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Response:
    problem: dict[str, Any] = {
        "type": URN + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **extra,
    }
    if param is not None:
        problem["param"] = param[:_MAX_FIELD]
    return Response(
        msgspec.json.encode(scrub(problem)),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


# --- what the framework raises ----------------------------------------------------------------


def install(api: FastAPI) -> None:
    """Give every error of the framework, and of ours, this shape."""
    api.add_exception_handler(errors.StationmasterError, _on_error)
    api.add_exception_handler(Exception, _on_error)
    api.add_exception_handler(RequestGoneError, _on_gone)
    api.add_exception_handler(HTTPException, _on_http_exception)
    api.add_exception_handler(RequestValidationError, _on_validation_error)


def request_id_of(request: Request) -> str:
    """The id that the entrance gave the request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_error(request: Request, error: Exception) -> Response:
    return respond(error, request_id_of(request))


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


_FRAMEWORK = {
    404: ("not_found", "Not found", "There is nothing here."),
    405: ("method_not_allowed", "Method not allowed", "This method is not allowed here."),
}


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code, title, detail = _FRAMEWORK.get(
        error.status_code, (phrase.lower().replace(" ", "_"), phrase, f"{phrase}.")
    )
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["allow"] = ", ".join(allowed(request))
    return _response(
        error.status_code, title, code, detail, request_id_of(request), headers=headers
    )


def allowed(request: Request) -> list[str]:
    """The methods of every route with this path; the framework names those of one of them.

    Of `/things/newest` and `/things/{id}` the first is meant.
    """
    fitting = [
        route
        for route in request.app.routes
        if route.matches(request.scope)[0] is not Match.NONE and hasattr(route, "path")
    ]
    least = min((route.path.count("{") for route in fitting), default=0)
    meant = (route for route in fitting if route.path.count("{") == least)
    return sorted({method for route in meant for method in getattr(route, "methods", None) or ()})


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid_fields(error.errors(), request_id_of(request))


def invalid_fields(found: Sequence[Any], request_id: str) -> Response:
    """A 422 that names each wrong field, but never shows what was sent."""
    told = [{"param": _path(item["loc"]), "message": _sentence(item)} for item in found[:_MAX_TOLD]]
    first = told[0]
    return _response(
        422,
        "Wrong fields",
        "validation_failed",
        f"{first['param']}: {first['message']}" if first["param"] else first["message"],
        request_id,
        param=first["param"] or None,
        errors=told,
    )


def _path(location: Sequence[str | int]) -> str:
    """`("body", "files", 0, "path")` as `files.0.path`; where it stands is clear from the name."""
    return ".".join(str(part)[:_MAX_FIELD] for part in location[1:])[:_MAX_FIELD]


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "There is no such field."
    if item["type"] == "missing":
        return "This field is required."
    return str(item["msg"]).rstrip(".") + "."
