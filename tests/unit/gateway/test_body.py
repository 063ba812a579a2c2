import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.gateway.members import check_once, decode, locate
from stationmaster.gateway.messages_body import parse_messages
from stationmaster.kernel.errors import Invalid

GOOD = b'{"model": "opus", "max_tokens": 10, "messages": []}'

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
READ = {"model", "max_tokens", "stream", "thinking", "speed", "inference_geo", "tools", "fallbacks"}


def test_reads_what_routing_and_counting_need() -> None:
    body = parse_messages(
        b'{"stream": true, "model": "haiku", "max_tokens": 4096, "speed": "fast",'
        b' "thinking": {"type": "enabled", "budget_tokens": 2048, "new": 1}, "inference_geo": "us"}'
    )
    assert (body.model, body.max_tokens, body.stream) == ("haiku", 4096, True)
    assert (body.thinking_budget, body.speed, body.inference_geo) == (2048, "fast", "us")


def test_reads_the_models_that_the_provider_may_call_itself() -> None:
    body = parse_messages(
        b'{"model": "m", "max_tokens": 1, "fallbacks": [{"model": "dear"}],'
        b' "tools": [{"type": "advisor_20260301", "name": "advisor", "model": "dearer"},'
        b' {"name": "mine", "input_schema": {"type": "object"}}]}'
    )
    assert body.other_models == ("dear", "dearer")


@pytest.mark.parametrize(
    ("tools", "searches"),
    [
        (b"[]", 0),
        (b'[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]', 3),
        (b'[{"type": "web_search_20250305", "name": "web_search"}]', None),
    ],
)
def test_reads_how_many_web_searches_are_allowed(tools: bytes, searches: int | None) -> None:
    body = parse_messages(b'{"model": "m", "max_tokens": 1, "tools": ' + tools + b"}")
    assert body.web_searches == searches


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        GOOD + b" {}",
        b"\xff" + GOOD,
        b"\xef\xbb\xbf" + GOOD,
        b'{"model": "m", "max_tokens": 1, "x": "\xff"}',
        b'{"model": "m", "max_tokens": 1, "x": NaN}',
        b'{"model": "m", "max_tokens": 1, "x": Infinity}',
        b'{"model": "m", "max_tokens": 1, "x": "\\ud800"}',
        b'{"model": "m", "max_tokens": 1, "x": "\\udc00"}',
        b'{"model": "m", "max_tokens": 1, "x": "\\udc00\\ud800"}',
        b'{"model": "m", "max_tokens": 1, "x": "\\ud800 \\udc00"}',
        b'{"model": "m", "max_tokens": 1, "x": "\\ud800\\ud800\\udc00"}',
        b'{"model": "m", "max_tokens": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "m", "max_tokens": 1, "tools": ' + b'[{"a":' * 50_000 + b"}]" * 50_000 + b"}",
        b'{"model": "m", "model": "m", "max_tokens": 1}',
        b'{"model": "m", "max_tokens": 1, "mod\\u0065l": "other"}',
        b'{"model": "m", "max_tokens": 1, "x": 1, "x": 1}',
        b'{"max_tokens": 1}',
        b'{"model": null, "max_tokens": 1}',
        b'{"model": 7, "max_tokens": 1}',
        b'{"model": "", "max_tokens": 1}',
        b'{"model": "a\\nb", "max_tokens": 1}',
        b'{"model": "' + b"m" * 257 + b'", "max_tokens": 1}',
        b'{"model": "m"}',
        b'{"model": "m", "max_tokens": null}',
        b'{"model": "m", "max_tokens": "1"}',
        b'{"model": "m", "max_tokens": true}',
        b'{"model": "m", "max_tokens": -1}',
        b'{"model": "m", "max_tokens": 1e999}',
        b'{"model": "m", "max_tokens": 1.5}',
        b'{"model": "m", "max_tokens": ' + b"9" * 5_000 + b"}",
        b'{"model": "m", "max_tokens": 1, "stream": "yes"}',
        b'{"model": "m", "max_tokens": 1, "thinking": {"budget_tokens": "many"}}',
    ],
)
def test_refuses_what_it_cannot_read_safely(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_messages(raw)


@pytest.mark.parametrize(
    "value",
    [b'"\\ud83d\\ude00"', b'"\\\\ud800"', b'"\\u00e9\\n"', b"1e999999", b'"\xf0\x9f\x98\x80"'],
)
def test_leaves_to_the_provider_what_it_does_not_read(value: bytes) -> None:
    raw = b'{"model": "m", "max_tokens": 1, "x": ' + value + b"}"
    assert parse_messages(raw).raw == raw


def test_a_token_count_needs_no_max_tokens() -> None:
    assert parse_messages(b'{"model": "m"}', counting=True).max_tokens == 0


def object_text(members: list[tuple[str, Any]], spaces: list[str], ascii_only: bool) -> bytes:
    gap = iter(spaces * (4 * len(members) + 2))
    parts = [
        next(gap)
        + json.dumps(name, ensure_ascii=ascii_only)
        + next(gap)
        + ":"
        + next(gap)
        + json.dumps(value, ensure_ascii=ascii_only)
        + next(gap)
        for name, value in members
    ]
    return (next(gap) + "{" + ",".join(parts) + "}" + next(gap)).encode()


@given(
    extra=st.dictionaries(st.text().filter(lambda name: name not in READ), json_values, max_size=4),
    order=st.randoms(use_true_random=False),
    spaces=st.lists(st.sampled_from(["", " ", "\n\t", "\r\n"]), min_size=1, max_size=5),
    ascii_only=st.booleans(),
    max_tokens=st.integers(0, 2**31),
    lowered=st.integers(1, 10**6),
)
def test_a_splice_changes_its_values_and_nothing_else(
    *,
    extra: dict[str, Any],
    order: Any,
    spaces: list[str],
    ascii_only: bool,
    max_tokens: int,
    lowered: int,
) -> None:
    members = [*extra.items(), ("model", "opus"), ("max_tokens", max_tokens)]
    order.shuffle(members)
    raw = object_text(members, spaces, ascii_only)
    body = parse_messages(raw)
    spliced = body.spliced({"max_tokens": b"%d" % lowered, "model": b'"claude-opus-5-5"'})
    changed = {"model": "claude-opus-5-5", "max_tokens": lowered}
    wanted = [(name, changed.get(name, value)) for name, value in members]
    assert spliced == object_text(wanted, spaces, ascii_only)
    assert body.spliced({}) == raw


names = st.sampled_from(["a", "b", 'a": 1, "b', '":', "\\", "\n", "é", ""]) | st.text(max_size=3)


@given(
    members=st.lists(st.tuples(names, st.integers(0, 12) | json_values), max_size=5),
    between=st.sampled_from([(",", ":"), (", ", ": "), (", ", ":"), (" , ", " :"), (",\n", ": ")]),
    ascii_only=st.booleans(),
)
def test_only_a_name_that_comes_twice_is_refused(
    members: list[tuple[str, Any]], between: tuple[str, str], ascii_only: bool
) -> None:
    comma, colon = between
    parts = [
        json.dumps(name, ensure_ascii=ascii_only)
        + colon
        + json.dumps(value, ensure_ascii=ascii_only, separators=between)
        for name, value in members
    ]
    raw = ("{" + comma.join(parts) + "}").encode()
    found = decode(raw)
    if len({name for name, _ in members}) == len(members):
        check_once(raw, found)
        places = locate(raw, found)
        told = {name: raw[start:end] for name, (start, end) in places.items()}
        assert told == {name: bytes(value) for name, value in found.items()}
    else:
        with pytest.raises(Invalid, match="comes twice"):
            check_once(raw, found)
