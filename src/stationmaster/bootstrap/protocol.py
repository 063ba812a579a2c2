"""HTTP on a connection, with bounds on what comes before a request is complete.

uvicorn's own protocol reads a request's head for as long, and as far, as a client likes to send
it. Bodies have their bounds where they are read.
"""

import asyncio
import string
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from stationmaster.http.wire.exchange import ARRIVED

MAX_HEAD = 65_536  # bytes of a request's line and headers; a large JWT and cookies fit well
MAX_HEADERS = 128
HEAD_SECONDS = 10.0  # for a whole head, from the connection or from its first byte

_IN_NAMES = (string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~").encode()
_IN_VALUES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_ABOUT_CONNECTION = frozenset({b"connection", b"transfer-encoding"})


class HeadTooLargeError(Exception):
    """A request's head passes its bounds. Caught by the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too large with 431, and too slow with 408."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._began = False  # with the bytes that have just come
        self._head = 0  # bytes of it so far
        self._fields = 0  # bytes of whole headers
        self._timer: asyncio.TimerHandle | None = None
        self._status = HTTPStatus.BAD_REQUEST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._began = False
        super().data_received(data)
        if not self._in_head:
            self._unwatch()
            return
        # What is not a whole header yet is kept by the parser, and told to nobody.
        # Where in these bytes it began is not known, so the first ones are not counted.
        self._head += 0 if self._began else len(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._timer is None:
            self._watch()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._began, self._head, self._fields = True, True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there."""
        self._fields += len(name) + len(value)
        if self._fields > MAX_HEAD or len(self.headers) >= MAX_HEADERS:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLargeError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def answered(scope: Any, receive: Any, _send: Any) -> None:
            scope["state"][ARRIVED] = not cycle.more_body
            await app(scope, receive, _Answer(cycle).send)

        super()._start_asgi_task(cycle, answered)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or too much of it."""
        self._unwatch()
        self._refuse(self._status)

    def _refuse(self, status: HTTPStatus) -> None:
        body = f"{status.phrase}.".encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
            + b"content-type: text/plain; charset=utf-8\r\n"
            + b"x-content-type-options: nosniff\r\n"
            + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()

    def _watch(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_head and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)


class _Answer:
    """Writes heads a few times faster than uvicorn, which takes each header for itself.

    What is out of the ordinary is left to uvicorn, and so is all that follows the head.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        cycle = self._cycle
        if message["type"] != "http.response.start" or cycle.response_started:
            await cycle.send(message)
            return
        headers = cycle.default_headers + list(message.get("headers", []))
        named = dict(headers)
        length = named.get(b"content-length", b"")
        plain = (
            length.isdigit()
            and cycle.keep_alive
            and not cycle.disconnected
            and not cycle.flow.write_paused
            and _ABOUT_CONNECTION.isdisjoint(named)
            and not b"".join([name for name, _ in headers]).translate(None, _IN_NAMES)
            and not b"".join([value for _, value in headers]).translate(None, _IN_VALUES)
        )
        if not plain:
            await cycle.send(message)
            return
        cycle.response_started, cycle.waiting_for_100_continue = True, False
        cycle.expected_content_length, cycle.chunked_encoding = int(length), False
        lines = b"\r\n".join(map(b": ".join, headers))
        cycle.transport.write(STATUS_LINE[message["status"]] + lines + b"\r\n\r\n")


class StrictSocketProtocol(WebSocketsSansIOProtocol):
    """Ends a connection whose text is not UTF-8, with 1007.

    uvicorn's own takes that for a fault of the server: it logs a traceback, and where the client
    has closed by then it raises into the event loop. A handshake that is refused with a body it
    takes for one that was forgotten: anybody could fill the log with errors.
    """

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        """A message is whole."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail()
                return
        super().send_receive_event_to_app()

    def _fail(self) -> None:
        self.frames = []
        self.conn.fail(1007, "Frames are text in UTF-8.")
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
