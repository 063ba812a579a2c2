"""What we ask an OpenID Connect provider, and how we read its answers.

The provider is the operator's choice and trusted to say who somebody is; nothing else it says is
believed without a check.
"""

import asyncio
import hmac
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import jwt

from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unauthenticated, Unavailable

DISCOVERY = "/.well-known/openid-configuration"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")  # none is shared
FRESH_S = 3600.0  # how long discovery and keys are believed
REREAD_S = 30.0  # how often an unknown key id may make us ask for the keys
TIMEOUT_S = 10.0
LEEWAY_S = 60.0  # by which the provider's clock may be off
MAX_ANSWER = 1_000_000  # bytes
MAX_TOKEN = 16_384
MAX_CLAIM = 255


@dataclass(frozen=True, slots=True)
class Client:
    """What the provider knows of us. Without a secret we are a public client."""

    id: str
    secret: str | None
    redirect_uri: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, by the provider. `email` is there only where it was verified."""

    issuer: str
    subject: str
    email: str | None
    name: str


class Provider:
    """One provider. Close it."""

    def __init__(self, issuer: str, client: Client, clock: Clock) -> None:
        self.issuer = issuer
        self._client = client
        self._clock = clock
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False)
        self._document: dict[str, Any] = {}
        self._document_at = float("-inf")
        self._keys: dict[str, jwt.PyJWK] = {}
        self._keys_at = float("-inf")
        self._asking = asyncio.Lock()

    async def aclose(self) -> None:
        """Close connections."""
        await self._http.aclose()

    async def authorization_url(self, *, state: str, nonce: str, challenge: str) -> str:
        """Where to send the browser. Raises `Unavailable`."""
        document = await self._discover()
        query = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": self._client.redirect_uri,
            "scope": " ".join(self._client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        there: str = document["authorization_endpoint"]
        return f"{there}{'&' if urlsplit(there).query else '?'}{urlencode(query)}"

    async def identify(self, code: str, *, verifier: str, nonce: str) -> Identity:
        """Who has come back with `code`. Raises `Unauthenticated`, `Unavailable`."""
        document = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._client.redirect_uri,
            "code_verifier": verifier,
            "client_id": self._client.id,
        }
        basic = None
        if self._client.secret is not None:
            methods = document.get("token_endpoint_auth_methods_supported")
            if methods and "client_secret_basic" not in methods:
                form["client_secret"] = self._client.secret
            else:
                basic = httpx.BasicAuth(self._client.id, self._client.secret)
        answer = await self._ask("POST", document["token_endpoint"], data=form, auth=basic)
        if 400 <= answer.status_code < 500:
            raise _refused("The provider does not accept the code.")
        token = self._json(answer).get("id_token")
        if not isinstance(token, str) or len(token) > MAX_TOKEN:
            raise _refused("The provider gave no ID token.")
        return self._identity(await self._claims(token), nonce)

    # --- the ID token -----------------------------------------------------------------------

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise _refused("The ID token is signed in a way that is not accepted.")
            key = await self._key(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=self._client.id,
                issuer=self.issuer,
                # Time is told by our clock, below.
                options={
                    "require": ["iss", "aud", "sub", "exp", "iat"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError:
            raise _refused("The ID token is not valid.") from None
        return claims

    def _identity(self, claims: dict[str, Any], nonce: str) -> Identity:
        now = self._clock.now() / 1000
        issued, expires = claims["iat"], claims["exp"]
        if not all(type(moment) in (int, float) for moment in (issued, expires)):
            raise _refused("The ID token is not valid.")
        if expires <= now - LEEWAY_S or issued > now + LEEWAY_S:
            raise _refused("The ID token is not of this time.")
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise _refused("The ID token is not for this sign-in.")
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._client.id:
            raise _refused("The ID token is for another client.")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_CLAIM:
            raise _refused("The ID token names nobody.")
        email = _text(claims.get("email")) if claims.get("email_verified") is True else None
        name = _text(claims.get("name")) or email or subject
        return Identity(self.issuer, subject, email, name)

    async def _key(self, key_id: object) -> jwt.PyJWK:
        now = asyncio.get_running_loop().time()
        known = self._pick(key_id)
        old = now - self._keys_at > (REREAD_S if known is None else FRESH_S)
        if old:
            async with self._asking:
                document = await self._discover()
                answer = await self._ask("GET", document["jwks_uri"])
                self._keys = _keys(self._json(answer))
                self._keys_at = now
            known = self._pick(key_id)
        if known is None:
            raise _refused("The ID token is signed with a key that the provider does not publish.")
        return known

    def _pick(self, key_id: object) -> jwt.PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id) if isinstance(key_id, str) else None

    # --- asking -----------------------------------------------------------------------------

    async def _discover(self) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        if now - self._document_at > FRESH_S:
            document = self._json(await self._ask("GET", self.issuer + DISCOVERY))
            if str(document.get("issuer", "")).rstrip("/") != self.issuer:
                raise Unavailable(
                    "The identity provider says that it is another one.", code="oidc_misconfigured"
                )
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not self._acceptable(document.get(name)):
                    raise Unavailable(
                        f"The identity provider's {name} cannot be used.", code="oidc_misconfigured"
                    )
            self._document, self._document_at = document, now
        return self._document

    def _acceptable(self, url: object) -> bool:
        # Where the provider itself is reached by TLS, so is everything that it names.
        schemes = {"https"} if self.issuer.startswith("https://") else {"http", "https"}
        return isinstance(url, str) and urlsplit(url).scheme in schemes

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        data: dict[str, str] | None = None,
        auth: httpx.BasicAuth | None = None,
    ) -> "_Answer":
        request = self._http.build_request(
            method, url, data=data, headers={"accept": "application/json"}
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._http.send(request, auth=auth, stream=True)
                try:
                    return _Answer(answer.status_code, await _bounded(answer))
                finally:
                    await answer.aclose()
        except (httpx.HTTPError, TimeoutError):
            raise _away() from None

    def _json(self, answer: "_Answer") -> dict[str, Any]:
        if answer.status_code != httpx.codes.OK:
            raise _away()
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise _away() from None
        if not isinstance(found, dict):
            raise _away()
        return found


@dataclass(frozen=True, slots=True)
class _Answer:
    status_code: int
    body: bytes


async def _bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            raise _away()
    return bytes(body)


def _keys(document: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """The keys that verify, by id; those of a kind that we do not know are left out."""
    found = {}
    for item in document.get("keys") or ():
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        if item.get("kty") == "oct":  # a shared secret is nothing to publish
            continue
        try:
            found[str(item.get("kid", ""))] = jwt.PyJWK.from_dict(item)
        except jwt.PyJWTError:
            continue
    return found


def _text(value: object) -> str | None:
    return value[:MAX_CLAIM] if isinstance(value, str) and value else None


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(why, code="oidc_refused")


def _away() -> Unavailable:
    return Unavailable("The identity provider does not answer.", code="oidc_unavailable")
