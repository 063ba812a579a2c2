"""Neither clients nor providers can make more than a typed error."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stationmaster.gateway.translation import reply, translate
from stationmaster.kernel.errors import Invalid, Upstream
from tests.unit.gateway.translation.test_replies import WHOLE
from tests.unit.gateway.translation.test_responses_requests import HISTORY
from tests.unit.gateway.translation.upstream import (
    PAIRS,
    PNG,
    STREAMS,
    between,
    block,
    call,
    chunk,
    chunks,
    events,
    message_end,
    message_start,
    sse,
    streamed,
)

QUICK = settings(deadline=None, max_examples=60)

odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[1]]),
    st.just({"type": "text"}),
)
REQUESTS: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}],
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "r"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "n",
                "schema": {"type": "object", "properties": {"a": {"anyOf": [{"enum": [1]}]}}},
            },
        },
        "stop": ["a"],
        "max_tokens": 10,
        "temperature": 0.5,
        "user": "u",
        "stream_options": {"include_usage": True},
    },
    "messages": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": {"type": "url", "url": "https://x"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": ""},
                    {"type": "tool_use", "id": "a", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "a", "content": []}],
            },
        ],
        "system": [{"type": "text", "text": "s"}],
        "max_tokens": 10,
        "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 5},
        "output_config": {"format": {"type": "json_schema", "schema": {}}},
        "metadata": {"user_id": "u"},
        "stop_sequences": ["a"],
    },
    "responses": {
        "input": HISTORY,
        "tools": [{"type": "function", "name": "f", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "include": [],
        "reasoning": {"summary": "auto"},
    },
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from paths(each, (*at, index))


def changed(data: Any, value: Any) -> Any:
    """The value with one of its parts replaced by something odd."""
    path = data.draw(st.sampled_from(list(paths(value))))
    result = copy.deepcopy(value)
    inside = result
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = data.draw(odd)
    return result


def outcome(client: Any, provider: Any, raw: bytes) -> tuple[bytes, str]:
    """The request for the provider, or why there is none."""
    try:
        return translate(client, provider, raw, model="m", default_max_tokens=9).body, ""
    except Invalid as refused:
        return b"", refused.message


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@QUICK
@given(data=st.data())
def test_an_odd_request_is_translated_or_refused(client: Any, provider: Any, data: Any) -> None:
    raw = json.dumps(changed(data, {"model": "m", **REQUESTS[client]})).encode()
    body, refused = outcome(client, provider, raw)
    assert refused or isinstance(json.loads(body), dict)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"messages": "\\ud800"}',
        b'{"input": "\\udc00"}',
        b'{"messages": NaN}',
        b'{"messages": ' + b"[" * 100_000,
        b'{"tools": ' + b'[{"a":' * 50_000,
    ],
    ids=lambda raw: f"{len(raw)} bytes {raw[:12]!r}",
)
@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_what_is_no_request_is_refused(client: Any, provider: Any, raw: bytes) -> None:
    with pytest.raises(Invalid):
        translate(client, provider, raw, model="m", default_max_tokens=9)


@pytest.mark.parametrize("depth", [200, 480, 900])
def test_a_deep_schema_is_translated_or_refused(depth: int) -> None:
    text = '{"type":"array","items":' * depth + '{"type":"string"}' + "}" * depth
    described = '{"type": "json_schema", "json_schema": {"name": "n", "schema": ' + text + "}}"
    raw = b'{"messages":[{"role":"user","content":"a"}],"response_format":%b}' % described.encode()
    body, refused = outcome("chat", "messages", raw)
    assert "deep" in refused or body.count(b'"items"') == depth


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@QUICK
@given(data=st.data())
def test_an_odd_stream_gives_events_or_upstream(client: str, provider: str, data: Any) -> None:
    told = list(events(STREAMS[provider]))
    number = data.draw(st.integers(0, len(told) - 1))
    told[number] = changed(data, told[number])
    if data.draw(st.booleans()):
        del told[data.draw(st.integers(0, len(told) - 1))]
    raw = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told)
    try:
        written = streamed(between(client, provider, stream=True), raw)
    except Upstream:
        return
    assert all(isinstance(each, dict) for each in events(written))


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@QUICK
@given(data=st.data())
def test_an_odd_reply_gives_a_reply_or_upstream(client: str, provider: str, data: Any) -> None:
    raw = json.dumps(changed(data, WHOLE[provider])).encode()
    try:
        written = between(client, provider).whole(raw)
    except Upstream:
        return
    assert isinstance(json.loads(written), dict)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@QUICK
@given(raw=st.binary(max_size=60))
def test_garbage_is_upstream(client: str, provider: str, raw: bytes) -> None:
    with pytest.raises(Upstream):
        between(client, provider).whole(raw)
    with pytest.raises(Upstream):
        streamed(between(client, provider, stream=True), b"data: " + raw + b"\n\n")


TEXT = {"type": "text", "text": ""}
PIECE = {"type": "text_delta", "text": "a"}
END = chunk({}, finish_reason="stop")
DEEP = b'data: {"type": "ping", "x": ' + b"[" * 100_000 + b"\n\n"


@pytest.mark.parametrize(
    "stream",
    [
        sse(*block(0, TEXT, PIECE), *message_end()),
        sse(message_start(), message_start(), *message_end()),
        sse(message_start(), block(0, TEXT)[0], *block(1, TEXT), *message_end()),
        sse(message_start(), block(0, TEXT, PIECE)[1], *message_end()),
        sse(
            message_start(),
            block(0, TEXT)[0],
            block(1, TEXT, PIECE)[1],
            block(0, TEXT)[1],
            *message_end(),
        ),
        sse(
            message_start(),
            *block(0, TEXT, {"type": "thinking_delta", "thinking": "a"}),
            *message_end(),
        ),
        sse(message_start(), block(0, TEXT)[0], *message_end()),
        sse(message_start(), *block(0, {"type": "web_search_tool_result"}), *message_end()),
        sse(
            message_start(),
            *block(0, {"type": "tool_use", "name": "f", "input": {}}),
            *message_end("tool_use"),
        ),
        sse(message_start(), *message_end(output_tokens=-1)),
        sse(message_start(), *message_end(output_tokens=2**80)),
        sse(message_start()) + b'data: {"type": "\\ud800"}\n\n' + sse(*message_end()),
        sse(message_start()) + b"data: \xff\n\n" + sse(*message_end()),
        sse(message_start()) + DEEP + sse(*message_end()),
    ],
    ids=[
        "no start",
        "two starts",
        "a block in a block",
        "a piece without a block",
        "another block's piece",
        "a piece of another kind",
        "an end inside of a block",
        "a block of a new type",
        "a call without an id",
        "less than nothing",
        "more than there is",
        "half a surrogate",
        "not UTF-8",
        "deep",
    ],
)
def test_a_stream_of_messages_out_of_order_is_upstream(stream: bytes) -> None:
    with pytest.raises(Upstream):
        streamed(between("chat", "messages", stream=True), stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: [DONE]\n\n",
        chunks({**chunk({}), "choices": [{"index": 1, "delta": {}}]}, END),
        chunks(chunk(call(0, "{}", id="a")), END),
        chunks(
            chunk(call(0, "", id="a", name="f")),
            chunk(call(1, "", id="b", name="f")),
            chunk(call(0, "{}")),
            END,
        ),
        chunks(chunk({"content": "a"}), END, chunk(usage={"prompt_tokens": -1})),
    ],
    ids=["empty", "another answer", "a call without a name", "back to a call", "less than nothing"],
)
def test_a_stream_of_completions_out_of_order_is_upstream(stream: bytes) -> None:
    with pytest.raises(Upstream):
        streamed(between("messages", "chat", stream=True), stream)


def test_arguments_that_are_no_object_are_upstream() -> None:
    said = {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": said}
    raw = json.dumps({**WHOLE["chat"], "choices": [choice]}).encode()
    with pytest.raises(Upstream, match="arguments"):
        between("messages", "chat").whole(raw)


def test_a_reply_without_an_end_is_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply, "MAX_REPLY_LENGTH", 1000)
    translation = between("responses", "chat", stream=True)
    piece = chunks(chunk({"content": "a" * 100}), done=False)
    assert translation.feed(piece * 9)
    with pytest.raises(Upstream, match="longer"):
        translation.feed(piece * 9)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@pytest.mark.parametrize("step", [1, 7, 1 << 30])
def test_what_came_before_the_garbage_is_given_however_it_is_cut(
    client: str, provider: str, step: int
) -> None:
    good = STREAMS[provider][: STREAMS[provider].rindex(b"look")]
    good = good[: good.rindex(b"\n\n") + 2]
    expected = between(client, provider, stream=True).feed(good)
    assert "Grüße".encode() in expected
    stream = good + b"data: {garbage}\n\n" + STREAMS[provider]
    translation = between(client, provider, stream=True)
    told = b""
    with pytest.raises(Upstream, match="understood"):  # noqa: PT012 - what came before counts
        for at in range(0, len(stream), step):
            told += translation.feed(stream[at : at + step])
        translation.end()
    assert told == expected


def test_what_comes_after_the_end_is_dropped() -> None:
    once = streamed(between("chat", "messages", stream=True), STREAMS["messages"])
    twice = streamed(
        between("chat", "messages", stream=True), STREAMS["messages"] + STREAMS["messages"]
    )
    assert twice == once
