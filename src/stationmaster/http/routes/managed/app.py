"""The app."""

from fastapi import FastAPI

from stationmaster.http import framework
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
    return framework.api("Managed Agents", _install, refusals.REFUSALS)


def _install(api: FastAPI) -> None:
    for routes in ROUTES:
        routes.install(api)
