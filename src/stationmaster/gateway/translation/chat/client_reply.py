"""Events as a chat completion, whole and streamed.

Thinking has no place of OpenAI's own. It comes as `reasoning_content`, as other servers of this
format have it, and with its proof as `thinking_blocks`; a client that sends its assistant's
messages back as they came returns both.
"""

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

_REASONS: dict[StopReason, str] = {
    "end": "stop",
    "sequence": "stop",
    "length": "length",
    "tools": "tool_calls",
    "refusal": "content_filter",
}


class ChatClient:
    """Writes one reply. `include_usage` is what the client said in `stream_options`."""

    def __init__(self, stamp: Stamp, *, include_usage: bool) -> None:
        self._stamp = stamp
        self._include_usage = include_usage
        self._begun = Begun("", "")
        self._chunk: dict[str, Any] = {}
        self._thinking = Draft()
        self._proofs = 0
        self._calls = 0
        self._tokens: Tokens | None = None

    def whole(self, draft: Draft) -> bytes:
        """The body of a reply."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": draft.text("text") or None,
            "refusal": draft.text("refusal") or _refusal(draft.stopped),
        }
        if thoughts := draft.of("thinking", "hidden"):
            message["reasoning_content"] = draft.text("thinking")
            message["thinking_blocks"] = [_proof(block) for block in thoughts]
        if calls := draft.of("call"):
            message["tool_calls"] = [
                _call(self._stamp.tool_id(draft.begun, CallBegin(call.id, call.name), number), call)
                for number, call in enumerate(calls)
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _REASONS[draft.stopped.reason],
        }
        return msgspec.json.encode(
            {
                **self._envelope(draft.begun, "chat.completion"),
                "choices": [choice],
                "usage": usage_of(draft.tokens),
            }
        )

    def error(self, broken: Broken) -> bytes:
        """The body of an error."""
        return errors.encoded(errors.openai(broken))

    def write(self, event: Event) -> bytes:
        """The bytes of the stream that an event makes."""
        match event:
            case Begun():
                self._begun = event
                self._chunk = self._envelope(event, "chat.completion.chunk")
                return self._delta({"role": "assistant"})
            case TextPiece(text, refusal):
                return self._delta({"refusal" if refusal else "content": text})
            case ThinkingPiece() | ThinkingEnd() | Hidden():
                return self._thought(event)
            case CallBegin() | CallPiece():
                return self._call(event)
            case Stopped(reason):
                told = _refusal(event)
                delta = {} if told is None else {"refusal": told}
                return self._delta(delta, finish_reason=_REASONS[reason])
            case Counted(tokens):
                self._tokens = tokens
                return b""
            case Finished():
                return self._end()
            case Broken():
                return frames.data(errors.openai(event))

    def _end(self) -> bytes:
        if not self._include_usage:
            return frames.DONE
        last = {**self._chunk, "choices": [], "usage": usage_of(self._tokens)}
        return frames.data(last) + frames.DONE

    def _thought(self, event: ThinkingPiece | ThinkingEnd | Hidden) -> bytes:
        """Words as they come, and at a block's end the whole of it with its proof."""
        self._thinking.take(event)
        if isinstance(event, ThinkingPiece):
            return self._delta({"reasoning_content": event.text}) if event.text else b""
        block, self._thinking = self._thinking.blocks[-1], Draft()
        index, self._proofs = self._proofs, self._proofs + 1
        # The official client joins entries of a list by their index.
        return self._delta({"thinking_blocks": [{"index": index, **_proof(block)}]})

    def _call(self, event: CallBegin | CallPiece) -> bytes:
        if isinstance(event, CallPiece):
            function = {"arguments": event.text}
            return self._delta({"tool_calls": [{"index": self._calls - 1, "function": function}]})
        number, self._calls = self._calls, self._calls + 1
        begun = {
            "index": number,
            "id": self._stamp.tool_id(self._begun, event, number),
            "type": "function",
            "function": {"name": event.name, "arguments": ""},
        }
        return self._delta({"tool_calls": [begun]})

    def _delta(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> bytes:
        chunk: dict[str, Any] = {
            **self._chunk,
            "choices": [
                {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            ],
        }
        if self._include_usage:
            chunk["usage"] = None
        return frames.data(chunk)

    def _envelope(self, begun: Begun, kind: str) -> dict[str, Any]:
        return {
            "id": self._stamp.reply_id(begun, "chatcmpl-"),
            "object": kind,
            "created": self._stamp.created,
            "model": self._stamp.model_of(begun),
        }


def usage_of(tokens: Tokens | None) -> dict[str, Any] | None:
    """Usage as OpenAI counts it: what came from a cache is part of the prompt."""
    if tokens is None:
        return None
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.prompt + tokens.output,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.thinking or 0},
    }


def _refusal(stopped: Stopped) -> str | None:
    return stopped.explanation if stopped.reason == "refusal" else None


def _proof(block: Block) -> dict[str, str]:
    if block.kind == "hidden":
        return {"type": "redacted_thinking", "data": block.text}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _call(call_id: str, call: Block) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.text}
    return {"id": call_id, "type": "function", "function": function}
