"""OpenAI's format: chats, embeddings, responses."""

import base64
import json
import struct
from typing import Any

from stationmaster.providers.conformance.messages import events_of
from stationmaster.providers.conformance.subject import Subject, whole

Json = dict[str, Any]

DONE = "[DONE]"


def chunks_of(body: bytes) -> list[Json]:
    """The chunks of a stream that ends as it should: with one `[DONE]`, and nothing after."""
    frames = body.decode().split("\n\n")
    assert frames.pop() == "", "every event ends with an empty line"
    told = [frame for frame in frames if not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in told), "events have no name"
    data = [frame.removeprefix("data: ") for frame in told]
    assert data.count(DONE) == 1, "the end is told once"
    assert data.pop() == DONE
    return [json.loads(each) for each in data]


def completed(chunks: list[Json]) -> Json:
    """The completion that a stream tells: its message, finish reason, model and usage."""
    message: Json = {"role": "assistant", "content": ""}
    calls: dict[int, Json] = {}
    finish, usage = None, None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            finish = choice["finish_reason"] or finish
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    message[name] = message.get(name, "") + delta[name]
            for call in delta.get("tool_calls") or ():
                _extend(calls.setdefault(call["index"], {}), call)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {
        "model": chunks[0]["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def _extend(call: Json, delta: Json) -> None:
    for name in ("id", "type"):
        if name in delta:
            call[name] = delta[name]
    function = call.setdefault("function", {"name": "", "arguments": ""})
    for name in ("name", "arguments"):
        function[name] += delta.get("function", {}).get(name) or ""


async def answers_a_chat(subject: Subject) -> None:
    """Unstreamed: one JSON completion, with an id and usage that adds up."""
    reply = await subject.provider.send(subject.request("lantern", operation="chat"))
    answer = json.loads(await whole(reply))
    assert reply.status == 200
    assert dict(reply.headers)["content-type"].startswith("application/json")
    assert answer["object"] == "chat.completion"
    assert answer["id"]
    assert isinstance(answer["created"], int)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert "lantern" in choice["message"]["content"]
    usage = answer["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def streams_a_chat_in_order(subject: Subject) -> None:
    """Streamed: the role first, one finish reason, then the usage alone, then `[DONE]`."""
    reply = await subject.provider.send(subject.request(stream=True, operation="chat"))
    chunks = chunks_of(await whole(reply))
    assert dict(reply.headers)["content-type"].startswith("text/event-stream")
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    *told, last = chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0
    assert all(chunk.get("usage") is None for chunk in told)
    assert told[0]["choices"][0]["delta"]["role"] == "assistant"
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in told]
    assert finishes == [None] * (len(told) - 1) + ["stop"]


async def tells_no_usage_unasked(subject: Subject) -> None:
    """Without `include_usage` every chunk of a stream has a choice."""
    request = subject.request(stream=True, operation="chat", stream_options=None)
    chunks = chunks_of(await subject.asked(request))
    assert all(chunk["choices"] for chunk in chunks)
    assert not any(chunk.get("usage") for chunk in chunks)


async def streamed_and_whole_chat_agree(subject: Subject) -> None:
    """The same request gives the same message, finish reason and usage either way."""
    answer = json.loads(await subject.asked(subject.request(operation="chat")))
    streamed = await subject.asked(subject.request(stream=True, operation="chat"))
    told = completed(chunks_of(streamed))
    assert told == {name: answer[name] for name in told}


async def refuses_an_unknown_chat_model(subject: Subject) -> None:
    """An error is a reply: 404, in OpenAI's shape, streaming or not."""
    for stream in (False, True):
        request = subject.request(model=subject.unknown_model, stream=stream, operation="chat")
        reply = await subject.provider.send(request)
        error = json.loads(await whole(reply))["error"]
        assert reply.status == 404
        assert error["message"]
        assert error["type"]
        assert error["code"] == "model_not_found"


async def embeds(subject: Subject) -> None:
    """One vector for each input, in their order; the same input gives the same one."""
    words = ["signal", "lantern", "signal"]
    request = subject.request(operation="embeddings", input=words)
    reply = await subject.provider.send(request)
    answer = json.loads(await whole(reply))
    assert reply.status == 200
    assert answer["object"] == "list"
    assert [each["index"] for each in answer["data"]] == [0, 1, 2]
    first, other, again = (each["embedding"] for each in answer["data"])
    assert first
    assert first == again != other
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


async def embeds_in_base64(subject: Subject) -> None:
    """The same vector, as floats of 32 bits, little-endian."""
    plain = subject.request(operation="embeddings", encoding_format="float")
    packed = subject.request(operation="embeddings", encoding_format="base64")
    (vector,) = json.loads(await subject.asked(plain))["data"]
    (text,) = json.loads(await subject.asked(packed))["data"]
    raw = base64.b64decode(text["embedding"], validate=True)
    close = [struct.pack("<f", number) for number in vector["embedding"]]
    assert raw == b"".join(close)


async def refuses_an_unknown_embedding_model(subject: Subject) -> None:
    """404, in OpenAI's shape; no other model takes its place."""
    request = subject.request(model=subject.unknown_model, operation="embeddings")
    reply = await subject.provider.send(request)
    error = json.loads(await whole(reply))["error"]
    assert reply.status == 404
    assert error["code"] == "model_not_found"


async def answers_with_a_response(subject: Subject) -> None:
    """One JSON response with its text and usage."""
    answer = json.loads(await subject.asked(subject.request("lantern", operation="responses")))
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    text = answer["output"][-1]["content"][0]
    assert text["type"] == "output_text"
    assert "lantern" in text["text"]
    assert answer["usage"]["output_tokens"] > 0


async def streams_a_response(subject: Subject) -> None:
    """Numbered events, each named as its type; the text in pieces, and whole in the last."""
    request = subject.request("lantern", operation="responses", stream=True)
    reply = await subject.provider.send(request)
    events = events_of(await whole(reply))
    assert dict(reply.headers)["content-type"].startswith("text/event-stream")
    assert events[0]["type"] == "response.created"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    pieces = [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
    assert kinds.count("response.completed") == 1
    last = events[-1]
    assert last["type"] == "response.completed"
    assert "".join(pieces) == last["response"]["output"][-1]["content"][0]["text"]
    assert "lantern" in "".join(pieces)
