"""Which answers are compressed, and what their heads say then."""

import gzip
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.http.answer import Answer
from stationmaster.http.compression import BIG, MIN_BYTES, wants_gzip

JSON = (b"content-type", b"application/json")
LONG = b'{"text":"' + b"pear " * 400 + b'"}'


class Client:
    """The other side."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def receive(self) -> Any:
        raise AssertionError

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def answered(
    *pieces: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,),
    status: int = 200,
    accept: bytes | None = b"gzip",
    length: int | None = None,
) -> Client:
    size = sum(map(len, pieces)) if length is None else length
    head = [*headers, (b"content-length", b"%d" % size)] if size >= 0 else list(headers)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": head})
        for number, piece in enumerate(pieces, 1):
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    client = Client()
    asked = [] if accept is None else [(b"accept-encoding", accept)]
    await app({}, client.receive, Answer(client.send, gzip=wants_gzip(asked)))
    return client


async def test_a_large_answer_is_compressed_and_says_so() -> None:
    client = await answered(LONG, headers=(JSON, (b"vary", b"origin"), (b"etag", b'"1"')))
    assert client.headers[b"content-encoding"] == b"gzip"
    assert client.headers[b"vary"] == b"origin, Accept-Encoding"
    assert client.headers[b"etag"] == b'W/"1"'
    assert int(client.headers[b"content-length"]) == len(client.body) < len(LONG)
    assert gzip.decompress(client.body) == LONG


@given(st.binary(min_size=MIN_BYTES, max_size=4000))
async def test_whatever_is_in_it_comes_out_again(body: bytes) -> None:
    assert gzip.decompress((await answered(body)).body) == body


async def test_a_very_large_one_is_compressed_in_a_thread() -> None:
    body = b'"' + b"pear " * BIG + b'"'
    assert gzip.decompress((await answered(body)).body) == body


async def test_who_does_not_ask_is_told_that_it_depends() -> None:
    for accept in (None, b"br", b"gzip;q=0", b"identity, *;q=0"):
        client = await answered(LONG, accept=accept)
        assert client.body == LONG
        assert b"content-encoding" not in client.headers
        assert client.headers[b"vary"] == b"Accept-Encoding"


@pytest.mark.parametrize(
    ("change"),
    [
        {"headers": ((b"content-type", b"text/event-stream; charset=utf-8"),)},
        {"headers": ((b"content-type", b"image/png"),)},
        {"headers": ((b"content-type", b"application/x-tar"),)},
        {"headers": (JSON, (b"content-encoding", b"br"))},
        {"headers": (JSON, (b"content-range", b"bytes 0-1999/3000"))},
        {"headers": (JSON, (b"cache-control", b"no-store"))},
        {"headers": (JSON, (b"cache-control", b"no-cache, no-transform"))},
        {"status": 206},
    ],
    ids=["events", "picture", "archive", "encoded", "range", "secret", "as-it-is", "part"],
)
async def test_what_is_never_compressed(change: dict[str, Any]) -> None:
    client = await answered(LONG, **change)
    assert client.body == LONG
    assert client.sent[0]["headers"] == [
        *change.get("headers", (JSON,)),
        (b"content-length", b"%d" % len(LONG)),
    ]


async def test_an_answer_below_the_bound_passes_as_it_is() -> None:
    client = await answered(b"x" * (MIN_BYTES - 1))
    assert b"content-encoding" not in client.headers
    assert b"vary" not in client.headers
    assert b"content-encoding" in (await answered(b"x" * MIN_BYTES)).headers


async def test_a_stream_passes_piece_by_piece() -> None:
    client = await answered(LONG, LONG, length=-1)
    assert [message["body"] for message in client.sent[1:]] == [LONG, LONG]
    told = await answered(LONG, LONG)
    assert [message["body"] for message in told.sent[1:]] == [LONG, LONG]
    assert b"content-encoding" not in told.headers


async def test_the_head_of_a_file_without_the_file_stays_whole() -> None:
    client = await answered(b"", length=5000)
    assert client.headers[b"content-length"] == b"5000"
    assert b"content-encoding" not in client.headers


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"gzip", True),
        (b"GZIP ; q=0.5", True),
        (b"br, gzip;q=1.000", True),
        (b"*", True),
        (b"x-gzip", True),
        (b"*;q=0.1, gzip;q=0", False),
        (b"gzip;q=0.000", False),
        (b"gzip;q=nonsense", False),
        (b"gzip;q=-1", False),
        (b"gzipped", False),
        (b"identity", False),
        (b"", False),
    ],
)
def test_who_asks(value: bytes, wanted: bool) -> None:
    assert wants_gzip([(b"accept-encoding", value)]) == wanted


@given(st.binary(max_size=100))
def test_no_header_breaks_it(value: bytes) -> None:
    assert wants_gzip([(b"accept-encoding", value)]) in {True, False}
