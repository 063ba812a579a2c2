"""JSON that two readers could understand in two ways."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.http.strict_json import MAX_DEPTH, parse
from stationmaster.kernel.errors import Invalid

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()
VALUES = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_json_is_read_as_it_was_written(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary())
def test_anything_else_is_invalid_and_nothing_worse(raw: bytes) -> None:
    with suppress(Invalid):
        parse(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 1}',
        b'{"x": {"a": 1, "\\u0061": 2}}',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        b"1" * 5000,
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b'["\xed\xa0\x80"]',
        b"\xef\xbb\xbf1",
        b"1 2",
        b"",
        b"'a'",
        b"[1,]",
        b'"\n"',
    ],
)
def test_what_is_ambiguous_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse(raw)


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude82"') == "\U0001f682"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return (opening * depth + "1" + closing * depth).encode()

    parse(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 1000, 200_000):
        with pytest.raises(Invalid, match="nested"):
            parse(nested(depth))
