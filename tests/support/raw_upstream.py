"""An upstream that writes bytes as it is told, well formed or not, on a socket of its own."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
STREAM_HEAD = HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(kind: str, data: str) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {data}\n\n".encode()


class RawUpstream:
    """Reads each request whole, then does `behaviour`; the connection closes after it.

    `connections` counts those that were opened; `gone` is set when a client hung up while
    `behaviour` was waiting with `until_gone`.
    """

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` it is reached as `localhost`."""
        self._behaviour = behaviour
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Start listening; `url` is then set."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, dropping what still hangs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()

    async def until_gone(self, reader: asyncio.StreamReader) -> None:
        """Wait for the client to hang up."""
        await reader.read()
        self.gone.set()

    async def next_request(self, reader: asyncio.StreamReader) -> None:
        """Read one request whole, and keep it. Raises `IncompleteReadError` where none comes."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        self.requests.append(head + await reader.readexactly(length))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.next_request(reader)
            await self._behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            self._tasks.discard(task)
            writer.close()


def writes(*parts: bytes) -> Behaviour:
    """Write and close."""

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))
        await writer.drain()

    return behaviour
