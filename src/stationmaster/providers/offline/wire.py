"""The scripted model's answers in Anthropic's wire format: events, whole messages, errors."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stationmaster.providers.offline.conversation import BYTES_PER_TOKEN, estimate_tokens
from stationmaster.providers.offline.script import Block, Text

Json = dict[str, Any]

PIECE = 14
"""Characters to a delta: about what a real model streams at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One message of the model. `blocks` are content blocks as on the wire."""

    id: str
    model: str
    blocks: tuple[Json, ...]
    stop_reason: str
    input_tokens: int
    output_tokens: int

    def message(self) -> Json:
        """The whole message."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": list(self.blocks),
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": _usage(self.input_tokens, self.output_tokens),
        }

    def events(self) -> Iterator[Json]:
        """The same as a stream of events, in order."""
        start = {
            **self.message(),
            "content": [],
            "stop_reason": None,
            "usage": _usage(self.input_tokens, 1),
        }
        yield {"type": "message_start", "message": start}
        yield {"type": "ping"}
        for index, block in enumerate(self.blocks):
            yield from _block_events(index, block)
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason, "stop_sequence": None},
            "usage": {"output_tokens": self.output_tokens},
        }
        yield {"type": "message_stop"}


def compose(
    blocks: list[Block], *, digest: str, model: str, input_tokens: int, max_tokens: int
) -> Answer:
    """Make an answer of at most `max_tokens`: a text is cut there, a tool call left out."""
    shown: list[Json] = []
    left = max_tokens
    stop_reason = "end_turn"
    for block in blocks:
        if isinstance(block, Text):
            text = block.text
            cost = estimate_tokens(text)
            if cost > left:
                cut = text.encode(errors="replace")[: left * BYTES_PER_TOKEN]
                text, stop_reason = cut.decode("utf-8", "ignore"), "max_tokens"
            if text:
                shown.append({"type": "text", "text": text})
        else:
            cost = estimate_tokens(json.dumps(block.input)) + estimate_tokens(block.name)
            if cost > left:
                stop_reason = "max_tokens"
            else:
                stop_reason = "tool_use"
                made_up = f"toolu_offline_{digest[:20]}{len(shown)}"
                shown.append(
                    {"type": "tool_use", "id": made_up, "name": block.name, "input": block.input}
                )
        left -= min(cost, left)
        if stop_reason == "max_tokens":
            break
    return Answer(
        id=f"msg_offline_{digest[:24]}",
        model=model,
        blocks=tuple(shown),
        stop_reason=stop_reason,
        input_tokens=input_tokens,
        output_tokens=max(1, max_tokens - left),
    )


def frame(event: Json) -> bytes:
    """An event as bytes."""
    return f"event: {event['type']}\ndata: {encode(event).decode()}\n\n".encode()


def encode(value: Json) -> bytes:
    """JSON as bytes."""
    # A prompt may hold half a surrogate pair, which has no encoding.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def error(kind: str, message: str, request_id: str) -> bytes:
    """An error's body."""
    return encode(
        {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    )


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _block_events(index: int, block: Json) -> Iterator[Json]:
    if block["type"] == "text":
        opening, name, kind, whole = {**block, "text": ""}, "text", "text_delta", block["text"]
    else:
        opening, name, kind = {**block, "input": {}}, "partial_json", "input_json_delta"
        whole = json.dumps(block["input"], ensure_ascii=False)
    yield {"type": "content_block_start", "index": index, "content_block": opening}
    for at in range(0, len(whole), PIECE):
        delta = {"type": kind, name: whole[at : at + PIECE]}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
