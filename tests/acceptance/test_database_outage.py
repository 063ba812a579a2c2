"""The real PostgreSQL goes away in the middle of load, in each way that it can, and comes back.

What must go on goes on, what spends is refused in its route's shape, nothing is lost or billed that
was not done, and all recovers without a restart of ours.
"""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from stationmaster.budgets.proof import prove
from stationmaster.storage import open_database
from tests.support.postgres import PostgresServer, find_programs, private_server
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.services import missing
from tests.support.wire_upstream import Reply, Text, WireUpstream

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

CLIENTS = 6
MESSAGE = {"model": "haiku", "max_tokens": 64, "messages": [{"role": "user", "content": "Hello"}]}
CHAT = {"model": "haiku", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that nobody else uses, so that it may be stopped."""
    with private_server(find_programs() or missing("postgresql")) as server:
        yield server


class Load:
    """Clients that call models all the time, and what they were answered."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.served = 0
        self.refused: list[httpx.Response] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _client(self, number: int) -> None:
        path, body = ("/v1/messages", MESSAGE) if number % 2 else ("/v1/chat/completions", CHAT)
        while True:
            answer = await self._server.client.post(path, json=body)
            if answer.status_code == 200:
                self.served += 1
            else:
                self.refused.append(answer)
                await asyncio.sleep(0.02)

    async def more(self, count: int = 10) -> None:
        """Return once so many more calls were served."""
        goal = self.served + count
        while self.served < goal:
            await asyncio.sleep(0.02)

    async def refusals(self, count: int = 10) -> list[httpx.Response]:
        """Return so many more refusals."""
        before = len(self.refused)
        while len(self.refused) < before + count:
            await asyncio.sleep(0.02)
        return self.refused[before:]


async def until(server: ServerProcess, path: str, status: int) -> httpx.Response:
    while True:
        answer = await server.client.get(path)
        if answer.status_code == status:
            return answer
        await asyncio.sleep(0.05)


def as_its_route_says(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert float(answer.headers["retry-after"]) > 0
    body: dict[str, Any] = answer.json()
    if answer.request.url.path == "/v1/messages":
        assert body["type"] == "error"
        assert body["error"]["type"] == "api_error"
    elif answer.request.url.path == "/v1/chat/completions":
        assert body["error"]["type"] == "server_error"
    else:
        assert body["code"].startswith(("database", "commit"))


async def assert_degraded(server: ServerProcess, load: Load) -> None:
    """How a server is while its database is away."""
    ready = await until(server, "/ready", 503)
    assert ready.json()["reason"] == "database_not_ready"
    assert "retry-after" in ready.headers
    assert (await server.client.get("/live")).status_code == 200
    health = await server.client.get("/health")
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert health.json()["services"]["database"]["status"] == "down"
    for answer in await load.refusals():
        as_its_route_says(answer)
    as_its_route_says(await server.client.post("/v1/tasks", json={"description": "Hello"}))
    # Who asks is still known by what is remembered, and an unknown key cannot be looked up.
    assert (await server.client.get("/v1/models")).status_code == 200
    stranger = {"authorization": "Bearer sm_unknown-key-0123456789"}
    assert (await server.client.get("/v1/models", headers=stranger)).status_code in {401, 503}


async def assert_whole(server: ServerProcess, url: str, load: Load) -> None:
    """How it is again afterwards, with nothing done to it."""
    await until(server, "/ready", 200)
    await load.more()
    assert (await server.client.get("/health")).json()["services"]["database"]["status"] == "ok"
    assert (await server.run_task())["status"] == "completed"


@pytest.mark.parametrize("way", ["stopped", "hanging", "cut off", "late"])
async def test_postgresql_goes_away_under_load(
    tmp_path: Path, own_postgres: PostgresServer, way: str
) -> None:
    url = own_postgres.url(own_postgres.create())
    async with Proxy(own_postgres.port) as proxy:

        def drop(dropping: bool) -> None:
            proxy.dropping = dropping

        away, back = {
            "stopped": (own_postgres.pause, own_postgres.resume),
            "hanging": (own_postgres.hang, own_postgres.wake),
            "cut off": (lambda: drop(True), lambda: drop(False)),
            "late": (proxy.stall, proxy.flow),  # nothing is lost: all that was sent arrives then
        }[way]
        through = make_url(url).set(port=proxy.port).render_as_string(hide_password=False)
        env = {
            "DATABASE_URL": through,
            "AGENT": "scripted",
            "DATABASE_STATEMENT_TIMEOUT": "5s",
            # What is at work outlives the outage, whose length the machine decides here.
            "LEASE_TIME": "10m",
        }
        async with ServerProcess(tmp_path, env) as server:
            load = Load(server)
            async with load.running():
                await load.more()
                assert (await server.client.get("/v1/models")).status_code == 200
                away()
                try:
                    await assert_degraded(server, load)
                finally:
                    back()
                await assert_whole(server, url, load)
            assert await server.stop() == 0
        assert "Traceback" not in server.output
        served = load.served
    await assert_books(url, served)


async def assert_books(url: str, served: int) -> None:
    """Nothing is open, the books agree, and every call that was served stands in them."""
    database = open_database(url)
    proof = await prove(database)
    await database.close()
    assert proof.holds_good, proof.differences
    assert proof.holds == 0
    assert proof.lines >= served


@pytest.mark.parametrize("way", ["stopped", "hanging"])
async def test_a_turn_that_runs_meanwhile_ends_as_it_would_have(
    tmp_path: Path, own_postgres: PostgresServer, way: str
) -> None:
    url = own_postgres.url(own_postgres.create())
    away, back = {
        "stopped": (own_postgres.pause, own_postgres.resume),
        "hanging": (own_postgres.hang, own_postgres.wake),
    }[way]
    asked, go = asyncio.Event(), asyncio.Event()

    def held(_request: dict[str, Any]) -> Reply:
        asked.set()
        return Reply((Text("Done."),), hold=go)

    async with WireUpstream(held) as upstream:
        env = {
            "DATABASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
            "LEASE_TIME": "10m",
        }
        async with ServerProcess(tmp_path, env) as server:
            task_id = await server.submit()
            await asked.wait()
            away()
            await until(server, "/ready", 503)
            go.set()  # the model answers, and the agent goes on, while nothing can be written
            await upstream.message_calls[0].done.wait()
            assert (await server.client.get("/ready")).status_code == 503
            back()
            task = await server.finished(task_id)
            assert task["status"] == "completed", task
            events = await server.events(task_id)
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            assert len([event for event in events if event["type"] == "run.ended"]) == 1
            await server.no_agents_left()


async def test_a_sqlite_file_that_may_not_grow(tmp_path: Path) -> None:
    """As by a quota: the system lets the file become no larger. (A full disk: `test_faults`.)"""
    async with ServerProcess(tmp_path, {"AGENT": "scripted"}) as server:
        load = Load(server)
        async with load.running():
            await load.more()
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            for answer in await load.refusals():
                as_its_route_says(answer)
            assert (await server.client.get("/live")).status_code == 200
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)
            await load.more()
        assert (await server.run_task())["status"] == "completed"
        assert await server.stop() == 0
    await assert_books(f"sqlite:///{server.data_dir}/stationmaster.db", load.served)
