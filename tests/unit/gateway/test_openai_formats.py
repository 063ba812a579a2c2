"""What the gateway reads of OpenAI's formats: requests for holds, replies for settlements."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.admission import HIDDEN_TOKENS, input_bound
from stationmaster.gateway.formats import PARSERS, asking_for_usage
from stationmaster.gateway.openai_body import parse_chat, parse_embeddings, parse_responses
from stationmaster.gateway.openai_usage import (
    ChatScanner,
    ResponsesScanner,
    UsageFilter,
    served_in_reply,
)
from stationmaster.kernel.errors import Invalid

WINDOW = 10_000_000


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [], **members}).encode()


def test_a_chat_tells_its_bound_by_either_name() -> None:
    assert parse_chat(chat()).max_tokens is None
    assert parse_chat(chat(max_tokens=5)).max_tokens == 5
    newer = parse_chat(chat(max_completion_tokens=7, n=3))
    assert (newer.max_tokens, newer.limit, newer.choices) == (7, "max_completion_tokens", 3)


def test_responses_and_embeddings_tell_theirs() -> None:
    assert parse_responses(b'{"model":"m","input":"x","max_output_tokens":9}').max_tokens == 9
    assert parse_embeddings(b'{"model":"m","input":"x"}').max_tokens == 0


@pytest.mark.parametrize(
    "raw",
    [
        chat(model=""),
        chat(max_tokens=0),
        chat(max_tokens="many"),
        chat(max_tokens=2**40),
        chat(n=0),
        chat(n=129),
        chat(stream="yes"),
        chat(stream_options=[]),
        b"[]",
        b'{"model":"m","model":"n"}',
        b'{"model":"m","messages":"\\ud800"}',
        b"\xff",
        b"[" * 100_000,
    ],
    ids=str,
)
def test_a_chat_that_cannot_be_read_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_chat(raw)


PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "URL"}}]}]


def with_picture(url: str) -> bytes:
    return chat(messages=PICTURE).replace(b"URL", url.encode())


@pytest.mark.parametrize(
    ("raw", "elsewhere"),
    [
        (chat(messages=[{"role": "user", "content": "an image_url: http://x"}]), False),
        (with_picture("data:image/png;base64,AAAA"), False),
        (with_picture("http://elsewhere/a.png"), True),
        (with_picture("HTTPS://elsewhere/a.png"), True),
        (
            with_picture("http://elsewhere/a.png").replace(b'"image_url"', b'"im\\u0061ge_url"'),
            True,
        ),
        (chat(messages=[{"content": [{"type": "file", "file": {"file_data": "AA"}}]}]), True),
        (chat(messages=[{"content": [{"type": "input_image", "file_id": "f"}]}]), True),
    ],
    ids=["words", "carried", "abroad", "shouted", "spelled", "packed", "named"],
)
def test_what_a_prompt_only_names_is_held_for_by_the_window(raw: bytes, elsewhere: bool) -> None:
    bound = input_bound(parse_chat(raw), WINDOW)
    assert bound == (WINDOW if elsewhere else len(raw) + HIDDEN_TOKENS)


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"include_usage": None, "other": 1}]
)
def test_usage_is_asked_for_and_nothing_else_is_changed(options: dict[str, Any] | None) -> None:
    members = {} if options is None else {"stream_options": options}
    body = parse_chat(chat(stream=True, seed=1.0, **members))
    assert not body.usage_asked_for
    asked = json.loads(asking_for_usage(body))
    assert asked.pop("stream_options") == {**(options or {}), "include_usage": True}
    assert asked == json.loads(chat(stream=True, seed=1.0))
    assert parse_chat(asking_for_usage(body)).usage_asked_for


# --- replies ----------------------------------------------------------------------------------


def frame(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def piece(words: str, finish: str | None = None) -> bytes:
    delta = {"content": words} if words else {}
    return frame({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


TOKENS = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
}
USED = Usage(30, 20, 10, 60)
USAGE = frame({"choices": [], "usage": TOKENS})
STREAM = piece("one ") + b": ping\n\n" + piece("two", "stop") + USAGE + b"data: [DONE]\n\n"


def scanned(stream: bytes) -> ChatScanner:
    scanner = ChatScanner()
    scanner.feed(stream)
    return scanner


def test_the_stream_tells_what_it_used() -> None:
    scanner = scanned(STREAM)
    served = scanner.served(max_tokens=1_000)
    assert (served.usage, served.reported, served.stop_reason) == (USED, True, "stop")
    assert scanner.finished


def test_what_says_nothing_is_estimated_from_above_and_bound() -> None:
    served = scanned(piece("x" * 100) + piece("", "stop")).served(max_tokens=1_000)
    assert not served.reported
    assert 50 <= served.usage.output_tokens <= 100
    assert scanned(piece("x" * 100)).served(max_tokens=7).usage.output_tokens == 7


def test_only_an_end_that_was_said_is_an_end() -> None:
    found = []
    for stream in (piece("one"), piece("one", "length")):
        scanner = scanned(stream)
        found.append(scanner.finished)
        scanner.close()
        found.append(scanner.finished)
    assert found == [False, False, False, True]


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=8, unique=True))
def test_any_cut_of_a_stream_says_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    scanner, sieve = ChatScanner(), UsageFilter()
    passed = b""
    for each in pieces:
        scanner.feed(each)
        passed += sieve.feed(each)
    assert scanner.served(max_tokens=99).usage == USED
    assert passed + sieve.end() == STREAM.replace(USAGE, b"")


@pytest.mark.parametrize("newlines", [b"", b"\n"], ids=["none", "one"])
@pytest.mark.parametrize("done", [True, False], ids=["done", "usage"])
def test_a_last_event_without_its_empty_line_is_not_lost(done: bool, newlines: bytes) -> None:
    whole = STREAM if done else STREAM.replace(b"data: [DONE]\n\n", b"")
    stream = whole.rstrip(b"\n") + newlines
    scanner, sieve = ChatScanner(), UsageFilter()
    scanner.feed(stream)
    scanner.close()
    assert scanner.finished
    assert scanner.served(max_tokens=99).usage == USED
    passed = sieve.feed(stream) + sieve.end()
    assert passed.rstrip(b"\n") == whole.replace(USAGE, b"").rstrip(b"\n")


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_a_response_tells_at_its_end(kind: str) -> None:
    response = {
        "status": kind,
        "usage": {
            "input_tokens": 100,
            "output_tokens": 20,
            "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        },
    }
    scanner = ResponsesScanner()
    ends = []
    for event in (
        {"type": "response.output_text.delta", "delta": "one"},
        {"type": f"response.{kind}", "response": response},
    ):
        scanner.feed(frame(event))
        ends.append(scanner.finished)
    assert ends == [False, True]
    assert scanner.served(max_tokens=99).usage == USED


@pytest.mark.parametrize(
    "garbage",
    [b"data: {\n\n", b"data: [1]\n\n", b"data: \xff\n\n", frame({"choices": 3}), frame([])],
    ids=["half", "list", "bytes", "types", "empty"],
)
def test_what_cannot_be_read_is_passed_over(garbage: bytes) -> None:
    assert scanned(garbage + STREAM).served(max_tokens=99).usage == USED


def test_a_whole_reply_tells_or_does_not() -> None:
    told = served_in_reply(json.dumps({"usage": TOKENS}).encode())
    assert told is not None
    assert told.usage == USED
    assert served_in_reply(b'{"choices": []}') is None
    assert served_in_reply(b"<html>") is None


@pytest.mark.parametrize("cached", [-5, 10**9])
def test_details_that_cannot_be_true_never_make_it_negative(cached: int) -> None:
    tokens = {**TOKENS, "prompt_tokens_details": {"cached_tokens": cached}}
    told = served_in_reply(json.dumps({"usage": tokens}).encode())
    assert told is not None
    assert told.usage.input_tokens + told.usage.cache_read_tokens == 100
    assert min(told.usage.input_tokens, told.usage.cache_read_tokens) >= 0


def test_every_operation_has_its_reader() -> None:
    assert set(PARSERS) == {"messages", "count_tokens", "chat", "responses", "embeddings"}
