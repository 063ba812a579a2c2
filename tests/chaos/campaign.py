"""One campaign: a place, its clients, the faults, and what came of it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checks import violations
from tests.chaos.clients import Clients
from tests.chaos.nemesis import Nemesis
from tests.chaos.place import Place, place
from tests.chaos.plan import plan
from tests.chaos.provider import served
from tests.chaos.records import Book, Outside, Told
from tests.chaos.store import Observer, read_book, settled

CALM_S = 3.0  # before the first fault


@dataclass(frozen=True, slots=True)
class Options:
    """What a campaign is asked to be."""

    seed: int
    faults: int
    seconds: float
    gap: float = 2.0
    real: bool = False
    broker: bool = False
    settle: float = 180.0  # seconds after the last fault until all must be as if nothing had been


@dataclass
class Outcome:
    """What came of it."""

    options: Options
    violations: list[str]
    timeline: list[str]
    faults: Counter[str]
    seconds: float
    figures: dict[str, Any]
    told: Told = field(repr=False)
    book: Book = field(repr=False)
    outside: Outside = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """What the report sums."""
        return {
            **asdict(self.options),
            "took": round(self.seconds),
            "faults_done": dict(self.faults),
            "violations": self.violations,
            **self.figures,
        }


async def campaign(options: Options, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Play it. `directory` is for what the servers write; it must be empty, its path short."""
    told, outside = Told(), Outside()
    async with place(directory, real=options.real, broker=options.broker) as here:
        began = time.monotonic()
        say(f"{len(here.servers)} servers are up behind {here.url}")
        observer = Observer(here.database)
        watching = asyncio.create_task(observer.watch())
        clients = Clients(here.client, told, seed=options.seed)
        load = (1, 1, 1, 0) if options.real else (2, 2, 2, 1)
        clients.start(tasks=load[0], chats=load[1], sessions=load[2], spenders=load[3])
        nemesis = await _faults(here, options, say)
        clients.stop()
        say("faults are over; clients see to what they have begun")
        outside.unsettled += await _all_ready(here, options.settle)
        outside.unsettled += await clients.done(options.settle)
        outside.unsettled += await settled(here.database, options.settle)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        outside.passed += observer.passed
        await _stop(here, outside)
        book = await read_book(here.database)
        outside.served = served(here.upstream.message_calls)
        outside.deeds = {path.name: path.read_text().splitlines() for path in here.deeds.iterdir()}
        figures = _figures(told, book, outside, observer)
        figures["ended by themselves"] = {
            each.name: each.ended for each in here.servers.values() if each.ended
        }
    return Outcome(
        options,
        violations(told, book, outside),
        nemesis.timeline,
        nemesis.done,
        time.monotonic() - began,
        figures,
        told,
        book,
        outside,
    )


async def _faults(here: Place, options: Options, say: Callable[[str], None]) -> Nemesis:
    until = time.monotonic() + options.seconds
    faults = plan(
        options.seed, options.faults, list(here.servers), parts=here.parts, gap=options.gap
    )
    nemesis = Nemesis(here, say)
    await asyncio.sleep(CALM_S)
    await nemesis.play(faults, lambda: time.monotonic() > until)
    return nemesis


async def _all_ready(here: Place, seconds: float) -> list[str]:
    """Wait until every server says so; those that did not."""
    waiting = {asyncio.create_task(each.ready()): each for each in here.servers.values()}
    _, late = await asyncio.wait(waiting, timeout=seconds)
    for task in late:
        task.cancel()
    return [f"{waiting[task].name} is not ready" for task in late]


async def _stop(here: Place, outside: Outside) -> None:
    """Stop every server in good order; no agent may be left then."""
    servers = list(here.servers.values())
    statuses = await asyncio.gather(*(each.stop() for each in servers))
    for each, status in zip(servers, statuses, strict=True):
        if status:
            tail = each.server.output[-2000:]
            outside.exits.append(f"{each.name} ended with {status}: {tail}")
    deadline = time.monotonic() + 10
    while (left := here.agents()) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    outside.agents += map(str, left)


def _figures(told: Told, book: Book, outside: Outside, observer: Observer) -> dict[str, Any]:
    return {
        "tasks": len(told.tasks),
        "messages": len(told.messages),
        "doubtful": len(told.doubtful),
        "chats": len(told.chats),
        "runs": dict(Counter(run.state for run in book.runs)),
        "runs moved": sum(bool(run.lost) for run in book.runs),
        "events": sum(map(len, book.events.values())),
        "readers": sum(map(len, told.streams.values())) + len(told.sessions),
        "reconnects": told.reconnects,
        "replays": dict(told.replays),
        "ledger": dict(Counter(line.outcome for line in book.ledger)),
        "calls": len(outside.served),
        "budgets": len(book.budgets),
        "looks at budgets": observer.samples,
        "deeds": sum(map(len, outside.deeds.values())),
        "slowest answer": round(told.slowest, 1),
        "answers": dict(told.answers),
    }
