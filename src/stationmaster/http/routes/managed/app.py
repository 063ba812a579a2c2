"""The app."""

from fastapi import FastAPI

from stationmaster.http.routes.managed import (
    agents,
    batches,
    environment_keys,
    environments,
    events,
    files,
    organization,
    refusals,
    resources,
    sessions,
    threads,
    turns,
    work,
)

ROUTES = (
    agents,
    environments,
    work,
    environment_keys,
    sessions,
    events,
    threads,
    turns,
    resources,
    files,
    batches,
    *organization.ROUTES,
)


def managed_api() -> FastAPI:
    """The app, without services yet."""
    api = FastAPI(
        title="Managed Agents",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the target would be made of the Host header
    )
    refusals.install(api)
    for routes in ROUTES:
        routes.install(api)
    return api
