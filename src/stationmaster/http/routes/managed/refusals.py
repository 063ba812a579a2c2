"""Errors on these routes: Anthropic's shape, with our stable code as `details.error_code`."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stationmaster.http.framework import Refusals, allowed, request_id_of
from stationmaster.http.shapes.managed.event import TAGS
from stationmaster.http.shapes.managed.resource import RESOURCE_TAGS
from stationmaster.http.wire import anthropic_errors
from stationmaster.kernel.errors import Invalid, NotAsExpected, StationmasterError
from stationmaster.kernel.text import scrub

_ARMS = TAGS | RESOURCE_TAGS
_MAX_PATH = 128  # characters of a field's name that a client chose

# Where the SDK has a class for a code, it is of this status.
_STATUSES = {"environment_archived": 400, "storage_quota_exceeded": 400}
_TYPES = {400: "invalid_request_error"}

_FRAMEWORK = {
    404: ("not_found_error", "not_found", "There is nothing here."),
    405: ("invalid_request_error", "method_not_allowed", "This method is not allowed here."),
}


def body_of(error: Exception, request_id: str) -> dict[str, Any]:
    """An error's JSON. Of one that is not ours nothing is told."""
    kind = _TYPES.get(_status(error), anthropic_errors.meaning(error).type)
    code = error.error_code if isinstance(error, StationmasterError) else "internal_error"
    param = error.param if isinstance(error, StationmasterError) else None
    body = _body(kind, code, anthropic_errors.message_of(error), request_id, param)
    if isinstance(error, NotAsExpected):  # the SDK's class for it has more to tell
        body["error"]["details"] |= error.details
    return body


def _status(error: Exception) -> int:
    code = getattr(error, "error_code", "")
    return _STATUSES.get(code, anthropic_errors.meaning(error).status)


def _body(
    kind: str, code: str, message: str, request_id: str, param: str | None = None
) -> dict[str, Any]:
    details = {"error_code": code}
    if param is not None:
        details["param"] = param[:_MAX_PATH]
    error = {"type": kind, "message": message, "details": details}
    return {"type": "error", "error": error, "request_id": request_id}


def _response(status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(
        msgspec.json.encode(scrub(body)),
        status_code=status,
        headers=dict(headers),
        media_type="application/json",
    )


async def _on_error(request: Request, error: Exception) -> Response:
    headers = {
        name.decode(): value.decode("latin-1") for name, value in anthropic_errors.headers(error)
    }
    if getattr(error, "error_code", "") in _STATUSES:  # waiting cannot help
        headers = {"x-should-retry": "false"}
    return _response(_status(error), body_of(error, request_id_of(request)), headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind, code, message = _FRAMEWORK.get(
        error.status_code, ("invalid_request_error", "invalid_request", "The request is refused.")
    )
    headers = {}
    if error.status_code == 405:
        headers["allow"] = ", ".join(allowed(request))
    body = _body(kind, code, message, request_id_of(request))
    return _response(error.status_code, body, headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_error(request, wrong_fields(error.errors()))


REFUSALS = Refusals(_on_error, _on_http_exception, _on_validation_error)


def wrong_fields(found: Sequence[Any]) -> Invalid:
    """The first field that is wrong, by its name; what was sent is never shown."""
    first = found[0]
    # A union's arm is in the path by its tag: nobody has sent a field of that name.
    parts = [str(part) for part in first["loc"][1:] if part not in _ARMS]
    param = ".".join(part[:_MAX_PATH] for part in parts)[:_MAX_PATH]
    if first["type"] == "extra_forbidden":
        says = "There is no such field."
    elif first["type"] == "missing":
        says = "This field is required."
    else:
        says = str(first["msg"]).rstrip(".") + "."
    return Invalid(
        f"{param}: {says}" if param else says, code="validation_failed", param=param or None
    )
