"""A pool of connections to one upstream."""

import asyncio
import socket
import ssl
from collections import deque
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from stationmaster.kernel.errors import Invalid, Upstream, UpstreamTimeout
from stationmaster.providers.upstream.connection import (
    Connection,
    Patience,
    StaleConnectionError,
)
from stationmaster.providers.upstream.dialler import dial
from stationmaster.providers.upstream.reply import UpstreamReply
from stationmaster.providers.upstream.timeouts import Timeouts

POOL_SIZE = 512
"""Calls at once to the upstream; more wait for one to end, within `Timeouts.connect`."""

_PORTS = {"http": 80, "https": 443}


class UpstreamClient:
    """HTTP/1.1 over TCP or TLS. Proxies of the environment are not used, redirects not followed.

    The connections belong to the event loop of the first call.
    """

    def __init__(
        self,
        base_url: str,
        timeouts: Timeouts,
        *,
        tls: ssl.SSLContext | None = None,
        pool_size: int = POOL_SIZE,
    ) -> None:
        """`tls` is by default what the system trusts. Raises `Invalid` for a URL without sense."""
        self._scheme, self._host, self._port, self.path = _parse(base_url)
        standard = self._port == _PORTS[self._scheme]
        name = f"[{self._host}]" if ":" in self._host else self._host
        self.authority = name if standard else f"{name}:{self._port}"
        self._timeouts = timeouts
        self._tls = (tls or _trusting_the_system()) if self._scheme == "https" else None
        self._free_slots = pool_size  # none while anybody waits for one
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: dict[Connection, None] = {}
        self._open: set[Connection] = set()

    async def send(
        self, head: bytes, body: bytes, *, first_byte: float, once: bool = False
    ) -> UpstreamReply:
        """Send a request and return once the head of its answer is there.

        `head` is all lines up to the empty one that ends it. `first_byte` is in seconds.
        A connection that was kept may be closed by the upstream just when it is written to: where
        not a byte of an answer came, the request goes out once more, on a new one. With `once` a
        new one is used from the start, and the request goes out one time in any case.

        Raises `Upstream` and `UpstreamTimeout`; with the code `upstream_unreachable` nothing was
        sent.
        """
        now = asyncio.get_running_loop().time()
        total = now + self._timeouts.total
        patience = Patience(min(now + first_byte, total), self._timeouts.inactivity, total)
        fresh = once
        while True:
            connection = None if fresh else self._idle_one()
            if connection is None:
                connection = await self._acquire(patience, fresh=fresh)
            reply = connection.exchange(head, body, patience)
            try:
                await reply.begun
            except BaseException as error:
                connection.abandon(reply)
                if not fresh and isinstance(error, StaleConnectionError):
                    fresh = True
                    continue
                raise
            return reply

    async def aclose(self) -> None:
        """Close every connection. Calls that still run break. Idempotent."""
        connections = list(self._open)
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.lost for connection in connections))

    def _idle_one(self) -> Connection | None:
        """As `_acquire`, where that needs no waiting."""
        connection = self._kept() if self._free_slots else None
        if connection is not None:
            self._free_slots -= 1
        return connection

    async def _acquire(self, patience: Patience, *, fresh: bool) -> Connection:
        """A free connection, and the right to use it, which ends with the exchange."""
        due = asyncio.get_running_loop().time() + self._timeouts.connect
        try:
            async with asyncio.timeout_at(min(due, patience.head)):
                await self._take_slot()
                return (None if fresh else self._kept()) or await self._connect()
        except TimeoutError:
            raise UpstreamTimeout(
                "The model provider could not be connected to in time.",
                code="upstream_unreachable",
            ) from None

    async def _take_slot(self) -> None:
        if self._free_slots:
            self._free_slots -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it has got one, too late
                self._give_slot_back()
            raise

    def _give_slot_back(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free_slots += 1

    def _kept(self) -> Connection | None:
        """The idle connection that was used last: it is the least likely to be closed by now."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        try:
            connected = await dial(self._host, self._port)
            connection = await self._adopt(connected)
        except BaseException as error:
            self._give_slot_back()
            if isinstance(error, OSError | UnicodeError) and not isinstance(error, TimeoutError):
                raise Upstream(
                    f"The model provider cannot be reached ({type(error).__name__}).",
                    code="upstream_unreachable",
                ) from None
            raise
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._drop(connection))
        return connection

    async def _adopt(self, connected: socket.socket) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._free),
            sock=connected,
            ssl=self._tls,
            server_hostname=self._host if self._tls is not None else None,
        )
        return connection

    def _free(self, connection: Connection, reusable: bool) -> None:
        self._give_slot_back()
        if reusable:
            connection.keep()
            self._idle[connection] = None

    def _drop(self, connection: Connection) -> None:
        self._idle.pop(connection, None)
        self._open.discard(connection)


def _parse(base_url: str) -> tuple[Literal["http", "https"], str, int, str]:
    """Scheme, host, port and path (without a slash at its end)."""
    try:
        parts = urlsplit(base_url)
        port, host = parts.port, (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError):
        raise Invalid("The provider's base URL is not a URL.") from None
    if parts.query or parts.fragment or parts.username is not None or not host:
        raise Invalid("The provider's base URL must be a host and perhaps a path, nothing else.")
    if parts.scheme == "http":
        return "http", host, port or _PORTS["http"], parts.path.rstrip("/")
    if parts.scheme == "https":
        return "https", host, port or _PORTS["https"], parts.path.rstrip("/")
    raise Invalid("The provider's base URL must be an http or https URL.")


@lru_cache(maxsize=1)
def _trusting_the_system() -> ssl.SSLContext:
    """One for all upstreams: reading the certificates takes nearly a tenth of a second."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
