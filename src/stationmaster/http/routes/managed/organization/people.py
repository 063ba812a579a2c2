"""The organisation itself, its users, and invites."""

from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.access.invites import Invite as AccessInvite
from stationmaster.access.people import User
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.organization.words import (
    PAGE_SIZE,
    ROLES,
    AfterId,
    BeforeId,
    EmailFilter,
    PageLimit,
    RolesFilter,
    moment,
    page,
    role_of,
    window,
)
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.organization import (
    Invite,
    InviteCreate,
    InvitePage,
    Organization,
    OrganizationUser,
    OrganizationUserUpdate,
    Removed,
    UserPage,
)
from stationmaster.kernel.clock import Millis, iso

UserId = Annotated[str, Path(description="The user's id, `user_…`.")]
InviteId = Annotated[str, Path(description="The invite's id, `invite_…`.")]
Statuses = Annotated[list[str] | None, Query(alias="statuses[]", max_length=16)]


async def get_my_organization(services: Given, caller: Caller) -> Organization:
    """The organisation that the credential is of."""
    found = await services.directory.organizations.mine(caller)
    return Organization(id=found.id, name=found.name)


async def list_users(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
    email: EmailFilter = None,
    roles: RolesFilter = None,
) -> UserPage:
    """The organisation's users, newest first."""
    wanted = None if roles is None else [role_of(role) for role in roles]
    part = window(limit, after_id, before_id)
    found = await services.directory.users.list(caller, part, email=email, roles=wanted)
    return UserPage(**page(found, [_user(user) for user in found.items]))


async def get_user(user_id: UserId, services: Given, caller: Caller) -> OrganizationUser:
    """A user."""
    return _user(await services.directory.users.get(caller, user_id))


async def update_user(
    user_id: UserId, body: OrganizationUserUpdate, services: Given, caller: Caller
) -> OrganizationUser:
    """Give a user another role."""
    return _user(await services.directory.users.update(caller, user_id, role=role_of(body.role)))


async def remove_user(user_id: UserId, services: Given, caller: Caller) -> Removed:
    """Take a user out of the organisation. The user's keys end."""
    await services.directory.users.remove(caller, user_id)
    return Removed(id=user_id, type="user_deleted")


async def sign_out_user(user_id: UserId, services: Given, caller: Caller) -> OrganizationUser:
    """End every sign-in of a user, who may sign in again. The user's keys stay."""
    return _user(await services.sign_ins.sign_out_user(caller, user_id))


async def create_invite(body: InviteCreate, services: Given, caller: Caller) -> Invite:
    """Invite a person."""
    made = await services.directory.invites.create(
        caller, email=body.email, role=role_of(body.role)
    )
    return _invite(made, services.clock.now())


async def list_invites(
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
    email: EmailFilter = None,
    roles: RolesFilter = None,
    statuses: Statuses = None,
) -> InvitePage:
    """The organisation's invites, newest first."""
    wanted = None if roles is None else [role_of(role) for role in roles]
    part = window(limit, after_id, before_id)
    found = await services.directory.invites.list(
        caller, part, email=email, roles=wanted, statuses=statuses
    )
    now = services.clock.now()
    return InvitePage(**page(found, [_invite(invite, now) for invite in found.items]))


async def get_invite(invite_id: InviteId, services: Given, caller: Caller) -> Invite:
    """An invite."""
    return _invite(await services.directory.invites.get(caller, invite_id), services.clock.now())


async def delete_invite(invite_id: InviteId, services: Given, caller: Caller) -> Removed:
    """Take an invite back."""
    await services.directory.invites.delete(caller, invite_id)
    return Removed(id=invite_id, type="invite_deleted")


def _user(user: User) -> OrganizationUser:
    return OrganizationUser(
        id=user.id,
        added_at=iso(user.created_at),
        email=user.email or "",
        name=user.name,
        role=ROLES[user.role],
    )


def _invite(invite: AccessInvite, now: Millis) -> Invite:
    return Invite(
        id=invite.id,
        accepted_at=moment(invite.accepted_at),
        email=invite.email,
        expires_at=iso(invite.expires_at),
        invited_at=iso(invite.invited_at),
        role=ROLES[invite.role],
        status=invite.status(now),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "organization", "/v1/organizations"
    users, user = f"{here}/users", f"{here}/users/{{user_id}}"
    add(
        api,
        "GET",
        f"{here}/me",
        get_my_organization,
        summary="Show your organisation",
        reply=Organization,
        tag=tag,
    )
    add(
        api,
        "GET",
        users,
        list_users,
        summary="List users",
        reply=UserPage,
        tag=tag,
        refusals=(404,),
    )
    for method, endpoint, summary, reply in (
        ("GET", get_user, "Show a user", OrganizationUser),
        ("POST", update_user, "Give a user another role", OrganizationUser),
        ("DELETE", remove_user, "Remove a user", Removed),
    ):
        refusals = (404,) if method == "GET" else (404, 409)
        add(api, method, user, endpoint, summary=summary, reply=reply, tag=tag, refusals=refusals)
    add(
        api,
        "POST",
        f"{user}/sign_out",
        sign_out_user,
        summary="Sign a user out everywhere",
        reply=OrganizationUser,
        tag=tag,
        refusals=(404,),
    )
    _install_invites(api)


def _install_invites(api: FastAPI) -> None:
    tag, here = "organization", "/v1/organizations"
    invites, invite = f"{here}/invites", f"{here}/invites/{{invite_id}}"
    for method, path, endpoint, summary, reply, refusals in (
        ("POST", invites, create_invite, "Invite a person", Invite, (409,)),
        ("GET", invites, list_invites, "List invites", InvitePage, (404,)),
        ("GET", invite, get_invite, "Show an invite", Invite, (404,)),
        ("DELETE", invite, delete_invite, "Take an invite back", Removed, (404, 409)),
    ):
        add(api, method, path, endpoint, summary=summary, reply=reply, tag=tag, refusals=refusals)
