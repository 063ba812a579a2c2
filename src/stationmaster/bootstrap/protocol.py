"""HTTP on a connection, with bounds on what comes before a request is complete.

uvicorn's own protocol reads a request's head for as long, and as far, as a client likes to send
it. Bodies have their bounds where they are read.
"""

import asyncio
import string
import urllib.parse
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGISendEvent, HTTPScope
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from stationmaster.http.wire.exchange import NAMED, TAKE, WRITE, RawHeaders

MAX_HEAD = 65_536  # bytes of a request's line and headers; a large JWT and cookies fit well
MAX_HEADERS = 128
HEAD_SECONDS = 10.0  # for a whole head, from the connection or from its first byte

_IN_NAMES = (string.ascii_lowercase + string.digits + "!#$%&'*+-.^_`|~").encode()
_IN_VALUES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_ABOUT_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
_JOINED_UP_TO = 65_536  # bytes of a body that are copied to go out with their head


class HeadTooLargeError(Exception):
    """A request's head passes its bounds. Caught by the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too large with 431, and too slow with 408."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._began = False  # with the bytes that have just come
        self._head = 0  # bytes of it so far
        self._coming = 0  # bytes that have just come
        self._timer: asyncio.TimerHandle | None = None
        self._status = HTTPStatus.BAD_REQUEST
        self._idle_since: float | None = None  # by the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._unwatch()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._began, self._coming = False, len(data)
        super().data_received(data)
        if not self._in_head:
            self._unwatch()
            return
        # What is not a whole header yet is kept by the parser, and told to nobody.
        # Where in these bytes it began is not known: of the first ones whole headers are counted.
        self._head += self._fields() if self._began else len(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._timer is None:
            self._watch()

    def on_message_begin(self) -> None:
        """A head begins."""
        self.url, self.headers = b"", []
        self._in_head, self._began, self._head = True, True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is there."""
        headers = self.headers
        if len(headers) >= MAX_HEADERS:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLargeError
        headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: begin to answer, or wait for the answers before it."""
        if self._head + self._coming > MAX_HEAD and self._fields() > MAX_HEAD:
            self._status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLargeError
        self._in_head = False
        parser, named = self.parser, dict(self.headers)
        version = parser.get_http_version()
        state = self.app_state.copy()
        state[NAMED] = named
        scope: HTTPScope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": parser.get_method().decode("ascii"),
            "root_path": self.root_path,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": self.headers,
            "state": state,
        }
        self.scope = scope
        if parser.should_upgrade() and self._should_upgrade():
            return
        raw_path, scope["query_string"] = _target(self.url)
        path = raw_path.decode("ascii")
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        before: RequestResponseCycle | None = self.cycle
        self.cycle = cycle = _Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=_News(),  # type: ignore[arg-type] # as much of an event as is used
            expect_100_continue=named.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        state[TAKE], state[WRITE] = cycle.take, cycle.write
        app = service_unavailable if self._crowded() else self.app
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, app))

    def _fields(self) -> int:
        """Bytes of the head's whole headers."""
        return sum(len(name) + len(value) for name, value in self.headers)

    def _crowded(self) -> bool:
        most = self.limit_concurrency
        if most is None or max(len(self.connections), len(self.tasks)) < most:
            return False
        self.logger.warning("Exceeded concurrency limit.")
        return True

    def on_response_complete(self) -> None:
        """An answer is whole. What comes next on the connection is waited for by one timer.

        To start one for each answer, and to stop it again, takes longer than to answer.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_next(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None  # the timer sees it

    def _wait_for_next(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, where nothing has come for as long as it may be kept."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._wait_for_next(left)
        else:
            self.transport.close()

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


def _target(url: bytes) -> tuple[bytes, bytes]:
    """A request's path and query. A proxy's client sends a whole URL, which may have no path."""
    if not url.startswith(b"/"):
        parsed = httptools_impl.httptools.parse_url(url)  # type: ignore[attr-defined] # it is there
        return parsed.path, parsed.query or b""
    path, _, query = url.partition(b"#")[0].partition(b"?")
    return path, query


class _News:
    """An `asyncio.Event` that is one only where somebody waits: mostly all is there already."""

    __slots__ = ("_event", "there")

    def __init__(self) -> None:
        self.there = False
        self._event: asyncio.Event | None = None

    def set(self) -> None:
        self.there = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        self.there = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> None:
        if not self.there:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()


class _Cycle(RequestResponseCycle):
    """Writes heads a few times faster than uvicorn, which takes each header for itself.

    What is out of the ordinary is left to uvicorn.
    """

    message_event: _News  # type: ignore[assignment]

    def take(self) -> bytes | None:
        """The whole body, once; None where it is not all there: then it is to be received."""
        if self.more_body or self.disconnected or not self.message_event.there:
            return None
        self.flow.resume_reading()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return body

    async def send(self, message: ASGISendEvent) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start" and self._is_plain():
            headers = list(message.get("headers", []))
            length = dict(headers).get(b"content-length", b"")
            head = self._head(message["status"], headers) if length.isdigit() else None
            if head is not None:
                self.response_started, self.waiting_for_100_continue = True, False
                self.expected_content_length, self.chunked_encoding = int(length), False
                self.transport.write(head)
                return
        elif message["type"] == "http.response.body" and self._is_stream():
            body = message.get("body", b"")
            if body and message.get("more_body"):
                self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
                return
        await super().send(message)

    def write(self, status: int, headers: RawHeaders, lines: bytes, body: bytes) -> bool:
        """See `Write`. What is out of the ordinary is not written."""
        if not self._is_plain() or self.scope["method"] == "HEAD":
            return False
        head = self._head(status, headers, lines)
        if head is None:
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if len(body) <= _JOINED_UP_TO:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        self.message_event.set()
        self.on_response()
        return True

    def _is_stream(self) -> bool:
        """Whether a piece may be written now as a chunk."""
        return (
            self.chunked_encoding is True
            and not self.response_complete
            and not self.disconnected
            and not self.flow.write_paused
            and self.scope["method"] != "HEAD"
        )

    def _is_plain(self) -> bool:
        """Whether a head may be written now as it is."""
        return (
            self.keep_alive
            and not self.response_started
            and not self.disconnected
            and not self.flow.write_paused
        )

    def _head(self, status: int, given: RawHeaders, more: bytes = b"") -> bytes | None:
        """The head's bytes; None where uvicorn must look at its headers."""
        headers = self.default_headers + given
        names = dict(headers)
        lines = b"\r\n".join(map(b": ".join, headers))
        # No control characters but those that were put between the lines.
        if (
            not _ABOUT_CONNECTION.isdisjoint(names)
            or b"".join(names).translate(None, _IN_NAMES)
            or len(lines.translate(None, _IN_VALUES)) != 2 * len(headers) - 2
        ):
            return None
        return b"%b%b\r\n%b\r\n" % (STATUS_LINE[status], lines, more)


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
