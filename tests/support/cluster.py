"""Many servers on one database behind a real nginx, each a process of its own role."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.nginx import Nginx, balancer
from tests.support.server import ADMIN_KEY, ServerProcess

SECRET = "one-secret-for-all-servers-of-this-test"


def settings(database: str, redis: str, **more: str) -> dict[str, str]:
    """What servers of one database and one Redis are started with: no model, no waiting agents."""
    return {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "PROVIDER": "offline",
        "AGENT_POOL_SIZE": "0",
        **more,
    }


class Replica(ServerProcess):
    """One server. Everything that servers share is below `shared`."""

    def __init__(self, shared: Path, name: str, role: str, env: Mapping[str, str]) -> None:
        directory = shared / name
        directory.mkdir()
        super().__init__(directory, {"SECRET_KEY": SECRET, "ROLE": role, **env})
        self.name = name
        self.data_dir = shared / "data"
        port = str(self.port)
        self._env |= {
            "DATA_DIR": str(self.data_dir),
            "PYTHONPATH": str(Path(__file__).parents[2]),  # where the playing server is
            "WORKER_PORT": port,
            "SCHEDULER_PORT": port,
        }

    async def health(self) -> Any:
        return (await self.client.get("/health")).json()

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        text = (await self.client.get("/metrics")).text
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


class Playing(Replica):
    program = ("tests.support.playing_server",)


class Command(Replica):
    """`stationmaster worker` and so on, with the real agent."""

    def __init__(self, shared: Path, name: str, role: str, env: Mapping[str, str]) -> None:
        super().__init__(shared, name, role, env)
        del self._env["ROLE"]
        said = {"api": ("serve", "--role", "api")}.get(role, (role,))
        self.program = ("stationmaster", *said)


class OneShot(Command):
    """`stationmaster worker --one-shot`."""

    def __init__(self, shared: Path, name: str, role: str, env: Mapping[str, str]) -> None:
        super().__init__(shared, name, role, env)
        self.program = ("stationmaster", "worker", "--one-shot")


@dataclass(frozen=True)
class Cluster:
    """The servers, by what they do, and the way in."""

    url: str
    client: httpx.AsyncClient
    apis: list[Replica]
    workers: list[Replica]
    schedulers: list[Replica]
    front: Nginx

    @property
    def all(self) -> list[Replica]:
        return [*self.apis, *self.workers, *self.schedulers]


@asynccontextmanager
async def cluster(
    shared: Path,
    env: Mapping[str, str],
    *,
    kind: type[Replica] = Playing,
    apis: int = 2,
    workers: int = 2,
    schedulers: int = 1,
) -> AsyncIterator[Cluster]:
    """Start them; at the end all are stopped in good order, and must have been well."""
    made: dict[str, list[Replica]] = {"api": [], "worker": [], "scheduler": []}
    for role, number in (("api", apis), ("worker", workers), ("scheduler", schedulers)):
        made[role] = [kind(shared, f"{role}-{each}", role, env) for each in range(number)]
    everyone = [replica for group in made.values() for replica in group]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(everyone[0])  # which makes the tables
        await asyncio.gather(*(stack.enter_async_context(each) for each in everyone[1:]))
        ports = [api.port for api in made["api"]]
        front = await stack.enter_async_context(balancer(ports))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=front.url,
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                timeout=httpx.Timeout(120.0),
            )
        )
        yield Cluster(front.url, client, made["api"], made["worker"], made["scheduler"], front)
        stopped = await asyncio.gather(*(each.stop() for each in everyone))
        assert stopped == [0] * len(everyone), [each.output[-2000:] for each in everyone]
