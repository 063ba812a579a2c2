"""Streams put together, whole and cut anywhere."""

import json
from typing import Any

import pytest

from stationmaster.gateway.assembly import assembled


def stream(*events: Any) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (event.get("type", "x").encode(), json.dumps(event).encode())
        for event in events
    )


def block(index: int, **of: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": of}


def delta(index: int, **of: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": of}


MESSAGES = stream(
    {
        "type": "message_start",
        "message": {"id": "m", "role": "assistant", "content": [], "usage": {"input_tokens": 5}},
    },
    block(0, type="thinking", thinking=""),
    delta(0, type="thinking_delta", thinking="Hm"),
    delta(0, type="signature_delta", signature="s="),
    block(1, type="text", text=""),
    {"type": "ping"},
    delta(1, type="text_delta", text="bob@exa"),
    delta(1, type="text_delta", text="mple.org"),
    {"type": "content_block_stop", "index": 1},
    block(2, type="tool_use", id="t", name="f", input={}),
    delta(2, type="input_json_delta", partial_json='{"a"'),
    delta(2, type="input_json_delta", partial_json=": 1}"),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)


def chat(index: int = 0, reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": reason}
    return {"id": "c", "model": "m", "choices": [choice]}


def call(arguments: str, **more: Any) -> dict[str, Any]:
    named = {"function": {"name": "f", "arguments": arguments}} if more else {}
    return chat(tool_calls=[{"index": 0, "function": {"arguments": arguments}} | more | named])


CHAT = stream(
    chat(role="assistant", content=""),
    chat(content="Hel"),
    chat(content="lo"),
    chat(index=1, content="Other"),
    call("", id="t", type="function"),
    call('{"a":'),
    call("1}"),
    chat(reason="tool_calls"),
    {"choices": [], "usage": {"total_tokens": 3}},
)


def test_a_message() -> None:
    assert assembled("messages", MESSAGES) == {
        "id": "m",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "s="},
            {"type": "text", "text": "bob@example.org"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 9},
        "stop_reason": "tool_use",
    }


def test_a_chat() -> None:
    found = assembled("chat", CHAT + b"data: [DONE]\n\n")
    assert found["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [
            {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        ],
    }
    assert found["choices"][0]["finish_reason"] == "tool_calls"
    assert found["choices"][1]["message"] == {"content": "Other"}
    assert found["usage"] == {"total_tokens": 3}


def test_a_response_is_told_at_its_end() -> None:
    begun = {"type": "response.created", "response": {"id": "r", "output": []}}
    piece = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"}
    more = {"type": "response.output_text.delta", "output_index": 0, "delta": "lo"}
    whole = {"type": "response.completed", "response": {"id": "r", "output": ["all"]}}
    assert assembled("responses", stream(begun, piece, more, whole)) == {
        "id": "r",
        "output": ["all"],
    }
    assert assembled("responses", stream(begun, piece, more)) == {
        "id": "r",
        "output": [{"type": "partial", "text": "Hello"}],
    }


@pytest.mark.parametrize(("operation", "raw"), [("messages", MESSAGES), ("chat", CHAT)])
def test_one_that_broke_off_anywhere_is_put_together_as_far_as_it_came(
    operation: str, raw: bytes
) -> None:
    for cut in range(0, len(raw), 7):
        json.dumps(assembled(operation, raw[:cut]))


def test_garbage_is_passed_over() -> None:
    assert assembled("messages", b"data: {broken\n\ndata: 7\n\n: hm\n\n") == {"content": []}
    with pytest.raises(ValueError, match="not streamed"):
        assembled("embeddings", b"")
