"""The one way out for an agent with a login of its own: a CONNECT proxy on a unix socket.

It opens tunnels to an exact list of hosts and ports and to nothing else. What runs through a tunnel
is TLS between the agent and that host; the proxy sees none of it.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog

from stationmaster.agents.claude_code.launcher import finish

_log = structlog.get_logger(__name__)

# Where the CLI calls models, and where it refreshes its login.
ANTHROPIC_HOSTS = frozenset({"api.anthropic.com:443", "platform.claude.com:443"})

MAX_HEAD_BYTES = 8 * 1024
MAX_CONNECTIONS = 256  # an agent keeps fewer than ten
HEAD_SECONDS = 10.0
CONNECT_SECONDS = 15.0
IDLE_SECONDS = 900.0  # a model may think for minutes without a byte
_CHUNK_BYTES = 64 * 1024
_NAMES_TOLD = 100  # an agent that tries every name must not fill the log

_REQUEST = re.compile(r"CONNECT ([A-Za-z0-9.\-]{1,253}):([0-9]{1,5}) HTTP/1\.[01]")
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

Address = tuple[str, int]


class _Refused(Exception):
    """No tunnel. `status` is the status line's."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class EgressProxy:
    """Tunnels to `allowed` (`host:port`, lower case) for whoever reaches the socket at `path`.

        async with EgressProxy(path):
            ...

    A name is resolved here, and an address that is not public is refused, so that no answer of a
    name server leads into the operator's own network. `instead` maps an allowed name to an address
    that is taken as it is. Times are in seconds. The end drops every open tunnel.
    """

    def __init__(
        self,
        path: Path,
        *,
        allowed: Collection[str] = ANTHROPIC_HOSTS,
        instead: Mapping[str, Address] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        head_timeout: float = HEAD_SECONDS,
        connect_timeout: float = CONNECT_SECONDS,
        idle_timeout: float = IDLE_SECONDS,
    ) -> None:
        self.path = path
        self._allowed = frozenset(allowed)
        self._instead = dict(instead or {})
        self._max_connections = max_connections
        self._head_timeout = head_timeout
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    async def __aenter__(self) -> "EgressProxy":
        """Listen. Raises `OSError` where the socket cannot be made."""
        self._server = await asyncio.start_unix_server(
            self._accept, str(self.path), limit=MAX_HEAD_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and drop every tunnel."""
        await finish(self._end())

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        while self._open:
            for task in self._open:
                task.cancel()
            await asyncio.wait(self._open)
        await self._server.wait_closed()
        await asyncio.to_thread(self.path.unlink, missing_ok=True)

    # --- one connection -----------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._max_connections:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="egress")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(writer.transport.abort)
            try:
                name = await self._read_request(reader)
                there, upstream = await self._connect(name)
            except _Refused as refusal:
                await self._refuse(writer, refusal.status)
                return
            stack.callback(upstream.transport.abort)
            with suppress(OSError, TimeoutError):
                writer.write(_ESTABLISHED)
                await self._relay((reader, upstream), (there, writer))

    async def _read_request(self, reader: asyncio.StreamReader) -> str:
        try:
            async with asyncio.timeout(self._head_timeout):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise _Refused("408 Request Timeout") from None
        except asyncio.LimitOverrunError:
            raise _Refused("431 Request Header Fields Too Large") from None
        except (OSError, asyncio.IncompleteReadError):
            raise _Refused("400 Bad Request") from None
        line = head.partition(b"\r\n")[0].decode("latin-1")
        found = _REQUEST.fullmatch(line)
        if found is None:
            self._tell("something that is not a tunnel")
            raise _Refused("403 Forbidden")
        name = f"{found[1].lower()}:{found[2]}"
        if name not in self._allowed:
            self._tell(name)
            raise _Refused("403 Forbidden")
        return name

    async def _connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self._connect_timeout):
                addresses = await self._resolve(name)
                for address in addresses:
                    with suppress(OSError):
                        return await asyncio.open_connection(*address, limit=_CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            _log.warning("An agent's host does not answer.", host=name, reason=str(error))
            raise _Refused("504 Gateway Timeout") from None
        _log.warning("An agent's host cannot be reached.", host=name, addresses=len(addresses))
        raise _Refused("502 Bad Gateway")

    async def _resolve(self, name: str) -> list[Address]:
        if name in self._instead:
            return [self._instead[name]]
        host, _, port = name.rpartition(":")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        addresses = [(str(entry[4][0]), int(entry[4][1])) for entry in found]
        public = [each for each in addresses if _public(each[0])]
        if addresses and not public:
            _log.warning("An agent's host has no public address.", host=name)
            raise _Refused("403 Forbidden")
        return public

    async def _refuse(self, writer: asyncio.StreamWriter, status: str) -> None:
        answer = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._head_timeout):
                writer.write(answer.encode())
                await writer.drain()
                writer.close()
                await writer.wait_closed()

    def _tell(self, name: str) -> None:
        if name not in self._told and len(self._told) < _NAMES_TOLD:
            self._told.add(name)
            _log.warning("An agent was refused a connection.", host=name)

    # --- the tunnel ---------------------------------------------------------------------------

    async def _relay(self, *ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Pass bytes both ways until both have ended, one breaks, or nothing moves for long."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._idle_timeout) as idle:

            def moved() -> None:
                idle.reschedule(loop.time() + self._idle_timeout)

            pumps = [asyncio.ensure_future(_pump(*way, moved)) for way in ways]
            try:
                await asyncio.gather(*pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, moved: Callable[[], None]
) -> None:
    while data := await source.read(_CHUNK_BYTES):
        moved()
        target.write(data)
        await target.drain()
    target.write_eof()


def _public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_global and not parsed.is_multicast
