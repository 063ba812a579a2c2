"""Machines whose clocks are minutes apart: nothing is stolen, and nothing is over too soon."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect

from tests.acceptance.test_cluster import events_after, stream_of, talking, until_idle
from tests.http.managed import ASK, TOOLSET, Talk
from tests.support.cluster import Cluster, Replica, cluster, settings
from tests.support.off_clock import set_off
from tests.support.sdk import sdk
from tests.support.server import ADMIN_KEY

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 120.0
OFF_S = 600.0
APPROVAL_S = 300.0
RENEWALS = 6  # two leases


@pytest.fixture
def env(postgres_url: str, redis_url: str) -> dict[str, str]:
    return settings(
        postgres_url,
        redis_url,
        LEASE_TIME="2s",
        HEALTH_CHECK_INTERVAL="1s",
        APPROVAL_TIMEOUT=f"{APPROVAL_S:.0f}s",
    )


@pytest.fixture
async def apart(scratch: Path, env: dict[str, str]) -> AsyncIterator[Cluster]:
    """An API and a worker are ten minutes ahead, the others ten behind; the scheduler is right."""
    async with cluster(scratch, env) as made:
        for group in (made.apis, made.workers):
            for replica, off in zip(group, (OFF_S, -OFF_S), strict=True):
                set_off(replica.directory, off)
        await asyncio.gather(*(clock_is(each, "degraded") for each in (*made.apis, *made.workers)))
        yield made


async def clock_is(replica: Replica, status: str) -> dict[str, object]:
    async with asyncio.timeout(WAIT_S):
        while (found := (await replica.health())["services"]["clock"])["status"] != status:
            await asyncio.sleep(0.1)
    told: dict[str, object] = found
    return told


async def leases_are_renewed(url: str) -> None:
    """Return once every server that is listed has done so some times more, the same all along."""
    connection = await asyncpg.connect(url)
    try:
        seen: dict[str, set[int]] = {}
        async with asyncio.timeout(WAIT_S):
            while not seen or min(map(len, seen.values())) < RENEWALS:
                rows = await connection.fetch("SELECT id, lease_until FROM instances")
                listed = {row["id"] for row in rows}
                assert not seen or listed == set(seen), "one was taken for dead"
                for row in rows:
                    seen.setdefault(row["id"], set()).add(row["lease_until"])
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def test_a_machine_whose_clock_is_off_says_so_once_and_what_to_do(apart: Cluster) -> None:
    ahead, behind = apart.workers
    for replica, words, sign in ((ahead, "ahead of", 1), (behind, "behind", -1)):
        told = (await replica.health())["services"]["clock"]
        assert f"600.0 s {words} the database's" in told["warning"]
        assert "NTP" in told["warning"]
        assert abs(await replica.metric("clock_offset_seconds ") - sign * OFF_S) < OFF_S / 2
    assert (await apart.schedulers[0].health())["services"]["clock"]["status"] == "ok"
    set_off(ahead.directory, 0.0)
    await clock_is(ahead, "ok")

    def said(replica: Replica) -> list[str]:
        lines = [json.loads(line) for line in replica.output.splitlines() if line.startswith("{")]
        return [line["status"] for line in lines if line.get("part") == "clock"]

    async with asyncio.timeout(WAIT_S):
        while said(ahead) != ["degraded", "ok"]:
            await asyncio.sleep(0.1)
    assert said(behind) == ["degraded"]


async def test_no_live_run_is_taken_over_and_the_dead_ones_are(
    apart: Cluster, postgres_url: str
) -> None:
    waits = [await talking(apart, [TOOLSET], "wait") for _ in range(3)]
    for session in waits:
        async with asyncio.timeout(WAIT_S):
            async for frame in events_after(apart.client, stream_of(session), 0):
                if frame.type == "agent.message":
                    break
    await leases_are_renewed(postgres_url)
    for replica in apart.all:
        assert "taken for dead" not in replica.output
        assert "a dead server" not in replica.output
    for session in waits:
        async with sdk(apart.url, ADMIN_KEY) as client:
            shown = await client.beta.sessions.retrieve(session.id)
            assert shown.status == "running"
            assert (await Talk(client, session.id).events())[-1].type == "agent.message"
    lost = apart.workers[0]
    await lost.kill()
    for session in waits:
        async with sdk(apart.url, ADMIN_KEY) as client:
            if f'"session_id":"{session.id}"' not in lost.output:
                await Talk(client, session.id).send({"type": "user.interrupt"})
        found = await until_idle(apart, session, "end_turn")
        numbers = [frame.id or 0 for frame in found]
        assert numbers == sorted(set(numbers))
    await lost.start()


async def test_tickets_and_approvals_last_as_long_as_they_should(apart: Cluster) -> None:
    for here, there in (apart.apis, reversed(apart.apis)):
        ticket = (await here.client.post("/v1/stream/tickets", json={})).json()["ticket"]
        url = there.url.replace("http://", "ws://") + f"/v1/stream?ticket={ticket}"
        async with connect(url, proxy=None) as socket:
            await socket.send(json.dumps({"type": "ping"}))
            assert json.loads(await socket.recv())["type"] == "pong"

        asking = await talking(apart, [ASK], "ask")
        await until_idle(apart, asking, "requires_action")
        listed = await here.client.get("/v1/approvals", params={"session_id": asking.id})
        [approval] = listed.json()["approvals"]
        lasts = datetime.fromisoformat(approval["expires_at"]).timestamp() - time.time()
        assert abs(lasts - APPROVAL_S) < OFF_S / 4
        decided = await there.client.post(
            f"/v1/approvals/{approval['id']}", json={"decision": "allow"}
        )
        assert decided.status_code == 200, decided.text
        await until_idle(apart, asking, "end_turn")


async def test_what_waits_in_the_queue_is_not_late_elsewhere(
    scratch: Path, env: dict[str, str]
) -> None:
    env = {**env, "MAX_WORKERS": "1", "QUEUE_TIMEOUT": "5m"}
    async with cluster(scratch, env, workers=1) as town:
        set_off(town.apis[0].directory, -OFF_S)
        set_off(town.workers[0].directory, OFF_S)
        await clock_is(town.apis[0], "degraded")
        await clock_is(town.workers[0], "degraded")
        first = await talking(town, [TOOLSET], "wait")
        async with asyncio.timeout(WAIT_S):
            async for frame in events_after(town.client, stream_of(first), 0):
                if frame.type == "agent.message":
                    break
        made = await town.apis[0].client.post("/v1/tasks", json={"description": "hello"})
        task_id = made.json()["task_id"]
        await leases_are_renewed(env["DATABASE_URL"])  # each time it is looked who waits too long
        task = await town.apis[1].client.get(f"/v1/tasks/{task_id}")
        assert task.json()["status"] == "pending", task.text
        async with sdk(town.url, ADMIN_KEY) as client:
            await Talk(client, first.id).send({"type": "user.interrupt"})
        assert (await town.apis[1].finished(task_id))["status"] == "completed"
