"""The book: events appended and delivered a second, against bare INSERTs of the same rows.

On SQLite (WAL, synchronous=FULL) and on PostgreSQL (fsync on), each with the baseline in the same
database: the same rows in the same batches, one commit each, and nothing else. On SQLite the
baseline is one connection whatever the number of writers, which is the most that bare INSERTs
can do there; on PostgreSQL it has a connection for each writer. Needs PostgreSQL's programs.
"""

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import structlog

from bench.bare_inserts import BareInserts, PostgresInserts, SqliteInserts
from bench.command import Plan, run
from bench.figure import Figure, Goal
from bench.programs import MissingProgramError
from bench.rounds import interleaved_async, middle
from stationmaster.events import Event, EventLog, NewEvent
from stationmaster.kernel.clock import SystemClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.live.bus import MemoryBus
from stationmaster.migrations import migrate
from stationmaster.storage import Database, open_database
from tests.support.postgres import find_programs, private_server

BATCHES = (1, 10, 100)
WRITERS = (1, 40)
FOLLOWERS = (1, 100)
DELIVERY_BATCH = 10
OWNER = Owner("org_bench", "prj_bench")
DATA = {"text": "The quick brown fox jumps over the lazy dog. " * 4, "index": 0}


def measure(plan: Plan) -> list[Figure]:
    """Appending and delivering on both databases."""
    programs = find_programs()
    if programs is None:
        raise MissingProgramError("postgresql is missing; scripts/install-bench-tools installs it")
    import uvloop

    # Told on stdout otherwise, between the figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        tempfile.TemporaryDirectory(prefix="bench-events-") as name,
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
    figures = []
    async with _opened(url) as (database, bare):
        book = Book(database)
        for writers in WRITERS:
            for batch in BATCHES:
                what = f"{name}: appended by {_count(writers, 'writer')}, {batch} at once"
                figures.append(await _appended(plan, book, bare, what, (writers, batch)))
        for followers in FOLLOWERS:
            what = f"{name}: delivered to {_count(followers, 'follower')}"
            figures.append(await _delivered(plan, book, bare, what, followers))
    return figures


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[tuple[Database, BareInserts]]:
    database = open_database(url, pool_size=max(WRITERS))
    bare: BareInserts = (
        SqliteInserts(Path(url.removeprefix("sqlite:///")))
        if url.startswith("sqlite")
        else PostgresInserts(url)
    )
    await bare.open(max(WRITERS))
    try:
        yield database, bare
    finally:
        await bare.close()
        await database.close()


async def _appended(
    plan: Plan, book: "Book", bare: BareInserts, what: str, shape: tuple[int, int]
) -> Figure:
    writers, batch = shape
    seconds = _seconds(plan)
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        "INSERTs": partial(bare.rate, rows(batch), writers, seconds),
        "events": partial(book.appended, writers, batch, seconds),
    }
    return await _figure(plan, candidates, what)


async def _delivered(
    plan: Plan, book: "Book", bare: BareInserts, what: str, followers: int
) -> Figure:
    seconds = _seconds(plan)
    candidates: dict[str, Callable[[], Awaitable[float]]] = {
        "INSERTs": partial(bare.rate, rows(DELIVERY_BATCH), 1, seconds),
        "events": partial(book.delivered, followers, seconds),
    }
    return await _figure(plan, candidates, what)


async def _figure(
    plan: Plan, candidates: dict[str, Callable[[], Awaitable[float]]], what: str
) -> Figure:
    for candidate in candidates.values():  # connections, statements, pages of the cache
        await candidate()
    found = await interleaved_async(candidates, plan.rounds, plan.progress, what)
    return Figure(
        what, middle(found["events"], float), middle(found["INSERTs"], float), "INSERTs", "/s", GOAL
    )


GOAL: Goal | None = None  # none is set for the book


def _seconds(plan: Plan) -> float:
    return 0.5 if plan.quick else 2.0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def rows(batch: int) -> list[NewEvent]:
    """A batch of events as an agent makes them."""
    return [NewEvent("agent.message", {**DATA, "index": index}) for index in range(batch)]


class Book:
    """The event log under test."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = EventLog(database, MemoryBus(), SystemClock())

    async def appended(self, writers: int, batch: int, seconds: float) -> float:
        """Events a second by so many writers, each on a stream of its own."""
        new = rows(batch)
        until = time.perf_counter() + seconds
        streams = [await self._create() for _ in range(writers)]
        began = time.perf_counter()
        counts = await asyncio.gather(*(self._write(stream, new, until) for stream in streams))
        return sum(counts) / (time.perf_counter() - began)

    async def delivered(self, followers: int, seconds: float) -> float:
        """Deliveries a second, all followers together, of one stream that one writer fills."""
        stream = await self._create()
        await self._append(stream, [NewEvent("begin")])
        waiting = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(self._follow(stream, waiting)) for _ in range(followers)]
            for _ in readers:  # all have caught up
                await waiting.acquire()
            began = time.perf_counter()
            written = await self._write(stream, rows(DELIVERY_BATCH), began + seconds)
            await self._append(stream, [NewEvent("end")])
        elapsed = time.perf_counter() - began
        received = [reader.result() for reader in readers]
        if received != [written] * followers:
            raise RuntimeError(f"Of {written} events the followers got {received}.")
        return sum(received) / elapsed

    async def _create(self) -> str:
        stream = new_id("ses")
        await self._database.write(lambda tx: self._log.create(tx, stream, "session", OWNER))
        return stream

    async def _append(self, stream: str, new: list[NewEvent]) -> None:
        await self._database.write(lambda tx: self._log.append(tx, stream, new))

    async def _write(self, stream: str, new: list[NewEvent], until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            await self._append(stream, new)
            count += len(new)
        return count

    async def _follow(self, stream: str, waiting: asyncio.Semaphore) -> int:
        count = 0
        async for item in self._log.follow(stream):
            if not isinstance(item, Event):
                continue
            if item.type == "begin":
                waiting.release()
            elif item.type == "end":
                return count
            else:
                count += 1
        raise RuntimeError("A follower fell behind and was dropped.")


if __name__ == "__main__":
    sys.exit(run("events", __doc__ or "", measure))
