"""An answer whose body is told in another format than the upstream's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Headers
from stationmaster.providers.upstream.reply import UpstreamReply


class Translation(Protocol):
    """For one body. Both methods raise `Upstream` where it is not what it should be."""

    def feed(self, data: bytes) -> bytes:
        """What can be told after this piece; may be empty."""
        ...

    def finish(self) -> bytes:
        """What is left to be told when the body has ended as it should."""
        ...


class TranslatedReply:
    """Implements `ProviderReply` over another vendor's."""

    def __init__(
        self,
        reply: UpstreamReply,
        translation: Translation,
        *,
        content_type: str,
        headers: Headers = (),
        status: int | None = None,
    ) -> None:
        """`headers` come on top of the upstream's; `status` is the upstream's by default."""
        self._reply = reply
        self._translation = translation
        kept = [item for item in reply.headers if item[0] != "content-type"]
        self._headers = (*kept, ("content-type", content_type), *headers)
        self._status = status or reply.status

    @property
    def status(self) -> int:
        """As the format's own vendor would answer."""
        return self._status

    @property
    def headers(self) -> Headers:
        """What may pass to the client."""
        return self._headers

    def arrived(self) -> bytes | None:
        """The whole body in its new format, if it has come; see `ProviderReply.arrived`."""
        whole = self._reply.arrived()
        if whole is None:
            return None
        return self._translation.feed(whole) + self._translation.finish()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in its new format, as it arrives; see `ProviderReply.chunks`."""
        async with aclosing(self._reply.chunks()) as parts:
            async for part in parts:
                if told := self._translation.feed(part):
                    yield told
            if told := self._translation.finish():
                yield told

    async def aclose(self) -> None:
        """Close the upstream call if its body has not wholly come. Idempotent."""
        await self._reply.aclose()


class WholeBody:
    """Gathers a body and tells it at its end. A base for translations that need all of it."""

    LIMIT = 64 * 1024 * 1024
    """Bytes; more than any model writes, embeddings of a large batch included."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> bytes:
        """Keep it. Raises `Upstream` where it becomes too much."""
        self._size += len(data)
        if self._size > self.LIMIT:
            raise Upstream("The model provider's answer is too large.")
        self._parts.append(data)
        return b""

    def finish(self) -> bytes:
        """See `Translation.finish`."""
        return self.told(b"".join(self._parts))

    def told(self, body: bytes) -> bytes:
        """The body in its new format. Raises `Upstream` where it cannot be."""
        raise NotImplementedError
