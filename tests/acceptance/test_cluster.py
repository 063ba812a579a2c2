"""A cluster of real processes: two APIs behind nginx, two workers, a scheduler, PostgreSQL, Redis.

No request has a home: each goes to whichever server nginx picks, and what runs is on a worker.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http.managed import ASK, TOOLSET, WEATHER, Talk, said, talk, text
from tests.http.streams import Frame, frames
from tests.support.cluster import Cluster, Replica, cluster, settings
from tests.support.playing_server import TOOLS
from tests.support.sdk import sdk
from tests.support.server import ADMIN_KEY

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 120.0
LEASE = "2s"


@pytest.fixture
def env(postgres_url: str, redis_url: str) -> dict[str, str]:
    return settings(postgres_url, redis_url, LEASE_TIME=LEASE)


@pytest.fixture
async def town(scratch: Path, env: dict[str, str]) -> AsyncIterator[Cluster]:
    async with cluster(scratch, env) as made:
        yield made


async def events_after(
    client: httpx.AsyncClient, path: str, after: int, *, live: bool = False
) -> AsyncIterator[Frame]:
    """What is kept behind a number, as it comes; with `live` also what is not kept."""
    headers = {"last-event-id": str(after), "accept": "text/event-stream"}
    async with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for frame in frames(answer):
            if frame is not None and (live or frame.id is not None):
                yield frame


async def cut_at_each(clients: Sequence[httpx.AsyncClient], path: str, last: str) -> list[Any]:
    """Follow with a new connection for each event, to the next server each time."""
    numbers: list[int] = [0]
    async with asyncio.timeout(WAIT_S):
        while True:
            client = clients[len(numbers) % len(clients)]
            async for frame in events_after(client, path, numbers[-1]):
                assert frame.id is not None
                numbers.append(frame.id)
                if frame.type == last:
                    return numbers[1:]
                break


async def news_passes(replica: Replica, *, how: bool = True) -> None:
    """Return once it does, or once it does not."""
    async with asyncio.timeout(WAIT_S):
        while (await replica.health())["services"]["news"].get("shared", False) != how:
            await asyncio.sleep(0.1)


async def talking(town: Cluster, tools: Sequence[Any], words: str) -> Talk:
    """A session with a turn begun."""
    async with sdk(town.url, ADMIN_KEY) as client:
        session = await talk(client, *tools)
        await session.send(text(words))
        return session


def stream_of(session: Talk) -> str:
    return f"/v1/sessions/{session.id}/events/stream"


async def until_idle(town: Cluster, session: Talk, reason: str) -> list[Frame]:
    """A session's events up to the idle with that reason, through the front."""
    found = []
    async with asyncio.timeout(WAIT_S):
        async for frame in events_after(town.client, stream_of(session), 0):
            found.append(frame)
            if frame.type == "session.status_idle" and frame.data["stop_reason"]["type"] == reason:
                return found
            assert frame.type != "session.status_terminated", frame
    raise AssertionError(found)


# --- any replica --------------------------------------------------------------------------------


async def test_a_stream_is_read_through_whichever_server_and_cut_at_each_event(
    town: Cluster,
) -> None:
    answer = await town.client.post("/v1/tasks", json={"description": "work"})
    assert answer.status_code == 202, answer.text
    path = f"/v1/tasks/{answer.json()['task_id']}/events"
    clients = [town.client, *(api.client for api in town.apis)]
    numbers, again = await asyncio.gather(
        cut_at_each(clients, path, "run.ended"), cut_at_each(clients[1:], path, "run.ended")
    )
    assert numbers == again == list(range(1, len(numbers) + 1))
    assert len(numbers) > TOOLS


async def test_pieces_of_an_answer_show_on_every_server_while_it_is_written(town: Cluster) -> None:
    session = await talking(town, [TOOLSET], "hello")
    await until_idle(town, session, "end_turn")

    async def pieces(api: Replica) -> list[str]:
        found = []
        async for frame in events_after(api.client, stream_of(session), 1, live=True):
            found.append(frame.type)
            if found.count("session.status_idle") == 2:
                return found
        raise AssertionError(found)

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as readers:
        reading = [readers.create_task(pieces(api)) for api in town.apis]
        await asyncio.sleep(0)
        async with sdk(town.url, ADMIN_KEY) as client:
            await Talk(client, session.id).send(text("hello"))
    first, second = (sorted(each.result()) for each in reading)
    assert first == second
    assert len(set(first)) > 2


async def test_an_approval_an_answer_an_interrupt_and_a_cancel_reach_a_worker_through_any_server(
    town: Cluster,
) -> None:
    for api, other in (town.apis, reversed(town.apis)):
        asking = await talking(town, [ASK], "ask")
        await until_idle(town, asking, "requires_action")
        waiting = await api.client.get("/v1/approvals", params={"session_id": asking.id})
        [approval] = waiting.json()["approvals"]
        decided = await other.client.post(
            f"/v1/approvals/{approval['id']}", json={"decision": "allow"}
        )
        assert decided.status_code == 200, decided.text
        await until_idle(town, asking, "end_turn")

        custom = await talking(town, [WEATHER], "weather")
        found = await until_idle(town, custom, "requires_action")
        [use] = [frame for frame in found if frame.type == "agent.custom_tool_use"]
        async with sdk(other.url, ADMIN_KEY) as client:
            result = {"type": "user.custom_tool_result", "custom_tool_use_id": use.data["id"]}
            await Talk(client, custom.id).send(
                {**result, "content": [{"type": "text", "text": "Rain."}]}
            )
        await until_idle(town, custom, "end_turn")

        idle = await talking(town, [TOOLSET], "wait")
        async with asyncio.timeout(WAIT_S):
            async for frame in events_after(other.client, stream_of(idle), 0):
                if frame.type == "agent.message":
                    break
        async with sdk(api.url, ADMIN_KEY) as client:
            await Talk(client, idle.id).send({"type": "user.interrupt"})
        await until_idle(town, idle, "end_turn")

        made = await api.client.post("/v1/tasks", json={"description": "wait"})
        task_id = made.json()["task_id"]
        async with asyncio.timeout(WAIT_S):
            async for frame in events_after(other.client, f"/v1/tasks/{task_id}/events", 0):
                if frame.type == "run.started":
                    break
        cancelled = await other.client.post(f"/v1/tasks/{task_id}/cancel")
        assert cancelled.status_code in {200, 202}, cancelled.text
        assert (await api.finished(task_id))["status"] == "cancelled"


async def test_roles_do_their_own_work_alone(town: Cluster) -> None:
    for api in town.apis:
        services = (await api.health())["services"]
        assert services["worker_pool"]["max_workers"] == 0
        await news_passes(api)
    for replica in (*town.workers, *town.schedulers):
        for path, status in (("/live", 200), ("/ready", 200), ("/metrics", 200), ("/health", 200)):
            assert (await replica.client.get(path)).status_code == status
        for path in ("/v1/tasks", "/", "/v1/messages", "/api/admin/keys"):
            refused = await replica.client.get(path)
            assert refused.status_code == 404, (replica.name, path, refused.text)
    assert (await town.schedulers[0].health())["services"]["scheduler"]["leads"] is True
    ids = [
        (await town.client.post("/v1/tasks", json={"description": "work"})).json()["task_id"]
        for _ in range(6)
    ]
    for task_id in ids:
        assert (await town.apis[0].finished(task_id))["status"] == "completed"
    ran = [worker.output.count("A run starts.") for worker in town.workers]
    assert sum(ran) == 6
    assert not any("A run starts." in api.output for api in town.apis)


# --- those that are lost ------------------------------------------------------------------------


async def worker_of(town: Cluster, run_id: str) -> Replica:
    """Who carries a run out."""
    async with asyncio.timeout(WAIT_S):
        while True:
            for worker in town.workers:
                if any(run_id in line and "A run starts." in line for line in _lines(worker)):
                    return worker
            await asyncio.sleep(0.02)


async def spoken(town: Cluster, task_id: str) -> None:
    """Return once the task's agent has begun: one that has not would be begun by another."""
    async with asyncio.timeout(WAIT_S):
        async for frame in events_after(town.client, f"/v1/tasks/{task_id}/events", 0):
            if frame.type == "agent.message":
                return


def _lines(replica: Replica) -> list[str]:
    return replica.output.splitlines()


async def test_a_turn_goes_on_elsewhere_when_its_worker_is_killed(town: Cluster) -> None:
    session = await talking(town, [TOOLSET], "wait")
    number = 0
    run_id = ""
    async with asyncio.timeout(WAIT_S):
        async for frame in events_after(town.client, stream_of(session), 0):
            assert frame.id is not None
            number = frame.id
            if frame.type == "agent.message":
                break
    [run_id] = {
        line.split('"run_id":"')[1].split('"')[0]
        for worker in town.workers
        for line in _lines(worker)
        if "A run starts." in line and session.id in line
    }
    lost = await worker_of(town, run_id)
    await lost.kill()
    rest = []
    async with asyncio.timeout(WAIT_S):
        async for frame in events_after(town.client, stream_of(session), number):
            rest.append(frame)
            if frame.type == "session.status_idle":
                break
    assert "session.status_rescheduled" in [frame.type for frame in rest]
    async with sdk(town.url, ADMIN_KEY) as client:
        assert said(await Talk(client, session.id).events()).endswith("It is done.")
    await lost.start()  # to be stopped in good order


async def test_who_slept_past_its_lease_writes_nothing_more(town: Cluster) -> None:
    made = await town.client.post("/v1/tasks", json={"description": "wait"})
    task_id = made.json()["task_id"]
    asleep = await worker_of(town, task_id)
    await spoken(town, task_id)
    asleep.send(signal.SIGSTOP)
    try:
        task = await town.apis[0].finished(task_id)
        assert (task["status"], task["error"]["code"]) == ("interrupted", "worker_lost")
        book = await town.apis[0].events(task_id)
    finally:
        asleep.send(signal.SIGCONT)
    async with asyncio.timeout(WAIT_S):
        while "taken for dead" not in asleep.output or "abandoned" not in asleep.output:
            await asyncio.sleep(0.05)
        while (await asleep.health())["services"]["worker_pool"]["active_workers"]:
            await asyncio.sleep(0.05)
    assert await town.apis[1].events(task_id) == book
    another = await town.client.post("/v1/task", json={"description": "hello"})
    assert another.json()["status"] == "completed"
