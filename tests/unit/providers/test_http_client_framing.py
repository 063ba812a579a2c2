"""The upstream client against a peer that gets HTTP wrong, by mistake or on purpose."""

import asyncio
import gzip
import zlib
from collections.abc import Iterator

import pytest

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.upstream import Timeouts, UpstreamClient
from stationmaster.providers.upstream.connection import MAX_HEAD, MAX_INTERIM
from stationmaster.providers.upstream.decoder import PIECE, Decoder
from tests.support.raw_upstream import RawUpstream, chunk, writes

HEAD = b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
GET_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"


async def answer(raw: bytes, *, split: bool = False) -> tuple[int, bytes]:
    """Status and body of an answer. With `split` its bytes arrive one by one, or few by few."""

    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(raw) // 2_000 + 1
        for at in range(0, len(raw), size):
            writer.write(raw[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)

    async with RawUpstream(trickle if split else writes(raw)) as upstream:
        client = UpstreamClient(upstream.url, Timeouts())
        try:
            reply = await client.send(HEAD, b"", first_byte=30)
            return reply.status, b"".join([part async for part in reply.chunks()])
        finally:
            await client.aclose()


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (OK + b"content-length: 2\r\n\r\nhi", b"hi"),
        (OK + b"content-length: 0\r\n\r\n", b""),
        (CHUNKED + chunk(b"h") + chunk(b"i") + END, b"hi"),
        (CHUNKED + b"2;name=value\r\nhi\r\n0\r\ntrailer: x\r\n\r\n", b"hi"),
        (OK + b"\r\nhi", b"hi"),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", b""),
        (GET_ON + HINTS + OK + b"content-length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    ],
    ids=[
        "length",
        "empty",
        "chunks",
        "extension and trailer",
        "until it closes",
        "HTTP/1.0",
        "no content",
        "interim answers",
        "no reason",
    ],
)
async def test_every_right_framing_is_read(raw: bytes, body: bytes, split: bool) -> None:
    status, read = await answer(raw, split=split)
    assert (status // 100, read) == (2, body)


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(
    "raw",
    [
        OK + b"content-length: 3\r\n\r\nhi",
        CHUNKED + chunk(b"hi"),
        CHUNKED + b"5\r\nhi",
        CHUNKED + chunk(b"hi") + b"0\r\n",
        CHUNKED + b"zz\r\nhi\r\n" + END,
        CHUNKED + b"2\r\nhiX\r\n" + END,
        CHUNKED + b"-2\r\nhi\r\n" + END,
        CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhi",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"hi") + END,
        OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n" + chunk(b"hi") + END,
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunk(b"hi") + END,
        OK + b"transfer-encoding: gzip\r\n\r\nhi",
        OK + b"content-length: two\r\n\r\nhi",
        OK + b"content-length: -2\r\n\r\nhi",
        OK + b"content-length: 99999999999999999999999\r\n\r\nhi",
        OK + b"no colon here\r\n\r\nhi",
        OK + b"na me: x\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"x: nul\0\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"content-length: 2",
        b"HTTP/1.1 99 Low\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/1.1 600 High\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        b"HTTP/0.9 200 OK\r\n\r\nhi",
        b"HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nhi",
        GET_ON,
        GET_ON * (MAX_INTERIM + 1) + OK + b"content-length: 2\r\n\r\nhi",
        OK + b"x: " + b"y" * MAX_HEAD + b"\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"x: yyyy\r\n" * (MAX_HEAD // 4) + b"content-length: 2\r\n\r\nhi",
        CHUNKED + chunk(b"hi") + b"0\r\n" + b"x: yyyy\r\n" * (MAX_HEAD // 4) + b"\r\n",
        CHUNKED + b"2;" + b"x" * 16 * MAX_HEAD + b"\r\nhi\r\n" + END,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"<html>not HTTP</html>",
        b"",
    ],
)
async def test_every_wrong_framing_is_an_upstream_error(raw: bytes, split: bool) -> None:
    with pytest.raises(Upstream) as caught:
        await answer(raw, split=split)
    assert caught.value.error_code == "upstream_error"


async def test_what_came_before_the_fault_is_read() -> None:
    async with RawUpstream(writes(CHUNKED + chunk(b"hi") + b"zz")) as upstream:
        client = UpstreamClient(upstream.url, Timeouts())
        reply = await client.send(HEAD, b"", first_byte=30)
        chunks = reply.chunks()
        assert await anext(chunks) == b"hi"
        with pytest.raises(Upstream):
            await anext(chunks)
        await client.aclose()


async def test_names_and_values_of_headers_arrive_as_they_were_meant() -> None:
    raw = OK + b"Request-ID:  a\xe9b \r\nX-New: 1\r\nX-New: 2\r\ncontent-length: 0\r\n\r\n"
    async with RawUpstream(writes(raw)) as upstream:
        client = UpstreamClient(upstream.url, Timeouts())
        reply = await client.send(HEAD, b"", first_byte=30)
        assert reply.headers == (("request-id", "a\xe9b"), ("x-new", "1"), ("x-new", "2"))
        await client.aclose()


async def test_an_answer_to_head_has_no_body_whatever_it_says() -> None:
    raw = OK + b"content-length: 100\r\n\r\n"
    async with RawUpstream(writes(raw)) as upstream:
        client = UpstreamClient(upstream.url, Timeouts())
        reply = await client.send(b"HEAD / HTTP/1.1\r\n\r\n", b"", first_byte=30)
        assert [part async for part in reply.chunks()] == []
        await client.aclose()


# --- compression ------------------------------------------------------------------------------

TEXT = b'{"text": "' + b"words and words " * 10_000 + b'"}'


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = [
    ("gzip", gzip.compress(TEXT)),
    ("X-GZip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
    ("deflate", zlib.compress(TEXT)),
    ("deflate", deflated(TEXT)),
]


@pytest.mark.parametrize(("encoding", "packed"), PACKED, ids=["gzip", "twice", "zlib", "raw"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_body_is_unpacked_wherever_it_is_cut(encoding: str, packed: bytes, size: int) -> None:
    assert b"".join(unpacked(encoding, packed, size)) == TEXT


def unpacked(encoding: str, packed: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    decoder = Decoder(encoding)
    for at in range(0, len(packed), size):
        yield from decoder.feed(packed[at : at + size])
    decoder.finish()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip\x00", "*"])
async def test_an_encoding_that_we_did_not_ask_for_and_cannot_undo_is_refused(
    encoding: str,
) -> None:
    head = OK + f"content-encoding: {encoding}\r\ncontent-length: 2\r\n\r\n".encode()
    with pytest.raises(Upstream):
        await answer(head + b"hi")


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(TEXT)[:-9]),
        ("gzip", b"not packed at all"),
        ("gzip", gzip.compress(TEXT) + b"more"),
        ("deflate", zlib.compress(TEXT) + b"more"),
        ("deflate", zlib.compress(TEXT)[:-1]),
        ("deflate", b"\xff" * 20),
    ],
)
async def test_broken_compression_is_an_upstream_error(encoding: str, packed: bytes) -> None:
    head = OK + b"content-encoding: %s\r\ncontent-length: %d\r\n\r\n"
    with pytest.raises(Upstream):
        await answer(head % (encoding.encode(), len(packed)) + packed)


async def test_an_empty_body_needs_no_compression() -> None:
    head = OK + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n"
    assert await answer(head) == (200, b"")


def test_a_bomb_goes_off_in_pieces() -> None:
    pieces = unpacked("gzip", gzip.compress(bytes(64 * PIECE)))
    assert {len(next(pieces)) for _ in range(10)} == {PIECE}
