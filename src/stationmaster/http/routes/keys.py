"""API keys: made, listed, changed, rotated, revoked."""

from typing import Annotated

from fastapi import FastAPI, Path, Query

from stationmaster.access.binding import Belongs
from stationmaster.access.keys import SCOPE
from stationmaster.http.deps import Caller, Given
from stationmaster.http.key_view import DAY_MS, bounds_of, change_of, view
from stationmaster.http.routes.table import Secret, add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes.key import (
    Key,
    KeyChanges,
    KeyList,
    KeyRequest,
    KeyStatistics,
    NewKey,
    RotationRequest,
)
from stationmaster.kernel.paging import DEFAULT_LIMIT

KeyId = Annotated[str, Path(description="The key's id, `key_…`.")]
DAY_S = 86_400.0


async def create_key(body: KeyRequest, services: Given, caller: Caller) -> NewKey:
    """Make a key in your project. Its secret is in this answer and never again."""
    days, now = body.expires_in_days, services.clock.now()
    key, secret = await services.keys.create(
        caller,
        name=body.name,
        scopes=body.permissions,
        expires_at=None if days is None else now + days * DAY_MS,
        bounds=bounds_of(body),
        belongs=Belongs(body.project_id, body.user_id, body.service_account_id),
        rotates=body.rotates,
    )
    return NewKey(**view(key, now).model_dump(), key=secret)


async def list_keys(
    services: Given,
    caller: Caller,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before.")
    ] = None,
) -> KeyList:
    """The project's keys, newest first, revoked ones too. No secret is shown."""
    page = await services.keys.list(caller, limit=limit, after=after)
    counts, now = await services.keys.counts(caller), services.clock.now()
    return KeyList(
        keys=[view(key, now) for key in page.items],
        statistics=KeyStatistics(total=sum(counts.values()), **counts),
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def get_key(key_id: KeyId, services: Given, caller: Caller) -> Key:
    """Show a key, without its secret."""
    return view(await services.keys.get(caller, key_id), services.clock.now())


async def update_key(key_id: KeyId, body: KeyChanges, services: Given, caller: Caller) -> Key:
    """Change what a key may do. It holds at once."""
    caller.require(SCOPE)  # before anything is told of the key
    now = services.clock.now()
    change = change_of(body, await services.keys.get(caller, key_id), now)
    return view(await services.keys.update(caller, key_id, change), now)


async def rotate_key(
    key_id: KeyId, body: RotationRequest, services: Given, caller: Caller
) -> NewKey:
    """Make the key's successor. Its secret is in this answer and never again.

    The old key works until the overlap is over.
    """
    key, secret = await services.rotation.rotate(caller, key_id, overlap=body.overlap_days * DAY_S)
    return NewKey(**view(key, services.clock.now()).model_dump(), key=secret)


async def collect_key(key_id: KeyId, services: Given, caller: Caller) -> NewKey:
    """Be given the secret of a key that replaces an old one by itself: once.

    The old key itself may ask, or who manages keys.
    """
    key, secret = await services.rotation.collect(caller, key_id)
    return NewKey(**view(key, services.clock.now()).model_dump(), key=secret)


async def revoke_key(key_id: KeyId, services: Given, caller: Caller) -> Key:
    """End a key at once, and what its tasks may still do. You cannot revoke the key you use."""
    return view(await services.keys.revoke(caller, key_id), services.clock.now())


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "keys", "/api/admin/keys"
    one = f"{here}/{{key_id}}"
    add(
        api,
        "POST",
        here,
        create_key,
        tag=tag,
        summary="Make a key",
        reply=NewKey,
        response_class=Secret,
        status=201,
        errors=(404, 413, 422),
    )
    add(
        api,
        "GET",
        here,
        list_keys,
        tag=tag,
        summary="List keys",
        reply=KeyList,
        errors=(404, 422),
    )
    add(api, "GET", one, get_key, tag=tag, summary="Show a key", reply=Key, errors=(404,))
    add(
        api,
        "PATCH",
        one,
        update_key,
        tag=tag,
        summary="Change a key",
        reply=Key,
        errors=(404, 413, 422),
    )
    add(
        api,
        "DELETE",
        one,
        revoke_key,
        tag=tag,
        summary="Revoke a key",
        reply=Key,
        errors=(404, 413),
    )
    add(
        api,
        "POST",
        f"{one}/rotate",
        rotate_key,
        tag=tag,
        summary="Replace a key",
        reply=NewKey,
        response_class=Secret,
        status=201,
        errors=(404, 409, 413, 422),
    )
    add(
        api,
        "POST",
        f"{one}/collect",
        collect_key,
        tag=tag,
        summary="Be given a successor's secret",
        reply=NewKey,
        response_class=Secret,
        errors=(404, 409, 413),
    )
