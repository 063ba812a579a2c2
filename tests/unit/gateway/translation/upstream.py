"""What providers answer, and the vendors' own clients to read what we make of it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai

from stationmaster.gateway.translation import Translation, translate

CREATED = 1_800_000_000
PNG = "iVBORw0KGgo="


def sse(*events: dict[str, Any]) -> bytes:
    """A stream of Anthropic's."""
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )


def chunks(*events: dict[str, Any], done: bool = True) -> bytes:
    """A stream of chat completions."""
    told = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return b"".join([*told, b"data: [DONE]\n\n"] if done else told)


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": begin},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def message_start(**usage: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "msg_01ABC",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def message_end(reason: str = "end_turn", /, **usage: int) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 20, **usage}},
        {"type": "message_stop"},
    ]


def chunk(delta: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    finish = more.pop("finish_reason", None)
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {
        "id": "chatcmpl-9",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-x",
        "choices": [] if delta is None else [choice],
        **more,
    }


def call(index: int, arguments: str, **begin: str) -> dict[str, Any]:
    function = {"arguments": arguments}
    if "name" in begin:
        function["name"] = begin.pop("name")
    return {"tool_calls": [{"index": index, "function": function, **begin}]}


THINKING_AND_TOOLS = sse(
    message_start(cache_creation_input_tokens=3, cache_read_input_tokens=5),
    {"type": "ping"},
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Let me "},
        {"type": "thinking_delta", "thinking": "see."},
        {"type": "signature_delta", "signature": "c2ln"},
    ),
    *block(1, {"type": "redacted_thinking", "data": "c2VjcmV0"}),
    *block(
        2,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Grüße "},
        {"type": "text_delta", "text": "🚂"},
    ),
    *block(
        3,
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"where":'},
        {"type": "input_json_delta", "partial_json": '"Ulm"}'},
    ),
    *block(4, {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}}),
    *message_end("tool_use", input_tokens=10),
)
"""All that a stream of Anthropic's can hold."""

REASONING_AND_TOOLS = chunks(
    chunk({"role": "assistant", "content": None}),
    chunk({"reasoning_content": "Let me "}),
    chunk({"reasoning_content": "see."}),
    chunk({"content": "Grüße "}),
    chunk({"content": "🚂"}),
    chunk(call(0, "", id="call_1", name="look", type="function")),
    chunk(call(0, '{"where":')),
    chunk(call(0, '"Ulm"}')),
    chunk(call(1, "", id="call_2", name="wait", type="function")),
    chunk({}, finish_reason="tool_calls"),
    chunk(
        usage={
            "prompt_tokens": 18,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 4},
        }
    ),
)
"""The same from a provider of OpenAI's format."""

ASKS: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [{"role": "user", "content": "hi"}],
        "stream_options": {"include_usage": True},
    },
    "messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 100},
    "responses": {"input": "hi"},
}
PAIRS = [
    ("chat", "messages"),
    ("messages", "chat"),
    ("responses", "messages"),
    ("responses", "chat"),
]
STREAMS = {"messages": THINKING_AND_TOOLS, "chat": REASONING_AND_TOOLS}


def between(client: Any, provider: Any, *, model: str = "m", **asked: Any) -> Translation:
    """A translation of a small request with some more fields."""
    raw = json.dumps({"model": "alias", **ASKS[client], **asked}).encode()
    return translate(client, provider, raw, model=model, default_max_tokens=4096, created=CREATED)


def sent(client: Any, provider: Any, **asked: Any) -> dict[str, Any]:
    """The request that the provider gets."""
    found: dict[str, Any] = json.loads(between(client, provider, **asked).body)
    return found


def streamed(translation: Translation, stream: bytes, *, step: int = 1 << 30) -> bytes:
    """All that the client gets of a stream that comes in pieces of some bytes."""
    pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
    return b"".join([*map(translation.feed, pieces), translation.end()])


def events(stream: bytes) -> Iterator[dict[str, Any]]:
    """The data of a stream, but for `[DONE]`."""
    for event in stream.split(b"\n\n"):
        data = event.partition(b"data: ")[2]
        if data and data != b"[DONE]":
            yield json.loads(data)


Handler = Callable[[httpx2.Request], httpx2.Response]


def _answering(body: bytes, kind: str, status: int) -> httpx2.Client:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": kind})

    return httpx2.Client(transport=httpx2.MockTransport(handler))


def openai_client(body: bytes, *, stream: bool = False, status: int = 200) -> openai.OpenAI:
    """OpenAI's client of a server that gives this answer."""
    kind = "text/event-stream" if stream else "application/json"
    http = _answering(body, kind, status)
    return openai.OpenAI(api_key="k", base_url="http://it/v1", http_client=http, max_retries=0)


def anthropic_client(
    body: bytes, *, stream: bool = False, status: int = 200
) -> anthropic.Anthropic:
    """Anthropic's client of a server that gives this answer."""
    kind = "text/event-stream" if stream else "application/json"
    http = _answering(body, kind, status)
    return anthropic.Anthropic(api_key="k", base_url="http://it", http_client=http, max_retries=0)
