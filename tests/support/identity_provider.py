"""Identity providers: a real one in a process of its own, and one that can be told to be wrong."""

import asyncio
import base64
import hashlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

START_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def provider_process(*users: dict[str, Any]) -> AsyncIterator[str]:
    """`oidc-provider-mock` with these users' claims; yields its issuer."""
    port = free_port()
    options = [part for user in users for part in ("--user-claims", json.dumps(user))]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "oidc_provider_mock",
        "--port",
        str(port),
        "--require-nonce",
        "true",
        *options,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    issuer = f"http://127.0.0.1:{port}"
    try:
        await _answers(issuer, process)
        yield issuer
    finally:
        process.kill()
        await process.wait()


async def _answers(issuer: str, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient() as client:
        while True:
            try:
                answer = await client.get(f"{issuer}/.well-known/openid-configuration")
            except httpx.TransportError:
                assert process.returncode is None
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            else:
                assert answer.status_code == 200
                return


async def consent(url: str, subject: str) -> str:
    """What a person does there: say who one is. Returns where the browser is sent."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(url, data={"sub": subject, "action": "authorize"})
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])


class Forger:
    """A provider of ours that checks PKCE, and whose answers can be changed.

    `claims` are laid over those of its ID tokens (None removes one), `header` over its header;
    `document` over its discovery. `key` signs; `published` is what the key set says.
    """

    def __init__(self) -> None:
        self.key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.published = [self._jwk(self.key, "k1")]
        self.algorithm = "RS256"
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        self.answer: dict[str, Any] | None = None
        self.key_reads = 0
        self.issuer = ""
        self._codes: dict[str, dict[str, str]] = {}

    def _jwk(self, key: Any, key_id: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return {**made, "kid": key_id, "use": "sig", "alg": "RS256"}

    def rotate(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.published = [self._jwk(self.key, "k2")]
        self.header = {"kid": "k2"}

    def authorize(self, url: str) -> str:
        """The person agrees; returns the code."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert len(query["state"]) >= 32
        assert len(query["nonce"]) >= 32
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        return code

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/token", self._token)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.issuer = f"http://127.0.0.1:{port}"
        try:
            yield self.issuer
        finally:
            await runner.cleanup()

    async def _discovery(self, _request: web.Request) -> web.Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            **self.document,
        }
        return web.json_response({k: v for k, v in document.items() if v is not None})

    async def _keys(self, _request: web.Request) -> web.Response:
        self.key_reads += 1
        return web.json_response({"keys": self.published})

    async def _token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        asked = self._codes.pop(str(form.get("code")), None)
        verifier = str(form.get("code_verifier", "")).encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).decode().rstrip("=")
        basic = f"{asked['client_id']}:the-secret-of-the-client" if asked else ""
        expected = "Basic " + base64.b64encode(basic.encode()).decode()
        right = (
            asked is not None
            and asked["code_challenge"] == digest
            and asked["redirect_uri"] == form.get("redirect_uri")
            and request.headers.get("authorization") == expected
        )
        if not right or asked is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if self.answer is not None:
            return web.json_response(self.answer)
        return web.json_response({"access_token": "x", "id_token": self.id_token(asked)})

    def id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "sub": "subject-1",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada",
            **self.claims,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        headers = {"kid": "k1", **self.header}
        return jwt.encode(
            kept,
            self.key,
            self.algorithm,
            headers={name: value for name, value in headers.items() if value is not None},
        )
