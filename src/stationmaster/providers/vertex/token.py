"""Access tokens for a service account: a signed statement who it is brings one for an hour."""

import asyncio
import ssl
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import jwt
import msgspec

from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.upstream import Endpoint, Timeouts, document

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STATEMENT_LIFE = 3600
"""Seconds; the most that is taken."""
EARLY = 300_000
"""Milliseconds before its end at which a token is changed for a new one."""

_ALGORITHM = "RS256"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FORM = (("content-type", "application/x-www-form-urlencoded"),)


class ServiceAccount(msgspec.Struct, frozen=True):
    """What of the account's key file is needed. Never shown."""

    client_email: str
    private_key: str
    private_key_id: str = ""
    project_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

    def __repr__(self) -> str:
        return f"<ServiceAccount {self.client_email}>"


class Tokens(Protocol):
    """Where the token for a call comes from."""

    async def token(self) -> str:
        """One that is good now. Raises `Upstream`."""
        ...

    def refused(self, token: str) -> None:
        """It was not taken: the next call should bring another. Idempotent."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


class FixedToken:
    """A token that somebody else renews."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """See `Tokens`."""
        return self._token

    def refused(self, token: str) -> None:
        """See `Tokens`."""

    async def aclose(self) -> None:
        """See `Tokens`."""


class _Granted(msgspec.Struct):
    access_token: str
    expires_in: int


_granted = msgspec.json.Decoder(_Granted)


class AccessTokens:
    """Tokens of a service account. Many calls at once ask for one between them."""

    def __init__(
        self,
        account: ServiceAccount,
        *,
        clock: Clock,
        timeouts: Timeouts,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises `Invalid` for a key that is none, or an address that is none."""
        parts = urlsplit(account.token_uri)
        self._endpoint = Endpoint(f"{parts.scheme}://{parts.netloc}", timeouts, tls=tls)
        self._path = parts.path
        self._account = account
        self._key = _signing_key(account.private_key)
        self._clock = clock
        self._asking = asyncio.Lock()
        self._token = ""
        self._ends: Millis = 0

    async def token(self) -> str:
        """See `Tokens`. While the old one is good, a failure to renew it is not one of the call."""
        if self._clock.now() < self._ends - EARLY:
            return self._token
        async with self._asking:
            now = self._clock.now()
            if now < self._ends - EARLY:
                return self._token
            try:
                granted = await self._ask()
            except Upstream:
                if now < self._ends:
                    return self._token
                raise
            self._token, self._ends = granted.access_token, now + granted.expires_in * 1000
        return self._token

    def refused(self, token: str) -> None:
        """See `Tokens`."""
        if token == self._token:
            self._ends = 0

    async def aclose(self) -> None:
        """See `Tokens`."""
        await self._endpoint.aclose()

    async def _ask(self) -> _Granted:
        form = urlencode({"grant_type": _GRANT, "assertion": self._statement()}).encode()
        reply = await self._endpoint.post(self._path, form, _FORM, streamed=True)
        body = await document(reply)
        try:
            if reply.status == 200:
                return _granted.decode(body)
        except (msgspec.DecodeError, ValueError):
            pass
        # Not its words: they can name the account.
        raise Upstream("Google gives no access token for the service account.")

    def _statement(self) -> str:
        now = self._clock.now() // 1000
        account = self._account
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + STATEMENT_LIFE,
        }
        headers = {"kid": account.private_key_id} if account.private_key_id else None
        return jwt.encode(claims, self._key, _ALGORITHM, headers=headers)


def _signing_key(pem: str) -> Any:
    """Read once: it takes a tenth of a second, in which nothing else runs."""
    try:
        return jwt.get_algorithm_by_name(_ALGORITHM).prepare_key(pem)
    except (ValueError, TypeError, jwt.PyJWTError):
        raise Invalid("The service account's private key is none.") from None
