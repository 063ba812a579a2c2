"""From a worker's death to the next event of its turn on another worker, against the lease.

A worker is killed (SIGKILL) while the real agent runs a command. The other worker sees the lease
run out, takes the turn over and starts an agent from the stored history. Its first event is
awaited at the API's event stream. Where in its lease the worker dies is left to chance. Needs
PostgreSQL's programs and Redis.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.cluster import shared
from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import require_cli
from bench.server import KEY, Server, server
from bench.upstream import upstream

LEASE_S = 10  # LEASE_TIME's default
MOST_LEASES = 2.0
WAIT_S = 120.0
DEATHS, QUICK_DEATHS = 3, 1  # in each round
WORKERS = ("one", "two")
TOOLS = [{"type": "agent_toolset_20260401"}]
TAKEN_OVER = "session.status_rescheduled"


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds from the death."""

    taken_over: float
    goes_on: float


def measure(plan: Plan) -> list[Figure]:
    """The median and the longest of all deaths."""
    require_cli()
    with _cluster() as (url, env, place):
        found = asyncio.run(_measure(plan, url, env, place))
    on = [each.goes_on for each in found]
    goal = Goal("at most", MOST_LEASES)
    taken = median(each.taken_over for each in found)
    named = f"{len(found)} deaths"
    return [
        Figure("death to the turn's being given to another", taken, LEASE_S, "the lease", "s"),
        Figure(
            "death to the turn's next event, median", median(on), LEASE_S, "the lease", "s", goal
        ),
        Figure(f"the same, the longest of {named}", max(on), LEASE_S, "the lease", "s", goal),
    ]


@contextmanager
def _cluster() -> Iterator[tuple[str, dict[str, str], Path]]:
    """An API's address, and how and where its workers start."""
    with ExitStack() as stack:
        common = stack.enter_context(shared("recovery"))
        place = common.place
        provider = upstream("bench.scripted", "--script=busy", log=place / "upstream.log")
        env = {
            **common.env,
            "LEASE_TIME": f"{LEASE_S}s",
            "ANTHROPIC_BASE_URL": stack.enter_context(provider),
            "ANTHROPIC_API_KEY": "sk-upstream-of-the-benchmark",
        }
        api = stack.enter_context(server(place / "api", env={**env, "ROLE": "api"}))
        yield api.url, env, place


async def _measure(plan: Plan, url: str, env: dict[str, str], place: Path) -> list[Found]:
    headers = {"x-api-key": KEY, "anthropic-beta": "managed-agents-2026-04-01"}
    deaths = plan.rounds * (QUICK_DEATHS if plan.quick else DEATHS)
    found = []
    async with aiohttp.ClientSession(url, headers=headers) as http:
        client = _Client(http)
        agent = await client.post(
            "/v1/agents", {"name": "bench", "model": "sonnet", "tools": TOOLS}
        )
        config = {"type": "cloud"}
        home = await client.post("/v1/environments", {"name": "bench", "config": config})
        body = {"agent": agent["id"], "environment_id": home["id"]}
        for number in range(deaths):
            plan.progress.say(f"recovery, death {number + 1} of {deaths}")
            with ExitStack() as stack:
                workers = [
                    stack.enter_context(
                        server(place / f"{name}-{number}", env={**env, "ROLE": "worker"})
                    )
                    for name in WORKERS
                ]
                found.append(await client.death(body, workers))
    return found


class _Client:
    """Talks to the API."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def death(self, body: dict[str, Any], workers: list[Server]) -> Found:
        """Of the worker that has the turn of a new session."""
        session = (await self.post("/v1/sessions", body))["id"]
        here = f"/v1/sessions/{session}/events"
        message = {"type": "user.message", "content": [{"type": "text", "text": "Work."}]}
        died = taken_over = 0.0
        async with asyncio.timeout(WAIT_S), self._http.get(f"{here}/stream") as stream:
            stream.raise_for_status()
            await self.post(here, {"events": [message]})
            async for kind in _kinds(stream):
                if kind == "agent.tool_use" and not died:
                    at_work = await self._at_work(workers)
                    died = time.perf_counter()
                    os.kill(at_work.process.pid, signal.SIGKILL)
                elif kind == TAKEN_OVER:
                    taken_over = time.perf_counter() - died
                elif taken_over and kind.startswith("agent."):
                    return Found(taken_over, time.perf_counter() - died)
        raise RuntimeError("The stream ended before the turn went on.")

    async def _at_work(self, workers: list[Server]) -> Server:
        for worker in workers:
            async with self._http.get(f"{worker.url}/metrics") as answer:
                if "\nruns_active 1.0" in await answer.text():
                    return worker
        raise RuntimeError("No worker has the turn.")

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._http.post(path, json=body) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"POST {path}: {answer.status} {text[:500]}")
            read: dict[str, Any] = json.loads(text)
            return read


async def _kinds(stream: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The type of each event."""
    async for line in stream.content:
        if line.startswith(b"data: "):
            yield str(json.loads(line[6:]).get("type"))


if __name__ == "__main__":
    sys.exit(run("recovery", __doc__ or "", measure))
