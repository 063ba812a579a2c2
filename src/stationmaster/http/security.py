"""The door: what is decided of a request before anything reads it.

In this order: who it comes from, which name of ours it uses, whether it must use TLS, whether a
browser only asks. It is pure ASGI and inside of the entrance, so that what it refuses has the
headers and the line in the log that every answer has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stationmaster.http.answer import Answer
from stationmaster.http.cors import Cors
from stationmaster.http.hosts import Hosts
from stationmaster.http.proxies import Network, Proxies, secure
from stationmaster.http.wire.exchange import (
    App,
    RawHeaders,
    Receive,
    Scope,
    Send,
    request_id_of,
    send_whole,
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

Refused = Callable[[Origin, int, Scope], None]
"""Told of each request that was refused for who asked."""

Refusal = tuple[int, RawHeaders, bytes]
"""Status, headers that tell no length, and body."""

Render = Callable[[Scope, Exception, str], Refusal]
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
        self._proxied, self._paged = bool(options.trusted_proxies), bool(options.cors_origins)
        self._redirect = options.https_redirect
        self._port = options.https_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if self._proxied:
            self._proxies.apply(scope)
        answer = send if isinstance(send, Answer) else Answer(send)
        here = Origin((scope.get("client") or (None,))[0], request_id_of(scope))
        if (told := self._refused) is not None:
            answer.refused = lambda status: told(here, status, scope)
        token = origin.begin(here)
        try:
            turned_away = self._turned_away(scope)
            if turned_away is None and scope.get("method") == "OPTIONS":
                preflight = self._cors.preflight(scope)
                if preflight is not None:
                    await _tell_before(answer, preflight)
                    return
            if self._paged or secure(scope):
                answer.added = self._headers(scope)
            if turned_away is None:
                await self._app(scope, receive, answer)
            else:
                await _answer(scope, answer, turned_away)
        finally:
            origin.end(token)

    def _turned_away(self, scope: Scope) -> Refusal | None:
        """What to answer to a request that is not let in."""
        try:
            if len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > MAX_URL:
                raise Invalid(f"The URL is longer than {MAX_URL} bytes.", code="url_too_long")
            host = "" if scope["path"] in PROBES else self._hosts.check(scope["headers"])
            if scope["type"] == "websocket":
                self._cors.check_socket(scope["headers"], host)
            if not self._redirect or secure(scope) or scope["path"] in PROBES:
                return None
            if host and scope["type"] == "http":
                return 308, _location(scope, host, self._port), b""
            # A browser follows no redirect of a handshake; without a host there is nowhere to go.
            raise Invalid("This server speaks TLS alone.", code="tls_required")
        except (Invalid, Denied) as error:
            return self._render(scope, error, request_id_of(scope))

    def _headers(self, scope: Scope) -> RawHeaders:
        """What the door adds to an answer."""
        found = self._cors.headers(scope)
        return [*found, HSTS] if secure(scope) else found


def _location(scope: Scope, host: str, port: int) -> list[tuple[bytes, bytes]]:
    # The host was checked, and the port of plain HTTP is not that of TLS.
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if port != 443:
        name = f"{name}:{port}"
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    target = b"https://" + name.encode() + path + (b"?" + query if query else b"")
    return [(b"location", target)]


async def _tell_before(send: Send, headers: RawHeaders) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(scope: Scope, send: Send, answer: Refusal) -> None:
    status, headers, body = answer
    if scope["type"] != "websocket":
        await send_whole(send, status, headers, body)
    elif "websocket.http.response" in scope.get("extensions", {}):
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008})
