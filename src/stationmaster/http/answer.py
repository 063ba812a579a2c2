"""An answer's way out: all that the layers around the apps add to its head, in one step."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from stationmaster.http import compression
from stationmaster.http.limiting import STANDING, lines_of, without_others
from stationmaster.http.wire.exchange import WRITE, Message, RawHeaders, Send, WholeSend, Write

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-xss-protection", b"1; mode=block"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"content-security-policy", b"default-src 'self'"),
)
_SECURITY_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)
_SECURITY_LINES = b"".join(b"%b: %b\r\n" % header for header in SECURITY_HEADERS)
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class Answer(WholeSend):
    """What the apps inside are given as `send`; it remembers how the answer went.

    Nothing is held back, but the head of what may be compressed until its body begins.
    """

    __slots__ = (
        "_held",
        "_send",
        "_state",
        "_write",
        "added",
        "complete",
        "gzip",
        "refused",
        "status",
    )

    def __init__(
        self, send: Send, *, state: dict[str, Any] | None = None, gzip: bool | None = None
    ) -> None:
        """`state` is the request's, where the answer is to have the headers that all have.

        `gzip` is whether the client takes it; with None nothing is compressed.
        """
        self._send = send
        self._state = state
        # Taken out: it holds the scope, which holds the state.
        self._write: Write | None = None if state is None else state.pop(WRITE, None)
        self._held: Message | None = None
        self.gzip = gzip
        self.added: RawHeaders = []
        """The door's headers."""
        self.refused: Callable[[int], None] | None = None
        """Told of the status where the request is refused for who asked."""
        self.status = 0
        self.complete = False

    async def __call__(self, message: Message) -> None:
        """See ASGI."""
        kind = message["type"]
        if kind == "http.response.body":
            if self._held is not None:
                await self._release(message)
            await self._send(message)
            if not message.get("more_body"):
                self.complete = True
        elif kind == "http.response.start":
            status = message["status"]
            headers = self._with_doors(status, message.get("headers", ()))
            if self.gzip is not None and compression.is_large_text(status, headers):
                headers = _merged(headers, [compression.VARY])
                if self.gzip:
                    self._held = message
                    message["headers"] = headers
                    return
            message["headers"] = self._with_all(status, headers)
            await self._send(message)
        else:
            await self._to_socket(kind, message)

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer. `headers` tell no length."""
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        if self.added or status in _REFUSED:
            headers = self._with_doors(status, headers)
        if (
            self.gzip is not None
            and len(body) >= compression.MIN_BYTES
            and compression.is_large_text(status, headers)
        ):
            headers = _merged(headers, [compression.VARY])
            if self.gzip:
                body = await compression.compressed(body)
                headers = compression.encoded(headers, len(body))
        headers, lines = self._with_lines(status, headers)
        if self._write is None or not self._write(status, headers, lines, body):
            headers = headers + _headers_of(lines)
            head = {"type": "http.response.start", "status": status, "headers": headers}
            await self._send(head)
            await self._send({"type": "http.response.body", "body": body})
        self.complete = True

    async def _release(self, message: Message) -> None:
        """Send the head that waits for this body, which is compressed where it is whole."""
        head, self._held = self._held, None
        assert head is not None
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and len(body) >= compression.MIN_BYTES:
            message["body"] = body = await compression.compressed(body)
            head["headers"] = compression.encoded(head["headers"], len(body))
        head["headers"] = self._with_all(head["status"], head["headers"])
        await self._send(head)

    async def _to_socket(self, kind: str, message: Message) -> None:
        """A socket's message. What refuses a handshake gets the headers of every answer."""
        if kind == "websocket.accept":
            self.status = HTTPStatus.SWITCHING_PROTOCOLS
            if self._state is not None:
                own = (b"x-request-id", self._state["request_id"].encode())
                message["headers"] = [*message.get("headers", ()), own]
        elif kind == "websocket.http.response.start":
            status, self.complete = message["status"], True
            headers = self._with_doors(status, message.get("headers", ()))
            message["headers"] = self._with_all(status, headers)
        elif kind == "websocket.close":
            self.status, self.complete = self.status or HTTPStatus.FORBIDDEN, True
        await self._send(message)

    def _with_doors(self, status: int, headers: RawHeaders) -> RawHeaders:
        if self.refused is not None and status in _REFUSED:
            self.refused(status)
        return _merged(headers, self.added) if self.added else headers

    def _with_all(self, status: int, given: RawHeaders) -> RawHeaders:
        """The headers with those of every answer."""
        headers, lines = self._with_lines(status, given)
        return headers + _headers_of(lines) if lines else headers

    def _with_lines(self, status: int, given: RawHeaders) -> tuple[RawHeaders, bytes]:
        """What stays of the headers, and the lines that every answer has besides."""
        self.status = status
        state = self._state
        if state is None:
            return given, b""
        standing = state.get(STANDING)
        lines = b"" if standing is None else lines_of(standing)
        headers, named = list(given), dict(given)
        if lines and b"ratelimit-" in b" ".join(named):
            headers = without_others(headers)
        request_id = state["request_id"].encode()
        if b"request-id" not in named:
            lines += b"request-id: %b\r\n" % request_id
        if b"x-request-id" not in named:
            lines += b"x-request-id: %b\r\n" % request_id
        if _SECURITY_NAMES.isdisjoint(named):
            return headers, lines + _SECURITY_LINES
        missing = [header for header in SECURITY_HEADERS if header[0] not in named]
        return headers + missing, lines


def _headers_of(lines: bytes) -> RawHeaders:
    """The headers that these lines of ours are."""
    parts = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return [(name, value) for name, _, value in parts]


def _merged(given: RawHeaders, added: RawHeaders) -> RawHeaders:
    """Both, with one Vary."""
    vary = [value for name, value in (*given, *added) if name == b"vary"]
    rest = [header for header in (*given, *added) if header[0] != b"vary"]
    return [*rest, (b"vary", b", ".join(dict.fromkeys(vary)))] if vary else rest
