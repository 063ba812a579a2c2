"""How an endpoint of this API is put into its app."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from stationmaster.http.guard import Guarded
from stationmaster.http.problems import MEANINGS
from stationmaster.kernel.errors import Invalid

_ERROR = {"schema": {"$ref": "#/components/schemas/AnthropicError"}}
_ALWAYS = (400, 401, 403, 413, 429, 503)
_SAYS = {meaning.status: meaning.title for meaning in MEANINGS}


class ManagedRoute(Guarded):
    """As `Guarded`, with query parameters as the SDKs send them: a list as `name[]` repeated."""

    def check_query(self, request: Request, known: set[str]) -> None:
        """Refuse what is not known, and what is there twice and is no list. Raises `Invalid`."""
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name == "beta":  # how clients of some versions ask for this API
                continue
            if name not in known:
                raise Invalid(
                    "There is no such query parameter here.", code="unknown_parameter", param=name
                )
            if given.count(name) > 1 and not name.endswith("[]"):
                raise Invalid(
                    "The query parameter is there twice.", code="repeated_parameter", param=name
                )


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of errors."""
    return {
        status: {"description": _SAYS[status], "content": {"application/json": _ERROR}}
        for status in statuses
    }


def add(
    api: FastAPI,
    method: str,
    path: str,
    endpoint: Callable[..., Any],
    *,
    summary: str,
    reply: Any = None,
    refusals: tuple[int, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    response_class: type[Response] = JSONResponse,
    extra: dict[str, Any] | None = None,
    tag: str = "managed agents",
    status: int = 200,
) -> None:
    """Add a route. `refusals` are the statuses beyond those that every route has."""
    api.router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=endpoint.__name__,
        response_model=reply,
        status_code=status,
        response_class=response_class,
        tags=[tag],
        summary=summary,
        responses={**errors(*sorted({*_ALWAYS, *refusals})), **(responses or {})},
        openapi_extra=extra,
        route_class_override=ManagedRoute,
    )
