"""A WebSocket over plain ASGI: JSON frames in and out, within bounds."""

import asyncio
import json
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import msgspec

from stationmaster.http import problems
from stationmaster.http.streams import SEND_SECONDS, StalledError
from stationmaster.http.strict_json import parse
from stationmaster.http.wire import openai_errors
from stationmaster.http.wire.exchange import Receive, Scope, Send, request_id_of
from stationmaster.kernel.errors import Invalid, NotFound, StationmasterError
from stationmaster.kernel.text import scrub

PATH = "/v1/stream"  # of the one socket
# Where OpenAI's clients look for others, and what they can have instead.
_OPENAIS = MappingProxyType(
    {
        "/v1/responses": "Use POST /v1/responses, with `stream` to have it as it comes.",
        "/v1/realtime": "Nothing here speaks; use POST /v1/responses for text.",
    }
)


class Close(IntEnum):
    """Why a socket is closed. Below 4000 they are RFC 6455's."""

    DONE = 1000
    GOING_AWAY = 1001
    NOT_TEXT = 1003
    TOO_LARGE = 1009
    INTERNAL = 1011
    UNAUTHENTICATED = 4001
    DENIED = 4003
    TOO_MANY = 4004
    IDLE = 4008
    TOO_OLD = 4009


class ClosedError(Exception):
    """The socket is closed, by `code` where it was us."""

    def __init__(self, code: Close | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Socket:
    """One connection. Frames may be sent from several tasks; they are read by one."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        """`send_seconds` is how long a client may take to read one frame."""
        self.scope = scope
        self._receive = receive
        self._send = send
        self._send_seconds = send_seconds
        self._sending = asyncio.Lock()

    async def accept(self, subprotocol: str | None = None) -> None:
        """Answer the handshake. Raises `ClosedError` where the client has gone."""
        await self._expect("websocket.connect")
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the handshake with an HTTP error, where the server can; else close."""
        await self._expect("websocket.connect")
        if "websocket.http.response" not in self.scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": Close.DENIED})
            return
        start = {"type": "websocket.http.response.start", "status": status, "headers": headers}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def read(self) -> Any:
        """The next frame's JSON. Raises `Invalid` where it is none, `ClosedError` at the end."""
        message = await self._expect("websocket.receive")
        text = message.get("text")
        if text is None:
            raise ClosedError(Close.NOT_TEXT, "Frames are JSON text.")
        try:
            return parse(text.encode())
        except UnicodeEncodeError:
            raise Invalid("The frame is not valid Unicode text.") from None

    async def _expect(self, kind: str) -> Mapping[str, Any]:
        message = await self._receive()
        if message["type"] != kind:
            raise ClosedError
        return message

    async def write(self, frame: Mapping[str, Any]) -> None:
        """Send a frame. Raises `StalledError` for a client that has stopped reading."""
        try:
            text = msgspec.json.encode(frame).decode()
        except UnicodeEncodeError:
            text = json.dumps(scrub(dict(frame)))
        patience = asyncio.timeout(self._send_seconds)
        try:
            async with patience, self._sending:
                await self._send({"type": "websocket.send", "text": text})
        except TimeoutError:
            if not patience.expired():
                raise
            raise StalledError from None
        except (OSError, RuntimeError):  # the latter where the server itself has closed it
            raise ClosedError from None

    async def close(self, code: Close, reason: str = "") -> None:
        """Say goodbye; a client that does not hear it is not waited for."""
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._send({"type": "websocket.close", "code": int(code), "reason": reason})
        except (OSError, TimeoutError, RuntimeError):
            return  # it is closed already


def error_frame(error: StationmasterError, **told: Any) -> dict[str, Any]:
    """An error as a frame."""
    frame = {"type": "error", **told, "code": error.error_code, "message": error.message}
    if error.param is not None:
        frame["param"] = error.param
    if (after := getattr(error, "retry_after", None)) is not None:
        frame["retry_after"] = after
    # Where clients look that read no codes.
    frame["error"] = error.message
    return frame


async def no_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a handshake where there is nothing to talk to, in the shape of who expects one."""
    socket = Socket(scope, receive, send)
    if (instead := _OPENAIS.get(scope["path"])) is not None:
        error = NotFound(f"This is not offered over a WebSocket here. {instead}")
        body = openai_errors.body(error)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        await socket.refuse(openai_errors.meaning(error).status, headers, body)
        return
    error = NotFound(f"There is no socket here; {PATH} is one.")
    answer = problems.respond(error, request_id_of(scope))
    await socket.refuse(answer.status_code, list(answer.raw_headers), bytes(answer.body))
