"""The ceiling: calls a second with every call on one hot budget row, against no budget at all.

Calls through the gateway in this process, parsed, held for, answered by a provider that has its
answer ready, and settled; at 1 and at 64 in flight, on SQLite (synchronous=FULL) and on PostgreSQL
(fsync on). Off, calls are held for and settled all the same; on, each also counts against a budget
of its project and one of its key, the same two for all. Needs PostgreSQL's programs.
"""

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import MissingProgramError
from bench.rounds import interleaved_async, middle
from stationmaster.budgets import Budgets, Definitions, Terms
from stationmaster.budgets.definition import SubjectKind
from stationmaster.events import EventLog
from stationmaster.gateway import Gateway, Models, Pricing, UpstreamOf
from stationmaster.gateway.ports import CallEnded, CallRefused, CallStarted
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.migrations import migrate
from stationmaster.providers.base import Headers, Operation, ProviderReply, ProviderRequest
from stationmaster.storage import Database, open_database
from tests.support.postgres import find_programs, private_server

IN_FLIGHT = (1, 64)
LIMIT = 10**14  # micro-dollars: never reached
ASKED = json.dumps(
    {
        "model": "claude-haiku-5-5",
        "max_tokens": 256,
        "messages": [{"role": "user", "content": "Say hello. " * 40}],
    }
).encode()
ANSWER = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": "Hello. " * 60}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 110, "output_tokens": 120},
    }
).encode()


def measure(plan: Plan) -> list[Figure]:
    """On and off, on both databases."""
    programs = find_programs()
    if programs is None:
        raise MissingProgramError("postgresql is missing; scripts/install-bench-tools installs it")
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory(prefix="bench-budgets-") as name,
        private_server(programs, durable=True) as postgres,
    ):
        urls = {
            "SQLite": f"sqlite:///{Path(name, 'bench.db')}",
            "PostgreSQL": postgres.url(postgres.create()),
        }
        figures = []
        for database, url in urls.items():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures += runner.run(_measure(plan, database, url))
        return figures


async def _measure(plan: Plan, name: str, url: str) -> list[Figure]:
    await migrate(url)
    database = open_database(url)
    try:
        house = House(database)
        limited, unlimited = principal(), principal()
        await house.limit(limited)
        return [
            await _figure(plan, house, name, (limited, unlimited), in_flight)
            for in_flight in IN_FLIGHT
        ]
    finally:
        await database.close()


async def _figure(
    plan: Plan, house: "House", name: str, who: tuple[Principal, Principal], in_flight: int
) -> Figure:
    seconds = 0.5 if plan.quick else 3.0
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        "no budget": partial(house.rate, who[1], in_flight, seconds),
        "budgets": partial(house.rate, who[0], in_flight, seconds),
    }
    for candidate in candidates.values():
        await candidate()
    what = f"{name}: calls on one hot budget, {in_flight} in flight"
    found = await interleaved_async(candidates, plan.rounds, plan.progress, what)
    on, off = middle(found["budgets"], float), middle(found["no budget"], float)
    goal = Goal("at least", 0.85) if in_flight == max(IN_FLIGHT) else None
    return Figure(what, on, off, "no budget", "/s", goal)


def principal() -> Principal:
    """A key of a project of its own."""
    owner = Owner(new_id("org"), new_id("proj"))
    key_id = new_id("key")
    return Principal("key", key_id, owner, key_id, frozenset({"*"}))


class House:
    """A gateway over one database."""

    def __init__(self, database: Database) -> None:
        clock = SystemClock()
        log = EventLog(database, MemoryBus(), clock)

        async def mine(principal: Principal, _: str) -> Owner:
            return principal.owner

        finders: dict[SubjectKind, Callable[[Principal, str], Awaitable[Owner]]] = {"key": mine}
        self._definitions = Definitions(database, clock, finders, events=log)
        self._gateway = Gateway(
            models=Models(Pricing(clock=clock), UpstreamOf(Ready())),
            meter=Budgets(database, clock, instance_id=new_id("ins"), events=log),
            observer=Deaf(),
            clock=clock,
        )

    async def limit(self, who: Principal) -> None:
        """Give the project and the key a budget each."""
        for kind, subject_id in (("project", who.owner.project_id), ("key", who.key_id)):
            terms = Terms("project" if kind == "project" else "key", subject_id, "usd", LIMIT)
            await self._definitions.create(who, terms)

    async def rate(self, who: Principal, in_flight: int, seconds: float) -> float:
        """Calls a second."""
        calls = 0
        end = time.perf_counter() + seconds

        async def caller() -> None:
            nonlocal calls
            while time.perf_counter() < end:
                call = await self._gateway.messages(who, ASKED)
                await call.aclose()
                calls += 1

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return calls / (time.perf_counter() - start)


class Ready:
    """A provider that has its answer ready."""

    name = "anthropic"
    operations: frozenset[Operation] = frozenset({"messages"})

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return Answer()

    async def check(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Answer:
    """The answer, whole."""

    status = 200
    headers: Headers = (("content-type", "application/json"),)

    def arrived(self) -> bytes | None:
        return ANSWER

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield ANSWER

    async def aclose(self) -> None:
        pass


class Deaf:
    """An observer that hears nothing."""

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        pass


if __name__ == "__main__":
    sys.exit(run("budgets", __doc__ or "", measure))
