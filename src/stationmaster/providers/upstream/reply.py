"""An answer, between the connection that fills it and the call that reads it."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Headers
from stationmaster.providers.headers import to_client
from stationmaster.providers.upstream.decoder import Decoder

HIGH_WATER = 256 * 1024
"""Bytes of a body that wait for their reader before the upstream is made to wait."""


class Source(Protocol):
    """The connection that a reply comes on, as far as its reader needs it."""

    def resume(self, reply: "UpstreamReply") -> None:
        """Read on, if this reply had made it pause."""
        ...

    def abandon(self, reply: "UpstreamReply") -> None:
        """Close at once, if the connection is still this reply's."""
        ...


class UpstreamReply:
    """Implements `ProviderReply`. The body lies here, not in the connection.

    So a connection whose answer has wholly arrived can carry another call, though this one is not
    read yet, and no call can ever read another's bytes.
    """

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self._source = source
        self._loop = loop
        self.begun: asyncio.Future[None] = loop.create_future()
        """Done once the head is there, or it is known why it never will be."""
        self.status = 0
        """The upstream's HTTP status."""
        self.headers: Headers = ()
        """What may pass to the client."""
        self._decoder: Decoder | None = None
        self._pieces: list[bytes] = []
        self._whole = False
        self._error: Exception | None = None
        self._more: asyncio.Future[None] | None = None
        self.waiting = 0  # bytes that came and are not read yet

    # --- for the connection -------------------------------------------------------------------

    def begin(
        self, status: int, headers: Iterable[tuple[str, str]], decoder: Decoder | None
    ) -> None:
        """The head is there."""
        self.status = status
        self.headers = to_client(headers)
        self._decoder = decoder
        if not self.begun.done():
            self.begun.set_result(None)

    def take(self, data: bytes) -> None:
        """A piece of the body is there."""
        self._pieces.append(data)
        self.waiting += len(data)
        self._wake()

    def finish(self) -> None:
        """The body is whole."""
        self._whole = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Nothing more will come. What came can still be read."""
        if not self.begun.done():
            self.begun.set_exception(error)
            self.begun.exception()  # whoever waited may be cancelled by now, and never ask
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    # --- for the call -------------------------------------------------------------------------

    def arrived(self) -> bytes | None:
        """The whole body, if it has come; see `ProviderReply.arrived`."""
        # A compressed one may unpack to more than its reader takes: it is told in pieces.
        return self._drained() if self._whole and self._decoder is None else None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; see `ProviderReply.chunks`."""
        try:
            while True:
                while self._pieces:
                    data = self._drained()
                    if self._decoder is None:
                        yield data
                        continue
                    for piece in self._decoder.feed(data):
                        yield piece
                if self._whole:
                    break
                if self._error is not None:
                    raise self._error
                await self._until_more()
            if self._decoder is not None:
                self._decoder.finish()
        except ValueError as error:
            raise Upstream(f"The model provider's answer cannot be read: {error}.") from None
        finally:
            self._source.abandon(self)

    async def aclose(self) -> None:
        """Close the upstream call if its body has not wholly come. Idempotent."""
        self._source.abandon(self)

    def _drained(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self.waiting = 0
        self._source.resume(self)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _until_more(self) -> None:
        self._more = self._loop.create_future()
        try:
            await self._more
        finally:
            self._more = None
