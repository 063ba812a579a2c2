"""What is sent through a proxy while its network is out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.proxy import Proxy


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that says what it is told, each piece at once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ended(writer: asyncio.StreamWriter, proxy: Proxy) -> None:
    """End a connection, and see it end on both sides of the proxy."""
    writer.close()
    await writer.wait_closed()
    while proxy._open:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # for the server's side, which nobody can ask


async def test_what_is_sent_while_it_stalls_comes_late_and_whole() -> None:
    async with echo() as port, Proxy(port) as proxy, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall()
        writer.write(b"one ")
        await writer.drain()
        answer = asyncio.create_task(reader.readexactly(8))
        await asyncio.wait([answer], timeout=0.1)
        assert not answer.done()
        writer.write(b"two ")
        proxy.flow()
        assert await answer == b"one two "
        await ended(writer, proxy)


async def test_what_is_sent_slowly_comes_all_the_same() -> None:
    async with echo() as port, Proxy(port) as proxy, asyncio.timeout(20):
        proxy.delay = 0.01
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one ")
        assert await reader.readexactly(4) == b"one "
        await ended(writer, proxy)
