"""Signing in, on and out; and the keys to verify what that gives."""

from typing import Annotated

from fastapi import FastAPI, Path, Request
from starlette.responses import JSONResponse, Response

from stationmaster.access.signin import Grant
from stationmaster.http.deps import Caller, Given
from stationmaster.http.gatekeeper import credential
from stationmaster.http.open_route import add_open
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.signin import (
    Done,
    JwkSet,
    Myself,
    NewPassword,
    PasswordChange,
    RefreshRequest,
    SignInRequest,
    TokenGrant,
)
from stationmaster.kernel.errors import Invalid

JWKS_MAX_AGE_S = 300
NO_STORE = {"cache-control": "no-store"}


async def sign_in(body: SignInRequest, services: Given) -> Response:
    """Sign in with email and password. Too many failures lock the name out, ever longer."""
    grant = await services.sign_ins.by_password(
        body.email,
        body.password,
        organization_id=body.organization_id,
        project_id=body.project_id,
    )
    return granted(grant)


async def refresh_sign_in(body: RefreshRequest, services: Given) -> Response:
    """Take new tokens for a refresh token. One that was used before ends the whole sign-in."""
    return granted(await services.sign_ins.refresh(body.refresh_token))


async def sign_out(request: Request, services: Given, caller: Caller) -> Done:
    """End the sign-in of the access token that this is asked with."""
    token = credential(request.scope["headers"])
    if caller.kind != "user" or token is None:
        raise Invalid("Only a signed-in user can sign out.", code="not_a_user")
    await services.sign_ins.sign_out(token)
    return Done()


async def change_password(body: PasswordChange, services: Given, caller: Caller) -> Done:
    """Change your own password. Every sign-in of yours ends, this one too."""
    await services.sign_ins.change_password(caller, body.current_password, body.new_password)
    return Done()


async def set_password(
    body: NewPassword,
    services: Given,
    caller: Caller,
    user_id: Annotated[str, Path(max_length=64, description="The user's id, `user_…`.")],
) -> Done:
    """Give a user of your organisation a password. Every sign-in of theirs ends."""
    await services.sign_ins.set_password(caller, user_id, body.password)
    return Done()


async def get_myself(caller: Caller) -> Myself:
    """Whose credential this is, and what it may do."""
    return Myself(
        kind=caller.kind,
        id=caller.id,
        user_id=caller.user_id,
        organization_id=caller.owner.organization_id,
        project_id=caller.owner.project_id,
        permissions=sorted(caller.scopes),
    )


async def get_jwks(services: Given) -> Response:
    """The public keys that verify access tokens, the present one first."""
    return JSONResponse(
        await services.signing_keys.jwks(),
        headers={"cache-control": f"public, max-age={JWKS_MAX_AGE_S}"},
    )


def granted(grant: Grant) -> Response:
    """The tokens, for no cache to keep."""
    view = TokenGrant(
        access_token=grant.access_token,
        expires_in=round(grant.expires_in),
        refresh_token=grant.refresh_token,
        refresh_expires_in=round(grant.refresh_expires_in),
        user_id=grant.user_id,
        organization_id=grant.owner.organization_id,
        project_id=grant.owner.project_id,
    )
    return JSONResponse(view.model_dump(mode="json"), headers=NO_STORE)


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "sign-in", "/v1/auth"
    add_open(
        api,
        "POST",
        f"{here}/login",
        sign_in,
        tag=tag,
        summary="Sign in",
        reply=TokenGrant,
        errors=(401, 404, 413, 422, 429),
    )
    add_open(
        api,
        "POST",
        f"{here}/refresh",
        refresh_sign_in,
        tag=tag,
        summary="Take new tokens",
        reply=TokenGrant,
        errors=(401, 413, 422),
    )
    add(api, "POST", f"{here}/logout", sign_out, tag=tag, summary="Sign out", reply=Done)
    add(
        api,
        "POST",
        f"{here}/password",
        change_password,
        tag=tag,
        summary="Change your password",
        reply=Done,
        errors=(413, 422, 429),
    )
    add(
        api,
        "PUT",
        f"{here}/users/{{user_id}}/password",
        set_password,
        tag=tag,
        summary="Give a user a password",
        reply=Done,
        errors=(404, 413, 422, 429),
    )
    add(api, "GET", f"{here}/me", get_myself, tag=tag, summary="Show who you are", reply=Myself)
    add_open(
        api,
        "GET",
        "/.well-known/jwks.json",
        get_jwks,
        tag=tag,
        summary="Show the keys of access tokens",
        reply=JwkSet,
    )
