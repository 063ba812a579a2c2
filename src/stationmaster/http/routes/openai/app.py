"""The app, and its errors."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stationmaster.http import framework
from stationmaster.http.framework import Refusals, allowed, request_id_of
from stationmaster.http.routes.managed.refusals import wrong_fields
from stationmaster.http.routes.openai import batches, files, responses
from stationmaster.http.wire import openai
from stationmaster.kernel.errors import Invalid, NotFound


def openai_api() -> FastAPI:
    """The app, without services yet."""
    refusals = Refusals(_on_error, _on_http_exception, _on_validation_error)
    return framework.api("OpenAI", _install, refusals)


def _install(api: FastAPI) -> None:
    for routes in (files, batches, responses):
        routes.install(api)


async def _on_error(request: Request, error: Exception) -> Response:
    status, headers, body = openai.refuse(error, request_id_of(request))
    named = {name.decode(): value.decode("latin-1") for name, value in headers}
    return Response(body, status_code=status, headers=named)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return await _on_error(request, NotFound("There is nothing here."))
    refusal = Invalid("This method is not allowed here.", code="method_not_allowed")
    answer = await _on_error(request, refusal)
    answer.status_code = error.status_code
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["allow"] = ", ".join(allowed(request))
    return answer


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_error(request, wrong_fields(error.errors()))
