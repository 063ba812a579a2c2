"""What every request passes, whatever it asks for: its id, its headers, its line in the log."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from stationmaster.http.limiting import STANDING, with_standing
from stationmaster.http.security import PROBES, Render
from stationmaster.http.wire.exchange import (
    App,
    Message,
    RawHeaders,
    Receive,
    RequestGoneError,
    Scope,
    Send,
)
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.telemetry import Metrics

log = structlog.get_logger(__name__)

UNMATCHED = "unmatched"
SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-xss-protection", b"1; mode=block"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"content-security-policy", b"default-src 'self'"),
)
CLIENT_GONE = 499  # for the log and the metrics: the client left before anything was sent
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_CLIENT_ID_HEADERS = frozenset({b"x-client-request-id", b"x-request-id"})
_MAX_PATH = 256  # characters of a path in the log

Refusal = tuple[int, RawHeaders, bytes]
"""Status, headers and body."""

Label = Callable[[Scope], str]
Quiet = Callable[[str, int], bool]
"""Whether an answer, by its endpoint and status, is one of those that nobody wants to read of."""


def asked_often(endpoint: str, _status: int) -> bool:
    """Whether it is one of the probes."""
    return endpoint in PROBES


def route_template(scope: Scope) -> str:
    """The path of the route that served the request, with names where the path has values."""
    return str(getattr(scope.get("route"), "path", UNMATCHED))


class Entrance:
    """Pure ASGI, around everything: nothing is buffered, streams pass through."""

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        render: Render,
        label: Label = route_template,
        quiet: Quiet = asked_often,
    ) -> None:
        """`render` shows an error that nothing below has answered."""
        self._app = app
        self._metrics = metrics
        self._render = render
        self._label = label
        self._quiet = quiet
        self._log = log.bind()  # once: each look for it makes two objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] not in {"http", "websocket"}:
            raise NotImplementedError("Only HTTP and WebSockets are spoken here.")
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        socket = scope["type"] == "websocket"
        answer: _Answer | _SocketAnswer = (
            _SocketAnswer(send, request_id) if socket else _Answer(send, request_id, scope["state"])
        )
        bound = {"request_id": request_id}
        if client_id := _client_id(scope["headers"]):
            bound["client_request_id"] = client_id
        started = asyncio.get_running_loop().time()
        tokens = structlog.contextvars.bind_contextvars(**bound)
        try:
            await self._app(scope, receive, answer.send)
        except RequestGoneError:
            pass  # the client left before its request was complete: there is nobody to answer
        except Exception as error:
            log.exception("A request failed in this server.")
            if not answer.status and not socket:
                await _send_whole(answer.send, self._render(scope, error, request_id))
        except asyncio.CancelledError:
            # Nobody cancels a request but Uvicorn, which at the end of its patience with a
            # stopping server would answer 500 itself, in plain text.
            if answer.status or socket:
                raise
            stopping = Unavailable("The server is stopping.", code="shutting_down")
            await _send_whole(answer.send, self._render(scope, stopping, request_id))
        finally:
            seconds = asyncio.get_running_loop().time() - started
            self._note(scope, answer, seconds)
            structlog.contextvars.unbind_contextvars("principal")
            structlog.contextvars.reset_contextvars(**tokens)

    def _note(self, scope: Scope, answer: "_Answer | _SocketAnswer", seconds: float) -> None:
        endpoint, status = self._label(scope), answer.status or CLIENT_GONE
        method = scope.get("method", "GET")  # a socket's handshake
        self._metrics.http_request(method=method, endpoint=endpoint, status=status, seconds=seconds)
        tell = self._log.debug if self._quiet(endpoint, status) else self._log.info
        tell(
            "A request was answered." if answer.complete else "An answer was cut short.",
            method=method,
            path=scope["path"][:_MAX_PATH],
            endpoint=endpoint,
            status_code=status,
            duration_ms=round(seconds * 1000, 3),
        )


class _SocketAnswer:
    """Remembers how a socket went. What refuses a handshake gets the headers of every answer."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self.status = 101
                own = [(b"x-request-id", self._request_id)]
                message["headers"] = [*message.get("headers", ()), *own]
            case "websocket.http.response.start":
                self.status, self.complete = message["status"], True
                message["headers"] = _with_ours(message.get("headers", ()), self._request_id)
            case "websocket.close":
                self.status, self.complete = self.status or 403, True
        await self._send(message)


class _Answer:
    """Adds the headers that every answer has, and remembers how it went."""

    def __init__(self, send: Send, request_id: str, state: Mapping[str, Any]) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._state = state
        self.status = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = _with_ours(message.get("headers", ()), self._request_id)
            if (standing := self._state.get(STANDING)) is not None:
                headers = with_standing(headers, standing)
            message["headers"] = headers
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.complete = True


def _with_ours(given: RawHeaders, request_id: bytes) -> RawHeaders:
    headers = list(given)
    names = {name for name, _ in headers}
    ours = ((b"request-id", request_id), (b"x-request-id", request_id), *SECURITY_HEADERS)
    headers += [header for header in ours if header[0] not in names]
    return headers


async def _send_whole(send: Send, refusal: Refusal) -> None:
    status, headers, body = refusal
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _client_id(headers: RawHeaders) -> str | None:
    """The client's own id for the request, if it can be one. It is only written to the log."""
    for name, value in headers:
        if name in _CLIENT_ID_HEADERS and _CLIENT_ID.fullmatch(value):
            return value.decode()
    return None
