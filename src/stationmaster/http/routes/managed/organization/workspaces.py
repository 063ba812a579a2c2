"""Workspaces, which are our projects, and their members."""

from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.access.members import Member
from stationmaster.access.projects import Project, ProjectChange
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.words import (
    PAGE_SIZE,
    WORKSPACE_ROLES,
    AfterId,
    BeforeId,
    PageLimit,
    check_residency,
    moment,
    page,
    unsupported,
    window,
    workspace_role_of,
)
from stationmaster.http.routes.managed.query import Archived
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.organization import (
    Workspace,
    WorkspaceCreate,
    WorkspaceMember,
    WorkspaceMemberAdd,
    WorkspaceMemberPage,
    WorkspaceMemberRemoved,
    WorkspacePage,
    WorkspaceRoleUpdate,
    WorkspaceUpdate,
)
from stationmaster.kernel.clock import iso

WorkspaceId = Annotated[str, Path(description="The project's id, `proj_…`.")]
UserId = Annotated[str, Path(description="The user's id, `user_…`.")]
Ids = Annotated[list[str] | None, Query(alias="ids[]", max_length=100)]


async def create_workspace(body: WorkspaceCreate, services: Given, caller: Caller) -> Workspace:
    """Make a project."""
    return _workspace(await services.directory.projects.create(caller, _change(body)))


async def list_workspaces(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
    include_archived: Archived = False,
    include_default: Annotated[bool, Query(description="The default one too.")] = False,
    ids: Ids = None,
) -> WorkspacePage:
    """The organisation's projects, newest first."""
    found = await services.directory.projects.list(
        caller,
        window(limit, after_id, before_id),
        archived=include_archived,
        default=include_default,
        ids=ids,
    )
    return WorkspacePage(**page(found, [_workspace(project) for project in found.items]))


async def get_workspace(workspace_id: WorkspaceId, services: Given, caller: Caller) -> Workspace:
    """A project."""
    return _workspace(await services.directory.projects.get(caller, workspace_id))


async def update_workspace(
    workspace_id: WorkspaceId, body: WorkspaceUpdate, services: Given, caller: Caller
) -> Workspace:
    """Change a project."""
    return _workspace(await services.directory.projects.update(caller, workspace_id, _change(body)))


async def archive_workspace(
    workspace_id: WorkspaceId, services: Given, caller: Caller
) -> Workspace:
    """End a project: its keys are refused from now on, and what it holds stays."""
    return _workspace(await services.directory.projects.archive(caller, workspace_id))


async def add_workspace_member(
    workspace_id: WorkspaceId, body: WorkspaceMemberAdd, services: Given, caller: Caller
) -> WorkspaceMember:
    """Bring a user into a project."""
    role = workspace_role_of(body.workspace_role)
    return _member(
        await services.directory.members.add(caller, "user", workspace_id, body.user_id, role=role)
    )


async def list_workspace_members(
    workspace_id: WorkspaceId,
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
) -> WorkspaceMemberPage:
    """The users in a project by a membership. Owners and admins are in every one without."""
    part = window(limit, after_id, before_id)
    found = await services.directory.members.list(caller, "user", workspace_id, part)
    return WorkspaceMemberPage(**page(found, [_member(member) for member in found.items]))


async def get_workspace_member(
    workspace_id: WorkspaceId, user_id: UserId, services: Given, caller: Caller
) -> WorkspaceMember:
    """A user in a project."""
    return _member(await services.directory.members.get(caller, "user", workspace_id, user_id))


async def update_workspace_member(
    workspace_id: WorkspaceId,
    user_id: UserId,
    body: WorkspaceRoleUpdate,
    services: Given,
    caller: Caller,
) -> WorkspaceMember:
    """Give a user another role in a project."""
    role = workspace_role_of(body.workspace_role)
    return _member(
        await services.directory.members.update(caller, "user", workspace_id, user_id, role=role)
    )


async def remove_workspace_member(
    workspace_id: WorkspaceId, user_id: UserId, services: Given, caller: Caller
) -> WorkspaceMemberRemoved:
    """Take a user out of a project."""
    await services.directory.members.remove(caller, "user", workspace_id, user_id)
    return WorkspaceMemberRemoved(user_id=user_id, workspace_id=workspace_id)


def _change(body: WorkspaceCreate | WorkspaceUpdate) -> ProjectChange:
    unsupported(body.external_key_id, "external_key_id")
    unsupported(body.user_profile_id, "user_profile_id")
    check_residency(body.data_residency)
    return ProjectChange(name=body.name, color=body.display_color, tags=body.tags)


def _workspace(project: Project) -> Workspace:
    return Workspace(
        id=project.id,
        archived_at=moment(project.archived_at),
        compartment_id=project.id,
        created_at=iso(project.created_at),
        display_color=project.color,
        name=project.name,
        tags=dict(project.tags),
    )


def _member(member: Member) -> WorkspaceMember:
    return WorkspaceMember(
        user_id=member.member_id,
        workspace_id=member.project_id,
        workspace_role=WORKSPACE_ROLES[member.role],
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "organization", "/v1/organizations/workspaces"
    one = f"{here}/{{workspace_id}}"
    members, member = f"{one}/members", f"{one}/members/{{user_id}}"
    for method, path, endpoint, summary, reply, refusals in (
        ("POST", here, create_workspace, "Make a project", Workspace, ()),
        ("GET", here, list_workspaces, "List projects", WorkspacePage, (404,)),
        ("GET", one, get_workspace, "Show a project", Workspace, (404,)),
        ("POST", one, update_workspace, "Change a project", Workspace, (404, 409)),
        ("POST", f"{one}/archive", archive_workspace, "Archive a project", Workspace, (404,)),
        ("POST", members, add_workspace_member, "Add a member", WorkspaceMember, (404, 409)),
        ("GET", members, list_workspace_members, "List members", WorkspaceMemberPage, (404,)),
        ("GET", member, get_workspace_member, "Show a member", WorkspaceMember, (404,)),
        ("POST", member, update_workspace_member, "Change a member", WorkspaceMember, (404,)),
        (
            "DELETE",
            member,
            remove_workspace_member,
            "Remove a member",
            WorkspaceMemberRemoved,
            (404,),
        ),
    ):
        add(
            api,
            method,
            path,
            endpoint,
            summary=summary,
            reply=reply,
            refusals=refusals,
            tag=tag,
        )
