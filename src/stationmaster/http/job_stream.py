"""One turn of a session as the events of `/api/execute`.

    id: 9
    data: {"type": "message", "content": "…", "timestamp": "…"}

`connected` comes first, `completed` or `error` last; between them `message`, `thinking`,
`tool_use`, `tool_result` and `permission_request`. Numbered frames can be had again from where
one was cut.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import structlog
from starlette.responses import Response

from stationmaster.events import Live, Overflow
from stationmaster.http.problems import body_of
from stationmaster.http.services import Services
from stationmaster.http.sse import PING, encoded
from stationmaster.http.streams import BoundedSend, StalledError, gone, race
from stationmaster.http.wire.exchange import EVENT_STREAM, STREAM_HEADERS, Receive, Scope, Send
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import StationmasterError
from stationmaster.sessions.session import SessionEvent
from stationmaster.sessions.toolset import NAMES

log = structlog.get_logger(__name__)

Item = SessionEvent | Live | Overflow | None
Follow = Callable[[int], AsyncGenerator[Item, None]]
_ANSWERED = "requires_action"


class JobStream(Response):
    """The answer that tells a session's turn, to its end.

    `follow(after)` yields what comes after an event of the book. `left()` is awaited where the
    client goes before the end.
    """

    def __init__(
        self,
        services: Services,
        *,
        hello: dict[str, Any],
        after: int,
        follow: Follow,
        left: Callable[[], Awaitable[None]],
    ) -> None:
        self.status_code = 200
        self.background = None
        self._services = services
        self._hello = hello
        self._after = after
        self._follow = follow
        self._left = left
        self._telling = Telling()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the turn ends, the client goes or stops reading, or the server stops."""
        metrics = self._services.metrics
        out = BoundedSend(send)
        metrics.event_readers.inc()
        try:
            await self._stream(receive, out)
        except StalledError:
            metrics.slow_readers_dropped.inc()
            log.info("A reader that had stopped reading was dropped.")
            await self._left()
        finally:
            metrics.event_readers.dec()

    async def _stream(self, receive: Receive, out: BoundedSend) -> None:
        headers = [EVENT_STREAM, *STREAM_HEADERS]
        await out({"type": "http.response.start", "status": 200, "headers": headers})
        await out.piece(_frame({"type": "connected", **self._hello}))
        try:
            place, _ = await race(self._pump(out), gone(receive), self._services.stopping.wait())
        except StationmasterError as error:
            told = body_of(error)
            await out.piece(_frame({"type": "error", "error": told["message"], **told}))
        else:
            if place == 1:
                await self._left()
                return
            if place == 2:
                stopping = "The server is stopping; the job goes on, or is told in its session."
                await out.piece(_frame({"type": "error", "error": stopping, "code": "stopping"}))
        await out.piece(b"", last=True)

    async def _pump(self, out: BoundedSend) -> None:
        while not self._telling.over():
            async with aclosing(self._follow(self._after)) as items:
                async for item in items:
                    if item is None:
                        await out.piece(PING)
                    elif isinstance(item, SessionEvent):
                        self._after = item.event.seq
                        for told in self._telling.of(item):
                            await out.piece(_frame(told, item.event.seq))
                        if self._telling.over():
                            return


class Telling:
    """Renders a session's events, up to the end of the turn that is under way."""

    def __init__(self) -> None:
        self._ended = False
        self._error: dict[str, Any] | None = None
        self._tools: dict[str, str] = {}

    def over(self) -> bool:
        """Whether the turn has ended."""
        return self._ended

    def of(self, item: SessionEvent) -> list[dict[str, Any]]:
        """What an event has to say."""
        event = item.event
        told = self._told(event.type, event.data, item.id)
        return [] if told is None else [{**told, "timestamp": iso(event.at)}]

    def _told(self, kind: str, data: dict[str, Any], event_id: str) -> dict[str, Any] | None:
        match kind:
            case "agent.message":
                text = "".join(block.get("text", "") for block in data["content"])
                return {"type": "message", "content": text}
            case "agent.thinking":
                return {"type": "thinking", "content": data.get("thinking", "")}
            case "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use":
                name = NAMES.get(data["name"], data["name"])
                self._tools[event_id] = name
                return {
                    "type": "tool_use",
                    "id": event_id,
                    "tool": name,
                    "input": data.get("input"),
                }
            case "agent.tool_result" | "agent.mcp_tool_result":
                return {
                    "type": "tool_result",
                    "content": data.get("content"),
                    "is_error": bool(data.get("is_error")),
                }
            case "session.error":
                self._error = data.get("error") or {}
            case "session.status_idle":
                return self._idle(data.get("stop_reason") or {})
            case "session.status_terminated" | "session.deleted":
                self._ended = True
                return self._end("The session has ended.")
        return None

    def _idle(self, reason: dict[str, Any]) -> dict[str, Any] | None:
        if reason.get("type") == _ANSWERED:
            waits = [
                {"id": event_id, "tool": self._tools.get(event_id)}
                for event_id in reason.get("event_ids", ())
            ]
            return {"type": "permission_request", "calls": waits}
        self._ended = True
        if reason.get("type") == "budget_reached":
            return self._end("The session's budget is used up.")
        return self._end(None)

    def _end(self, failure: str | None) -> dict[str, Any]:
        if self._error is not None:
            message = self._error.get("message") or failure or "The job failed."
            return {"type": "error", "error": message, "code": self._error.get("code")}
        if failure is not None:
            return {"type": "error", "error": failure, "code": None}
        return {"type": "completed"}


def _frame(data: dict[str, Any], seq: int | None = None) -> bytes:
    head = b"" if seq is None else b"id: %d\n" % seq
    return head + b"data: " + encoded(data) + b"\n\n"
