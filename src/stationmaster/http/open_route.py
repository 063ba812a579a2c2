"""A route for which no credential is needed. It reads as strictly as the others."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from stationmaster.http.deps import services_of
from stationmaster.http.guard import Handle, Parsed, _check_query, read_json
from stationmaster.http.limiting import admit_unknown, kind_of
from stationmaster.http.routes.table import problems


class Open(APIRoute):
    """Unknown query parameters and unclear bodies are refused."""

    def get_route_handler(self) -> Handle:
        """Wrap FastAPI's own."""
        handle = super().get_route_handler()
        known = {field.alias for field in self.dependant.query_params}
        has_body = self.body_field is not None
        kind = kind_of(self.path, self.methods or set())

        async def open_(request: Request) -> Response:
            await admit_unknown(services_of(request).limiter, request.scope, kind)
            _check_query(request, known)
            if has_body:
                request = Parsed(request, await read_json(request))
            return await handle(request)

        return open_


def add_open(
    api: FastAPI,
    method: str,
    path: str,
    endpoint: Any,
    *,
    tag: str,
    summary: str,
    reply: Any = None,
    errors: tuple[int, ...] = (),
    responses: dict[int | str, dict[str, Any]] | None = None,
    response_class: type[Response] = JSONResponse,
) -> None:
    """Add a route that needs no credential."""
    api.router.add_api_route(
        path,
        endpoint,
        methods=[method],
        operation_id=endpoint.__name__,
        response_model=reply,
        response_class=response_class,
        tags=[tag],
        summary=summary,
        responses={**problems(400, *errors, 429, 503), **(responses or {})},
        openapi_extra={"security": []},
        route_class_override=Open,
    )
