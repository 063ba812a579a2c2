"""AWS's binary framing (`application/vnd.amazon.eventstream`), read piece by piece.

A message: 4 bytes of its whole length, 4 of its headers' length, 4 of the checksum of these eight;
headers; payload; 4 of the checksum of all before. Numbers are big-endian, checksums CRC-32.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from stationmaster.kernel.errors import Upstream

MAX_MESSAGE = 24 * 1024 * 1024
"""Bytes: the format's own bound (16 MB of payload in base64, and headers)."""
MAX_HEADERS = 128 * 1024

_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_SHORT = struct.Struct(">H")
_OVERHEAD = _PRELUDE.size + _CHECKSUM.size
_STRING = 7
_BYTES = 6
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type, where the type fixes them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Only headers with a text are kept."""

    headers: dict[str, str]
    payload: bytes


class EventStream:
    """Holds back what is not a whole message yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = _PRELUDE.size  # bytes before there is anything to do

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that end in this piece. Raises `Upstream` where a checksum is wrong."""
        self._buffer += data
        while len(self._buffer) >= self._need:
            total, headers, checksum = _PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != checksum:
                raise _broken("a checksum is wrong")
            if not _OVERHEAD + headers <= total <= MAX_MESSAGE or headers > MAX_HEADERS:
                raise _broken("a length is wrong")
            if len(self._buffer) < total:
                self._need = total
                return
            raw = bytes(self._buffer[:total])
            del self._buffer[:total]
            self._need = _PRELUDE.size
            yield _message(raw, headers)

    def finish(self) -> None:
        """The body has ended. Raises `Upstream` where it ended inside a message."""
        if self._buffer:
            raise _broken("it ends inside a message")


def _message(raw: bytes, headers: int) -> Message:
    end = len(raw) - _CHECKSUM.size
    if zlib.crc32(raw[:end]) != _CHECKSUM.unpack_from(raw, end)[0]:
        raise _broken("a checksum is wrong")
    start = _PRELUDE.size + headers
    try:
        named = dict(_headers(raw[_PRELUDE.size : start]))
    except (struct.error, IndexError, UnicodeDecodeError, KeyError):
        raise _broken("a header is wrong") from None
    return Message(named, raw[start:end])


def _headers(raw: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(raw):
        length = raw[at]
        name = raw[at + 1 : at + 1 + length].decode()
        at += 1 + length
        kind = raw[at]
        at += 1
        if kind in (_STRING, _BYTES):
            (size,) = _SHORT.unpack_from(raw, at)
            at += _SHORT.size
        else:
            size = _SIZES[kind]
        if at + size > len(raw):
            raise IndexError
        if kind == _STRING:
            yield name, raw[at : at + size].decode()
        at += size


def _broken(why: str) -> Upstream:
    return Upstream(f"The model provider's event stream cannot be read: {why}.")
