"""A TCP proxy that can be told to drop what comes, as a broken network does, or to change it."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Proxy:
    """Passes connections on to `host:port`.

    While `dropping`, whatever either side sends is lost without a word, and new connections are
    taken and never answered. While stalled (`stall`, `flow`) it comes late instead: all that was
    sent is passed on at the end, as after a network's outage. `delay` is how much later each piece
    arrives, in seconds. `rewrite` may change what the server says.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, rewrite: Callable[[bytes], bytes] | None = None
    ) -> None:
        self.dropping = False
        self.delay = 0.0
        self.port = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._target = (host, port)
        self._rewrite = rewrite or bytes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Close every connection at once."""
        for writer in self._open:
            writer.transport.abort()

    def stall(self) -> None:
        """Pass nothing on until `flow`."""
        self._flows.clear()

    def flow(self) -> None:
        """Pass on what has come meanwhile, and what comes."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self._target)
            self._open.add(there)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, there, bytes))
                group.create_task(self._pass(back, writer, self._rewrite))
        except* OSError:
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    each.transport.abort()
                    self._open.discard(each)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        change: Callable[[bytes], bytes],
    ) -> None:
        while data := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flows.wait()
            if not self.dropping:
                writer.write(change(data))
                await writer.drain()
        raise ConnectionAbortedError  # one side has ended: so does the other
