"""Undoes the compression of a body that came compressed, though we ask for none."""

import zlib
from collections.abc import Iterator

PIECE = 256 * 1024
"""Bytes that one step may unpack to: a bomb goes off in pieces that its reader can refuse."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_HEADER = 2  # bytes
_ENCODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class Decoder:
    """For one body. Every method raises `ValueError` where the body is not what it says."""

    def __init__(self, encoding: str) -> None:
        """`encoding` is the value of `content-encoding`."""
        window = _ENCODINGS.get(encoding.strip().lower())
        if window is None:
            raise ValueError("unknown content encoding")
        self._window = window
        self._stream = zlib.decompressobj(window)
        self._first = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` unpacks to, in pieces."""
        if not self._begun:
            self._first = data = self._first + data
            if len(data) < _HEADER:
                return
            self._begin(data)
        try:
            while data:
                if self._stream.eof:  # a gzip body may consist of several
                    if self._window != _GZIP:
                        raise ValueError("data after the end of a compressed body")
                    self._stream = zlib.decompressobj(_GZIP)
                piece = self._stream.decompress(data, PIECE)
                data = self._stream.unconsumed_tail or self._stream.unused_data
                if piece:
                    yield piece
        except zlib.error:
            raise ValueError("broken compression") from None

    def finish(self) -> None:
        """The body has ended: check that its compression has too."""
        if self._first and not self._stream.eof:
            raise ValueError("compressed body cut short")

    def _begin(self, data: bytes) -> None:
        self._begun = True
        # By the standard `deflate` has zlib's header (RFC 1950); some servers leave it out.
        if self._window == _ZLIB and (data[0] & 15 != 8 or (data[0] << 8 | data[1]) % 31):
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
