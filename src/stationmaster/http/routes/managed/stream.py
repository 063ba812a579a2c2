"""A session's events as server-sent events, as the SDKs read them.

    id: 7
    event: agent.message
    data: {"id": "sevt_…", "type": "agent.message", ...}

The stream begins with what comes next, or behind the number that `Last-Event-ID` names. It ends
after `session.deleted`, when the server stops, and when the reader falls behind: come back.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import structlog
from starlette.responses import Response

from stationmaster.events import Live, Overflow
from stationmaster.http.routes.managed.event_view import event_view
from stationmaster.http.routes.managed.refusals import body_of
from stationmaster.http.services import Services
from stationmaster.http.sse import frame
from stationmaster.http.streams import SEND_SECONDS, BoundedSend, StalledError, gone, race
from stationmaster.http.wire.anthropic import PING
from stationmaster.http.wire.exchange import (
    EVENT_STREAM,
    STREAM_HEADERS,
    Receive,
    Scope,
    Send,
    request_id_of,
)
from stationmaster.kernel.errors import StationmasterError
from stationmaster.sessions.session import SessionEvent
from stationmaster.sessions.state import DELETED, IDLE

log = structlog.get_logger(__name__)

POLL_S = 5.0  # how late an event comes whose wake-up was lost
DELTA = "agent.delta"

Item = SessionEvent | Live | Overflow | None
Follow = Callable[[float], AsyncGenerator[Item, None]]
"""Follows the session; the argument is the seconds of silence after which None comes."""


class SessionStream(Response):
    """The answer that follows a session or one of its threads.

    `deltas` are the types of events of which previews are wanted.
    """

    def __init__(
        self,
        services: Services,
        follow: Follow,
        *,
        deltas: frozenset[str],
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        """`send_seconds` is how long a client may take to read one event."""
        self.status_code = 200
        self.background = None
        self._services = services
        self._follow = follow
        self._previews = Previews(deltas)
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the session is deleted, the client goes or stops reading, or we stop."""
        metrics = self._services.metrics
        out = BoundedSend(send, seconds=self._send_seconds)
        request_id = request_id_of(scope)
        metrics.event_readers.inc()
        try:
            await self._stream(receive, out, request_id)
        except StalledError:
            # Leaving the answer unfinished makes the server close the connection.
            metrics.slow_readers_dropped.inc()
            log.info("A reader that had stopped reading was dropped.")
        finally:
            metrics.event_readers.dec()

    async def _stream(self, receive: Receive, out: BoundedSend, request_id: str) -> None:
        headers = [EVENT_STREAM, *STREAM_HEADERS]
        await out({"type": "http.response.start", "status": 200, "headers": headers})
        await out.piece(PING)
        try:
            place, _ = await race(self._pump(out), gone(receive), self._services.stopping.wait())
        except StationmasterError as error:
            await out.piece(frame("error", body_of(error, request_id)))
        else:
            if place == 1:
                return
        await out.piece(b"", last=True)

    async def _pump(self, out: BoundedSend) -> None:
        idle, last = min(self._services.options.keepalive, POLL_S), 0
        async with aclosing(self._follow(idle)) as items:
            async for item in items:
                match item:
                    case None:
                        await out.piece(PING)
                    case Overflow():
                        return
                    case Live(type=kind, data=data):
                        if kind == DELTA:
                            for preview in self._previews.of(data):
                                await out.piece(preview)
                    case SessionEvent():
                        shown = event_view(item)
                        if shown is not None:
                            self._previews.over(item)
                            # A message that is told again when its turn begins is no cursor: by
                            # its number a reader would be told all that came since once more.
                            seq = item.event.seq if item.event.seq > last else None
                            last = max(last, item.event.seq)
                            await out.piece(frame(item.event.type, shown, seq))
                        if item.event.type == DELETED:
                            return


class Previews:
    """Pieces of messages that are being written, for one reader."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._begun: set[str] = set()

    def of(self, data: dict[str, Any]) -> list[bytes]:
        """The frames for one piece: `event_start` before the first of an event."""
        kind = "agent.thinking" if data.get("kind") == "thinking" else "agent.message"
        event_id = data.get("event_id")
        if kind not in self._wanted or not isinstance(event_id, str):
            return []
        frames = []
        if event_id not in self._begun:
            self._begun.add(event_id)
            start = {"type": "event_start", "event": {"type": kind, "id": event_id}}
            frames.append(frame("event_start", start))
        if kind == "agent.message":
            delta = {
                "type": "content_delta",
                "index": data.get("index", 0),
                "content": {"type": "text", "text": data.get("text", "")},
            }
            piece = {"type": "event_delta", "event_id": event_id, "delta": delta}
            frames.append(frame("event_delta", piece))
        return frames

    def over(self, event: SessionEvent) -> None:
        """The event itself has come; or a turn has ended, and with it what was never finished."""
        self._begun.discard(event.id)
        if event.event.type == IDLE:
            self._begun.clear()
