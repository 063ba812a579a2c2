"""Reading what a hostile archive unpacks to, without ever holding more than some chunks of it."""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.sessions.runs.workspace.limits import UploadLimits

CHUNK = 64 * 1024  # bytes read, and at most made, at once
_XZ_MEMORY = 128 * 1024**2  # bytes; `xz -9` needs 65 MiB, and a header may claim 4 GiB
_GZIP = 31  # zlib's window bits for a gzip wrapper


def damaged(message: str = "The archive is damaged.") -> Invalid:
    """An archive that cannot be read."""
    return Invalid(message, code="archive_damaged")


def check_ratio(unpacked: int, packed: int, limits: UploadLimits) -> None:
    """Raise `TooLarge` (`archive_bomb`) where something unpacks to far more than it is."""
    if unpacked > limits.ratio_floor_bytes and unpacked > limits.ratio * max(packed, 1):
        raise TooLarge("The archive unpacks to far more than its size.", code="archive_bomb")


class _Decompressor(Protocol):
    """What the three of the standard library have in common, after `_Gzip`."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib with the interface of the other two: it keeps the input that it has not used yet."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(made) < max_length
        return made


_MAKERS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": _Gzip,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}


def decompressor_for(head: bytes) -> Callable[[], _Decompressor] | None:
    """Choose by the first bytes; None for what is not compressed."""
    return next((make for magic, make in _MAKERS.items() if head.startswith(magic)), None)


class Unpacked(io.RawIOBase):
    """The bytes inside a compressed stream, one member after the other. Not seekable.

    Reading raises `Invalid` (`archive_damaged`) for what is not such a stream or is cut off, and
    `TooLarge` past `limit` bytes or the ratio.
    """

    def __init__(
        self,
        source: BinaryIO,
        make: Callable[[], _Decompressor],
        limits: UploadLimits,
        limit: int,
    ) -> None:
        """Read `source` from where it is. It is not closed."""
        super().__init__()
        self._source = source
        self._make = make
        self._limits = limits
        self._limit = limit
        self._inner: _Decompressor | None = make()
        self._taken = self._made = 0
        self._held = b""  # read from the source, not yet given to a decompressor

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes, fewer only at the end; `size` must be given."""
        if size < 0:
            raise damaged()
        parts: list[bytes] = []
        while size and (made := self._more(min(size, CHUNK))):
            parts.append(made)
            size -= len(made)
        return b"".join(parts)

    def _more(self, size: int) -> bytes:
        while self._inner is not None:
            if self._inner.eof:
                self._next_member(self._inner)
                continue
            made = self._step(self._inner, size)
            if made:
                self._made += len(made)
                if self._made > self._limit:
                    raise TooLarge("The archive is too large.", code="archive_too_large")
                check_ratio(self._made, self._taken, self._limits)
                return made
        return b""

    def _step(self, inner: _Decompressor, size: int) -> bytes:
        data = b""
        if inner.needs_input:
            data = self._take()
            if not data:
                raise damaged("The archive ends too early.")
        return _decompress(inner, data, size)

    def _take(self) -> bytes:
        data, self._held = self._held, b""
        if not data:
            data = self._source.read(CHUNK)
            self._taken += len(data)
        return data

    def _next_member(self, ended: _Decompressor) -> None:
        """Go on with what follows a member; zeros after it are padding."""
        self._inner = None
        rest = ended.unused_data.lstrip(b"\0")
        while not rest:
            data = self._take()
            if not data:
                return
            rest = data.lstrip(b"\0")
        self._held = rest
        self._inner = self._make()


def _decompress(inner: _Decompressor, data: bytes, size: int) -> bytes:
    try:
        return inner.decompress(data, size)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        raise damaged() from error  # bz2 says OSError
