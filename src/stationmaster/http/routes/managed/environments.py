"""Environments: defined, changed, listed, archived, deleted."""

from typing import Annotated

from fastapi import FastAPI, Path

from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.query import PAGE_SIZE, Archived, LongLimit, PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.environment import (
    Environment,
    EnvironmentCreate,
    EnvironmentPage,
    EnvironmentUpdate,
)
from stationmaster.http.shapes.managed.terms import Deleted
from stationmaster.kernel.clock import iso
from stationmaster.sessions import environments as verbs

EnvironmentId = Annotated[str, Path(description="The environment's id, `env_…`.")]


async def create_environment(
    body: EnvironmentCreate, services: Given, caller: Caller
) -> Environment:
    """Define an environment. What this server cannot give is refused by name."""
    made = await services.hosting.environments.create(caller, body.model_dump(exclude_unset=True))
    return _view(made)


async def get_environment(
    environment_id: EnvironmentId, services: Given, caller: Caller
) -> Environment:
    """One environment."""
    return _view(await services.hosting.environments.get(caller, environment_id))


async def update_environment(
    environment_id: EnvironmentId, body: EnvironmentUpdate, services: Given, caller: Caller
) -> Environment:
    """Change an environment. Sessions that it has keep what they began with."""
    fields = body.model_dump(exclude_unset=True)
    return _view(await services.hosting.environments.update(caller, environment_id, fields))


async def list_environments(
    services: Given,
    caller: Caller,
    limit: LongLimit = PAGE_SIZE,
    page: PageCursor = None,
    *,
    include_archived: Archived = False,
) -> EnvironmentPage:
    """The project's environments, newest first."""
    found = await services.hosting.environments.list(
        caller, limit=limit, after=id_cursor(page, "env"), include_archived=include_archived
    )
    return EnvironmentPage(data=[_view(item) for item in found.items], next_page=found.next_cursor)


async def archive_environment(
    environment_id: EnvironmentId, services: Given, caller: Caller
) -> Environment:
    """Take an environment out of use. The sessions that it has go on."""
    return _view(await services.hosting.environments.archive(caller, environment_id))


async def delete_environment(
    environment_id: EnvironmentId, services: Given, caller: Caller
) -> Deleted:
    """Delete an environment that no session uses."""
    await services.hosting.environments.delete(caller, environment_id)
    return Deleted(id=environment_id, type="environment_deleted")


def _view(environment: verbs.Environment) -> Environment:
    archived = environment.archived_at
    return Environment(
        id=environment.id,
        name=environment.name,
        description=environment.description,
        config=environment.config,
        metadata=environment.metadata,
        created_at=iso(environment.created_at),
        updated_at=iso(environment.updated_at),
        archived_at=None if archived is None else iso(archived),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/environments"
    one = f"{here}/{{environment_id}}"
    add(api, "POST", here, create_environment, summary="Define an environment", reply=Environment)
    add(api, "GET", here, list_environments, summary="List environments", reply=EnvironmentPage)
    add(
        api,
        "GET",
        one,
        get_environment,
        summary="Show an environment",
        reply=Environment,
        refusals=(404,),
    )
    add(
        api,
        "POST",
        one,
        update_environment,
        summary="Change an environment",
        reply=Environment,
        refusals=(404, 409),
    )
    add(
        api,
        "DELETE",
        one,
        delete_environment,
        summary="Delete an environment",
        reply=Deleted,
        refusals=(404, 409),
    )
    add(
        api,
        "POST",
        f"{one}/archive",
        archive_environment,
        summary="Archive an environment",
        reply=Environment,
        refusals=(404,),
    )
