"""A `Reply` in the words of Ollama, Bedrock and Vertex, and their refusals."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.vendor_answers import MOMENT
from tests.support.wire_upstream import Reply, Text, Thought, Tool

Json = dict[str, Any]


def ollama(request: Json, reply: Reply) -> Json:
    """Ollama's answer in one piece."""
    message: Json = {"role": "assistant", "content": ""}
    for block in reply.blocks:
        message |= _said(block, message)
    return {**_common(request, message), **_end(reply)}


def ollama_lines(request: Json, reply: Reply) -> Iterator[bytes]:
    """The same, line by line."""
    for block in reply.blocks:
        for piece in _pieces(block, reply.piece):
            message = {"role": "assistant", "content": "", **_said(piece, {"content": ""})}
            yield _line({**_common(request, message), "done": False})
    yield _line({**_common(request, {"role": "assistant", "content": ""}), **_end(reply)})


def refusal(vendor: str, status: int, message: str) -> tuple[Any, dict[str, str]]:
    """The body and the headers of a refusal."""
    if vendor == "ollama":
        return {"error": message}, {}
    if vendor == "bedrock":
        kinds = {400: "ValidationException", 429: "ThrottlingException"}
        return {"message": message}, {"x-amzn-errortype": kinds.get(status, "InternalServerError")}
    return [{"error": {"code": status, "message": message, "status": "FAILED"}}], {}


def _common(request: Json, message: Json) -> Json:
    return {"model": request.get("model", ""), "created_at": MOMENT, "message": message}


def _end(reply: Reply) -> Json:
    usage = reply.usage
    prompt = usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens
    return {
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": prompt,
        "eval_count": usage.output_tokens,
    }


def _said(block: Text | Thought | Tool, before: Json) -> Json:
    match block:
        case Text():
            return {"content": before["content"] + block.text}
        case Thought():
            return {"thinking": before.get("thinking", "") + block.thinking}
        case Tool():
            call = {"function": {"name": block.name, "arguments": block.input}}
            return {"tool_calls": [*before.get("tool_calls", ()), call]}


def _pieces(block: Text | Thought | Tool, size: int) -> Iterator[Text | Thought | Tool]:
    match block:
        case Text():
            for at in range(0, len(block.text), size):
                yield Text(block.text[at : at + size])
        case Thought():
            for at in range(0, len(block.thinking), size):
                yield Thought(block.thinking[at : at + size])
        case Tool():
            yield block


def _line(value: Json) -> bytes:
    return json.dumps(value).encode() + b"\n"
