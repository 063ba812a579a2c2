"""What is mounted into a session: stored files, copied into its workspace."""

from typing import Annotated, Any

from fastapi import FastAPI, Path

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.query import LongLimit, PageCursor, after_number
from stationmaster.http.routes.managed.resource_view import mount_of, resource_view
from stationmaster.http.routes.managed.sessions import SessionId
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.resource import (
    Resource,
    ResourcePage,
    ResourceRequest,
    ResourceUpdate,
)
from stationmaster.http.shapes.managed.terms import Deleted
from stationmaster.kernel.errors import Invalid

RESOURCES_PAGE = 1000

ResourceId = Annotated[str, Path(description="The resource's id, `sesrsc_…`.")]


async def add_resource(
    session_id: SessionId, body: ResourceRequest, services: Given, caller: Caller
) -> Resource:
    """Copy a stored file into a session's workspace, where the agent has it at once.

    The agent is told of it from its next turn on. The copy stays where the stored file is deleted.
    """
    caller.require("write:sessions")
    made = await services.resources.add(caller, session_id, mount_of(body))
    return resource_view(made)


async def list_resources(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    limit: LongLimit = RESOURCES_PAGE,
    page: PageCursor = None,
) -> ResourcePage:
    """What is mounted into a session, oldest first."""
    start = after_number(page) or 0
    found = await services.resources.list(caller, session_id)
    end = start + limit
    data = [resource_view(each) for each in found[start:end]]
    return ResourcePage(data=data, next_page=str(end) if end < len(found) else None)


async def get_resource(
    session_id: SessionId, resource_id: ResourceId, services: Given, caller: Caller
) -> Resource:
    """One resource."""
    return resource_view(await services.resources.get(caller, session_id, resource_id))


async def update_resource(
    session_id: SessionId,
    resource_id: ResourceId,
    body: ResourceUpdate,
    services: Given,
    caller: Caller,
) -> Resource:
    """Refused: a file has no credential to change."""
    caller.require("write:sessions")
    await services.resources.get(caller, session_id, resource_id)
    raise Invalid(
        "A file has no credential. Delete the resource and add another to change what is mounted.",
        code="unsupported",
        param="authorization_token",
    )


async def delete_resource(
    session_id: SessionId, resource_id: ResourceId, services: Given, caller: Caller
) -> Deleted:
    """Take a resource out of a session, with its copy in the workspace."""
    await services.resources.remove(caller, session_id, resource_id)
    return Deleted(id=resource_id, type="session_resource_deleted")


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/sessions/{session_id}/resources"
    one = f"{here}/{{resource_id}}"
    refused, shown = (404, 409), (404,)
    rows: tuple[tuple[str, str, Any, str, Any, tuple[int, ...]], ...] = (
        ("POST", here, add_resource, "Mount a file into a session", Resource, (*refused, 413)),
        ("GET", here, list_resources, "List what is mounted into a session", ResourcePage, shown),
        ("GET", one, get_resource, "Show a resource", Resource, shown),
        ("POST", one, update_resource, "Change a resource", Resource, shown),
        ("DELETE", one, delete_resource, "Take a resource out", Deleted, refused),
    )
    for method, path, endpoint, summary, reply, refusals in rows:
        add(api, method, path, endpoint, summary=summary, reply=reply, refusals=refusals)
