"""The framework's apps, as all of them are made."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from stationmaster.http.entrance import CLIENT_GONE
from stationmaster.http.wire import exchange
from stationmaster.http.wire.exchange import RequestGoneError
from stationmaster.kernel.errors import StationmasterError

Install = Callable[[FastAPI], None]
Handler = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Refusals:
    """What an API answers to an error of ours or of nobody's, and to what the framework raises."""

    error: Handler
    http_exception: Handler
    validation_error: Handler


def api(title: str, install: Install, refusals: Refusals) -> FastAPI:
    """An app with the routes that `install`, a function of a module, adds to the app it is given.

    To read what a hundred endpoints expect takes a tenth of a second, so routes are made once in a
    process and serve every app: what is an app's own they find through the request.
    """
    app = _bare(title)
    app.router.routes.extend(_routes(install))
    app.add_exception_handler(StationmasterError, refusals.error)
    app.add_exception_handler(Exception, refusals.error)
    app.add_exception_handler(RequestGoneError, _on_gone)
    app.add_exception_handler(HTTPException, refusals.http_exception)
    app.add_exception_handler(RequestValidationError, refusals.validation_error)
    return app


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


def request_id_of(request: Request) -> str:
    """The id that the entrance gave the request."""
    return exchange.request_id_of(request.scope)


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


@functools.cache
def _routes(install: Install) -> tuple[BaseRoute, ...]:
    app = _bare("Routes")
    install(app)
    return tuple(app.router.routes)


def _bare(title: str) -> FastAPI:
    return FastAPI(
        title=title,
        openapi_url=None,  # its own routes for these need files from elsewhere
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the target would be made of the Host header
    )
