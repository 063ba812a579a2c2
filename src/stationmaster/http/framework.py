"""The framework's apps, as all of them are made."""

import functools
from collections.abc import Callable

from fastapi import FastAPI
from starlette.routing import BaseRoute

Install = Callable[[FastAPI], None]


def api(title: str, install: Install) -> FastAPI:
    """An app with the routes that `install`, a function of a module, adds to the app it is given.

    To read what a hundred endpoints expect takes a tenth of a second, so routes are made once in a
    process and serve every app: what is an app's own they find through the request.
    """
    app = _bare(title)
    app.router.routes.extend(_routes(install))
    return app


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
