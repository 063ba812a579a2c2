"""The door: what is decided of a request before anything reads it.

In this order: who it comes from, which name of ours it uses, whether it must use TLS, whether a
browser only asks. It is pure ASGI and inside of the entrance, so that what it refuses has the
headers and the line in the log that every answer has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from stationmaster.http.cors import Cors
from stationmaster.http.hosts import Hosts
from stationmaster.http.proxies import Network, Proxies, secure
from stationmaster.http.wire.exchange import (
    App,
    Message,
    RawHeaders,
    Receive,
    Scope,
    Send,
    request_id_of,
)
from stationmaster.kernel import origin
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.origin import Origin

MAX_URL = 8192  # bytes of path and query together
HSTS = (b"strict-transport-security", b"max-age=31536000")
# Asked by address, in plain HTTP, every few seconds.
PROBES = frozenset(
    {"/broker-check", "/db-check", "/health", "/live", "/metrics", "/ready", "/redis-check"}
)
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

Refused = Callable[[Origin, int, Scope], None]
"""Told of each request that was refused for who asked."""

Render = Callable[[Scope, Exception, str], tuple[int, RawHeaders, bytes]]
"""An error as the route would show it, with the request's id."""


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """The operator's decisions about the network."""

    allowed_hosts: Sequence[str] = ("*",)
    cors_origins: Sequence[str] = ()
    trusted_proxies: Sequence[Network] = ()
    https_redirect: bool = False
    https_port: int = 443
    """Where a redirect leads."""


class Door:
    """Pure ASGI, around the app."""

    def __init__(
        self, app: App, options: DoorOptions, *, render: Render, refused: Refused | None = None
    ) -> None:
        self._app = app
        self._render = render
        self._refused = refused
        self._proxies = Proxies(options.trusted_proxies)
        self._hosts = Hosts(options.allowed_hosts)
        self._cors = Cors(options.cors_origins)
        self._redirect = options.https_redirect
        self._port = options.https_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        self._proxies.apply(scope)
        request_id = request_id_of(scope)
        here = Origin((scope.get("client") or (None,))[0], request_id)
        token = origin.begin(here)
        try:
            await self._enter(scope, receive, _Watched(self, scope, here, send), request_id)
        finally:
            origin.end(token)

    async def _enter(
        self, scope: Scope, receive: Receive, send: "_Watched", request_id: str
    ) -> None:
        try:
            host = self._check(scope)
            if scope["type"] == "websocket":
                self._cors.check_socket(scope["headers"], host)
        except (Invalid, Denied) as error:
            await _answer(scope, send, self._render(scope, error, request_id))
            return
        if self._redirect and not secure(scope) and scope["path"] not in PROBES:
            await self._send_to_tls(scope, send, host, request_id)
            return
        if await self._cors.preflight(scope, send.plain):
            return
        await self._app(scope, receive, send)

    async def _send_to_tls(
        self, scope: Scope, send: "_Watched", host: str, request_id: str
    ) -> None:
        if host and scope["type"] == "http":
            await _answer(scope, send, (308, _location(scope, host, self._port), b""))
            return
        # A browser follows no redirect of a handshake; without a host there is nowhere to go.
        refusal = Invalid("This server speaks TLS alone.", code="tls_required")
        await _answer(scope, send, self._render(scope, refusal, request_id))

    def _check(self, scope: Scope) -> str:
        if len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > MAX_URL:
            raise Invalid(f"The URL is longer than {MAX_URL} bytes.", code="url_too_long")
        if scope["path"] in PROBES:
            return ""
        return self._hosts.check(scope["headers"])

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What the door adds to an answer."""
        found = self._cors.headers(scope)
        return [*found, HSTS] if secure(scope) else found

    def note(self, here: Origin, status: int, scope: Scope) -> None:
        """An answer begins."""
        if status in _REFUSED and self._refused is not None:
            self._refused(here, status, scope)


class _Watched:
    """Sends on, with the door's headers."""

    def __init__(self, door: Door, scope: Scope, here: Origin, send: Send) -> None:
        self._door = door
        self._scope = scope
        self._here = here
        self.plain = send

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start"}:
            added = self._door.headers(self._scope)
            if added:
                message["headers"] = _merged(message.get("headers", ()), added)
            self._door.note(self._here, message["status"], self._scope)
        await self.plain(message)


def _merged(given: RawHeaders, added: RawHeaders) -> RawHeaders:
    """Both, with one Vary."""
    vary = [value for name, value in (*given, *added) if name == b"vary"]
    rest = [header for header in (*given, *added) if header[0] != b"vary"]
    return [*rest, (b"vary", b", ".join(dict.fromkeys(vary)))] if vary else rest


def _location(scope: Scope, host: str, port: int) -> list[tuple[bytes, bytes]]:
    # The host was checked, and the port of plain HTTP is not that of TLS.
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if port != 443:
        name = f"{name}:{port}"
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    target = b"https://" + name.encode() + path + (b"?" + query if query else b"")
    return [(b"location", target), (b"content-length", b"0")]


async def _answer(scope: Scope, send: Send, answer: tuple[int, RawHeaders, bytes]) -> None:
    status, headers, body = answer
    if not any(name == b"content-length" for name, _ in headers):
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})
