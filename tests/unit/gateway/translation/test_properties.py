"""What holds for every conversation, every cut of a stream, and every count."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stationmaster.gateway.translation.chat import client_request as chat_reader
from stationmaster.gateway.translation.chat import provider_request as chat_writer
from stationmaster.gateway.translation.chat.client_reply import usage_of
from stationmaster.gateway.translation.chat.provider_reply import ChatReply
from stationmaster.gateway.translation.conversation import (
    Conversation,
    HiddenThinking,
    Part,
    Text,
    Thinking,
    ToolCall,
)
from stationmaster.gateway.translation.fields import Fields, members_of
from stationmaster.gateway.translation.messages import client_request as messages_reader
from stationmaster.gateway.translation.messages import provider_request as messages_writer
from stationmaster.gateway.translation.reply import Counted, Tokens
from tests.unit.gateway.translation.upstream import (
    PAIRS,
    STREAMS,
    between,
    chunk,
    chunks,
    events,
    message_end,
    message_start,
    sse,
    streamed,
)

QUICK = settings(deadline=None, max_examples=60)

words = st.text(max_size=20)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
names = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
inputs = st.dictionaries(words, json_values, max_size=3)


def to_chat(asked: Conversation) -> Conversation:
    body = chat_writer.write(asked, model="m", max_tokens_field="max_tokens", ignored=[])
    return from_chat(body)


def from_chat(body: bytes) -> Conversation:
    return chat_reader.read(Fields(members_of(body), "", []))


def to_messages(asked: Conversation) -> Conversation:
    body = messages_writer.write(asked, model="m", default_max_tokens=9, ignored=[])
    return from_messages(body)


def from_messages(body: bytes) -> Conversation:
    return messages_reader.read(Fields(members_of(body), "", []))


def essence(asked: Conversation) -> Any:
    """What is said, by whom, in which order; what each kind of part says, in its own order.

    Whether words or calls come first in an answer is not told by OpenAI's format.
    """
    return asked.system, [(turn.role, *_sorted(turn.parts)) for turn in asked.turns]


def _sorted(parts: tuple[Part, ...]) -> tuple[list[Part], list[Part], str, list[Part]]:
    calls: list[Part] = [part for part in parts if isinstance(part, ToolCall)]
    proofs: list[Part] = [
        part
        for part in parts
        if isinstance(part, HiddenThinking) or (isinstance(part, Thinking) and part.signature)
    ]
    thoughts = "".join(
        part.text for part in parts if isinstance(part, Thinking) and not part.signature
    )
    rest: list[Part] = [
        part for part in parts if not isinstance(part, ToolCall | Thinking | HiddenThinking)
    ]
    return rest, calls, thoughts, proofs


@st.composite
def chat_messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    texts = words | st.lists(st.builds(lambda text: {"type": "text", "text": text}, words))
    picture = st.sampled_from(["https://x/y.png", "data:image/png;base64,AAAA"])
    parts = st.lists(
        st.builds(lambda text: {"type": "text", "text": text}, words)
        | st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, picture)
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": "start"}]
    for kind in draw(st.lists(st.sampled_from(["user", "system", "developer", "answer", "calls"]))):
        if kind == "user":
            messages.append({"role": "user", "content": draw(words | parts)})
        elif kind in ("system", "developer"):
            messages.append({"role": kind, "content": draw(texts)})
        elif kind == "answer":
            proof = {"type": "thinking", "thinking": draw(words), "signature": "c2ln"}
            proofs = draw(st.sampled_from([None, [], [proof, proof]]))
            answer = {"role": "assistant", "content": draw(texts), "thinking_blocks": proofs}
            messages.append(answer)
        else:
            calls = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": draw(names), "arguments": json.dumps(draw(inputs))},
                }
                for call_id in draw(st.lists(ids, min_size=1, max_size=3, unique=True))
            ]
            content = draw(st.none() | words)
            messages.append({"role": "assistant", "content": content, "tool_calls": calls})
            messages += [
                {"role": "tool", "tool_call_id": each["id"], "content": draw(texts)}
                for each in draw(st.permutations(calls))
            ]
    return messages


@QUICK
@given(messages=chat_messages())
def test_chat_to_messages_and_back_means_the_same(messages: list[dict[str, Any]]) -> None:
    asked = from_chat(json.dumps({"model": "m", "messages": messages}).encode())
    there = to_messages(asked)
    assert essence(there) == essence(asked)
    # Anthropic's thinking is not for a provider of the other format; all else is.
    assert _without_proofs(to_chat(there)) == _without_proofs(asked)


def _without_proofs(asked: Conversation) -> Any:
    system, turns = essence(asked)
    found: list[list[Any]] = []
    for role, rest, calls, thoughts, _ in turns:
        if not (rest or calls):
            continue
        if found and found[-1][0] == role:
            # Where only thinking stood between two turns of one side, they are one now.
            found[-1][1:] = [found[-1][1] + rest, found[-1][2] + calls, found[-1][3] + thoughts]
        else:
            found.append([role, rest, calls, thoughts])
    return system, found


@st.composite
def messages_messages(draw: st.DrawFn) -> list[dict[str, Any]]:
    text = st.builds(lambda text: {"type": "text", "text": text}, words)
    url = {"type": "url", "url": "https://x/y.png"}
    data = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    picture = st.sampled_from([url, data]).map(lambda source: {"type": "image", "source": source})
    result = st.builds(
        lambda call_id, content: {
            "type": "tool_result",
            "tool_use_id": call_id,
            "content": content,
        },
        ids,
        words | st.lists(text, max_size=3),
    )
    use = st.builds(
        lambda call_id, name, given: {
            "type": "tool_use",
            "id": call_id,
            "name": name,
            "input": given,
        },
        ids,
        names,
        inputs,
    )
    thought = st.builds(
        lambda text: {"type": "thinking", "thinking": text, "signature": ""},
        st.text(min_size=1, max_size=9),
    )
    messages: list[dict[str, Any]] = [{"role": "user", "content": "start"}]
    for role in draw(st.lists(st.sampled_from(["user", "assistant", "system"]))):
        if role == "user":
            content = draw(words | st.lists(text | picture | result, max_size=4))
        elif role == "system":
            content = draw(words | st.lists(text, max_size=3))
        else:
            said = draw(st.lists(text | use, max_size=4))
            substance = [each for each in said if each.get("text") != ""]
            content = (draw(st.lists(thought, max_size=1)) if substance else []) + said
        messages.append({"role": role, "content": content})
    return messages


@QUICK
@given(messages=messages_messages(), system=words)
def test_messages_to_chat_and_back_means_the_same(
    messages: list[dict[str, Any]], system: str
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": messages, "system": system}
    asked = from_messages(json.dumps(body).encode())
    there = to_chat(asked)
    assert essence(there) == essence(asked)
    # A model's unsigned thinking is not for Anthropic; all else is.
    assert _without_thoughts(to_messages(there)) == _without_thoughts(asked)


def _without_thoughts(asked: Conversation) -> Any:
    system, turns = essence(asked)
    return system, [(role, rest, calls) for role, rest, calls, _, _ in turns]


@QUICK
@given(
    stop=st.lists(words.filter(bool), max_size=3),
    max_tokens=st.integers(0, 2**31),
    temperature=st.none() | st.floats(0, 0.99),
    user=st.none() | words,
    tier=st.none() | st.sampled_from(["auto", "default"]),
    stream=st.booleans(),
    parallel=st.booleans(),
    choice=st.none() | st.sampled_from(["auto", "none", "required"]),
    tools=st.lists(st.tuples(names, st.none() | words, inputs), min_size=1, max_size=3),
)
def test_parameters_go_there_and_back(tools: Any, parallel: bool, **asked: Any) -> None:
    max_tokens, choice = asked.pop("max_tokens"), asked.pop("choice")
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": max_tokens,
        "service_tier": asked.pop("tier"),
        "tool_choice": choice,
        # With no tool to be called, how many at once is no question.
        "parallel_tool_calls": parallel or choice == "none",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": words,
                    "parameters": {**given, "type": "object"},
                },
            }
            for name, words, given in tools
        ],
        **asked,
    }
    first = from_chat(json.dumps(body).encode())
    there = to_messages(first)
    again = to_chat(there)
    for name in (
        "max_tokens",
        "temperature",
        "stop",
        "user",
        "tier",
        "stream",
        "tools",
        "parallel",
    ):
        assert getattr(there, name) == getattr(first, name), name
        assert getattr(again, name) == getattr(first, name), name
    # To forbid parallel calls, Anthropic wants the choice said.
    implied = first.choice if first.parallel else first.choice or there.choice
    assert (there.choice, again.choice) == (implied, implied)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@QUICK
@given(data=st.data())
def test_any_cut_of_a_stream_gives_the_same_bytes(client: str, provider: str, data: Any) -> None:
    stream = STREAMS[provider]
    whole = streamed(between(client, provider, stream=True), stream)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    translation = between(client, provider, stream=True)
    pieces = [stream[at:until] for at, until in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    told = b"".join([*map(translation.feed, pieces), translation.end()])
    assert told == whole


@pytest.mark.parametrize("line", [b"\r\n", b"\r"], ids=["crlf", "cr"])
@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_lines_may_end_in_any_way_and_bytes_come_one_by_one(
    client: str, provider: str, line: bytes
) -> None:
    whole = streamed(between(client, provider, stream=True), STREAMS[provider])
    other = STREAMS[provider].replace(b"\n", line)
    assert streamed(between(client, provider, stream=True), other, step=1) == whole


counts = st.integers(0, 2**40)


@QUICK
@given(
    counts=st.tuples(counts, counts, counts, counts),
    early=st.tuples(counts, counts, counts, counts),
)
def test_usage_of_a_message_is_neither_lost_nor_doubled(
    counts: tuple[int, int, int, int], early: tuple[int, int, int, int]
) -> None:
    """The stream's figures are cumulative: the last are the largest."""
    last = [max(pair) for pair in zip(counts, early, strict=True)]
    stream = sse(message_start(**_anthropic(early)), *message_end(**_anthropic(last)))
    told = list(events(streamed(between("chat", "messages", stream=True), stream)))
    usage = told[-1]["usage"]
    given, output, wrote, read = last
    assert usage["prompt_tokens"] == given + wrote + read
    assert usage["completion_tokens"] == output
    assert usage["total_tokens"] == given + wrote + read + output
    assert [each["usage"] for each in told[:-1]] == [None] * (len(told) - 1)
    told = list(events(streamed(between("responses", "messages", stream=True), stream)))
    assert told[-1]["response"]["usage"]["total_tokens"] == given + wrote + read + output


def _anthropic(figures: Any) -> dict[str, int]:
    names = (
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    )
    return dict(zip(names, figures, strict=True))


@QUICK
@given(tokens=st.builds(Tokens, counts, counts, counts, counts, counts))
def test_usage_as_openai_counts_it_goes_there_and_back(tokens: Tokens) -> None:
    raw = json.dumps(chunk(usage=usage_of(tokens)))
    reply = ChatReply()
    list(reply.frame(json.dumps(chunk({"content": "a"}, finish_reason="stop")).encode()))
    list(reply.frame(raw.encode()))
    assert Counted(tokens) in list(reply.close())


@QUICK
@given(prompt=counts, output=counts, cached=counts, wrote=counts)
def test_usage_of_a_completion_is_neither_lost_nor_doubled(
    prompt: int, output: int, cached: int, wrote: int
) -> None:
    """Whatever a provider says was cached, the prompt is what it says in all."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": wrote},
    }
    stream = chunks(chunk({"content": "a"}, finish_reason="stop"), chunk(usage=usage))
    told = list(events(streamed(between("messages", "chat", stream=True), stream)))
    counted = told[-2]["usage"]
    classes = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    assert sum(counted[name] for name in classes) == prompt
    assert counted["output_tokens"] == output


def test_empty_texts_say_nothing() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": ""}]},
    ]
    asked = from_chat(json.dumps({"model": "m", "messages": messages}).encode())
    assert [turn.parts for turn in asked.turns] == [(Text("hi"),)]
