"""Clients with users of their own: master keys, and logging users in and out."""

from typing import TypeVar

from fastapi import FastAPI
from starlette.responses import JSONResponse

from stationmaster.access.organizations import Organization
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import Secret, add
from stationmaster.http.services import Services
from stationmaster.http.shapes.client import (
    Client,
    ClientChange,
    ClientRequest,
    Closed,
    Enveloped,
    MasterKey,
    NewClient,
    UserKey,
    UserLogin,
    UserLogout,
    ValidToken,
)
from stationmaster.kernel.clock import iso

T = TypeVar("T")


async def create_client(
    body: ClientRequest, services: Given, caller: Caller
) -> Enveloped[NewClient]:
    """Make a client, an organisation with a master key. For the server's own admins."""
    organization, secret = await services.clients.create(
        caller, name=body.name, description=body.description
    )
    view = NewClient(**_view(organization).model_dump(), master_api_key=secret)
    return _enveloped(services, view)


async def get_client(services: Given, caller: Caller) -> Enveloped[Client]:
    """Show the client whose key this is."""
    return _enveloped(services, _view(await services.directory.organizations.mine(caller)))


async def update_client(body: ClientChange, services: Given, caller: Caller) -> Enveloped[Client]:
    """Change the client's name and description."""
    organization = await services.directory.organizations.update(
        caller, name=body.name, description=body.description
    )
    return _enveloped(services, _view(organization))


async def close_client(services: Given, caller: Caller) -> Enveloped[Closed]:
    """End the client: every key of it is refused from now on."""
    await services.clients.close(caller)
    return _enveloped(services, Closed())


async def regenerate_key(services: Given, caller: Caller) -> Enveloped[MasterKey]:
    """A new master key; the one that this is asked with ends."""
    secret = await services.clients.regenerate_key(caller)
    return _enveloped(services, MasterKey(master_api_key=secret))


async def log_user_in(body: UserLogin, services: Given, caller: Caller) -> Enveloped[UserKey]:
    """Give a user of yours a key; the one from before ends. Needs a master key."""
    found = await services.clients.log_in(
        caller, body.user_id, name=body.display_name, permissions=body.permissions
    )
    view = UserKey(
        user_id=found.external_id,
        display_name=found.name,
        permissions=sorted(found.key.scopes),
        api_key=found.secret,
        created_at=iso(found.key.created_at),
    )
    return _enveloped(services, view)


async def log_user_out(body: UserLogout, services: Given, caller: Caller) -> Enveloped[Closed]:
    """End a user's key: your own, or with a master key and `user_id` anybody's of yours."""
    await services.clients.log_out(caller, body.user_id)
    return _enveloped(services, Closed())


async def validate_token(services: Given, caller: Caller) -> Enveloped[ValidToken]:
    """Whose key this is; 401 where it is not valid."""
    found = await services.clients.validate(caller)
    expires = found.key.expires_at
    view = ValidToken(
        client_id=found.organization_id,
        user_id=found.external_id,
        display_name=found.name,
        permissions=sorted(caller.scopes),
        expires_at=None if expires is None else iso(expires),
    )
    return _enveloped(services, view)


_SECRETS = (NewClient, MasterKey, UserKey)


def _view(organization: Organization) -> Client:
    return Client(
        id=organization.id,
        name=organization.name,
        description=organization.description,
        created_at=iso(organization.created_at),
    )


def _enveloped(services: Services, data: T) -> Enveloped[T]:
    return Enveloped(data=data, timestamp=iso(services.clock.now()))


def install(api: FastAPI) -> None:
    """Add the routes."""
    here, tag = "/api/v1", "clients"
    for method, path, endpoint, summary, reply, status, errors in (
        ("POST", "/clients", create_client, "Make a client", NewClient, 201, (413, 422)),
        ("GET", "/clients/me", get_client, "Show the client", Client, 200, ()),
        ("PUT", "/clients/me", update_client, "Change the client", Client, 200, (413, 422)),
        ("DELETE", "/clients/me", close_client, "End the client", Closed, 200, ()),
        (
            "POST",
            "/clients/regenerate-key",
            regenerate_key,
            "Replace the master key",
            MasterKey,
            200,
            (),
        ),
        ("POST", "/auth/user-login", log_user_in, "Log a user in", UserKey, 200, (404, 413, 422)),
        (
            "POST",
            "/auth/user-logout",
            log_user_out,
            "Log a user out",
            Closed,
            200,
            (404, 413, 422),
        ),
        ("GET", "/auth/validate-token", validate_token, "Show whose key", ValidToken, 200, ()),
    ):
        add(
            api,
            method,
            here + path,
            endpoint,
            tag=tag,
            summary=summary,
            reply=Enveloped[reply],  # type: ignore[valid-type]
            status=status,
            errors=errors,
            response_class=Secret if reply in _SECRETS else JSONResponse,
        )
