"""One connection to an upstream. It carries one exchange after another, never two at once."""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache

import httptools
import msgspec

from stationmaster.kernel.errors import Upstream, UpstreamTimeout
from stationmaster.providers.upstream.decoder import Decoder
from stationmaster.providers.upstream.reply import HIGH_WATER, UpstreamReply
from stationmaster.providers.upstream.timeouts import Alarm

MAX_HEAD = 64 * 1024
"""Bytes of a status line and headers, interim answers included; and of anything else that comes
with a body and is none (trailers, chunk extensions)."""
MAX_INTERIM = 16
"""Answers like `100 Continue` and `103 Early Hints` before the one that counts."""
MAX_COPIED = 32 * 1024
"""Bytes of a request's body that are put behind its head before it is sent."""
KEEPALIVE = 15.0
"""Seconds that an idle connection is kept. Shorter than servers keep theirs (60 s and more), so
that a call is not written to a connection that the other side is just closing."""

_VERSIONS = frozenset({"1.0", "1.1"})
_SWITCHING = 101
_FIRST_FINAL = 200
_LAST = 599
_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_NAMES = 1024  # of headers, remembered


class StaleConnectionError(Exception):
    """A kept connection closed before any byte of an answer: the call can go out again."""


class UnusableAnswerError(Exception):
    """The head is HTTP, but not the beginning of an answer to our request."""


class Patience(msgspec.Struct, frozen=True):
    """Until when to wait, in the event loop's time; `inactivity` in seconds."""

    head: float
    inactivity: float
    total: float


class Connection(asyncio.Protocol):
    """`on_free(connection, reusable)` is called once after each exchange, however it ended."""

    def __init__(self, on_free: Callable[["Connection", bool], None]) -> None:
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._alarm = Alarm(self._expire)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: UpstreamReply | None = None
        self._patience = Patience(0, 0, 0)
        self._used = False
        self._bodiless = False
        self._paused = False
        self._forget()

    def _forget(self) -> None:
        """Be ready for the head of an answer."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0  # with trailers
        self._interim = 0
        self._heard = False  # any byte at all
        self._begun = False  # the head is complete
        self._whole = False  # the body is, too
        self._keep = False  # the upstream will keep the connection
        self._until_close = False  # the body has no other end than the connection's
        self._overhead = 0  # bytes since the last that belonged to a body

    # --- for the client -----------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a call may be written to it."""
        return self._transport is not None and not self._transport.is_closing()

    def exchange(self, head: bytes, body: bytes, patience: Patience) -> UpstreamReply:
        """Send a request; the reply fills as the answer comes. The connection must be free."""
        assert self._transport is not None
        assert self._reply is None
        reply = self._reply = UpstreamReply(self, self._loop)
        self._patience = patience
        self._bodiless = head.startswith(b"HEAD ")
        self._alarm.set(patience.head)
        if len(body) <= MAX_COPIED:  # one piece costs less to send than two
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))
        return reply

    def keep(self) -> None:
        """Stay open for another call, but not for long."""
        self._used = True
        self._alarm.set(self._loop.time() + KEEPALIVE)

    def close(self) -> None:
        """Close at once. A call that still runs breaks."""
        self._break(Upstream("The connection to the model provider was closed."))

    # --- for the reply ------------------------------------------------------------------------

    def resume(self, reply: UpstreamReply) -> None:
        """See `Source`."""
        if self._paused and reply is self._reply:
            self._read_on()
            self._listen()

    def abandon(self, reply: UpstreamReply) -> None:
        """See `Source`."""
        if reply is self._reply:
            self._break(Upstream("The call was given up."))

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment] # uvloop's are of no such class

    def data_received(self, data: bytes) -> None:
        """Parse on."""
        reply = self._reply
        if reply is None:  # nobody asked; the next call would take it for its answer
            self.close()
            return
        self._heard = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep = False
            if not self._whole:
                self._break(_unreadable(error))
                return
        if self._whole:
            reply.finish()
            self._detach()
            return
        # While the head's end is not in sight, `_overhead` counts all of it.
        if self._overhead > MAX_HEAD:
            self._break(_unreadable(UnusableAnswerError()))
            return
        if self._begun:
            if reply.waiting > HIGH_WATER and not self._paused and self.usable:
                self._paused = True
                self._transport.pause_reading()  # type: ignore[union-attr]
            self._listen()

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange, if one is under way."""
        self._alarm.stop()
        reply = self._reply
        if reply is not None:
            if self._begun and self._until_close and error is None:
                reply.finish()
            elif self._used and not self._heard:
                reply.fail(StaleConnectionError())
            else:
                reply.fail(self._broken(type(error or EOFError()).__name__))
            self._detach()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- httptools ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Another answer begins: after ours, nobody asked for it."""
        if self._whole:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are not for anyone."""
        self._head_size += len(name) + len(value)
        if self._head_size > MAX_HEAD:
            raise UnusableAnswerError
        if not self._begun:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the reply, or wait on after an interim answer."""
        if self._whole or self._reply is None:
            return
        status = self._parser.get_status_code()
        if status == _SWITCHING or not 100 <= status <= _LAST:
            raise UnusableAnswerError
        if self._parser.get_http_version() not in _VERSIONS:
            raise UnusableAnswerError
        if status < _FIRST_FINAL:
            self._headers = []
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise UnusableAnswerError
            return
        headers = [
            (_in_lower_case(name), str(value, "latin-1").strip()) for name, value in self._headers
        ]
        decoder = self._framing(headers)
        self._begun = True
        self._overhead = 0
        self._reply.begin(status, headers, decoder)
        if self._bodiless:
            self._whole = True

    def on_body(self, data: bytes) -> None:
        """Pass on a piece of the body."""
        if self._reply is not None and not self._whole:
            self._overhead = 0
            self._reply.take(data)

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an interim one."""
        if self._begun and not self._whole:
            self._whole = True
            self._keep = self._parser.should_keep_alive()

    def _framing(self, headers: Sequence[tuple[str, str]]) -> Decoder | None:
        """How the body ends (the parser has checked the lengths), and how it is packed."""
        decoder = None
        self._until_close = True
        for name, value in headers:
            if name not in _FRAMING:
                continue
            if name == "transfer-encoding":
                if value.lower() != "chunked":
                    raise UnusableAnswerError
                self._until_close = False
            elif name == "content-length":
                self._until_close = False
            elif value.lower() not in {"", "identity"}:
                if decoder is not None:
                    raise UnusableAnswerError
                decoder = Decoder(value)
        return decoder

    # ------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Set the alarm for the next piece. Where the reader is slow, the upstream is not late."""
        patience = self._patience
        if self._paused:
            self._alarm.set(patience.total)
        else:
            self._alarm.set(min(self._loop.time() + patience.inactivity, patience.total))

    def _expire(self) -> None:
        if self._begun:
            self._break(UpstreamTimeout("The model provider fell silent."))
        else:
            self._break(UpstreamTimeout("The model provider did not begin to answer in time."))

    def _broken(self, what: str) -> Upstream:
        when = "in the middle" if self._begun else "before answering"
        return Upstream(f"The model provider broke off {when} ({what}).")

    def _break(self, error: Exception) -> None:
        self._keep = False
        if self._transport is not None:
            self._transport.abort()
        if self._reply is not None:
            self._reply.fail(error)
            self._detach()

    def _detach(self) -> None:
        """The exchange is over. Whatever is still to be written belongs to nobody."""
        transport = self._transport
        assert transport is not None
        keep = self._keep and self.usable and not transport.get_write_buffer_size()
        if self._paused:
            self._read_on()
        self._reply = None
        self._forget()
        if not keep:
            transport.abort()
        self._on_free(self, keep)

    def _read_on(self) -> None:
        self._paused = False
        if self.usable:
            self._transport.resume_reading()  # type: ignore[union-attr]


@lru_cache(maxsize=_NAMES)
def _in_lower_case(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _unreadable(error: Exception) -> Upstream:
    # Not the error's text: it can hold what the upstream sent.
    name = type(error.__context__ or error).__name__
    return Upstream(f"The model provider's answer cannot be read ({name}).")
