"""From a request to the first piece of the answer: warm agents against cold, and what they hold.

Two servers of the same code take turns, one that keeps agents warm and one that keeps none. Both
run the real agent against the same upstream, which answers at once.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import require_cli
from bench.rounds import interleaved_async
from bench.server import KEY, Server, server
from bench.upstream import upstream

WARM = {"AGENT_POOL_SIZE": "1", "AGENT_POOL_MEMORY": "8GB", "AGENT_POOL_IDLE_TIME": "1h"}
COLD = {"AGENT_POOL_SIZE": "0", "AGENT_POOL_IDLE_TIME": "0s"}
TURNS = 10
QUICK_TURNS = 3
SESSIONS = 100  # that are idle
KINDS = 2  # of agents here: a session's and a task's
WAIT_SECONDS = 60.0
LEAST_FASTER = 20.0
MIB = 1024**2


@dataclass(slots=True)
class Found:
    """Seconds to the first piece, by kind of turn."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    task: list[float] = field(default_factory=list)


def measure(plan: Plan) -> list[Figure]:
    """Times of turns, and memory."""
    require_cli()
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> list[Figure]:
    turns = QUICK_TURNS if plan.quick else TURNS
    with (
        tempfile.TemporaryDirectory(prefix="bench-warm-") as name,
        upstream("bench.scripted", "--script=answer", log=Path(name, "upstream.log")) as provider,
        server(Path(name, "warm"), upstream=provider, env=WARM) as warm,
        server(Path(name, "cold"), upstream=provider, env=COLD) as cold,
    ):
        headers = {"x-api-key": KEY, "anthropic-beta": "managed-agents-2026-04-01"}
        async with aiohttp.ClientSession(headers=headers) as http:
            sides = {"warm": await _Side.made(http, warm), "cold": await _Side.made(http, cold)}
            plan.progress.say("warming up")
            for side in sides.values():  # the disk's cache, the SDK's import, the kind in the pool
                for _ in range(2):
                    await side.session(Found(), wait=False)
            candidates: dict[str, Callable[[], Awaitable[Found]]] = {
                each: partial(side.sessions, turns) for each, side in sides.items()
            }
            found = await interleaved_async(candidates, plan.rounds, plan.progress, "sessions")
            plan.progress.say("memory")
            held, rows = await _memory(sides["warm"])
    return _figures(found, held, rows, cold_rss=rows[0])


def _figures(
    found: dict[str, list[Found]], held: float, rows: tuple[float, float], *, cold_rss: float
) -> list[Figure]:
    def middle(side: str, turn: str) -> float:
        return 1000 * float(median(median(getattr(each, turn)) for each in found[side]))

    first, second = middle("warm", "first"), middle("warm", "second")
    cold = middle("cold", "first")
    sooner = Goal("at most", 1 / LEAST_FASTER)
    return [
        Figure("message to first piece, warm agent", first, cold, "cold agent", "ms", sooner),
        Figure(
            "task to first piece, warm agent",
            middle("warm", "task"),
            middle("cold", "task"),
            "cold agent",
            "ms",
            sooner,
        ),
        Figure("second turn, of a live session", second, cold, "first turn, cold", "ms"),
        Figure("second turn, against a warm first", second, first, "first turn, warm", "ms"),
        Figure("an agent that waits", held, cold_rss, "the server itself", "MiB"),
        Figure(f"server with {SESSIONS} idle sessions", rows[1], rows[0], "without", "MiB"),
    ]


async def _memory(side: "_Side") -> tuple[float, tuple[float, float]]:
    """MiB of one waiting agent; of the server before and after a hundred idle sessions."""
    agents = await side.agents()
    held = agents["waiting_memory_bytes"] / MIB / max(1, agents["warm"] + agents["idle"])
    before = side.server.rss()
    for _ in range(SESSIONS):
        await side.create()
    return held, (before, side.server.rss())


class _Side:
    """One of the servers."""

    def __init__(self, http: aiohttp.ClientSession, ours: Server) -> None:
        self.server = ours
        self._http = http
        self._body: dict[str, Any] = {}

    @classmethod
    async def made(cls, http: aiohttp.ClientSession, ours: Server) -> "_Side":
        side = cls(http, ours)
        agent = await side._post("/v1/agents", {"name": "bench", "model": "sonnet"})
        config = {"type": "cloud"}
        place = await side._post("/v1/environments", {"name": "bench", "config": config})
        side._body = {"agent": agent["id"], "environment_id": place["id"]}
        return side

    async def agents(self) -> dict[str, Any]:
        """What `/health` says of them."""
        async with self._http.get(f"{self.server.url}/health") as answer:
            found: dict[str, Any] = (await answer.json())["services"]["agents"]
            return found

    async def create(self) -> str:
        """A session; its id."""
        return str((await self._post("/v1/sessions", self._body))["id"])

    async def sessions(self, count: int) -> Found:
        """So many sessions of two turns, and tasks, one after another."""
        found = Found()
        for _ in range(count):
            await self.session(found, wait=self.server.directory.name == "warm")
        return found

    async def session(self, found: Found, *, wait: bool) -> None:
        """A session of two turns, and a task. With `wait` an agent is warm before each first."""
        session = await self.create()
        if wait:
            await self._warm()
        found.first.append(await self._turn(session))
        found.second.append(await self._turn(session))
        await self._post(f"/v1/sessions/{session}/archive", {})
        if wait:
            await self._warm()
        found.task.append(await self._task())

    async def _warm(self) -> None:
        # Not from `/health`, which looks only now and then.
        wanted = f"\nagent_pool_warm {KINDS}.0"
        async with asyncio.timeout(WAIT_SECONDS):
            while wanted not in await self._metrics():  # noqa: ASYNC110 - not ours
                await asyncio.sleep(0.05)

    async def _metrics(self) -> str:
        async with self._http.get(f"{self.server.url}/metrics") as answer:
            return await answer.text()

    async def _turn(self, session: str) -> float:
        """Seconds from a message to the first piece of its answer. Returns when it is idle."""
        here = f"{self.server.url}/v1/sessions/{session}/events"
        message = {"type": "user.message", "content": [{"type": "text", "text": "Say hello."}]}
        wanted = {"event_deltas[]": "agent.message"}
        first = 0.0
        async with (
            asyncio.timeout(WAIT_SECONDS),
            self._http.get(f"{here}/stream", params=wanted) as stream,
        ):
            began = time.perf_counter()
            await self._post(f"/v1/sessions/{session}/events", {"events": [message]})
            async for line in stream.content:
                if line.startswith(b"event: event_delta") and not first:
                    first = time.perf_counter() - began
                if line.startswith(b"data: ") and b'"session.status_idle"' in line:
                    break
        if not first:
            raise RuntimeError("A turn ended without a piece of an answer.")
        return first

    async def _task(self) -> float:
        """Seconds from a task to the first piece of its answer. Returns when it has ended."""
        first = 0.0
        async with asyncio.timeout(WAIT_SECONDS):
            began = time.perf_counter()
            made = await self._post("/v1/tasks", {"description": "Say hello."})
            async with self._http.get(self.server.url + made["links"]["events"]) as stream:
                async for line in stream.content:
                    if line.startswith(b"event: agent.delta") and not first:
                        first = time.perf_counter() - began
        if not first:
            raise RuntimeError("A task ended without a piece of an answer.")
        return first

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._http.post(f"{self.server.url}{path}", json=body) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"POST {path}: {answer.status} {text[:500]}")
            read: dict[str, Any] = json.loads(text)
            return read


if __name__ == "__main__":
    sys.exit(run("warm", __doc__ or "", measure))
