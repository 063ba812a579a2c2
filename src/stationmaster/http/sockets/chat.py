"""A model call whose answer goes out in frames, as it is written."""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import msgspec

from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.http.shapes.stream import ChatFrame, ChatMessage
from stationmaster.http.wire.anthropic import told
from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.kernel.money import to_dollars
from stationmaster.kernel.principal import Principal

MAX_EVENT_BYTES = 1024 * 1024

_HEADERS = (("anthropic-version", "2023-06-01"), ("content-type", "application/json"))
_END = re.compile(rb"\r?\n\r?\n")


async def chat_frames(
    gateway: Gateway, principal: Principal, frame: ChatFrame, *, address: str | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Make the call; yield `token`s and at last `done`. Raises what the gateway raises."""
    call = await gateway.admit(principal, _body(frame), _HEADERS, "", address=address)
    try:
        await call.start()
        if call.body is not None:
            raise _refused(call)
        stop_reason = None
        async with aclosing(call.chunks()) as chunks:
            async for event in _events(chunks):
                match event.get("type"):
                    case "content_block_delta":
                        piece = _delta(event.get("delta") or {})
                        if piece is not None:
                            yield piece
                    case "message_delta":
                        stop_reason = (event.get("delta") or {}).get("stop_reason") or stop_reason
                    case "error":
                        message = (event.get("error") or {}).get("message")
                        raise Upstream(str(message or "The model provider broke off."))
    finally:
        await call.aclose()
    yield _done(call, stop_reason)


def _body(frame: ChatFrame) -> bytes:
    said = [message for message in frame.messages if message.role != "system"]
    if not said:
        raise Invalid("A chat needs a message that is not the system's.", param="messages")
    body: dict[str, Any] = {
        "model": frame.model,
        "max_tokens": frame.max_tokens,
        "messages": [{"role": message.role, "content": message.content} for message in said],
        "stream": True,
    }
    if system := [_text(message) for message in frame.messages if message.role == "system"]:
        body["system"] = "\n\n".join(system)
    if frame.temperature is not None:
        body["temperature"] = frame.temperature
    return msgspec.json.encode(body)


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    texts = [block.get("text") for block in message.content]
    if not all(isinstance(text, str) for text in texts):
        raise Invalid("A system message is text.", param="messages")
    return "\n".join(str(text) for text in texts)


def _delta(delta: dict[str, Any]) -> dict[str, Any] | None:
    match delta.get("type"):
        case "text_delta":
            return {"type": "token", "content": delta.get("text", "")}
        case "thinking_delta":
            return {"type": "thinking_token", "content": delta.get("thinking", "")}
    return None


def _done(call: GatewayCall, stop_reason: str | None) -> dict[str, Any]:
    entry = call.entry
    usage = None
    if entry is not None:
        tokens = entry.usage
        usage = {
            "input_tokens": tokens.input_tokens,
            "output_tokens": tokens.output_tokens,
            "cache_write_tokens": tokens.cache_write_tokens,
            "cache_read_tokens": tokens.cache_read_tokens,
        }
    return {
        "type": "done",
        "model": call.context.model,
        "stop_reason": stop_reason,
        "usage": usage,
        "cost": None if entry is None else to_dollars(entry.cost),
    }


def _refused(call: GatewayCall) -> Upstream:
    return Upstream(told(call.body or b"")[1], status=call.status)


async def _events(
    chunks: AsyncGenerator[bytes, None],
) -> AsyncGenerator[dict[str, Any], None]:
    waiting = b""
    async for chunk in chunks:
        waiting += chunk
        *whole, waiting = _END.split(waiting)
        if len(waiting) > MAX_EVENT_BYTES:
            raise Upstream("The model provider's event is too large.")
        for event in whole:
            for data in _data(event):
                yield data


def _data(event: bytes) -> Iterator[dict[str, Any]]:
    for line in event.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            data = msgspec.json.decode(line[5:].strip())
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Upstream("The model provider's event is not JSON.") from None
        if isinstance(data, dict):
            yield data
