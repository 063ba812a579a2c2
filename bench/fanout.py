"""How late an event is heard on another server, against a bare Redis pub/sub.

An agent on a worker says the time. Readers on two APIs follow by server-sent events, and hear it
after it was committed to PostgreSQL, told through Redis and read from the book. The baseline is as
many subscribers of one Redis channel, to which a process publishes the time as often. Needs
PostgreSQL's programs and Redis.
"""

import asyncio
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import aiohttp
from redis.asyncio import Redis

from bench.cluster import shared
from bench.command import Plan, run
from bench.figure import Figure
from bench.rounds import interleaved_async
from bench.server import KEY, Server, server

READERS = 20  # on each of the two APIs, and as many of both subscribe to the channel
EVERY_S = 0.05
TIMES, QUICK_TIMES = 200, 60
CHANNEL = "bench"
NANOSECONDS = re.compile(rb"(?<!\d)\d{19}(?!\d)")  # since 1970, as of now


@dataclass(frozen=True, slots=True)
class Late:
    """Milliseconds from the saying to the hearing."""

    p50: float
    p99: float

    @classmethod
    def of(cls, found: list[float]) -> "Late":
        return cls(median(found), quantiles(found, n=100)[98])


def measure(plan: Plan) -> list[Figure]:
    """The median and the worst hundredth."""
    times = QUICK_TIMES if plan.quick else TIMES
    with _cluster(times) as (apis, redis):
        found = asyncio.run(_measure(plan, apis, redis, times))
    figures = []
    for name, of in (("p50", lambda late: late.p50), ("p99", lambda late: late.p99)):
        pick: Callable[[Late], float] = of
        figures.append(
            Figure(
                f"an event heard by {2 * READERS} readers of two servers, {name}",
                median(map(pick, found["events"])),
                median(map(pick, found["pub/sub"])),
                "Redis pub/sub",
                "ms",
            )
        )
    return figures


@contextmanager
def _cluster(times: int) -> Iterator[tuple[list[Server], str]]:
    with ExitStack() as stack:
        common = stack.enter_context(shared("fanout"))
        place = common.place
        env = {
            **common.env,
            "PROVIDER": "offline",
            "AGENT_POOL_SIZE": "0",
            "SPEAKING": f"{times} {EVERY_S}",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        apis = []
        for name, role in (("a", "api"), ("b", "api"), ("worker", "worker")):
            made = server(place / name, env={**env, "ROLE": role}, program="bench.speaking")
            apis.append(stack.enter_context(made))
        yield apis[:2], common.redis


async def _measure(plan: Plan, apis: list[Server], redis: str, times: int) -> dict[str, list[Late]]:
    async with aiohttp.ClientSession(
        headers={"authorization": f"Bearer {KEY}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:

        async def events() -> Late:
            return await _events(session, apis)

        async def pub_sub() -> Late:
            return await _pub_sub(redis, times)

        await events()  # connections, statements
        return await interleaved_async(
            {"pub/sub": pub_sub, "events": events}, plan.rounds, plan.progress, "fan-out"
        )


async def _events(session: aiohttp.ClientSession, apis: list[Server]) -> Late:
    async with session.post(f"{apis[0].url}/v1/tasks", json={"description": "Speak."}) as made:
        task = (await made.json())["task_id"]
    async with asyncio.TaskGroup() as group:
        reading = [
            group.create_task(_read(session, f"{api.url}/v1/tasks/{task}/events"))
            for api in apis
            for _ in range(READERS)
        ]
    return Late.of([late for each in reading for late in each.result()])


async def _read(session: aiohttp.ClientSession, url: str) -> list[float]:
    """How late each of the agent's messages came, but for those from before this connection."""
    found: list[float] = []
    began, kind = time.time_ns(), ""
    async with session.get(url, headers={"accept": "text/event-stream"}) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if line.startswith(b"event: "):
                kind = line[7:].strip().decode()
            elif line.startswith(b"data: ") and kind == "agent.message":
                now, said = time.time_ns(), NANOSECONDS.search(line)
                assert said is not None, line
                if int(said[0]) > began:
                    found.append((now - int(said[0])) / 1e6)
    return found


async def _pub_sub(url: str, times: int) -> Late:
    found: list[float] = []
    async with Redis.from_url(url) as client:
        ready = asyncio.Semaphore(0)

        async def listen() -> None:
            async with Redis.from_url(url) as own, own.pubsub() as channel:
                await channel.subscribe(CHANNEL)
                heard = 0
                async for message in channel.listen():
                    if message["type"] != "message":
                        ready.release()
                        continue
                    found.append((time.time_ns() - int(message["data"])) / 1e6)
                    heard += 1
                    if heard == times:
                        return

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * READERS):
                group.create_task(listen())
            for _ in range(2 * READERS):
                await ready.acquire()
            for _ in range(times):
                await asyncio.sleep(EVERY_S)
                await client.publish(CHANNEL, str(time.time_ns()))
    return Late.of(found)


if __name__ == "__main__":
    sys.exit(run("fanout", __doc__ or "", measure))
