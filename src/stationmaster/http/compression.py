"""Answers of a known length are compressed for who asks; streams never are.

Nothing is held back: an answer whose head names no length passes as it comes, and so does one whose
body comes in pieces. Starlette's own middleware compresses these too, and then
what a client should see at once waits in the compressor.
"""

import asyncio
import re
import zlib
from collections.abc import Iterable

from stationmaster.http.wire.exchange import RawHeaders

MIN_BYTES = 1000
"""Below it, the gain is less than a packet."""

LEVEL = 4
"""On JSON nearly as small as level 6, in half the time."""

BIG = 64 * 1024
"""Bytes from which a thread compresses: the event loop would notice."""

VARY = (b"vary", b"Accept-Encoding")
"""What an answer says that is compressed for some."""

_TEXT = re.compile(rb"text/|application/(?:[a-z0-9.-]*\+)?(?:json|xml|javascript)\b")
_STREAM = b"text/event-stream"
_NOT_ELSEWHERE = re.compile(rb"\bno-(?:store|transform)\b", re.IGNORECASE)
_BARE = frozenset({204, 206, 304})
_QUALITY = re.compile(rb"[ \t]*q[ \t]*=[ \t]*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.I)


def wants_gzip(headers: RawHeaders) -> bool:
    """Whether `Accept-Encoding` takes gzip, by name or by `*`, with a quality above 0."""
    found: dict[bytes, bool] = {}
    for name, value in headers:
        if name != b"accept-encoding":
            continue
        for each in value.split(b","):
            coding, *parameters = each.split(b";")
            quality = _QUALITY.fullmatch(parameters[0]) if parameters else None
            taken = not parameters or (quality is not None and float(quality[1]) > 0)
            found[coding.strip().lower()] = taken
    for name in (b"gzip", b"x-gzip", b"*"):
        if name in found:
            return found[name]
    return False


def is_large_text(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer is one to compress. What must not be stored may hold a secret.

    A secret next to words of its reader's choice shows in how well both compress (BREACH).
    """
    length, kind = 0, b""
    for name, value in headers:
        match name:
            case b"content-length":
                length = int(value)
            case b"content-type":
                kind = value.strip().lower()
            case b"content-encoding" | b"content-range":
                return False
            case b"cache-control" if _NOT_ELSEWHERE.search(value):
                return False
    if length < MIN_BYTES or status in _BARE:
        return False
    return _TEXT.match(kind) is not None and not kind.startswith(_STREAM)


def encoded(headers: RawHeaders, length: int) -> RawHeaders:
    """The headers of the compressed answer. It is another sequence of bytes: its tag is weak."""
    kept: RawHeaders = []
    for name, value in headers:
        if name == b"etag" and not value.startswith(b"W/"):
            kept.append((name, b"W/" + value))
        elif name != b"content-length":
            kept.append((name, value))
    return [*kept, (b"content-encoding", b"gzip"), (b"content-length", b"%d" % length)]


async def compressed(body: bytes) -> bytes:
    """The body, compressed: in a thread where it is big."""
    return await asyncio.to_thread(_gzip, body) if len(body) >= BIG else _gzip(body)


def _gzip(body: bytes) -> bytes:
    maker = zlib.compressobj(LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return maker.compress(body) + maker.flush()
