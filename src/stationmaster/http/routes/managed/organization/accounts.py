"""Service accounts, and the projects that they are in, seen from both sides."""

from typing import Annotated

from fastapi import FastAPI, Path

from stationmaster.access.members import Member
from stationmaster.access.paging import Slice, Window
from stationmaster.access.service_accounts import ServiceAccount as Account
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.words import (
    ACCOUNT_ROLES,
    PAGE_SIZE,
    WORKSPACE_ROLES,
    PageLimit,
    account_role_of,
    actor,
    moment,
    workspace_role_of,
)
from stationmaster.http.routes.managed.query import Archived, PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.organization import (
    AccountWorkspaceAdd,
    ServiceAccount,
    ServiceAccountAdd,
    ServiceAccountCreate,
    ServiceAccountMember,
    ServiceAccountMemberPage,
    ServiceAccountMemberRemoved,
    ServiceAccountPage,
    ServiceAccountUpdate,
    WorkspaceRoleUpdate,
)
from stationmaster.kernel.clock import iso

AccountId = Annotated[str, Path(description="The service account's id, `svac_…`.")]
WorkspaceId = Annotated[str, Path(description="The project's id, `proj_…`.")]


async def create_service_account(
    body: ServiceAccountCreate, services: Given, caller: Caller
) -> ServiceAccount:
    """Make a service account."""
    made = await services.directory.service_accounts.create(
        caller,
        name=body.name,
        description=body.description or "",
        role=account_role_of(body.organization_role),
    )
    return _account(made)


async def list_service_accounts(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    include_archived: Archived = False,
) -> ServiceAccountPage:
    """The organisation's service accounts, newest first."""
    found = await services.directory.service_accounts.list(
        caller, Window(limit, id_cursor(page, "svac")), archived=include_archived
    )
    return ServiceAccountPage(
        data=[_account(account) for account in found.items],
        next_page=found.items[-1].id if found.has_more else None,
    )


async def get_service_account(
    service_account_id: AccountId, services: Given, caller: Caller
) -> ServiceAccount:
    """A service account."""
    return _account(await services.directory.service_accounts.get(caller, service_account_id))


async def update_service_account(
    service_account_id: AccountId, body: ServiceAccountUpdate, services: Given, caller: Caller
) -> ServiceAccount:
    """Change a service account."""
    role, given = body.organization_role, body.model_fields_set
    cleared = "description" in given and body.description is None
    changed = await services.directory.service_accounts.update(
        caller,
        service_account_id,
        description="" if cleared else body.description,
        role=None if role is None else account_role_of(role),
    )
    return _account(changed)


async def archive_service_account(
    service_account_id: AccountId, services: Given, caller: Caller
) -> ServiceAccount:
    """End a service account, and its keys."""
    return _account(await services.directory.service_accounts.archive(caller, service_account_id))


async def list_service_account_workspaces(
    service_account_id: AccountId,
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
) -> ServiceAccountMemberPage:
    """The projects that a service account is in."""
    found = await services.directory.members.of_account(
        caller, service_account_id, limit=limit, after=id_cursor(page, "proj")
    )
    return _page(found, found.items[-1].project_id if found.has_more else None)


async def add_service_account_workspace(
    service_account_id: AccountId, body: AccountWorkspaceAdd, services: Given, caller: Caller
) -> ServiceAccountMember:
    """Bring a service account into a project."""
    role = workspace_role_of(body.workspace_role)
    added = await services.directory.members.add(
        caller, "service_account", body.workspace_id, service_account_id, role=role
    )
    return _member(added)


async def remove_service_account_workspace(
    service_account_id: AccountId, workspace_id: WorkspaceId, services: Given, caller: Caller
) -> ServiceAccountMemberRemoved:
    """Take a service account out of a project."""
    await services.directory.members.remove(
        caller, "service_account", workspace_id, service_account_id
    )
    return ServiceAccountMemberRemoved(
        service_account_id=service_account_id, workspace_id=workspace_id
    )


async def add_workspace_service_account(
    workspace_id: WorkspaceId, body: ServiceAccountAdd, services: Given, caller: Caller
) -> ServiceAccountMember:
    """Bring a service account into a project."""
    role = workspace_role_of(body.workspace_role)
    added = await services.directory.members.add(
        caller, "service_account", workspace_id, body.service_account_id, role=role
    )
    return _member(added)


async def list_workspace_service_accounts(
    workspace_id: WorkspaceId,
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
) -> ServiceAccountMemberPage:
    """The service accounts in a project by a membership."""
    part = Window(limit, id_cursor(page, "svac"))
    found = await services.directory.members.list(caller, "service_account", workspace_id, part)
    return _page(found, found.items[-1].member_id if found.has_more else None)


async def get_workspace_service_account(
    workspace_id: WorkspaceId, service_account_id: AccountId, services: Given, caller: Caller
) -> ServiceAccountMember:
    """A service account in a project."""
    return _member(
        await services.directory.members.get(
            caller, "service_account", workspace_id, service_account_id
        )
    )


async def update_workspace_service_account(
    workspace_id: WorkspaceId,
    service_account_id: AccountId,
    body: WorkspaceRoleUpdate,
    services: Given,
    caller: Caller,
) -> ServiceAccountMember:
    """Give a service account another role in a project."""
    role = workspace_role_of(body.workspace_role)
    changed = await services.directory.members.update(
        caller, "service_account", workspace_id, service_account_id, role=role
    )
    return _member(changed)


async def remove_workspace_service_account(
    workspace_id: WorkspaceId, service_account_id: AccountId, services: Given, caller: Caller
) -> ServiceAccountMemberRemoved:
    """Take a service account out of a project."""
    await services.directory.members.remove(
        caller, "service_account", workspace_id, service_account_id
    )
    return ServiceAccountMemberRemoved(
        service_account_id=service_account_id, workspace_id=workspace_id
    )


def _account(account: Account) -> ServiceAccount:
    return ServiceAccount(
        id=account.id,
        archived_at=moment(account.archived_at),
        archived_by_actor_id=actor(account.archived_by),
        created_at=iso(account.created_at),
        created_by_actor_id=actor(account.created_by),
        description=account.description,
        name=account.name,
        organization_role=ACCOUNT_ROLES[account.role],
        updated_at=iso(account.updated_at),
        updated_by_actor_id=actor(account.updated_by),
    )


def _member(member: Member) -> ServiceAccountMember:
    return ServiceAccountMember(
        created_by_actor_id=actor(member.created_by),
        service_account_id=member.member_id,
        workspace_id=member.project_id,
        workspace_role=WORKSPACE_ROLES[member.role],
    )


def _page(found: Slice[Member], following: str | None) -> ServiceAccountMemberPage:
    return ServiceAccountMemberPage(
        data=[_member(member) for member in found.items], next_page=following
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag = "organization"
    here = "/v1/organizations/service_accounts"
    one = f"{here}/{{service_account_id}}"
    places = f"{one}/workspaces"
    accounts = "/v1/organizations/workspaces/{workspace_id}/service_accounts"
    account = f"{accounts}/{{service_account_id}}"
    gone, added = ServiceAccountMemberRemoved, ServiceAccountMember
    pages = ServiceAccountMemberPage
    for method, path, endpoint, summary, reply, refusals in (
        ("POST", here, create_service_account, "Make a service account", ServiceAccount, (409,)),
        ("GET", here, list_service_accounts, "List service accounts", ServiceAccountPage, (404,)),
        ("GET", one, get_service_account, "Show a service account", ServiceAccount, (404,)),
        (
            "POST",
            one,
            update_service_account,
            "Change a service account",
            ServiceAccount,
            (404, 409),
        ),
        (
            "POST",
            f"{one}/archive",
            archive_service_account,
            "Archive a service account",
            ServiceAccount,
            (404,),
        ),
        ("GET", places, list_service_account_workspaces, "List its projects", pages, (404,)),
        (
            "POST",
            places,
            add_service_account_workspace,
            "Add it to a project",
            added,
            (404, 409),
        ),
        (
            "DELETE",
            f"{places}/{{workspace_id}}",
            remove_service_account_workspace,
            "Remove it from a project",
            gone,
            (404,),
        ),
        (
            "POST",
            accounts,
            add_workspace_service_account,
            "Add a service account",
            added,
            (404, 409),
        ),
        ("GET", accounts, list_workspace_service_accounts, "List them", pages, (404,)),
        ("GET", account, get_workspace_service_account, "Show its membership", added, (404,)),
        ("POST", account, update_workspace_service_account, "Change its role", added, (404,)),
        ("DELETE", account, remove_workspace_service_account, "Remove it", gone, (404,)),
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
