import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.usage import StreamScanner, served_in_message
from stationmaster.providers.conformance import assembled, events_of


def frame(kind: str, newline: str = "\n", **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}{newline}data: {data}{newline}{newline}".encode()


def delta(text: str, newline: str = "\n") -> bytes:
    return frame(
        "content_block_delta", newline, index=0, delta={"type": "text_delta", "text": text}
    )


def stream(words: list[str], usage: dict[str, int], output: int, newline: str = "\n") -> bytes:
    opening = {"type": "text", "text": ""}
    return b"".join(
        [
            frame("message_start", newline, message={"usage": usage, "content": []}),
            frame("ping", newline),
            b": a comment" + (newline * 2).encode(),
            frame("content_block_start", newline, index=0, content_block=opening),
            *(delta(word, newline) for word in words),
            frame("content_block_stop", newline, index=0),
            frame(
                "message_delta",
                newline,
                delta={"stop_reason": "end_turn"},
                usage={"output_tokens": output},
            ),
            frame("message_stop", newline),
        ]
    )


def scan(*pieces: bytes, max_tokens: int = 1000, long_lived: bool = False) -> StreamScanner:
    scanner = StreamScanner(long_lived=long_lived)
    for piece in pieces:
        scanner.feed(piece)
    return scanner


START = {
    "input_tokens": 11,
    "output_tokens": 1,
    "cache_creation_input_tokens": 22,
    "cache_read_input_tokens": 33,
}


@given(
    words=st.lists(st.text(max_size=20), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_cut_of_a_stream_gives_the_same_usage(
    words: list[str], cuts: list[int], newline: str
) -> None:
    whole = stream(words, START, 44, newline)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    scanner = scan(*pieces)
    served = scanner.served(max_tokens=1000)
    assert served.usage == Usage(11, 44, 22, 33, 0)
    assert served.exact
    assert served.stop_reason == "end_turn"
    assert scanner.finished
    assert scanner.between_events


@given(
    words=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8),
    at=st.integers(0, 4000),
)
def test_a_cut_stream_bills_its_input_and_no_less_output_than_came(
    words: list[str], at: int
) -> None:
    whole = stream(words, START, 10**6)
    cut = whole[: min(at, whole.index(b"event: message_delta"))]
    served = scan(cut).served(max_tokens=10**5)
    complete = cut[: cut.rfind(b"\n\n") + 2] if b"\n\n" in cut else b""
    came = [event for event in events_of_tolerant(complete) if event["type"].endswith("_delta")]
    if not served.reported:
        assert b"message_start" not in complete
        assert served.usage == Usage()
        return
    text = "".join(event["delta"]["text"] for event in came)
    assert not served.exact
    assert served.usage.input_tokens == 11
    assert served.usage.cache_write_tokens == 22
    assert served.usage.output_tokens >= max(len(came), len(text.encode()) / 2)


def events_of_tolerant(body: bytes) -> list[dict[str, Any]]:
    return events_of(body.replace(b": a comment\n\n", b""))


def test_the_estimate_never_passes_max_tokens() -> None:
    cut = stream(["x" * 5000], START, 1).split(b"event: message_delta")[0]
    assert scan(cut).served(max_tokens=64).usage.output_tokens == 64


def test_thinking_that_is_not_shown_counts_by_the_providers_estimate() -> None:
    hidden = frame(
        "content_block_delta",
        index=0,
        delta={"type": "thinking_delta", "thinking": "", "estimated_tokens": 500},
    )
    scanner = scan(frame("message_start", message={"usage": START}), hidden, hidden)
    assert scanner.served(max_tokens=10_000).usage.output_tokens >= 1000


def test_cumulative_figures_replace_and_never_shrink() -> None:
    scanner = scan(
        frame("message_start", message={"usage": START}),
        frame("message_delta", delta={}, usage={"output_tokens": 5, "input_tokens": 50}),
        frame("message_delta", delta={}, usage={"output_tokens": 9, "input_tokens": None}),
    )
    assert scanner.served(max_tokens=1000).usage == Usage(50, 9, 22, 33, 0)


@pytest.mark.parametrize(
    ("breakdown", "long_lived", "long_write"),
    [
        (None, False, 0),
        (None, True, 22),
        ({"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 20}, False, 20),
        ({"ephemeral_5m_input_tokens": 22, "ephemeral_1h_input_tokens": 0}, True, 0),
    ],
)
def test_cache_writes_are_told_apart_by_lifetime(
    breakdown: dict[str, int] | None, long_lived: bool, long_write: int
) -> None:
    usage = {**START, "cache_creation": breakdown}
    scanner = scan(frame("message_start", message={"usage": usage}), long_lived=long_lived)
    assert scanner.served(max_tokens=1).usage.cache_write_1h_tokens == long_write


def test_what_other_models_served_is_counted_beside() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 20,
        "iterations": [
            {"type": "message", "input_tokens": 10, "output_tokens": 20},
            {"type": "advisor_message", "model": "dear", "input_tokens": 5, "output_tokens": 7},
        ],
    }
    served = served_in_message(json.dumps({"usage": usage}).encode())
    assert served is not None
    assert served.parts == ((None, Usage(10, 20)), ("dear", Usage(5, 7)))
    assert served.usage == Usage(15, 27)


@pytest.mark.parametrize(
    "noise",
    [
        b"data: not json\n\n",
        b"event: content_block_delta\n\n",
        b'data: {"type": "message_delta", "usage": {"output_tokens": "many"}}\n\n',
        b'data: {"type": "message_delta", "delta": {"text": "message_start"}}\n\n',
        b'event: new_kind\ndata: {"type": "new_kind", "usage": 7}\n\n',
        b"\n\n\n",
        b"data: " + b"[" * 50_000 + b"\n\n",
    ],
)
def test_what_it_cannot_read_it_passes_over(noise: bytes) -> None:
    scanner = scan(noise, stream(["hi"], START, 44), noise)
    assert scanner.served(max_tokens=1000).usage == Usage(11, 44, 22, 33, 0)


def test_tells_where_an_event_may_be_put_in() -> None:
    scanner = scan(frame("ping"))
    told: list[bool] = []
    for piece in (b"event: ping\n", b"data: {}\n", b"\n", b"\n", b":", b"\n\n"):
        scanner.feed(piece)
        told.append(scanner.between_events)
    assert told == [False, False, True, True, False, True]


def test_an_unstreamed_message_tells_its_usage() -> None:
    body = json.dumps({"usage": {**START, "output_tokens": 44}, "stop_reason": "tool_use"})
    served = served_in_message(body.encode())
    assert served is not None
    assert served.usage == Usage(11, 44, 22, 33, 0)
    assert served.stop_reason == "tool_use"


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"usage": {}}', b"[" * 100_000])
def test_a_body_without_usage_tells_nothing(body: bytes) -> None:
    assert served_in_message(body) is None


def test_the_whole_stream_is_still_a_message() -> None:
    whole = stream(["Hel", "lo"], START, 44).replace(b": a comment\n\n", b"")
    assert assembled(events_of(whole))["content"] == [{"type": "text", "text": "Hello"}]
