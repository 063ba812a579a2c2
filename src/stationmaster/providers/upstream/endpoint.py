"""A vendor's HTTP API: one base URL, the headers that go with every call, bytes in and out."""

import re
import ssl
from functools import lru_cache
from typing import NoReturn

from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.base import Headers
from stationmaster.providers.upstream.client import UpstreamClient
from stationmaster.providers.upstream.reply import UpstreamReply
from stationmaster.providers.upstream.timeouts import Timeouts

MAX_DOCUMENT = 8 * 1024 * 1024
"""Bytes of an answer that is read whole: a list of models, a token. Far more than any has."""

_REMEMBERED = 128  # sets of headers; each is as large as a request's head at most

_REDIRECTS = frozenset({300, 301, 302, 303, 304, 305, 307, 308})
_NOT_IN_A_TARGET = re.compile(r"[^\x21-\x7e]")
_NOT_IN_A_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_NOT_IN_A_NAME = re.compile(r"[^-!#$%&'*+.^_`|~0-9a-z]")


class Endpoint:
    """Sends requests below a base URL. Refuses redirects: they would take the key elsewhere.

    The connection pool belongs to the event loop of the first call.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        headers: Headers = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`headers` (names in lower case) go with every call but `check`. `tls` is for tests.

        Raises `Invalid`, without repeating them, where the URL or the headers cannot be sent.
        """
        self._timeouts = timeouts
        self._client = client = UpstreamClient(base_url, timeouts, tls=tls)
        self.authority = client.authority
        self.root = client.path
        if _NOT_IN_A_TARGET.search(client.path) or not _sendable(headers):
            raise Invalid("The provider's base URL or key has characters that cannot be sent.")
        self._common = (
            f" HTTP/1.1\r\nhost: {client.authority}\r\n{_lines(headers)}"
            "accept-encoding: identity\r\n"
        )
        # A client sends the same headers with each of its calls. Of secrets there are only our own
        # tokens, which are in memory anyway.
        self._head = lru_cache(maxsize=_REMEMBERED)(self._make_head)

    async def post(
        self, target: str, body: bytes, headers: Headers, *, streamed: bool, once: bool = False
    ) -> UpstreamReply:
        """Send a body to `target`: a path below the base URL, and its query.

        `streamed` tells that the answer comes piece by piece: one in one piece has no first byte
        before all of it is written, and may take as long as the whole call. With `once` it is never
        sent a second time, whatever becomes of the connection.

        Raises `Invalid` for a target or header that would break out of its line, `Upstream` and
        `UpstreamTimeout` as `Provider.send` says; with the code `upstream_unreachable` nothing
        was sent, and trying again is safe.
        """
        first_byte = self._timeouts.first_byte if streamed else self._timeouts.total
        head = b"%bcontent-length: %d\r\n\r\n" % (
            self._head("POST", target, headers),
            len(body),
        )
        reply = await self._client.send(head, body, first_byte=first_byte, once=once)
        return reply if reply.status not in _REDIRECTS else await _refused(reply)

    async def get(self, target: str, headers: Headers = ()) -> UpstreamReply:
        """Ask for what lies at `target`; see `post`."""
        head = self._head("GET", target, headers) + b"\r\n"
        reply = await self._client.send(head, b"", first_byte=self._timeouts.first_byte)
        return reply if reply.status not in _REDIRECTS else await _refused(reply)

    async def delete(self, target: str, headers: Headers = ()) -> UpstreamReply:
        """Have what lies at `target` deleted; see `post`."""
        head = self._head("DELETE", target, headers) + b"content-length: 0\r\n\r\n"
        reply = await self._client.send(head, b"", first_byte=self._timeouts.first_byte)
        return reply if reply.status not in _REDIRECTS else await _refused(reply)

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers. Sends no key and asks for nothing."""
        head = f"HEAD {self.root or '/'} HTTP/1.1\r\nhost: {self.authority}\r\n\r\n"
        patience = self._timeouts.connect
        reply = await self._client.send(head.encode(), b"", first_byte=patience)
        await reply.aclose()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._client.aclose()

    def _make_head(self, method: str, target: str, headers: Headers) -> bytes:
        """A request's head but for its length. Raises `Invalid` as `post`."""
        target = self.root + target
        if _NOT_IN_A_TARGET.search(target) or not _sendable(headers):
            raise Invalid("The request has a header or query that cannot be sent.")
        return f"{method} {target}{self._common}{_lines(headers)}".encode("latin-1")


async def _refused(reply: UpstreamReply) -> NoReturn:
    await reply.aclose()
    raise Upstream("The model provider answered with a redirect.", status=reply.status)


async def document(reply: UpstreamReply) -> bytes:
    """The whole body of a short answer. Raises `Upstream` where it is not short, or breaks off."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in reply.chunks():
            size += len(part)
            if size > MAX_DOCUMENT:
                raise Upstream("The model provider's answer is too large.", status=reply.status)
            parts.append(part)
    finally:
        await reply.aclose()
    return b"".join(parts)


def _sendable(headers: Headers) -> bool:
    names = "".join([name for name, _ in headers])
    values = "".join([value for _, value in headers])
    return not (_NOT_IN_A_NAME.search(names) or _NOT_IN_A_VALUE.search(values))


def _lines(headers: Headers) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers])
