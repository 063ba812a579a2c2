"""The framework's apps, as all of them are made."""

import functools
from collections.abc import Callable

from fastapi import FastAPI, Request
from starlette.routing import BaseRoute, Match

Install = Callable[[FastAPI], None]


def api(title: str, install: Install) -> FastAPI:
    """An app with the routes that `install`, a function of a module, adds to the app it is given.

    To read what a hundred endpoints expect takes a tenth of a second, so routes are made once in a
    process and serve every app: what is an app's own they find through the request.
    """
    app = _bare(title)
    app.router.routes.extend(_routes(install))
    return app


def request_id_of(request: Request) -> str:
    """The id that the entrance gave the request."""
    return str(request.scope.get("state", {}).get("request_id", ""))


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
