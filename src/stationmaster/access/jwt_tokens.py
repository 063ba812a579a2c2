"""Access tokens: short-lived JWTs (RFC 9068) that say who signed in, and nothing of their rights.

What the user may do is looked up: a role that is taken away is gone at once, and so is the token
of a sign-in that has ended.
"""

from dataclasses import dataclass
from typing import Any

import jwt

from stationmaster.access.jwt_keys import ALGORITHM, SigningKeys
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.kernel.ids import new_id

MAX_LENGTH = 2048
TYPE = "at+jwt"
LEEWAY_S = 60.0  # by which another replica's clock may be ahead
_REQUIRED = ("iss", "aud", "sub", "sid", "iat", "exp")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    user_id: str
    sign_in_id: str
    expires_at: Millis


def looks_like_one(secret: str) -> bool:
    """Whether a credential can be a JWT; none of our keys can."""
    return secret.startswith("eyJ") and secret.count(".") == 2


class AccessTokens:
    """Issues and verifies."""

    def __init__(
        self, keys: SigningKeys, clock: Clock, *, issuer: str, audience: str, lifetime: float
    ) -> None:
        """`lifetime` is in seconds."""
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime

    async def issue(self, *, user_id: str, sign_in_id: str, organization_id: str) -> str:
        """A token for a sign-in."""
        key = await self._keys.present()
        assert key.private is not None
        now = self._clock.now() // 1000
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "sid": sign_in_id,
            "org": organization_id,
            "iat": now,
            "exp": now + round(self.lifetime),
            "jti": new_id("jti"),
        }
        return jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.id, "typ": TYPE})

    async def verify(self, token: str) -> Claims:
        """What a token says. Raises `Unauthenticated`."""
        if len(token) > MAX_LENGTH:
            raise _wrong()
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise _wrong() from None
        key_id = header.get("kid")
        if header.get("typ") != TYPE or header.get("alg") != ALGORITHM:
            raise _wrong()
        if not isinstance(key_id, str):
            raise _wrong()
        key = await self._keys.find(key_id)
        if key is None:
            raise _wrong()
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                # Time is told by our clock, below.
                options={
                    "require": list(_REQUIRED),
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidTokenError:
            raise _wrong() from None
        return self._checked(claims)

    def _checked(self, claims: dict[str, Any]) -> Claims:
        now = self._clock.now()
        user_id, sign_in_id = claims["sub"], claims["sid"]
        issued, expires = claims["iat"], claims["exp"]
        whole = type(issued) is int and type(expires) is int
        if not (whole and _text(user_id) and _text(sign_in_id)):
            raise _wrong()
        if issued * 1000 > now + LEEWAY_S * 1000 or "nbf" in claims:
            raise _wrong()
        if expires * 1000 <= now:
            raise Unauthenticated("The access token has expired.", code="expired_token")
        return Claims(user_id, sign_in_id, expires * 1000)


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 64


def _wrong() -> Unauthenticated:
    return Unauthenticated("The access token is not valid.", code="invalid_token")
