"""Errors on the wire: problem+json (RFC 9457), everywhere but on the routes of other vendors."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from stationmaster.idempotency import KeyReused
from stationmaster.kernel import errors
from stationmaster.kernel.text import scrub

MEDIA_TYPE = "application/problem+json"
URN = "urn:stationmaster:error:"

MAX_FIELD = 128  # characters of a field's name that a client chose
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
    return problem(
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
    return problem(
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


def method_not_allowed(methods: Iterable[str], request_id: str) -> Response:
    """The 405 for a path that knows other methods."""
    return problem(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Method not allowed",
        "method_not_allowed",
        "This method is not allowed here.",
        request_id,
        headers={"allow": ", ".join(sorted(methods))},
    )


def problem(
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
    """An answer of this shape; `extra` are further members."""
    told: dict[str, Any] = {
        "type": URN + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **extra,
    }
    if param is not None:
        told["param"] = param[:MAX_FIELD]
    return Response(
        msgspec.json.encode(scrub(told)),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )
