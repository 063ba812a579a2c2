"""Organisations and people, where the Admin API of the SDKs has nothing for them."""

from typing import Annotated

from fastapi import FastAPI, Path

from stationmaster.access import rates
from stationmaster.access.organizations import Organization
from stationmaster.access.people import User
from stationmaster.http.deps import Caller, Given
from stationmaster.http.open_route import add_open
from stationmaster.http.routes.table import Secret, add
from stationmaster.http.shapes.directory import (
    Acceptance,
    InviteToken,
    NewOrganization,
    OrganizationChanges,
    OrganizationRequest,
    OrganizationView,
    UserChanges,
    UserRequest,
    UserView,
)
from stationmaster.kernel.clock import iso


async def create_organization(
    body: OrganizationRequest, services: Given, caller: Caller
) -> NewOrganization:
    """Make a tenant with a project and a master key. For the server's own organisation alone."""
    made, key, secret = await services.directory.organizations.create(
        caller, name=body.name, description=body.description
    )
    return NewOrganization(
        **_organization(made).model_dump(),
        project_id=key.owner.project_id,
        key_id=key.id,
        key=secret,
    )


async def update_organization(
    body: OrganizationChanges, services: Given, caller: Caller
) -> OrganizationView:
    """Change your organisation."""
    changed = await services.directory.organizations.update(
        caller,
        name=body.name,
        description=body.description,
        limits=None if body.limits is None else body.limits.model_dump(),
    )
    return _organization(changed)


async def add_user(body: UserRequest, services: Given, caller: Caller) -> UserView:
    """Add a person to your organisation without an invite."""
    made = await services.directory.users.create(
        caller, email=body.email, name=body.name, role=body.role
    )
    return _user(made)


async def change_user(
    user_id: Annotated[str, Path(max_length=64, description="The user's id, `user_…`.")],
    body: UserChanges,
    services: Given,
    caller: Caller,
) -> UserView:
    """Change a person's name, role or status. What their keys may do changes at once."""
    changed = await services.directory.users.update(
        caller, user_id, name=body.name, role=body.role, status=body.status
    )
    return _user(changed)


async def create_invite_token(
    invite_id: Annotated[str, Path(max_length=64, description="The invite's id, `invite_…`.")],
    services: Given,
    caller: Caller,
) -> InviteToken:
    """Show what an invited person needs to come in, for you to hand over."""
    token = await services.directory.invites.token(caller, invite_id)
    invite = await services.directory.invites.get(caller, invite_id)
    return InviteToken(token=token, expires_at=iso(invite.expires_at))


async def accept_invite(body: Acceptance, services: Given) -> UserView:
    """Come in with an invite's token, once. It needs no other credential."""
    return _user(await services.directory.invites.accept(body.token, name=body.name))


def _organization(organization: Organization) -> OrganizationView:
    return OrganizationView(
        id=organization.id,
        name=organization.name,
        description=organization.description,
        limits=rates.to_row(organization.limits) or {},
        created_at=iso(organization.created_at),
    )


def _user(user: User) -> UserView:
    return UserView(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        status=user.status,
        created_at=iso(user.created_at),
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "organization", "/api/admin"
    add(
        api,
        "POST",
        f"{here}/organizations",
        create_organization,
        tag=tag,
        summary="Make a tenant",
        reply=NewOrganization,
        response_class=Secret,
        status=201,
        errors=(413, 422),
    )
    add(
        api,
        "PATCH",
        f"{here}/organization",
        update_organization,
        tag=tag,
        summary="Change your organisation",
        reply=OrganizationView,
        errors=(413, 422),
    )
    add(
        api,
        "POST",
        f"{here}/users",
        add_user,
        tag=tag,
        summary="Add a person",
        reply=UserView,
        status=201,
        errors=(409, 413, 422),
    )
    add(
        api,
        "PATCH",
        f"{here}/users/{{user_id}}",
        change_user,
        tag=tag,
        summary="Change a person",
        reply=UserView,
        errors=(404, 409, 413, 422),
    )
    add(
        api,
        "POST",
        f"{here}/invites/{{invite_id}}/token",
        create_invite_token,
        tag=tag,
        summary="Show an invite's token",
        reply=InviteToken,
        response_class=Secret,
        errors=(404, 409, 413),
    )
    add_open(
        api,
        "POST",
        "/api/invites/accept",
        accept_invite,
        tag=tag,
        summary="Accept an invite",
        reply=UserView,
        errors=(401, 409, 413, 422),
    )
