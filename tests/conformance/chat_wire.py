"""A `Reply` in OpenAI's words: chat completions, whole and as chunks."""

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from tests.support.wire_upstream import Reply, Text, Thought, Tool, Usage

Json = dict[str, Any]

CREATED = 1_700_000_000

_FINISH = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


def completion(request: Json, reply: Reply) -> Json:
    """The answer in one piece."""
    message: Json = {"role": "assistant", "content": _words(reply, Text), "refusal": None}
    if thoughts := _words(reply, Thought):
        message["reasoning_content"] = thoughts
    if calls := _calls(reply):
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
    return {
        **_common(request, "chat.completion"),
        "choices": [choice],
        "usage": _usage(reply.usage),
    }


def chunks(request: Json, reply: Reply) -> Iterator[bytes]:
    """The answer's frames, `[DONE]` included."""
    asked = (request.get("stream_options") or {}).get("include_usage")
    common = _common(request, "chat.completion.chunk")
    more: Json = {"usage": None} if asked else {}

    def frame(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data({**common, "choices": [choice], **more})

    yield frame({"role": "assistant", "content": ""})
    for block in reply.blocks:
        if isinstance(block, Text):
            yield from (frame({"content": each}) for each in _pieces(block.text, reply.piece))
        elif isinstance(block, Thought):
            told = _pieces(block.thinking, reply.piece)
            yield from (frame({"reasoning_content": each}) for each in told)
    for index, call in enumerate(_calls(reply)):
        function = call["function"]
        opening = {**call, "index": index, "function": {**function, "arguments": ""}}
        yield frame({"tool_calls": [opening]})
        for each in _pieces(function["arguments"], reply.piece):
            yield frame({"tool_calls": [{"index": index, "function": {"arguments": each}}]})
    yield frame({}, _finish(reply))
    if asked:
        yield _data({**common, "choices": [], "usage": _usage(reply.usage)})
    yield b"data: [DONE]\n\n"


def error(status: int, message: str) -> Json:
    """A refusal."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _common(request: Json, kind: str) -> Json:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": CREATED,
        "model": request.get("model", ""),
    }


def _usage(usage: Usage) -> Json:
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    prompt = usage.input_tokens + read + written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }


def _finish(reply: Reply) -> str:
    return _FINISH.get(reply.ending, "stop")


def _words(reply: Reply, kind: type[Text] | type[Thought]) -> str | None:
    found = [
        block.thinking if isinstance(block, Thought) else block.text
        for block in reply.blocks
        if isinstance(block, kind)
    ]
    return "".join(found) or None


def _calls(reply: Reply) -> list[Json]:
    # An id that came before in a conversation would be taken for the same call.
    tools = [block for block in reply.blocks if isinstance(block, Tool)]
    return [
        {
            "id": tool.id or f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": tool.name, "arguments": json.dumps(tool.input)},
        }
        for tool in tools
    ]


def _pieces(text: str, size: int) -> Sequence[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _data(value: Json) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
