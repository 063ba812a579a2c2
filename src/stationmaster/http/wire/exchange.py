"""One request and its answer on plain ASGI: the body within bounds, a stream kept alive."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from stationmaster.kernel.errors import Invalid, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

STREAM_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")

ARRIVED = "arrived"
"""Set in a request's state where its whole body is there: no `receive` has to wait for it."""

_OK = 200


class RequestGoneError(Exception):
    """The client went away before its request was complete."""


def request_id_of(scope: Scope) -> str:
    """The id that the entrance gave the request."""
    return str(scope.get("state", {}).get("request_id", ""))


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """The request's body.

    Raises `TooLarge` over `limit` bytes (at once where the headers say so), `Invalid` where it
    takes longer than `seconds` or is compressed, `RequestGoneError` where its client goes away.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise _too_large(limit)
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise Invalid("A compressed request body is not accepted.")
    if scope.get("state", {}).get(ARRIVED):
        return await _read(receive, limit)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, limit)
    except TimeoutError:
        raise Invalid("The request body did not arrive in time.") from None


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RequestGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.")


class Exchange:
    """The answer to one request: whole, or a stream that is kept alive while nothing comes.

    A ping is sent by a timer, between two writes and never inside one; only where `may_ping`
    allows it. If the head is not out by then, it goes first: from there on the answer is a 200.
    """

    def __init__(self, send: Send, *, request_id: str, keepalive: float, ping: bytes) -> None:
        """`keepalive` is in seconds; `ping` is what says nothing in the stream's format."""
        self._ping_frame = ping
        self._send = send
        self._request_id = request_id.encode()
        self._keepalive = keepalive
        self._loop = asyncio.get_running_loop()
        self._may_ping: Callable[[], bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self._busy = False
        self._last = 0.0
        self.started = False

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Answer with a body of known length."""
        await self.quiet()
        await self._head(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, headers: RawHeaders) -> None:
        """Send the head of a stream, unless a ping already did."""
        if self._ping is not None:
            await self._ping_over()
        if not self.started:
            self._busy = True
            await self._head(_OK, [*headers, *STREAM_HEADERS])
            self._busy = False

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the stream."""
        if self._ping is not None:
            await self._ping_over()
        self._busy = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._busy = False
        self._last = self._loop.time()

    async def end(self, last: bytes = b"") -> None:
        """End the stream."""
        await self.quiet()
        await self._send({"type": "http.response.body", "body": last})

    def keep_alive(self, may_ping: Callable[[], bool]) -> None:
        """Ping from now on, whenever `keepalive` seconds pass without a write."""
        self._may_ping = may_ping
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._keepalive, self._due)

    async def quiet(self) -> None:
        """Ping no more, and wait for one that is on its way. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ping is not None:
            await self._ping_over()

    async def drop(self) -> None:
        """Ping no more, and stop one that is on its way: the client is gone. Idempotent."""
        if self._ping is not None:
            self._ping.cancel()
        await self.quiet()

    def _due(self) -> None:
        left = self._last + self._keepalive - self._loop.time()
        if left <= 0:
            left = self._keepalive
            idle = not self._busy and (self._ping is None or self._ping.done())
            if idle and self._may_ping is not None and self._may_ping():
                self._ping = self._loop.create_task(self._send_ping())
        self._timer = self._loop.call_later(left, self._due)

    async def _send_ping(self) -> None:
        if not self.started:
            await self._head(_OK, [EVENT_STREAM, *STREAM_HEADERS])
        await self._send(
            {"type": "http.response.body", "body": self._ping_frame, "more_body": True}
        )
        self._last = self._loop.time()

    async def _ping_over(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None:
            await asyncio.wait((ping,))

    async def _head(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        names = {name for name, _ in headers}
        if b"request-id" not in names:
            headers.append((b"request-id", self._request_id))
        headers.append((b"x-request-id", self._request_id))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
