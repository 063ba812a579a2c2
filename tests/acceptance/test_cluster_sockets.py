"""`/v1/stream` through nginx: any server will do, and another goes on behind the number."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from stationmaster.http.sockets.connection import PATH
from tests.support.cluster import Playing, Replica, settings
from tests.support.nginx import balancer
from tests.support.server import ADMIN_KEY

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

WAIT_S = 60.0
HEADERS = {"authorization": f"Bearer {ADMIN_KEY}"}


@dataclass(frozen=True)
class Town:
    """Two APIs behind nginx, and a worker somewhere."""

    url: str
    apis: list[Replica]


@asynccontextmanager
async def town_of(shared: Path, env: dict[str, str]) -> AsyncIterator[Town]:
    apis = [Playing(shared, f"api-{each}", "api", env) for each in range(2)]
    worker = Playing(shared, "worker", "worker", env)
    # One after the other: the first makes the tables.
    async with apis[0], apis[1], worker, balancer([api.port for api in apis]) as front:
        yield Town(front.url, [*apis])


@asynccontextmanager
async def socket_to(url: str) -> AsyncIterator[ClientConnection]:
    address = url.replace("http://", "ws://") + PATH
    async with connect(address, additional_headers=HEADERS, proxy=None) as socket:
        yield socket


async def until(socket: ClientConnection, last: str) -> list[dict[str, Any]]:
    """What is told up to a frame of that type."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(WAIT_S):
        while not found or found[-1]["type"] != last:
            found.append(json.loads(await socket.recv()))
    return found


async def holder(town: Town) -> Replica:
    """Whose the one open socket is."""
    async with asyncio.timeout(WAIT_S):
        while True:  # one that was just closed may still be counted
            counts = [await api.metric("sockets_open") for api in town.apis]
            if sum(counts) == 1:
                return town.apis[counts.index(1)]
            await asyncio.sleep(0.02)


def numbers(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["seq"] for frame in frames if "seq" in frame]


async def test_a_task_is_followed_on_when_the_server_of_its_socket_is_killed(
    scratch: Path, postgres_url: str, redis_url: str
) -> None:
    async with town_of(scratch, settings(postgres_url, redis_url)) as town:
        held = set[str]()
        while len(held) < len(town.apis):  # by turns, though nothing says where to
            async with socket_to(town.url) as socket:
                await socket.send(json.dumps({"type": "ping"}))
                await until(socket, "pong")
                held.add((await holder(town)).name)

        async with socket_to(town.url) as socket:
            await socket.send(json.dumps({"type": "agentic_task", "description": "wait"}))
            seen = await until(socket, "message")
            lost = await holder(town)
            await lost.kill()
            with pytest.raises(ConnectionClosedError):
                await until(socket, "result")

        [task_id] = {frame["task_id"] for frame in seen if "task_id" in frame}
        async with socket_to(town.url) as socket:
            after = numbers(seen)[-1]
            await socket.send(json.dumps({"type": "resume", "task_id": task_id, "after": after}))
            await socket.send(json.dumps({"type": "cancel", "task_id": task_id}))
            rest = await until(socket, "result")
        assert rest[-1]["status"] == "cancelled"

        async with socket_to(town.url) as socket:
            await socket.send(json.dumps({"type": "resume", "task_id": task_id, "after": 0}))
            whole = await until(socket, "result")
        assert numbers(seen) + numbers(rest) == numbers(whole)
