"""A run's events as server-sent events.

    id: 7
    event: agent.message
    data: {"seq": 7, "type": "agent.message", ...}

Each event of the book has its number as `id`, so a reader resumes with `Last-Event-ID` where it
was. Live news (pieces of a message being written) has none. The stream ends after `run.ended`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import structlog
from starlette.responses import Response

from stationmaster.events import Event, Live, Overflow
from stationmaster.http.problems import body_of
from stationmaster.http.services import Services
from stationmaster.http.streams import SEND_SECONDS, BoundedSend, StalledError, gone, race
from stationmaster.http.wire.exchange import EVENT_STREAM, STREAM_HEADERS, Receive, Scope, Send
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import StationmasterError
from stationmaster.kernel.text import scrub

log = structlog.get_logger(__name__)

PING = b": ping\n\n"
OVERFLOW = "overflow"
STOPPING = "server.stopping"
ERROR = "error"

Item = Event | Live | Overflow | None
Follow = Callable[[int], AsyncGenerator[Item, None]]
CatchUp = Callable[[int], Awaitable[Sequence[Event]]]


def event_json(event: Event) -> dict[str, Any]:
    """An event of the book as readers get it, whatever the transport."""
    return {
        "seq": event.seq,
        "type": event.type,
        "version": event.version,
        "created_at": iso(event.at),
        "data": event.data,
    }


def frame(event_type: str, data: dict[str, Any], seq: int | None = None) -> bytes:
    """One server-sent event."""
    head = b"" if seq is None else b"id: %d\n" % seq
    return head + b"event: " + event_type.encode() + b"\ndata: " + encoded(data) + b"\n\n"


def encoded(data: dict[str, Any]) -> bytes:
    """JSON on one line, whatever text an agent wrote."""
    try:
        return msgspec.json.encode(data)
    except UnicodeEncodeError:
        return msgspec.json.encode(scrub(data))


class RunStream(Response):
    """The answer that follows a run.

    `follow(after)` yields what comes after an event, and None where nothing does for a while;
    `catch_up(after)` reads what is in the book by now. `ended(event)` tells the run's last event.
    """

    def __init__(
        self,
        services: Services,
        *,
        after: int,
        follow: Follow,
        catch_up: CatchUp,
        ended: Callable[[Event], bool],
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        """`send_seconds` is how long a client may take to read one event."""
        self.status_code = 200
        self.background = None
        self._services = services
        self._last = after
        self._follow = follow
        self._catch_up = catch_up
        self._ended = ended
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the run ends, the client goes or stops reading, or the server stops."""
        metrics = self._services.metrics
        out = BoundedSend(send, seconds=self._send_seconds)
        metrics.event_readers.inc()
        try:
            await self._stream(receive, out)
        except StalledError:
            # Leaving the answer unfinished makes the server close the connection.
            metrics.slow_readers_dropped.inc()
            log.info("A reader that had stopped reading was dropped.", after=self._last)
        finally:
            metrics.event_readers.dec()

    async def _stream(self, receive: Receive, out: BoundedSend) -> None:
        headers = [EVENT_STREAM, *STREAM_HEADERS]
        await out({"type": "http.response.start", "status": 200, "headers": headers})
        await out.piece(PING)
        try:
            place, _ = await race(self._pump(out), gone(receive), self._services.stopping.wait())
        except StationmasterError as error:
            await out.piece(frame(ERROR, body_of(error)))
        else:
            if place == 1:
                return
            if place == 2:
                await self._say_goodbye(out)
        await out.piece(b"", last=True)

    async def _pump(self, out: BoundedSend) -> None:
        async with aclosing(self._follow(self._last)) as items:
            async for item in items:
                match item:
                    case None:
                        await out.piece(PING)
                    case Overflow(after=after):
                        await out.piece(frame(OVERFLOW, {"after": after}))
                    case Live(type=kind, data=data):
                        await out.piece(frame(kind, {"type": kind, "data": data}))
                    case Event():
                        await self._write(out, item)

    async def _write(self, out: BoundedSend, event: Event) -> None:
        await out.piece(frame(event.type, event_json(event), event.seq))
        self._last = event.seq

    async def _say_goodbye(self, out: BoundedSend) -> None:
        """Send what was written down before the server stopped, then say that it does."""
        with suppress(StationmasterError):
            for event in await self._catch_up(self._last):
                await self._write(out, event)
                if self._ended(event):
                    return
        await out.piece(frame(STOPPING, {"after": self._last}))
