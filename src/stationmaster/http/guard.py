"""A route that asks who is there before it reads anything, and ignores nothing silently."""

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response

from stationmaster.http.deps import gatekeeper_of, services_of
from stationmaster.http.limiting import admit, kind_of
from stationmaster.http.strict_json import parse
from stationmaster.http.wire.exchange import read_body
from stationmaster.kernel.errors import Invalid

BODY_SECONDS = 60.0  # for a whole body; a slower client is a slow-loris

Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class Guarded(APIRoute):
    """Every route for which a credential is needed.

    In this order: who asks, and how often; query parameters that are not known or are there twice;
    the body, read within bounds and strictly. An endpoint that reads its body itself describes it
    in `openapi_extra`; one without a body refuses any but an empty object.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if ".*" in self.path_regex.pattern:
            # The name of an artifact is part of a path, and may hold a line break.
            self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)

    def get_route_handler(self) -> Handle:
        """Wrap FastAPI's own."""
        handle = super().get_route_handler()
        known = {field.alias for field in self.dependant.query_params}
        by_hand = "requestBody" in (self.openapi_extra or {})
        has_body = self.body_field is not None
        writes = not (self.methods or set()) <= {"GET", "HEAD"}
        kind = kind_of(self.path, self.methods or set())

        async def guarded(request: Request) -> Response:
            principal = await gatekeeper_of(request)(request.scope)
            request.state.principal = principal
            await admit(services_of(request).limiter, request.scope, principal, kind)
            self.check_query(request, known)
            if has_body:
                request = Parsed(request, await read_json(request))
            elif writes and not by_hand:
                await _expect_no_body(request)
            return await handle(request)

        return guarded

    def check_query(self, request: Request, known: set[str]) -> None:
        """Refuse query parameters other than `known`, each of them once. Raises `Invalid`."""
        _check_query(request, known)


class Parsed(StarletteRequest):
    """A request whose body has been read and understood."""

    def __init__(self, request: Request, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._value = value

    async def body(self) -> bytes:
        """Something, so that FastAPI asks for `json`."""
        return b"{}"

    async def json(self) -> Any:
        """The parsed body."""
        return self._value


async def read_json(request: Request) -> Any:
    """Read a JSON body strictly. Raises `Invalid`, `TooLarge`."""
    media_type = media_type_of(request)
    if media_type != "application/json":
        raise Invalid(
            "The body must be JSON, with `Content-Type: application/json`.",
            code="unsupported_media_type",
        )
    return parse(await _read(request))


def media_type_of(request: Request) -> str:
    """The body's media type, in lower case and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _check_query(request: Request, known: set[str]) -> None:
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            raise Invalid(
                "There is no such query parameter here.", code="unknown_parameter", param=name
            )
        if given.count(name) > 1:
            raise Invalid(
                "The query parameter is there twice.", code="repeated_parameter", param=name
            )


async def _expect_no_body(request: Request) -> None:
    raw = await _read(request)
    if raw.strip() and parse(raw) != {}:
        raise Invalid("This request takes no body.", code="unexpected_body")


async def _read(request: Request) -> bytes:
    limit = services_of(request).options.max_request_size
    return await read_body(request.scope, request.receive, limit=limit, seconds=BODY_SECONDS)
