"""The app, and which requests are for it."""

from fastapi import FastAPI

from stationmaster.http.routes.managed import (
    agents,
    batches,
    environments,
    events,
    files,
    organization,
    refusals,
    resources,
    sessions,
    threads,
    turns,
)
from stationmaster.http.wire.exchange import Scope

ROUTES = (
    agents,
    environments,
    sessions,
    events,
    threads,
    turns,
    resources,
    files,
    batches,
    *organization.ROUTES,
)

SERVED = (
    "/v1/agents",
    "/v1/environments",
    "/v1/files",
    batches.HERE,
    "/v1/organizations",
    "/v1/sessions",
)

# What the SDKs know and this server does not have: 404 in the shape that they understand.
ABSENT = (
    "/v1/deployment_runs",
    "/v1/deployments",
    "/v1/dreams",
    "/v1/memory_stores",
    "/v1/skills",
    "/v1/tunnels",
    "/v1/user_profiles",
    "/v1/vaults",
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


def is_managed(scope: Scope) -> bool:
    """Whether a request is for this app."""
    path: str = scope["path"]
    return any(_below(path, place) for place in (*SERVED, *ABSENT))


def _below(path: str, place: str) -> bool:
    return path == place or path.startswith(place + "/")
