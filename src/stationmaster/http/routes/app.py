"""The app, and the document of all of them."""

import functools
from typing import Any

from fastapi import FastAPI

from stationmaster.http import framework, openapi
from stationmaster.http.routes import (
    advice,
    approvals,
    artifacts,
    audit,
    batch,
    budgets,
    cache,
    calls,
    capabilities,
    clients,
    directory,
    events,
    execute,
    jobs,
    keys,
    oidc,
    process,
    providers,
    queue,
    refusals,
    server,
    signin,
    tasks,
    tickets,
    usage,
)
from stationmaster.http.routes.managed.app import managed_api
from stationmaster.http.routes.openai.app import openai_api

ROUTES = (
    advice,
    process,
    providers,
    tasks,
    events,
    artifacts,
    usage,
    budgets,
    approvals,
    capabilities,
    keys,
    directory,
    clients,
    signin,
    oidc,
    audit,
    execute,
    batch,
    cache,
    calls,
    tickets,
    queue,
    jobs,
    server,
)


def stationmaster_api() -> FastAPI:
    """The app, without services yet."""
    api = framework.api("Stationmaster", _install, refusals.REFUSALS)
    api.openapi = functools.cache(lambda: _document(api))  # type: ignore[method-assign]
    return api


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, without a server."""
    return _document(stationmaster_api())


def _install(api: FastAPI) -> None:
    for routes in ROUTES:
        routes.install(api)


def _document(api: FastAPI) -> dict[str, Any]:
    return openapi.document(api, openai_api(), managed_api())
