"""The keys of self-hosted environments: made, listed, revoked."""

from typing import Annotated, Any

from fastapi import FastAPI, Path

from stationmaster.access import ApiKey
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.environments import EnvironmentId
from stationmaster.http.routes.managed.query import PAGE_SIZE, LongLimit, PageCursor
from stationmaster.http.routes.managed.table import add
from stationmaster.http.routes.table import Secret
from stationmaster.http.shapes.managed.work import (
    EnvironmentKey,
    EnvironmentKeyPage,
    EnvironmentKeyRequest,
    NewEnvironmentKey,
)
from stationmaster.kernel.clock import Millis, iso

KeyId = Annotated[str, Path(description="The key's id, `key_…`.")]


async def create_environment_key(
    environment_id: EnvironmentId, body: EnvironmentKeyRequest, services: Given, caller: Caller
) -> NewEnvironmentKey:
    """Make a key for the environment's workers. It is good for nothing else.

    Its secret is in this answer and never again.
    """
    made = await services.hosting.keys.create(
        caller, environment_id, name=body.name, expires_in=body.expires_in_seconds
    )
    return NewEnvironmentKey(**_shown(made.key, services.clock.now()), key=made.secret)


async def list_environment_keys(
    environment_id: EnvironmentId,
    services: Given,
    caller: Caller,
    limit: LongLimit = PAGE_SIZE,
    page: PageCursor = None,
) -> EnvironmentKeyPage:
    """The environment's keys, newest first, revoked ones too. No secret is shown."""
    found = await services.hosting.keys.list(
        caller, environment_id, limit=limit, after=id_cursor(page, "key")
    )
    now = services.clock.now()
    return EnvironmentKeyPage(
        data=[EnvironmentKey(**_shown(key, now)) for key in found.items],
        next_page=found.items[-1].id if found.has_more else None,
    )


async def revoke_environment_key(
    environment_id: EnvironmentId, key_id: KeyId, services: Given, caller: Caller
) -> EnvironmentKey:
    """End a key at once, and the secrets of the work that was taken by it."""
    key = await services.hosting.keys.revoke(caller, environment_id, key_id)
    return EnvironmentKey(**_shown(key, services.clock.now()))


def _shown(key: ApiKey, now: Millis) -> dict[str, Any]:
    return {
        "id": key.id,
        "environment_id": key.environment_id,
        "name": key.name,
        "hint": key.hint,
        "status": key.status(now),
        "created_at": iso(key.created_at),
        "expires_at": None if key.expires_at is None else iso(key.expires_at),
        "last_used_at": None if key.last_used_at is None else iso(key.last_used_at),
    }


def install(api: FastAPI) -> None:
    """Add the routes."""
    here = "/v1/environments/{environment_id}/keys"
    add(
        api,
        "POST",
        here,
        create_environment_key,
        summary="Make an environment key",
        reply=NewEnvironmentKey,
        response_class=Secret,
        status=201,
        refusals=(404,),
    )
    add(
        api,
        "GET",
        here,
        list_environment_keys,
        summary="List environment keys",
        reply=EnvironmentKeyPage,
        refusals=(404,),
    )
    add(
        api,
        "DELETE",
        f"{here}/{{key_id}}",
        revoke_environment_key,
        summary="Revoke an environment key",
        reply=EnvironmentKey,
        refusals=(404,),
    )
