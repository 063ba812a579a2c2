"""What the vendors' APIs answer, as frames on the wire: the shapes are theirs, the words ours."""

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

PIECE = 12
"""Characters to a frame."""
CREATED = 1_700_000_000
MOMENT = "2023-11-14T22:13:20.123456789Z"


def pieces(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def id_of(prefix: str, model: str, text: str) -> str:
    return prefix + "v" + hashlib.sha256(f"{model} {text}".encode()).hexdigest()[:20]


def tokens(text: str) -> int:
    return len(text) // 4 + 1


# --- Anthropic's, as Bedrock and Vertex serve it -----------------------------------------------


def message(model: str, text: str) -> Json:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 40, "output_tokens": tokens(text)},
    }


def message_events(model: str, text: str) -> list[Json]:
    start = {
        **message(model, text),
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 40, "output_tokens": 1},
    }
    block = {"type": "text", "text": ""}
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": piece},
            }
            for piece in pieces(text)
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": tokens(text)},
        },
        {"type": "message_stop"},
    ]


def named_frames(events: Sequence[Json]) -> list[bytes]:
    return [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), encoded(e)) for e in events]


# --- Bedrock's framing -------------------------------------------------------------------------


def aws_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message of `application/vnd.amazon.eventstream`."""
    packed = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return body + struct.pack(">I", zlib.crc32(body))


def aws_chunk(event: Json) -> bytes:
    headers = {
        ":event-type": "chunk",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    return aws_message(
        headers, encoded({"bytes": base64.b64encode(encoded(event)).decode(), "p": "abcdef"})
    )


def aws_exception(kind: str, words: str) -> bytes:
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return aws_message(headers, encoded({"message": words}))


def aws_frames(events: Sequence[Json]) -> list[bytes]:
    return [aws_chunk(event) for event in events]


# --- OpenAI's ------------------------------------------------------------------------------------


def completion(model: str, text: str) -> Json:
    return {
        "id": id_of("chatcmpl-", model, text),
        "object": "chat.completion",
        "created": CREATED,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": _openai_usage(text),
    }


def completion_frames(model: str, text: str, *, include_usage: bool) -> list[bytes]:
    common = {
        "id": id_of("chatcmpl-", model, text),
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": model,
    }
    deltas: list[tuple[Json, str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in pieces(text)]
    deltas.append(({}, "stop"))
    chunks: list[Json] = [
        {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    if include_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**common, "choices": [], "usage": _openai_usage(text)})
    return [*(b"data: " + encoded(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def embedding_list(model: str, inputs: Sequence[str], *, packed: bool) -> Json:
    vectors = [vector(text) for text in inputs]
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode()
                if packed
                else each,
            }
            for index, each in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }


def response(model: str, text: str) -> Json:
    content = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": id_of("resp_", model, text),
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "model": model,
        "output": [
            {
                "type": "message",
                "id": id_of("msg_", model, text),
                "role": "assistant",
                "status": "completed",
                "content": [content],
            }
        ],
        "usage": {"input_tokens": 4, "output_tokens": tokens(text), "total_tokens": 9},
    }


def response_events(model: str, text: str) -> list[Json]:
    whole = response(model, text)
    begun = {**whole, "status": "in_progress", "output": []}
    [item], at = whole["output"], {"output_index": 0}
    [part], where = item["content"], {"item_id": item["id"], "content_index": 0, **at}
    new = {**item, "status": "in_progress", "content": []}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "item": new, **at},
        {"type": "response.content_part.added", "part": {**part, "text": ""}, **where},
    ]
    events += [
        {"type": "response.output_text.delta", "delta": piece, "logprobs": [], **where}
        for piece in pieces(text)
    ]
    events += [
        {"type": "response.output_text.done", "text": text, "logprobs": [], **where},
        {"type": "response.content_part.done", "part": part, **where},
        {"type": "response.output_item.done", "item": item, **at},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def openai_error(words: str, code: str) -> Json:
    return {
        "error": {"message": words, "type": "invalid_request_error", "param": None, "code": code}
    }


def _openai_usage(text: str) -> Json:
    return {
        "prompt_tokens": 7,
        "completion_tokens": tokens(text),
        "total_tokens": 7 + tokens(text),
    }


# --- Ollama's ------------------------------------------------------------------------------------


def ollama_answer(model: str, text: str, **message: Any) -> Json:
    return {
        "model": model,
        "created_at": MOMENT,
        "message": {"role": "assistant", "content": text, **message},
        "done": True,
        "done_reason": "stop",
        "total_duration": 4883583458,
        "prompt_eval_count": 7,
        "eval_count": tokens(text),
    }


def ollama_frames(model: str, text: str, *, calls: Sequence[Json] = ()) -> list[bytes]:
    last = ollama_answer(model, "")
    last["eval_count"] = tokens(text)
    common = {"model": model, "created_at": MOMENT, "done": False}
    said: list[Json] = [{"role": "assistant", "content": piece} for piece in pieces(text)]
    said += [{"role": "assistant", "content": "", "tool_calls": [call]} for call in calls]
    lines = [{**common, "message": each} for each in said]
    return [encoded(line) + b"\n" for line in (*lines, last)]


def vector(text: str) -> list[float]:
    """Another for each text; exact in 32 bits."""
    return [byte / 256 for byte in hashlib.sha256(text.encode()).digest()[:4]]
