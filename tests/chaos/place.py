"""The cluster under test: real processes, each behind proxies of its own, and started again."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import make_url

from tests.chaos.plan import LEASE_S
from tests.chaos.provider import script
from tests.support.cluster import Command, Replica
from tests.support.nginx import nginx
from tests.support.off_clock import set_off
from tests.support.postgres import PostgresServer, find_programs, private_server
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitServer, private_rabbitmq
from tests.support.redis import RedisServer, private_redis
from tests.support.server import ADMIN_KEY
from tests.support.services import missing, require
from tests.support.wire_upstream import WireUpstream

START_S = 120.0
STOP_S = 60.0
AGAIN_S = 0.3  # until a server that ended is started again, as its service manager would
DISK_MIB = 48
ROLES = {"api": 3, "worker": 3, "scheduler": 2}


class Scripted(Replica):
    """With the scripted agent that leaves a trace."""

    program = ("tests.chaos.server",)


class Kept:
    """A server that is started again whenever it ends, and what stands between it and the rest."""

    def __init__(self, server: Replica, proxies: Mapping[str, Proxy]) -> None:
        self.server = server
        self.proxies = proxies
        self.turn = asyncio.Lock()  # of one fault at a time
        self.ended: list[int] = []  # exit statuses that nobody asked for
        self._wanted = asyncio.Event()
        self._asked = False
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        return self.server.name

    async def keep(self) -> None:
        """Start it, and again, while it is wanted."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._asked = False
            status = await (await self._launch()).wait()
            if not self._asked:
                self.ended.append(status)
            await asyncio.sleep(AGAIN_S)

    async def _launch(self) -> asyncio.subprocess.Process:
        with (self.server.directory / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                # The parent-death signal: a killed campaign leaves no server behind.
                *(require("setpriv"), "--pdeathsig", "KILL", "--"),
                *(sys.executable, "-m", *self.server.program),
                cwd=self.server.directory,
                env=self.server._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    async def ready(self) -> None:
        """Return once it says so."""
        while True:
            with suppress(httpx.HTTPError):
                if (await self.server.client.get("/ready", timeout=10)).status_code == 200:
                    return
            await asyncio.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._asked = self._asked or number in {signal.SIGKILL, signal.SIGTERM}
            self._process.send_signal(number)

    async def away(self, number: signal.Signals, seconds: float) -> None:
        """End it by a signal; it is not started again before so many seconds."""
        self._wanted.clear()
        self.send(number)
        await self._gone()
        await asyncio.sleep(seconds)
        self._wanted.set()

    async def _gone(self) -> None:
        process = self._process
        if process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            if process.returncode is None:
                process.kill()

    async def stop(self) -> int | None:
        """Stop it for good; its exit status."""
        self._wanted.clear()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        await self._gone()
        return None if self._process is None else self._process.returncode

    def skew(self, seconds: float) -> None:
        """Set its clock off by so much."""
        set_off(self.server.directory, seconds)

    def may_grow(self, *, files: bool) -> None:
        """Whether its files may grow, as where a quota is used up."""
        if self._process is not None and self._process.returncode is None:
            size = resource.RLIM_INFINITY if files else 4096
            with suppress(ProcessLookupError):
                resource.prlimit(
                    self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
                )


@dataclass
class Place:
    """Everything there is. `database` is the way of the recorder, past the proxies."""

    directory: Path
    url: str
    client: httpx.AsyncClient
    servers: dict[str, Kept]
    postgres: PostgresServer
    redis: RedisServer
    broker: RabbitServer | None
    upstream: WireUpstream
    database: str
    deeds: Path
    disk: Path | None

    @property
    def parts(self) -> list[str]:
        """What a fault may befall beside servers."""
        return ["database", "redis", "disk", *(["broker"] if self.broker else [])]

    def part(self, name: str) -> PostgresServer | RedisServer | RabbitServer:
        """The server that a part is."""
        if name == "broker":
            assert self.broker is not None
            return self.broker
        return self.postgres if name == "database" else self.redis

    def agents(self) -> list[int]:
        """Processes of agents, and of servers."""
        return next(iter(self.servers.values())).server.agent_processes()


@asynccontextmanager
async def place(shared: Path, *, real: bool = False, broker: bool = False) -> AsyncIterator[Place]:
    """Start all of it. `real`: with the real agent. `broker`: with RabbitMQ."""
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(private_server(find_programs() or missing("postgresql")))
        redis = stack.enter_context(private_redis())
        rabbitmq = stack.enter_context(private_rabbitmq()) if broker else None
        upstream = await stack.enter_async_context(WireUpstream(script()))
        database = postgres.url(postgres.create())
        disk = stack.enter_context(_disk(shared / "data"))
        (deeds := shared / "deeds").mkdir()
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
            "LEASE_TIME": f"{LEASE_S:g}s",
            "HEALTH_CHECK_INTERVAL": "1s",
            "SHUTDOWN_TIMEOUT": "5s",
            "DATABASE_STATEMENT_TIMEOUT": "5s",
            "MAX_WORKERS": "4",
            "MAX_QUEUE": "1000",
            "AGENT_POOL_SIZE": "0",
            "LOG_LEVEL": "info",
        }
        if rabbitmq is not None:
            await rabbitmq.settle()
            env["RABBITMQ_URL"] = rabbitmq.url
        if not real:
            env["DEEDS_DIR"] = str(deeds)
        servers = {}
        behind = {"database": database, "redis": redis.url}
        for name in (
            f"{role}-{number}" for role, count in ROLES.items() for number in range(count)
        ):
            made = partial(_server, shared, name, env, real=real)
            servers[name] = await _kept(stack, made, behind)
        await _start(stack, list(servers.values()))
        ports = [each.server.port for each in servers.values() if each.name.startswith("api")]
        url = await stack.enter_async_context(nginx(ports))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=url,
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                timeout=httpx.Timeout(30.0, connect=5.0, pool=60.0),
                limits=httpx.Limits(max_connections=200, max_keepalive_connections=0),
            )
        )
        yield Place(
            shared, url, client, servers, postgres, redis, rabbitmq, upstream, database, deeds, disk
        )


def _server(
    shared: Path, name: str, env: Mapping[str, str], own: Mapping[str, str], *, real: bool
) -> Replica:
    role = name.partition("-")[0]
    return (Command if real else Scripted)(shared, name, role, {**env, **own})


async def _kept(
    stack: AsyncExitStack, made: Callable[[Mapping[str, str]], Replica], behind: Mapping[str, str]
) -> Kept:
    """A server with proxies of its own before what it stands on."""
    proxies, own = {}, {}
    for part, url in behind.items():
        there = make_url(url)
        assert there.port is not None
        proxy = proxies[part] = await stack.enter_async_context(Proxy(there.port))
        through = there.set(port=proxy.port).render_as_string(hide_password=False)
        own[f"{part.upper()}_URL"] = through
    server = made(own)
    stack.push_async_callback(server.client.aclose)
    return Kept(server, proxies)


async def _start(stack: AsyncExitStack, servers: list[Kept]) -> None:
    group = await stack.enter_async_context(_keeping())
    stack.push_async_callback(_end, servers)
    async with asyncio.timeout(START_S):
        group.append(asyncio.create_task(servers[0].keep()))  # which makes the tables
        await servers[0].ready()
        group += [asyncio.create_task(each.keep()) for each in servers[1:]]
        await asyncio.gather(*(each.ready() for each in servers))


@asynccontextmanager
async def _keeping() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _end(servers: list[Kept]) -> None:
    for each in servers:
        each._wanted.clear()
        each.send(signal.SIGCONT)
        each.send(signal.SIGKILL)
    await asyncio.gather(*(each._gone() for each in servers))


@contextmanager
def _disk(path: Path) -> Iterator[Path | None]:
    """A small disk of its own at `path`, where this user may mount one."""
    path.mkdir()
    size = f"size={DISK_MIB}m"
    mounting = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mounting, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
