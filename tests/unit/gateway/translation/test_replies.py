"""The vendors' own clients read what we write."""

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from stationmaster.kernel.errors import Upstream
from tests.unit.gateway.translation.upstream import (
    CREATED,
    PAIRS,
    REASONING_AND_TOOLS,
    STREAMS,
    THINKING_AND_TOOLS,
    anthropic_client,
    between,
    block,
    call,
    chunk,
    chunks,
    events,
    message_end,
    message_start,
    openai_client,
    sse,
    streamed,
)

WHOLE_MESSAGE: dict[str, Any] = {
    **message_start()["message"],
    "content": [
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "text", "text": "Grüße 🚂"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": "Ulm"}},
        {"type": "tool_use", "id": "toolu_2", "name": "wait", "input": {}},
    ],
    "stop_reason": "tool_use",
    "usage": {
        "input_tokens": 10,
        "output_tokens": 20,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 5,
    },
}
WHOLE_COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-9",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Grüße 🚂",
                "reasoning_content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"where":"Ulm"}'},
                    },
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "wait", "arguments": ""},
                    },
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 18,
        "completion_tokens": 20,
        "total_tokens": 38,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
    },
}
WHOLE = {"messages": WHOLE_MESSAGE, "chat": WHOLE_COMPLETION}
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PROOFS = [
    {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "c2VjcmV0"},
]


def check_completion(completion: Any) -> None:
    assert completion.id == "chatcmpl-01ABC"
    assert (completion.model, completion.created) == ("claude-x", CREATED)
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Grüße 🚂"
    assert choice.message.reasoning_content == "Let me see."
    proofs = [
        {key: value for key, value in proof.items() if key != "index"}
        for proof in choice.message.thinking_blocks
    ]
    assert proofs == PROOFS
    calls = [
        (each.id, each.function.name, json.loads(each.function.arguments))
        for each in choice.message.tool_calls
    ]
    assert calls == [("toolu_1", "look", {"where": "Ulm"}), ("toolu_2", "wait", {})]
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (18, 20, 38)
    details = usage.prompt_tokens_details
    assert (details.cached_tokens, details.cache_write_tokens) == (5, 3)


def test_a_message_is_a_completion_to_openais_client() -> None:
    body = between("chat", "messages").whole(json.dumps(WHOLE_MESSAGE).encode())
    check_completion(openai_client(body).chat.completions.create(**ASK))


def test_a_stream_of_messages_is_one_of_completions() -> None:
    body = streamed(between("chat", "messages", stream=True), THINKING_AND_TOOLS)
    client = openai_client(body, stream=True)
    with client.chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
        check_completion(stream.get_final_completion())


def test_usage_comes_in_a_stream_only_where_it_was_asked_for() -> None:
    asked = between("chat", "messages", stream=True, stream_options=None)
    told = list(events(streamed(asked, THINKING_AND_TOOLS)))
    assert not [each for each in told if "usage" in each]
    assert all(len(each["choices"]) == 1 for each in told)


def check_message(message: Any) -> None:
    assert (message.id, message.model, message.role) == ("msg_9", "gpt-x", "assistant")
    assert message.stop_reason == "tool_use"
    thinking, text, look, wait = message.content
    assert (thinking.type, thinking.thinking, thinking.signature) == ("thinking", "Let me see.", "")
    assert (text.type, text.text) == ("text", "Grüße 🚂")
    assert (look.id, look.name, look.input) == ("call_1", "look", {"where": "Ulm"})
    assert (wait.id, wait.name, wait.input) == ("call_2", "wait", {})
    usage = message.usage
    assert (usage.input_tokens, usage.output_tokens) == (10, 20)
    assert (usage.cache_creation_input_tokens, usage.cache_read_input_tokens) == (3, 5)


def test_a_completion_is_a_message_to_anthropics_client() -> None:
    body = between("messages", "chat").whole(json.dumps(WHOLE_COMPLETION).encode())
    check_message(anthropic_client(body).messages.create(**ASK, max_tokens=5))


def test_a_stream_of_completions_is_one_of_messages() -> None:
    body = streamed(between("messages", "chat", stream=True), REASONING_AND_TOOLS)
    client = anthropic_client(body, stream=True)
    with client.messages.stream(**ASK, max_tokens=5) as stream:
        check_message(stream.get_final_message())


def test_a_stream_for_anthropics_client_begins_with_a_number() -> None:
    """A client that reads only the start would count nothing where it says 0."""
    body = streamed(between("messages", "chat", stream=True), REASONING_AND_TOOLS)
    first = next(events(body))
    assert first["message"]["usage"]["input_tokens"] > 0


EVERY_SHAPE: dict[str, tuple[Any, Any]] = {
    "chat": (ChatCompletion, ChatCompletionChunk),
    "messages": (Message, RawMessageStreamEvent),
    "responses": (Response, ResponseStreamEvent),
}


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_every_event_and_reply_has_all_that_its_vendors_types_want(
    client: str, provider: str
) -> None:
    """The clients themselves do not mind what is missing; what is built on them may."""
    shape, event = EVERY_SHAPE[client]
    raw = between(client, provider).whole(json.dumps(WHOLE[provider]).encode())
    TypeAdapter(shape).validate_json(raw)
    stream = streamed(between(client, provider, stream=True), STREAMS[provider])
    adapter = TypeAdapter(event)
    assert len([adapter.validate_python(each) for each in events(stream)]) > 10


def test_the_blocks_of_a_message_follow_each_other() -> None:
    body = streamed(between("messages", "chat", stream=True), REASONING_AND_TOOLS)
    order = [
        (each["type"].removeprefix("content_block_"), each["index"])
        for each in events(body)
        if "index" in each
    ]
    runs = [run for number, run in enumerate(order) if number == 0 or order[number - 1] != run]
    # The last call has no arguments, and so no pieces.
    expected = [(kind, number) for number in range(4) for kind in ("start", "delta", "stop")]
    expected.remove(("delta", 3))
    assert runs == expected


@pytest.mark.parametrize("provider", ["messages", "chat"])
def test_the_pieces_of_a_response_make_what_it_says_at_the_end(provider: str) -> None:
    body = streamed(between("responses", provider, stream=True), STREAMS[provider])
    told = list(events(body))
    pieces: dict[tuple[str, int], str] = {}
    ends: dict[tuple[str, int], str] = {}
    for each in told:
        about, _, what = each["type"].rpartition(".")
        if what == "delta":
            key = (about, each["output_index"])
            pieces[key] = pieces.get(key, "") + each["delta"]
        elif what == "done" and ("text" in each or "arguments" in each):
            ends[about, each["output_index"]] = str(each.get("text", each.get("arguments")))
    assert pieces == ends
    assert len(pieces) == 4
    items = [each for each in told if "item" in each]
    kinds = [each["type"].rpartition(".")[2] for each in items]
    assert kinds == ["added", "done"] * (len(items) // 2)
    assert [each["item"] for each in items[1::2]] == told[-1]["response"]["output"]


def test_two_thoughts_in_succession_stay_two() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "One.", "signature": "MQ=="},
        {"type": "thinking", "thinking": "Two.", "signature": "Mg=="},
    ]
    raw = json.dumps({**WHOLE_MESSAGE, "content": thoughts}).encode()
    message = json.loads(between("chat", "messages").whole(raw))["choices"][0]["message"]
    assert message["thinking_blocks"] == thoughts
    output = json.loads(between("responses", "messages").whole(raw))["output"]
    assert [item["encrypted_content"] for item in output] == ["signature:MQ==", "signature:Mg=="]


def check_response(response: Any, provider: str) -> None:
    assert response.status == "completed"
    assert response.output_text == "Grüße 🚂"
    assert response.usage.input_tokens == 18
    assert response.usage.output_tokens == 20
    assert response.usage.total_tokens == 38
    assert response.usage.input_tokens_details.cached_tokens == 5
    kinds = [item.type for item in response.output]
    hidden = ["reasoning"] if provider == "messages" else []
    assert kinds == ["reasoning", *hidden, "message", "function_call", "function_call"]
    assert response.output[0].summary[0].text == "Let me see."
    calls = [
        (item.name, json.loads(item.arguments))
        for item in response.output
        if item.type == "function_call"
    ]
    assert calls == [("look", {"where": "Ulm"}), ("wait", {})]


@pytest.mark.parametrize("provider", ["messages", "chat"])
def test_a_reply_is_a_response_to_openais_client(provider: str) -> None:
    body = between("responses", provider).whole(json.dumps(WHOLE[provider]).encode())
    check_response(openai_client(body).responses.create(model="m", input="hi"), provider)


@pytest.mark.parametrize("provider", ["messages", "chat"])
def test_a_stream_is_one_of_responses(provider: str) -> None:
    body = streamed(between("responses", provider, stream=True), STREAMS[provider])
    numbers = [event["sequence_number"] for event in events(body)]
    assert numbers == list(range(len(numbers)))
    with openai_client(body, stream=True).responses.stream(model="m", input="hi") as stream:
        seen = [event.type for event in stream]
        check_response(stream.get_final_response(), provider)
    assert seen[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert seen[-1] == "response.completed"


@pytest.mark.parametrize("provider", ["messages", "chat"])
def test_a_streamed_response_ends_as_one_that_is_not_streamed(provider: str) -> None:
    whole = json.loads(between("responses", provider).whole(json.dumps(WHOLE[provider]).encode()))
    body = streamed(between("responses", provider, stream=True), STREAMS[provider])
    last = list(events(body))[-1]["response"]
    whole["usage"].pop("output_tokens_details")
    last["usage"].pop("output_tokens_details")
    assert last == whole


@pytest.mark.parametrize(
    ("reason", "finish", "status"),
    [
        ("end_turn", "stop", "completed"),
        ("stop_sequence", "stop", "completed"),
        ("pause_turn", "stop", "completed"),
        ("max_tokens", "length", "incomplete"),
        ("model_context_window_exceeded", "length", "incomplete"),
        ("refusal", "content_filter", "incomplete"),
    ],
)
def test_why_a_message_ended(reason: str, finish: str, status: str) -> None:
    stream = sse(
        message_start(),
        *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "a"}),
        *message_end(reason),
    )
    told = list(events(streamed(between("chat", "messages", stream=True), stream)))
    assert [each["choices"][0]["finish_reason"] for each in told if each["choices"]][-1] == finish
    told = list(events(streamed(between("responses", "messages", stream=True), stream)))
    assert told[-1]["type"] == f"response.{status}"
    assert told[-1]["response"]["status"] == status


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "end_turn"),
        ("new", "end_turn"),
    ],
)
def test_why_a_completion_ended(finish: str, reason: str) -> None:
    stream = chunks(chunk({"content": "a"}), chunk({}, finish_reason=finish))
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    assert told[-2]["delta"]["stop_reason"] == reason


def test_a_tool_call_ends_with_tool_use_whatever_the_provider_says() -> None:
    stream = chunks(chunk(call(0, "{}", id="call_1", name="look")), chunk({}, finish_reason="stop"))
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    assert told[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_refusal_is_told_to_everyone() -> None:
    said = {"type": "refusal", "explanation": "Not this.", "category": None}
    message = {**WHOLE_MESSAGE, "content": [], "stop_reason": "refusal", "stop_details": said}
    raw = json.dumps(message).encode()
    completion = json.loads(between("chat", "messages").whole(raw))
    assert completion["choices"][0]["message"]["refusal"] == "Not this."
    response = json.loads(between("responses", "messages").whole(raw))
    assert response["output"][0]["content"] == [{"type": "refusal", "refusal": "Not this."}]
    assert response["incomplete_details"] == {"reason": "content_filter"}

    refused = {"index": 0, "finish_reason": "stop", "message": {"refusal": "Not this."}}
    raw = json.dumps({**WHOLE_COMPLETION, "choices": [refused]}).encode()
    answer = json.loads(between("messages", "chat").whole(raw))
    assert answer["content"] == [{"type": "text", "text": "Not this."}]
    assert answer["stop_reason"] == "refusal"


def test_a_refusal_in_a_stream_of_responses() -> None:
    end = message_end("refusal")
    end[0]["delta"]["stop_details"] = {"type": "refusal", "explanation": "Not this."}
    body = streamed(between("responses", "messages", stream=True), sse(message_start(), *end))
    told = list(events(body))
    assert "response.refusal.delta" in [each["type"] for each in told]
    assert told[-1]["response"]["output"][0]["content"][0]["refusal"] == "Not this."


@pytest.mark.parametrize("deltas", ["without an index", "always index 0"])
def test_parallel_calls_of_careless_providers_are_told_apart(deltas: str) -> None:
    index = {} if deltas == "without an index" else {"index": 0}

    def careless(call_id: str, name: str) -> dict[str, Any]:
        function = {"name": name, "arguments": "{}"}
        return chunk({"tool_calls": [{**index, "id": call_id, "function": function}]})

    stream = chunks(careless("a", "one"), careless("b", "two"), chunk({}, finish_reason="stop"))
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    begun = [each["content_block"] for each in told if each["type"] == "content_block_start"]
    assert [(each["id"], each["name"]) for each in begun] == [("a", "one"), ("b", "two")]


def test_a_call_without_an_id_gets_one() -> None:
    said = {"tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}
    choice = {"index": 0, "finish_reason": "stop", "message": said}
    raw = json.dumps({**WHOLE_COMPLETION, "choices": [choice]}).encode()
    first, second = (json.loads(between("messages", "chat").whole(raw)) for _ in range(2))
    assert first["content"][0]["id"].startswith("call_")
    assert first == second


def test_arguments_that_were_cut_for_length_are_no_failure() -> None:
    said = {"tool_calls": [{"id": "a", "function": {"name": "look", "arguments": '{"wh'}}]}
    choice = {"index": 0, "finish_reason": "length", "message": said}
    raw = json.dumps({**WHOLE_COMPLETION, "choices": [choice]}).encode()
    message = json.loads(between("messages", "chat").whole(raw))
    assert (message["content"][0]["input"], message["stop_reason"]) == ({}, "max_tokens")


def test_a_stream_that_tells_no_usage_is_estimated() -> None:
    stream = chunks(chunk({"content": "a" * 400}), chunk({}, finish_reason="stop"))
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    assert told[-2]["usage"]["output_tokens"] >= 100
    assert told[-2]["usage"]["input_tokens"] == told[0]["message"]["usage"]["input_tokens"] > 0


def test_done_is_no_reason() -> None:
    translation = between("messages", "chat", stream=True)
    assert b"message_stop" not in translation.feed(chunks(chunk({"content": "a"})))
    with pytest.raises(Upstream, match="cut off"):
        translation.end()


def test_some_providers_never_say_done() -> None:
    stream = chunks(chunk({"content": "a"}), chunk({}, finish_reason="stop"), done=False)
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    assert told[-1] == {"type": "message_stop"}


def test_a_picture_is_no_prompt_of_a_million_words() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 4_000_000}
    picture = {"type": "image", "source": source}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [picture]}
    asked = [{"role": "user", "content": [picture, result]}]
    translation = between("messages", "chat", messages=asked, stream=True)
    first = next(events(streamed(translation, REASONING_AND_TOOLS)))
    assert 0 < first["message"]["usage"]["input_tokens"] < 1000


@pytest.mark.parametrize(
    ("client", "provider", "stream"),
    [
        ("chat", "messages", THINKING_AND_TOOLS.partition(b"event: message_delta")[0]),
        ("chat", "messages", THINKING_AND_TOOLS.partition(b"event: message_stop")[0]),
        ("responses", "messages", b""),
        ("messages", "chat", REASONING_AND_TOOLS.partition(b'"tool_calls"}')[0]),
        ("messages", "chat", chunks(chunk({"content": "a"}), done=False)),
        ("responses", "chat", b""),
    ],
    ids=["mid", "before the stop", "empty", "inside of the reason", "no reason", "empty chat"],
)
def test_a_cut_stream_is_never_a_clean_end(client: str, provider: str, stream: bytes) -> None:
    translation = between(client, provider, stream=True)
    told = translation.feed(stream)
    assert b"[DONE]" not in told
    assert b"message_stop" not in told
    assert b"response.completed" not in told
    with pytest.raises(Upstream):
        translation.end()


def test_a_failure_inside_of_a_stream_reaches_openais_client() -> None:
    broken = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}
    stream = sse(message_start(), broken) + THINKING_AND_TOOLS
    body = streamed(between("chat", "messages", stream=True), stream)
    assert b"[DONE]" not in body
    with pytest.raises(openai.APIError, match="Busy"):
        list(openai_client(body, stream=True).chat.completions.create(**ASK, stream=True))

    body = streamed(between("responses", "messages", stream=True), stream)
    told = list(events(body))
    assert told[-1]["type"] == "response.failed"
    assert told[-1]["response"]["error"]["message"] == "Busy."


def test_a_failure_inside_of_a_stream_reaches_anthropics_client() -> None:
    stream = chunks(chunk({"content": "a"}), {"error": {"message": "Busy."}})
    body = streamed(between("messages", "chat", stream=True), stream)
    assert b"message_stop" not in body
    client = anthropic_client(body, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="Busy"):
        list(client.messages.create(**ASK, max_tokens=5, stream=True))


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (404, "invalid_request_error", "model_not_found"),
        (413, "invalid_request_error", None),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (529, "server_error", None),
    ],
)
def test_errors_in_openais_shape(status: int, kind: str, code: str | None) -> None:
    raw = b'{"type": "error", "error": {"type": "whatever", "message": "No."}}'
    body = between("chat", "messages").error(status, raw)
    with pytest.raises(openai.APIStatusError, match="No") as caught:
        openai_client(body, status=status).chat.completions.create(**ASK)
    assert (caught.value.type, caught.value.code) == (kind, code)
    assert between("responses", "messages").error(status, raw) == body


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (502, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_in_anthropics_shape(status: int, kind: str) -> None:
    raw = b'{"error": {"message": "No.", "type": "x", "code": 7}}'
    body = between("messages", "chat").error(status, raw)
    with pytest.raises(anthropic.APIStatusError, match="No") as caught:
        anthropic_client(body, status=status).messages.create(**ASK, max_tokens=5)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["error"]["type"] == kind


def test_a_prompt_that_is_too_long_is_told_in_each_vendors_words() -> None:
    told = {"error": {"message": "Too much.", "code": "context_length_exceeded"}}
    body = json.loads(between("messages", "chat").error(400, json.dumps(told).encode()))
    assert body["error"]["message"] == "prompt is too long: Too much."
    told = {"error": {"message": "prompt is too long: 9 > 8", "type": "invalid_request_error"}}
    body = json.loads(between("chat", "messages").error(400, json.dumps(told).encode()))
    assert body["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error": "Busy."}', b"\xff", b"[" * 9999]
)
@pytest.mark.parametrize(("client", "provider"), [("chat", "messages"), ("messages", "chat")])
def test_an_error_of_any_look_is_told(client: str, provider: str, body: bytes) -> None:
    told = json.loads(between(client, provider).error(503, body))
    assert told["error"]["message"]
