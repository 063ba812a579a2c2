import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.agents.base import AgentProtocolError
from stationmaster.agents.claude_code.frames import parse_frame, read_frames

_FRAMES = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), max_size=8)


class _Pieces:
    """A source that gives its bytes in the given sizes, over and over."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self._data = data
        self._sizes = sizes
        self._turn = 0

    async def read(self, n: int) -> bytes:
        size = min(n, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        piece, self._data = self._data[:size], self._data[size:]
        return piece


async def _read(data: bytes, sizes: list[int], max_bytes: int = 1000) -> list[object]:
    source = _Pieces(data, sizes)
    return [frame async for frame in read_frames(source, max_bytes=max_bytes)]


@given(_FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cutting(frames: list[dict[str, object]], sizes: list[int]) -> None:
    written = "".join(json.dumps(frame, ensure_ascii=False) + "\n" for frame in frames)
    read = asyncio.run(_read(written.encode("utf-8", "replace"), sizes, max_bytes=100_000))
    expected = json.loads(
        json.dumps(frames, ensure_ascii=False).encode("utf-8", "replace").decode()
    )
    assert read == expected


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
async def test_a_frame_over_the_bound_is_refused_with_and_without_its_end(size: int) -> None:
    long = json.dumps({"filler": "x" * 2000}).encode()
    with pytest.raises(AgentProtocolError):
        await _read(long + b"\n", [size])
    with pytest.raises(AgentProtocolError):
        await _read(long, [size])


async def test_frames_before_the_bad_one_are_delivered() -> None:
    frames = read_frames(_Pieces(b'{"good": 1}\nnot json\n', [100]))
    assert await anext(frames) == {"good": 1}
    with pytest.raises(AgentProtocolError):
        await anext(frames)


async def test_a_last_line_without_its_end_is_dropped() -> None:
    assert await _read(b'{"a": 1}\n{"b": 2', [3]) == [{"a": 1}]


@pytest.mark.parametrize(
    "line", [b"hello", b"[1]", b"3", b'"text"', b"null", b"\xff\xfe", b"[" * 5000 + b"]" * 5000]
)
def test_what_is_not_an_object_is_refused(line: bytes) -> None:
    with pytest.raises(AgentProtocolError) as caught:
        parse_frame(line)
    assert len(caught.value.message) < 700


def test_empty_lines_carry_nothing() -> None:
    assert parse_frame(b"  \r") is None
