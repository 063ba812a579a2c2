"""Files on their way out. The disk is read in threads, a piece at a time."""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, TypeVar
from urllib.parse import quote

import structlog
from starlette.responses import Response

from stationmaster.files import Files
from stationmaster.http.streams import BoundedSend, StalledError, gone, race
from stationmaster.http.wire.exchange import Receive, Scope, Send
from stationmaster.kernel.principal import Principal

log = structlog.get_logger(__name__)

T = TypeVar("T")

CHUNK = 64 * 1024  # bytes; small enough for a slow client to take one within the time for a piece

_NOT_PLAIN = re.compile(r'[^A-Za-z0-9 !#$&+.^_`|~()\[\]{}=,@-]|"')


def attachment(name: str) -> str:
    """A `Content-Disposition` that makes browsers save the file, by RFC 6266."""
    plain = _NOT_PLAIN.sub("_", name) or "file"
    value = f'attachment; filename="{plain}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"


def file_pieces(file: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """The pieces of a file, of at most `size` bytes of it. It is closed with the iterator."""
    with file:
        left = size
        while left is None or left > 0:
            piece = file.read(CHUNK if left is None else min(CHUNK, left))
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece


class Download(Response):
    """Streams `pieces`, and calls `close` in a thread however it ends.

    With `size` the client is told how much comes; where less does, the connection is cut, so that
    the client sees it.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        *,
        close: Callable[[], None],
        media_type: str,
        headers: Mapping[str, str],
        size: int | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._pieces = pieces
        self._close = close
        self._head = [
            (b"content-type", media_type.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
        ]
        if size is not None:
            self._head.append((b"content-length", b"%d" % size))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until all is sent or the client is gone."""
        try:
            await race(self._send_all(BoundedSend(send)), gone(receive))
        except StalledError:
            log.info("A download was given up: its client had stopped reading.")
        finally:
            await in_thread(self._close)

    async def _send_all(self, out: BoundedSend) -> None:
        await out({"type": "http.response.start", "status": 200, "headers": self._head})
        while (piece := await in_thread(lambda: next(self._pieces, None))) is not None:
            await out.piece(piece)
        await out.piece(b"", last=True)


async def stored_file(files: Files, principal: Principal, file_id: str) -> Download:
    """The content of a stored file. Raises what `Files.open` does."""
    file, content = await files.open(principal, file_id)
    return Download(
        file_pieces(content, file.size),
        close=content.close,
        media_type="application/octet-stream",  # never what it claims to be: anybody's work
        headers={"content-disposition": attachment(file.name)},
        size=file.size,
    )


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread. If cancelled, still wait for it: what it uses is closed next."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
