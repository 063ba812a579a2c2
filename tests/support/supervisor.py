"""What keeps servers up that end by themselves: each is started anew as soon as it has ended."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.support.server import START_SECONDS, ServerProcess


class Supervisor:
    """`restart: always`. `ended` are the exit statuses so far, of each server in its order."""

    def __init__(self, servers: Sequence[ServerProcess]) -> None:
        self.servers = servers
        self.ended: dict[ServerProcess, list[int]] = {server: [] for server in servers}
        self._stopping = asyncio.Event()

    async def keep(self, server: ServerProcess) -> None:
        """Keep one up until `stop`."""
        while not self._stopping.is_set():
            process = await server.launch()
            if self._stopping.is_set():  # meanwhile
                server.send(signal.SIGTERM)
            self.ended[server].append(await process.wait())

    @property
    def statuses(self) -> list[int]:
        """The exit statuses of all together."""
        return [status for each in self.ended.values() for status in each]

    async def all_up(self) -> None:
        """Return once every server takes work."""
        async with asyncio.timeout(START_SECONDS):
            for server in self.servers:
                while not await server.is_ready():
                    await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Have all end in good order, and start none again."""
        self._stopping.set()
        for server in self.servers:
            if server.running:
                server.send(signal.SIGTERM)


@asynccontextmanager
async def supervised(servers: Sequence[ServerProcess]) -> AsyncIterator[Supervisor]:
    """Keep them up for as long as the block runs; at its end all stop in good order."""
    supervisor = Supervisor(servers)
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(supervisor.keep(server))
            await supervisor.all_up()
            yield supervisor
            supervisor.stop()
    finally:
        for server in servers:
            if server.running:
                await server.kill()
            await server.client.aclose()
