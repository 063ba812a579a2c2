"""One request and its answer on plain ASGI: the body within bounds, a stream kept alive."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
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

NAMED = "named"
"""Where a request's state may have its headers by name; of one that is there twice, its last."""

TAKE = "take"
"""Where a request's state may have a `Take`."""

Take = Callable[[], bytes | None]
"""The whole body, once; None where it is not all there: then it is to be received."""

WRITE = "write"
"""Where a request's state may have a `Write`."""

Write = Callable[[int, RawHeaders, bytes, bytes], bool]
"""Writes a whole answer at once: its status, its headers, which tell its length, more headers as
lines that are known to be good, each with its end, and its body.

False where that cannot be: then nothing is written, and it is to be sent message by message.
"""

_OK = 200


class RequestGoneError(Exception):
    """The client went away before its request was complete."""


class WholeSend:
    """A `send` that takes a whole answer at once, too."""

    __slots__ = ()

    async def __call__(self, message: Message) -> None:
        """See ASGI."""
        raise NotImplementedError

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer. `headers` tell no length."""
        raise NotImplementedError


async def send_whole(send: Send, status: int, headers: RawHeaders, body: bytes) -> None:
    """Send a whole answer, in one where `send` can. `headers` tell no length."""
    if isinstance(send, WholeSend):
        await send.whole(status, headers, body)
        return
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def request_id_of(scope: Scope) -> str:
    """The id that the entrance gave the request."""
    return str(scope.get("state", {}).get("request_id", ""))


def named_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The request's headers by name; of one that is there twice, its last."""
    found: Mapping[bytes, bytes] | None = scope["state"].get(NAMED) if "state" in scope else None
    return dict(scope["headers"]) if found is None else found


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> bytes:
    """The request's body.

    Raises `TooLarge` over `limit` bytes (at once where the headers say so), `Invalid` where it
    takes longer than `seconds` or is compressed, `RequestGoneError` where its client goes away.
    """
    named = named_of(scope)
    declared = named.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    if b"content-encoding" in named:
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() != b"identity":
                raise Invalid("A compressed request body is not accepted.")
    take: Take | None = scope["state"].get(TAKE) if "state" in scope else None
    if take is not None and (body := take()) is not None:
        if len(body) > limit:
            raise _too_large(limit)
        return body
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
        self.request_id = request_id
        self._keepalive = keepalive
        self._may_ping: Callable[[], bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.Task[None] | None = None
        self._busy = False
        self._last = 0.0
        self.started = False
        self.pings = False
        """Whether it was kept alive: then it must be dropped."""

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Answer with a body of known length."""
        if self.pings:
            await self.quiet()
        self.started = True
        if isinstance(self._send, WholeSend):
            await self._send.whole(status, headers, body)
        else:
            await send_whole(self._send, status, self._with_id(headers), body)

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
        self._last = time.monotonic()

    async def end(self, last: bytes = b"") -> None:
        """End the stream."""
        await self.quiet()
        await self._send({"type": "http.response.body", "body": last})

    def keep_alive(self, may_ping: Callable[[], bool]) -> None:
        """Ping from now on, whenever `keepalive` seconds pass without a write."""
        self.pings, self._may_ping = True, may_ping
        self._last = time.monotonic()
        self._loop = asyncio.get_running_loop()
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
        left = self._last + self._keepalive - time.monotonic()
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
        self._last = time.monotonic()

    async def _ping_over(self) -> None:
        ping, self._ping = self._ping, None
        if ping is not None:
            await asyncio.wait((ping,))

    async def _head(self, status: int, headers: RawHeaders) -> None:
        self.started = True
        headers = self._with_id(headers)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _with_id(self, headers: RawHeaders) -> RawHeaders:
        if isinstance(self._send, WholeSend):
            return headers  # it is added there
        request_id = self.request_id.encode()
        if not any(name == b"request-id" for name, _ in headers):
            headers = [*headers, (b"request-id", request_id)]
        return [*headers, (b"x-request-id", request_id)]
