"""How an endpoint of this API is put into its app."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from stationmaster.http.guard import Guarded
from stationmaster.http.problems import MEANINGS

_ERROR = {"schema": {"$ref": "#/components/schemas/OpenAIError"}}
_ALWAYS = (400, 401, 403, 413, 429, 503)
_SAYS = {meaning.status: meaning.title for meaning in MEANINGS}


def add(
    api: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    tag: str,
    summary: str,
    reply: Any = None,
    response_class: type[Response] = JSONResponse,
    extra: dict[str, Any] | None = None,
    refusals: tuple[int, ...] = (404,),
    content: dict[str, Any] | None = None,
) -> None:
    """Add a route. `refusals` are the statuses beyond those that every route has.

    `content` is the answer's, where it is not JSON of a model.
    """
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": _SAYS[status], "content": {"application/json": _ERROR}}
        for status in sorted({*_ALWAYS, *refusals})
    }
    if content is not None:
        responses[200] = {"description": "The content", "content": content}
    api.router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=endpoint.__name__,
        response_model=reply,
        response_class=response_class,
        tags=[tag],
        summary=summary,
        responses=responses,
        openapi_extra=extra,
        route_class_override=Guarded,
    )
