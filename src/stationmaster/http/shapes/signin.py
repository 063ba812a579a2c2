"""Signing in, on and out."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

Secret = Annotated[str, Field(max_length=1024)]
Id = Annotated[str, Field(max_length=64)]


class SignInRequest(Request):
    """Who signs in."""

    email: Annotated[str, Field(max_length=320)]
    password: Secret
    organization_id: Annotated[
        Id | None, Field(description="Needed where the email is in several organisations.")
    ] = None
    project_id: Annotated[Id | None, Field(description="Left out: the default project.")] = None


class RefreshRequest(Request):
    """A refresh token, which this uses up."""

    refresh_token: Secret


class PasswordChange(Request):
    """One's own new password. Every sign-in ends with it, this one too."""

    current_password: Secret
    new_password: Annotated[str, Field(max_length=1024, description="12 to 256 characters.")]


class NewPassword(Request):
    """A password for a user. Every sign-in of theirs ends with it."""

    password: Annotated[str, Field(max_length=1024, description="12 to 256 characters.")]


class TokenGrant(Reply):
    """What somebody who signed in is given."""

    access_token: Annotated[str, Field(description="Send it as `Authorization: Bearer`.")]
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - what kind it is
    expires_in: Annotated[int, Field(description="Seconds that the access token is valid.")]
    refresh_token: Annotated[str, Field(description="Good once; it brings the next one.")]
    refresh_expires_in: Annotated[int, Field(description="Seconds that it is valid.")]
    user_id: str
    organization_id: str
    project_id: str


class Done(Reply):
    """It is done."""

    ok: Literal[True] = True


class Myself(Reply):
    """Whose credential this is."""

    kind: Annotated[str, Field(description="`key` or `user`.")]
    id: str
    user_id: str | None
    organization_id: str
    project_id: str
    permissions: Annotated[list[str], Field(description="Its scopes.")]


class JwkSet(Reply):
    """The public keys that verify access tokens (RFC 7517)."""

    keys: list[dict[str, Any]]
