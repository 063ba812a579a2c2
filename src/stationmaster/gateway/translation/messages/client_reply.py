"""Events as a message of Anthropic's, whole and streamed."""

from typing import Any

import msgspec

from stationmaster.gateway.translation import errors, frames
from stationmaster.gateway.translation.reply import (
    Begun,
    Block,
    Broken,
    CallBegin,
    CallPiece,
    Counted,
    Draft,
    Event,
    Finished,
    Hidden,
    Stopped,
    StopReason,
    TextPiece,
    ThinkingEnd,
    ThinkingPiece,
    Tokens,
)
from stationmaster.gateway.translation.stamp import Stamp
from stationmaster.kernel.errors import Upstream

_REASONS: dict[StopReason, str] = {
    "end": "end_turn",
    "sequence": "stop_sequence",
    "length": "max_tokens",
    "tools": "tool_use",
    "refusal": "refusal",
}
_BYTES_PER_TOKEN = 4
"""Of an answer whose provider does not count."""


class MessagesClient:
    """Writes one reply."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._begun = Begun("", "")
        self._open: str | None = None
        self._index = -1
        self._calls = 0
        self._written = 0
        self._stopped = Stopped("end")
        self._tokens: Tokens | None = None

    def whole(self, draft: Draft) -> bytes:
        """The body of a reply. Raises `Upstream` where a tool's arguments are no JSON object."""
        calls = 0
        content: list[dict[str, Any]] = []
        for block in draft.blocks:
            call = CallBegin(block.id, block.name)
            content.append(
                _block(
                    block,
                    self._stamp.tool_id(draft.begun, call, calls),
                    cut=draft.stopped.reason == "length",
                )
            )
            calls += block.kind == "call"
        message = {
            **self._envelope(draft.begun),
            "content": content,
            **_ending(draft.stopped),
            "usage": _usage(draft.tokens or self._estimate(draft.size)),
        }
        return msgspec.json.encode(message)

    def error(self, broken: Broken) -> bytes:
        """The body of an error."""
        return errors.encoded(errors.anthropic(broken))

    def write(self, event: Event) -> bytes:
        """The bytes of the stream that an event makes."""
        match event:
            case Begun():
                return self._start(event)
            case TextPiece() | ThinkingPiece() | ThinkingEnd() | Hidden():
                return self._words(event)
            case CallBegin() | CallPiece():
                return self._call(event)
            case Stopped():
                self._stopped = event
            case Counted(tokens):
                self._tokens = tokens
            case Finished():
                return self._end()
            case Broken():
                return frames.named(errors.anthropic(event))
        return b""

    def _words(self, event: TextPiece | ThinkingPiece | ThinkingEnd | Hidden) -> bytes:
        match event:
            case TextPiece(text):
                return self._piece("text", {"type": "text_delta", "text": text})
            case ThinkingPiece(text):
                return self._piece("thinking", {"type": "thinking_delta", "thinking": text})
            case ThinkingEnd(signature):
                proof = {"type": "signature_delta", "signature": signature}
                return self._piece("thinking", proof) + self._close()
            case Hidden(data):
                return self._opened("hidden", {"type": "redacted_thinking", "data": data})

    def _start(self, begun: Begun) -> bytes:
        self._begun = begun
        tokens = begun.tokens or Tokens(input=self._stamp.prompt_estimate)
        message = {
            **self._envelope(begun),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(tokens),
        }
        return frames.named({"type": "message_start", "message": message})

    def _call(self, event: CallBegin | CallPiece) -> bytes:
        if isinstance(event, CallPiece):
            return self._piece("call", {"type": "input_json_delta", "partial_json": event.text})
        call_id = self._stamp.tool_id(self._begun, event, self._calls)
        self._calls += 1
        block = {"type": "tool_use", "id": call_id, "name": event.name, "input": {}}
        return self._opened("call", block)

    def _piece(self, kind: str, delta: dict[str, Any]) -> bytes:
        """A piece of the block that is open, or of a new one where another kind is."""
        opening = b""
        if self._open != kind:
            empty = (
                {"type": "text", "text": ""}
                if kind == "text"
                else {"type": "thinking", "thinking": "", "signature": ""}
            )
            opening = self._opened(kind, empty)
        frame = frames.named({"type": "content_block_delta", "index": self._index, "delta": delta})
        self._written += len(frame)
        return opening + frame

    def _opened(self, kind: str, block: dict[str, Any]) -> bytes:
        closing = self._close()
        self._index += 1
        self._open = kind
        frame = {"type": "content_block_start", "index": self._index, "content_block": block}
        return closing + frames.named(frame)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return frames.named({"type": "content_block_stop", "index": self._index})

    def _end(self) -> bytes:
        closing = self._close()
        usage = _usage(self._tokens or self._estimate(self._written))
        delta = {"type": "message_delta", "delta": _ending(self._stopped), "usage": usage}
        return closing + frames.named(delta) + frames.named({"type": "message_stop"})

    def _estimate(self, written: int) -> Tokens:
        return Tokens(self._stamp.prompt_estimate, -(-written // _BYTES_PER_TOKEN))

    def _envelope(self, begun: Begun) -> dict[str, Any]:
        return {
            "id": self._stamp.reply_id(begun, "msg_"),
            "type": "message",
            "role": "assistant",
            "model": self._stamp.model_of(begun),
        }


def _ending(stopped: Stopped) -> dict[str, Any]:
    return {"stop_reason": _REASONS[stopped.reason], "stop_sequence": stopped.sequence}


def _usage(tokens: Tokens) -> dict[str, Any]:
    told: dict[str, Any] = {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "output_tokens": tokens.output,
    }
    if tokens.thinking is not None:
        told["output_tokens_details"] = {"thinking_tokens": tokens.thinking}
    return told


def _block(block: Block, call_id: str, *, cut: bool) -> dict[str, Any]:
    match block.kind:
        case "thinking":
            return {"type": "thinking", "thinking": block.text, "signature": block.signature}
        case "hidden":
            return {"type": "redacted_thinking", "data": block.text}
        case "call":
            arguments = _arguments(block.text, cut=cut)
            return {"type": "tool_use", "id": call_id, "name": block.name, "input": arguments}
        case _:
            return {"type": "text", "text": block.text}


def _arguments(text: str, *, cut: bool) -> dict[str, Any]:
    """The arguments of a call. An answer that was cut for its length may end inside of them."""
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
    except msgspec.DecodeError:
        value = {} if cut else None
    if not isinstance(value, dict):
        raise Upstream("The model called a tool with arguments that are no JSON object.")
    return value
