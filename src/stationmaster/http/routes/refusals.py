"""What the framework raises on these routes, as problems."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stationmaster.http.framework import Refusals, allowed, request_id_of
from stationmaster.http.problems import MAX_FIELD, method_not_allowed, problem, respond
from stationmaster.kernel.errors import NotFound

_MAX_TOLD = 20  # fields named in one answer


async def _on_error(request: Request, error: Exception) -> Response:
    return respond(error, request_id_of(request))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id = request_id_of(request)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return method_not_allowed(allowed(request), request_id)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return respond(NotFound("There is nothing here."), request_id)
    phrase = HTTPStatus(error.status_code).phrase
    return problem(
        error.status_code,
        phrase,
        phrase.lower().replace(" ", "_"),
        f"{phrase}.",
        request_id,
        headers={name.lower(): value for name, value in (error.headers or {}).items()},
    )


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _invalid_fields(error.errors(), request_id_of(request))


REFUSALS = Refusals(_on_error, _on_http_exception, _on_validation_error)


def _invalid_fields(found: Sequence[Any], request_id: str) -> Response:
    """A 422 that names each wrong field, but never shows what was sent."""
    told = [{"param": _path(item["loc"]), "message": _sentence(item)} for item in found[:_MAX_TOLD]]
    first = told[0]
    return problem(
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
    return ".".join(str(part)[:MAX_FIELD] for part in location[1:])[:MAX_FIELD]


def _sentence(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "There is no such field."
    if item["type"] == "missing":
        return "This field is required."
    return str(item["msg"]).rstrip(".") + "."
