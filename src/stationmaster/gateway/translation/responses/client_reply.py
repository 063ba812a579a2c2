"""Events as a response of OpenAI's, whole and streamed."""

from collections.abc import Mapping
from typing import Any

import msgspec

from stationmaster.gateway.translation import errors, frames
from stationmaster.gateway.translation.reply import (
    Begun,
    Block,
    Broken,
    CallBegin,
    Counted,
    Draft,
    Event,
    Finished,
    Hidden,
    Stopped,
    TextPiece,
    ThinkingEnd,
    ThinkingPiece,
    Tokens,
)
from stationmaster.gateway.translation.responses.items import Items
from stationmaster.gateway.translation.responses.open_item import OpenItem
from stationmaster.gateway.translation.stamp import Stamp

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": None,
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, and what it says where the request says nothing."""

_INCOMPLETE = {"length": "max_output_tokens", "refusal": "content_filter"}


class ResponsesClient:
    """Writes one reply. `request` is the client's body, of which a response repeats a part."""

    def __init__(self, stamp: Stamp, request: Mapping[str, Any]) -> None:
        self._stamp = stamp
        self._echo = {
            name: default if request.get(name) is None else request[name]
            for name, default in _ECHOED.items()
        }
        self._draft = Draft()
        self._open: OpenItem | None = None
        self._done: list[dict[str, Any]] = []
        self._sequence = 0

    def whole(self, draft: Draft) -> bytes:
        """The body of a reply."""
        items = Items(self._stamp, draft.begun)
        output = [items.whole(block, number) for number, block in enumerate(draft.blocks)]
        output += items.refused(draft.stopped, len(output))
        return msgspec.json.encode(self._response(draft, output, over=True))

    def error(self, broken: Broken) -> bytes:
        """The body of an error."""
        return errors.encoded(errors.openai(broken))

    def write(self, event: Event) -> bytes:
        """The bytes of the stream that an event makes."""
        self._draft.take(event)
        match event:
            case Begun():
                begun = self._response(self._draft, [], over=False)
                return self._event("response.created", response=begun) + self._event(
                    "response.in_progress", response=begun
                )
            case Stopped() | Counted():
                return b""
            case Finished():
                return self._end()
            case Broken():
                return self._fail(event)
            case CallBegin() | Hidden():
                closing = self._close()
                return closing + self._opened(self._draft.blocks[-1])
            case ThinkingEnd():
                return self._piece("") + self._close()
            case TextPiece(text) | ThinkingPiece(text):
                return self._piece(text)
            case _:
                return self._piece(event.text)

    def _piece(self, text: str) -> bytes:
        """A piece of the draft's last block, which may be the one that is open."""
        block = self._draft.blocks[-1]
        opening = b""
        if self._open is None or self._open.block is not block:
            opening = self._close() + self._opened(block)
        assert self._open is not None
        return opening + (self._events(self._open.piece(text)) if text else b"")

    def _opened(self, block: Block) -> bytes:
        items = Items(self._stamp, self._draft.begun)
        self._open = OpenItem(items, block, len(self._done))
        return self._events(self._open.begin())

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        opened, self._open = self._open, None
        events, item = opened.end()
        self._done.append(item)
        return self._events(events)

    def _end(self) -> bytes:
        written = self._close()
        items = Items(self._stamp, self._draft.begun)
        for item in items.refused(self._draft.stopped, len(self._done)):
            block = Block("refusal", [item["content"][0]["refusal"]])
            written += self._opened(block)
            assert self._open is not None
            written += self._events(self._open.piece(block.text)) + self._close()
        response = self._response(self._draft, self._done, over=True)
        return written + self._event("response." + response["status"], response=response)

    def _fail(self, broken: Broken) -> bytes:
        response = self._response(self._draft, self._done, over=False)
        told = errors.openai_error(broken)
        response["status"] = "failed"
        response["error"] = {"code": "server_error", "message": told["message"]}
        return self._event("response.failed", response=response)

    def _events(self, events: list[dict[str, Any]]) -> bytes:
        return b"".join(self._event(**event) for event in events)

    def _event(self, kind: str, **members: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        return frames.named(event)

    def _response(
        self, draft: Draft, output: list[dict[str, Any]], *, over: bool
    ) -> dict[str, Any]:
        reason = _INCOMPLETE.get(draft.stopped.reason) if over else None
        status = "in_progress" if not over else "completed" if reason is None else "incomplete"
        return {
            "id": self._stamp.reply_id(draft.begun, "resp_"),
            "object": "response",
            "created_at": self._stamp.created,
            "status": status,
            "model": self._stamp.model_of(draft.begun),
            "output": output,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "usage": _usage(draft.tokens) if over else None,
            **self._echo,
        }


def _usage(tokens: Tokens | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {
            "cached_tokens": tokens.cache_read,
            "cache_write_tokens": tokens.cache_write,
        },
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.thinking or 0},
        "total_tokens": tokens.prompt + tokens.output,
    }
