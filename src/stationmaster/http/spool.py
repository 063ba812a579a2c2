"""A request's body on the disk, so that it can be looked at before it is passed on."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile

from stationmaster.http.downloads import in_thread
from stationmaster.http.wire.exchange import Message, Receive, RequestGoneError, Scope
from stationmaster.kernel.errors import Invalid, TooLarge

MEMORY = 1024 * 1024  # bytes of a body that are kept in memory
PIECE = 64 * 1024
PIECE_SECONDS = 30.0  # for the next piece to arrive

_BOUNDARY = re.compile(rb'multipart/form-data\b.*;\s*boundary="?([^";,\s]+)', re.IGNORECASE)


class Body:
    """What has arrived, as often as wanted."""

    def __init__(self, file: "SpooledTemporaryFile[bytes]", size: int, sha256: str) -> None:
        self._file = file
        self.size = size
        self.sha256 = sha256
        """Of the content: the boundary of a form, new at every try, does not count."""

    async def whole(self) -> bytes:
        """All of it."""
        return await in_thread(lambda: self._read(0, self.size))

    def receive(self, then: Receive) -> Receive:
        """As if it arrived now; afterwards what `then` brings."""
        at = 0
        over = False

        async def receive() -> Message:
            nonlocal at, over
            if over:
                return await then()
            if self.size <= MEMORY:
                piece = self._read(at, PIECE)
            else:
                piece = await in_thread(lambda: self._read(at, PIECE))
            at += len(piece)
            over = at >= self.size
            return {"type": "http.request", "body": piece, "more_body": not over}

        return receive

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        return self._file.read(size)


@asynccontextmanager
async def spooled(scope: Scope, receive: Receive, *, limit: int) -> AsyncIterator[Body]:
    """Receive a body; it is there until the block ends.

    Raises `TooLarge` over `limit` bytes (at once where the headers say so), `Invalid` where a
    piece of it is late, `RequestGoneError` where its client goes away.
    """
    headers = dict(scope["headers"])
    declared: bytes = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    digest = _Digest(headers.get(b"content-type", b""))
    with SpooledTemporaryFile(max_size=MEMORY) as file:
        size = 0
        more = True
        while more:
            message = await _next(receive)
            piece: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            digest.update(piece)
            if size <= MEMORY:
                file.write(piece)
            else:
                await in_thread(lambda piece=piece: file.write(piece))  # type: ignore[misc]
        yield Body(file, size, digest.hexdigest())


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(PIECE_SECONDS):
            message = await receive()
    except TimeoutError:
        raise Invalid("The request body did not arrive in time.") from None
    if message["type"] != "http.request":
        raise RequestGoneError
    return message


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.")


class _Digest:
    """SHA-256 of a body without the boundary of its form."""

    def __init__(self, content_type: bytes) -> None:
        found = _BOUNDARY.match(content_type)
        self._boundary = b"--" + found[1] if found else b""
        self._hash = hashlib.sha256()
        self._rest = b""

    def update(self, piece: bytes) -> None:
        if not self._boundary:
            self._hash.update(piece)
            return
        *parts, last = (self._rest + piece).split(self._boundary)
        for part in parts:
            self._hash.update(part)
            self._hash.update(b"\0--boundary--\0")
        # The boundary may be cut between this piece and the next.
        cut = max(0, len(last) - len(self._boundary) + 1)
        self._hash.update(last[:cut])
        self._rest = last[cut:]

    def hexdigest(self) -> str:
        self._hash.update(self._rest)
        return self._hash.hexdigest()
