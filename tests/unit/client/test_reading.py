import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.client import ConnectionFailed, UnexpectedAnswer
from stationmaster.client.reading import MAX_FRAME_BYTES, Decoder, Frame, Reading
from tests.support.scripted_http import sse

TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


def decode(*chunks: bytes) -> list[Frame]:
    decoder = Decoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


@given(st.lists(TEXTS, min_size=1), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_frames_do_not_depend_on_how_bytes_arrive(
    texts: list[str], end: str, data: st.DataObject
) -> None:
    lines = [f"id: {seq}{end}data: {text}{end}{end}" for seq, text in enumerate(texts)]
    stream = "".join(lines).encode() + b": the end\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [(frame.id, frame.data) for frame in decode(*chunks)] == [
        (str(seq), [text]) for seq, text in enumerate(texts)
    ]


def test_comments_are_dropped_and_names_kept() -> None:
    found = decode(b": ping\n\nevent: agent.message\ndata: 1\ndata: 2\n\n: ping\n\n")
    assert found == [Frame(None, "agent.message", ["1", "2"])]


def test_an_endless_frame_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(b"data: ")
    with pytest.raises(UnexpectedAnswer):
        decoder.feed(b"x" * (MAX_FRAME_BYTES + 1))


def reading(after: int = 0, patience: float = 60.0) -> Reading:
    found = Reading(after, patience, now=100.0)
    found.headers()
    return found


def feed(found: Reading, *frames: str) -> list[tuple[int | None, str, dict[str, Any]]]:
    events = found.feed("".join(frames).encode(), now=100.0)
    return [(event.seq, event.type, event.data) for event in events]


def test_events_come_once_and_in_order() -> None:
    found = reading()
    assert feed(found, sse(1, "run.queued"), sse(2, "run.started", {"epoch": 1})) == [
        (1, "run.queued", {}),
        (2, "run.started", {"epoch": 1}),
    ]
    assert feed(found, sse(2, "run.started"), sse(3, "run.ended")) == [(3, "run.ended", {})]
    assert found.done
    assert feed(found, sse(4, "anything")) == []


def test_passing_news_has_no_number_and_moves_no_cursor() -> None:
    found = reading(after=4)
    delta = {"type": "agent.delta", "data": {"kind": "text", "text": "Hi"}}
    frame = f"event: agent.delta\ndata: {json.dumps(delta)}\n\n"
    assert feed(found, frame) == [(None, "agent.delta", {"kind": "text", "text": "Hi"})]
    assert found.headers()["last-event-id"] == "4"


def test_the_first_request_has_no_cursor() -> None:
    assert "last-event-id" not in reading().headers()


@pytest.mark.parametrize("kind", ["overflow", "server.stopping", "error"])
def test_words_about_the_stream_are_no_events(kind: str) -> None:
    assert feed(reading(), f'event: {kind}\ndata: {{"after": 3}}\n\n') == []


@pytest.mark.parametrize("frame", ["data: {\n\n", "data: []\n\n", "id: x\ndata: {}\n\n"])
def test_what_is_no_event_is_refused(frame: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        feed(reading(), frame)


def test_an_ended_task_is_looked_at_once_more() -> None:
    """Its last events may have been written after the stream was closed."""
    found = reading()
    found.closed(100.0, ended=True)
    assert not found.done
    found.headers()
    found.closed(100.0, ended=True)
    assert found.done


def test_patience_ends() -> None:
    found = reading(patience=10.0)
    assert 0 < found.failed("away", now=101.0) <= 0.5
    with pytest.raises(ConnectionFailed, match="away"):
        found.failed("away", now=111.0)


def test_after_progress_it_goes_on_at_once() -> None:
    found = reading()
    feed(found, sse(1, "run.queued"))
    assert found.failed("cut", now=101.0) == 0.0
    assert found.failed("cut", now=101.0) > 0.0


def test_a_sign_of_life_renews_patience() -> None:
    found = reading(patience=10.0)
    found.feed(b": ping\n\n", now=109.0)
    assert found.failed("away", now=111.0) > 0
