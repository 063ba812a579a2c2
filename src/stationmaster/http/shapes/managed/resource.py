"""Resources of a session, as asked for and as shown."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.terms import NextPage


class FileResource(Request):
    """A stored file, to be copied into the session's workspace."""

    type: Literal["file"]
    file_id: Annotated[str, Field(max_length=64, description="A file of `/v1/files`.")]
    mount_path: Annotated[
        str | None,
        Field(
            max_length=4096,
            description="Below `/workspace` or `/mnt/session`; `/mnt/session/uploads/{file_id}`"
            " unless given.",
        ),
    ] = None


class UnsupportedResource(Request):
    """Resources of the API that this server does not have; refused by name."""

    type: Literal["github_repository", "memory_store"]
    # Taken in only to be refused: what else it holds does not matter.
    url: Any = None
    authorization_token: Any = None
    checkout: Any = None
    mount_path: Any = None
    memory_store_id: Any = None
    access: Any = None
    instructions: Any = None


ResourceRequest = Annotated[
    FileResource | UnsupportedResource,
    Field(discriminator="type"),
]
RESOURCE_TAGS = frozenset({"file", "github_repository", "memory_store"})


class ResourceUpdate(Request):
    """A new credential of a resource. A file has none: refused."""

    authorization_token: str


class Resource(Reply):
    """A file in a session's workspace: a copy, read-only unless the agent changes that."""

    id: Annotated[str, Field(description="`sesrsc_…`")]
    type: Literal["file"] = "file"
    file_id: str
    mount_path: str
    created_at: str
    updated_at: str


class ResourcePage(Reply):
    """What was put into a session's workspace, oldest first."""

    data: list[Resource]
    next_page: NextPage
