"""Anthropic's format: messages and token counts."""

import json
from typing import Any

from stationmaster.providers.conformance.subject import Subject, whole

Json = dict[str, Any]


def events_of(body: bytes) -> list[Json]:
    """The events of a stream; each one's name must be its type."""
    events: list[Json] = []
    for frame in body.decode().split("\n\n"):
        if not frame.strip():
            continue
        fields = dict(line.split(": ", 1) for line in frame.split("\n") if ": " in line)
        event = json.loads(fields["data"])
        assert fields["event"] == event["type"], "an event's name is its type"
        events.append(event)
    return events


def assembled(events: list[Json]) -> Json:
    """The message that a stream tells."""
    message: Json = {}
    partial: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = {**event["message"], "content": []}
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta":
                _extend(message["content"][event["index"]], event, partial)
            case "message_delta":
                message |= event["delta"]
                message["usage"] = {**message["usage"], **event["usage"]}
    for index, written in partial.items():
        message["content"][index]["input"] = json.loads(written or "{}")
    return message


def _extend(block: Json, event: Json, partial: dict[int, str]) -> None:
    delta = event["delta"]
    for name in ("text", "thinking", "signature"):
        if name in delta:
            block[name] = block.get(name, "") + delta[name]
    if "partial_json" in delta:
        index = event["index"]
        partial[index] = partial.get(index, "") + delta["partial_json"]


def _essence(message: Json) -> Json:
    """What must not depend on streaming: all but the ids made up for each answer."""
    content = [
        {name: value for name, value in block.items() if name != "id"}
        for block in message["content"]
    ]
    return {
        **{name: message[name] for name in ("role", "model", "stop_reason", "usage")},
        "content": content,
    }


async def answers_with_a_message(subject: Subject) -> None:
    """Unstreamed: one JSON message, with an id and usage of its own."""
    reply = await subject.provider.send(subject.request("lantern", operation="messages"))
    message = json.loads(await whole(reply))
    assert reply.status == 200
    assert dict(reply.headers)["content-type"].startswith("application/json")
    assert message["type"] == "message"
    assert message["id"]
    assert message["usage"]["input_tokens"] > 0
    assert message["usage"]["output_tokens"] > 0
    assert "lantern" in message["content"][0]["text"]


async def streams_in_order(subject: Subject) -> None:
    """Streamed: start, blocks one after another, delta with final usage, stop; nothing after."""
    reply = await subject.provider.send(subject.request(stream=True, operation="messages"))
    events = events_of(await whole(reply))
    assert dict(reply.headers)["content-type"].startswith("text/event-stream")
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    open_block: int | None = None
    for event in events:
        if event["type"] == "content_block_start":
            assert open_block is None, "blocks do not overlap"
            open_block = event["index"]
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_block
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
    assert open_block is None, "every block ends"


async def streamed_and_whole_agree(subject: Subject) -> None:
    """The same request gives the same content, stop reason and usage either way."""
    message = json.loads(await subject.asked(subject.request(operation="messages")))
    streamed = await subject.asked(subject.request(stream=True, operation="messages"))
    assert _essence(assembled(events_of(streamed))) == _essence(message)


async def counts_tokens(subject: Subject) -> None:
    """A count is a positive number, and the message's own where that is promised."""
    counting = subject.request(operation="count_tokens")
    counted = json.loads(await subject.asked(counting))
    assert counted["input_tokens"] > 0
    if subject.exact_counts:
        message = json.loads(await subject.asked(subject.request(operation="messages")))
        assert counted["input_tokens"] == message["usage"]["input_tokens"]


async def refuses_an_unknown_model(subject: Subject) -> None:
    """An error is a reply: 404, in Anthropic's shape, streaming or not."""
    for stream in (False, True):
        request = subject.request(model=subject.unknown_model, stream=stream, operation="messages")
        reply = await subject.provider.send(request)
        body = json.loads(await whole(reply))
        assert reply.status == 404
        assert body["type"] == "error"
        assert body["error"]["type"] == "not_found_error"
        assert body["error"]["message"]
