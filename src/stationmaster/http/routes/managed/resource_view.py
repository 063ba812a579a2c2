"""A resource of a session, between the API and the verbs."""

from typing import Any

from stationmaster.http.shapes.managed.resource import FileResource, Resource, ResourceRequest
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.session import Mount

_INSTEAD = {
    "github_repository": "Have the agent's tools fetch it, or upload its files and mount those.",
    "memory_store": "Put what is to be remembered into a file and mount that.",
}


def mount_of(given: ResourceRequest, at: str = "") -> Mount:
    """What the verbs take. Raises `Invalid` for what this server does not have."""
    if isinstance(given, FileResource):
        return Mount(given.file_id, given.mount_path)
    raise Invalid(
        f"A resource of type {given.type} is not supported here. {_INSTEAD[given.type]}",
        code="unsupported",
        param=f"{at}type",
    )


def resource_view(resource: dict[str, Any]) -> Resource:
    """What the API shows."""
    at = iso(resource["created_at"])
    return Resource(
        id=resource["id"],
        file_id=resource["file_id"],
        mount_path=resource["mount_path"],
        created_at=at,
        updated_at=at,
    )
