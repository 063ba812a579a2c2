"""How an endpoint is put into the app, and what OpenAPI says of its errors."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from stationmaster.http.guard import Guarded
from stationmaster.http.problems import MEDIA_TYPE

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
_GUARDED = (400, 401, 403, 429, 503)  # every route that asks for a credential may answer these

_SAYS = {
    400: "The request is not valid as written",
    401: "There is no valid credential",
    403: "The credential, or the server's configuration, does not permit this",
    404: "There is no such object, or it is another owner's",
    409: "The object's state does not allow this",
    413: "The body, a file or an archive is too large",
    422: "A field is missing, unknown or of the wrong form",
    429: "A limit is reached; `retry-after` says when to come back, where that can help",
    501: "What is asked for is not offered here; the error says where else",
    502: "The model provider failed",
    504: "The model provider did not answer in time",
    503: "The server cannot do this now: it is stopping, full, or its database or disk is away",
}


class Secret(JSONResponse):
    """An answer that holds a secret shown once: nobody stores it, and it is not compressed."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers, `cache-control` among them."""
        super().init_headers({**(headers or {}), "cache-control": "no-store"})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers for errors."""
    return {
        status: {
            "description": _SAYS.get(status, HTTPStatus(status).phrase),
            "content": {MEDIA_TYPE: _PROBLEM},
        }
        for status in statuses
    }


def content(media_type: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer that is not JSON of a model."""
    return {"description": description, "content": {media_type: {"schema": schema}}}


def add(
    api: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    tag: str,
    summary: str,
    reply: Any = None,
    status: int = 200,
    errors: tuple[int, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    response_class: type[Response] = JSONResponse,
    extra: dict[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Add a route that needs a credential. `errors` are those beyond what every such route has.

    `name` is the operation's, where the endpoint's own is taken.
    """
    api.router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=name or endpoint.__name__,
        response_model=reply,
        response_class=response_class,
        status_code=status,
        tags=[tag],
        summary=summary,
        responses={**problems(*sorted({*_GUARDED, *errors})), **(responses or {})},
        openapi_extra=extra,
        route_class_override=Guarded,
    )
