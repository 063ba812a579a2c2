"""Servers that take one job each: behind nginx, or as workers. A supervisor keeps them up."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_ephemeral import TASK, frames_of
from tests.support.cluster import Command, OneShot, Playing, Replica, settings
from tests.support.nginx import balancer, documented
from tests.support.server import ADMIN_KEY, FINISHED
from tests.support.supervisor import Supervisor, supervised

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SITE = documented(ROOT / "docs" / "guides" / "execute.md")
N = 3
JOBS = 2 * N
WAIT_S = 180.0
WAIT = {"description": "wait"}  # until it is cancelled


@pytest.fixture
def env(postgres_url: str, redis_url: str) -> dict[str, str]:
    return settings(postgres_url, redis_url, OFFLINE_DELAY="0s", LEASE_TIME="10s")


@dataclass(frozen=True)
class Town:
    """Disposable servers, and the way in."""

    client: httpx.AsyncClient
    replicas: Sequence[Replica]
    supervisor: Supervisor
    others: Sequence[Replica] = ()

    async def get(self, path: str, **rest: Any) -> Any:
        """What is there. While all are being started nobody answers."""
        while (answer := await self.client.get(path, **rest)).status_code == 502:
            await asyncio.sleep(0.1)
        return answer.raise_for_status().json()

    async def finished(self, task_id: str) -> Any:
        """A task once it has ended."""
        while (task := await self.get(f"/v1/tasks/{task_id}"))["status"] not in FINISHED:
            await asyncio.sleep(0.1)
        return task

    async def who_runs(self, *words: str) -> Replica:
        """The server whose last run is of these."""
        while True:
            for replica in self.replicas:
                lines = [line for line in replica.output.splitlines() if "A run starts." in line]
                if lines and all(word in lines[-1] for word in words):
                    return replica
            await asyncio.sleep(0.05)

    async def spoken(self, task_id: str) -> None:
        """Return once its agent has begun: a task that has not would be begun by another."""
        path = f"/v1/tasks/{task_id}/events"
        while True:
            told = await self.get(path, headers={"accept": "application/json"})
            if any(event["type"] == "agent.message" for event in told["events"]):
                return
            await asyncio.sleep(0.05)

    def agents(self) -> set[int]:
        """The processes of agents that are there."""
        found = {pid for replica in self.replicas for pid in replica.agent_processes()}
        return found - {replica.pid for replica in (*self.replicas, *self.others)}

    @property
    def runs(self) -> int:
        """How many were begun, of all servers together."""
        return sum(replica.output.count("A run starts.") for replica in self.replicas)

    async def tasks(self) -> list[Any]:
        """All there are."""
        found: list[Any] = (await self.get("/v1/tasks", params={"limit": 100}))["tasks"]
        return found


@asynccontextmanager
async def servers(
    scratch: Path, env: Mapping[str, str], kind: type[Replica], role: str
) -> AsyncIterator[Town]:
    """`N` that serve and take one job each, behind the nginx of the guide."""
    env = {**env, "EPHEMERAL": "true"}
    replicas = [kind(scratch, f"replica-{number}", role, env) for number in range(N)]
    async with AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(supervised(replicas))
        ports = [replica.port for replica in replicas]
        front = await stack.enter_async_context(balancer(ports, site=SITE))
        client = await stack.enter_async_context(_client(front.url))
        yield Town(client, replicas, supervisor)


@asynccontextmanager
async def workers(
    scratch: Path, env: Mapping[str, str], kind: type[Replica], api: type[Replica]
) -> AsyncIterator[Town]:
    """`N` workers that carry one run out each, and an API that does none."""
    env_of_workers = {**env, "EPHEMERAL": "true"} if kind is Playing else env
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(api(scratch, "api", "api", env))
        replicas = [
            kind(scratch, f"worker-{number}", "worker", env_of_workers) for number in range(N)
        ]
        supervisor = await stack.enter_async_context(supervised(replicas))
        client = await stack.enter_async_context(_client(door.url))
        yield Town(client, replicas, supervisor, [door])


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=WAIT_S
    )


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is."""
    while not await true():
        await asyncio.sleep(0.1)


def of_a_busy_one(answer: httpx.Response) -> bool:
    """Whether it was refused since all are busy, and says when to come again."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "replica_busy"
    return int(answer.headers["retry-after"]) > 0


# --- servers behind nginx -----------------------------------------------------------------------


async def test_every_job_is_done_once_or_refused(scratch: Path, env: dict[str, str]) -> None:
    async with asyncio.timeout(WAIT_S), servers(scratch, env, Command, "serve") as town:

        async def have_done(number: int) -> str:
            while True:
                answer = await town.client.post("/v1/tasks", json={"description": TASK})
                if answer.status_code == 202:
                    return str(answer.json()["task_id"])
                assert of_a_busy_one(answer), number
                await asyncio.sleep(0.2)

        ids = await asyncio.gather(*(have_done(number) for number in range(JOBS)))
        tasks = [await town.finished(task_id) for task_id in ids]
        assert [task["status"] for task in tasks] == ["completed"] * len(ids)
        assert sorted(task["task_id"] for task in await town.tasks()) == sorted(ids)
        assert town.runs == len(ids)
        await until(lambda: _all_ended(town, len(ids)))
        assert set(town.supervisor.statuses) == {0}
        await town.supervisor.all_up()
        assert town.agents() == set()


async def _all_ended(town: Town, number: int) -> bool:
    return len(town.supervisor.statuses) >= number


async def test_who_is_told_of_its_end_is_told_all_of_it(scratch: Path, env: dict[str, str]) -> None:
    """Each request is answered by the server that carries its job out, before that ends."""
    async with asyncio.timeout(WAIT_S), servers(scratch, env, Playing, "all") as town:

        async def execute() -> list[Any]:
            while True:
                body = {"prompt": "work"}
                answer = await town.client.post("/api/execute", json=body)
                if answer.status_code == 200:
                    return frames_of(answer.text)
                assert of_a_busy_one(answer)
                await asyncio.sleep(0.2)

        told = await asyncio.gather(*(execute() for _ in range(JOBS)))
        assert [each[-1]["type"] for each in told] == ["completed"] * len(told)
        assert len({each[0]["sessionId"] for each in told}) == len(told) == town.runs


async def test_one_that_is_killed_loses_no_job_and_comes_back(
    scratch: Path, env: dict[str, str]
) -> None:
    async with asyncio.timeout(WAIT_S), servers(scratch, env, Playing, "all") as town:
        ids = []
        for _ in range(N - 1):
            answer = await town.client.post("/v1/tasks", json=WAIT)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["task_id"])
        waiting = asyncio.create_task(town.client.post("/v1/task", json=WAIT))
        await until(lambda: _as_many(town, N))
        assert of_a_busy_one(await town.client.post("/v1/tasks", json=WAIT))
        [third] = {task["task_id"] for task in await town.tasks()} - set(ids)

        lost = await town.who_runs(third)
        await town.spoken(third)
        lost.send(signal.SIGKILL)
        # Nginx has sent its request to another one, and that has not begun the job again.
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_use")
        task = await town.finished(third)
        assert (task["status"], task["error"]["code"]) == ("interrupted", "worker_lost")
        assert len(await town.tasks()) == town.runs == N

        await town.supervisor.all_up()
        answer = await town.client.post("/v1/tasks", json=WAIT)
        assert answer.status_code == 202, answer.text
        assert await town.who_runs(answer.json()["task_id"]) is lost
        assert of_a_busy_one(await town.client.post("/v1/tasks", json=WAIT))
        assert town.supervisor.statuses == [-signal.SIGKILL]


async def _as_many(town: Town, number: int) -> bool:
    return town.runs >= number


async def test_a_session_whose_server_is_killed_goes_on_with_another(
    scratch: Path, env: dict[str, str]
) -> None:
    async with asyncio.timeout(WAIT_S), servers(scratch, env, Playing, "all") as town:
        async with town.client.stream("POST", "/api/execute", json={"prompt": "wait"}) as answer:
            lines = answer.aiter_lines()
            [connected] = frames_of(await anext(lines))
            session_id = connected["sessionId"]
            async for line in lines:
                if "I wait." in line:
                    break
            lost = await town.who_runs(session_id)
            lost.send(signal.SIGKILL)
            with pytest.raises(httpx.TransportError):
                async for _ in lines:
                    pass
        await until(lambda: _is_done(town, session_id))
        await until(lambda: _all_ended(town, 2))
        await town.supervisor.all_up()
        assert town.runs == 2  # the turn, and again from where it was
        assert sorted(town.supervisor.statuses) == [-signal.SIGKILL, 0]


async def _is_done(town: Town, session_id: str) -> bool:
    answer = await town.client.get(f"/api/stream/{session_id}")
    return answer.status_code == 200 and "It is done." in answer.text


# --- workers ------------------------------------------------------------------------------------


async def test_workers_for_one_run_each_do_all_that_wait(
    scratch: Path, env: dict[str, str]
) -> None:
    async with asyncio.timeout(WAIT_S), workers(scratch, env, OneShot, Command) as town:
        body = {"description": TASK}
        made = await asyncio.gather(
            *(town.client.post("/v1/tasks", json=body) for _ in range(JOBS))
        )
        assert [answer.status_code for answer in made] == [202] * len(made)
        for answer in made:
            task = await town.finished(answer.json()["task_id"])
            assert task["status"] == "completed", (task, [r.output for r in town.replicas])
        assert town.runs == len(made)
        await until(lambda: _all_ended(town, len(made)))
        assert town.supervisor.statuses == [0] * len(made)
        await town.supervisor.all_up()
        assert town.agents() == set()


async def test_a_worker_that_is_killed_comes_back_for_what_waits(
    scratch: Path, env: dict[str, str]
) -> None:
    async with asyncio.timeout(WAIT_S), workers(scratch, env, Playing, Playing) as town:
        ids = []
        for _ in range(N):
            answer = await town.client.post("/v1/tasks", json=WAIT)
            ids.append(answer.json()["task_id"])
        await until(lambda: _as_many(town, N))
        queued = (await town.client.post("/v1/tasks", json={"description": "work"})).json()
        assert (await town.get(f"/v1/tasks/{queued['task_id']}"))["status"] == "pending"

        lost = await town.who_runs(ids[0])
        await town.spoken(ids[0])
        lost.send(signal.SIGKILL)
        task = await town.finished(ids[0])
        assert (task["status"], task["error"]["code"]) == ("interrupted", "worker_lost")
        assert (await town.finished(queued["task_id"]))["status"] == "completed"
        assert await town.who_runs(queued["task_id"]) is lost
        await until(lambda: _all_ended(town, 2))
        assert town.supervisor.ended[lost] == [-signal.SIGKILL, 0]
        assert town.runs == N + 1

        await town.supervisor.all_up()
        for task_id in ids[1:]:
            assert (await town.client.post(f"/v1/tasks/{task_id}/cancel")).is_success
            assert (await town.finished(task_id))["status"] == "cancelled"
        await until(lambda: _all_ended(town, N + 1))
        assert sorted(town.supervisor.statuses) == [-signal.SIGKILL, 0, 1, 1]
