"""A job's way from the verb that puts it to its handler, over each broker and without it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select

from stationmaster.jobs import Handler, Job, Outbox, Relay, Runner
from stationmaster.jobs import outbox as module
from stationmaster.jobs.broker import Broker, Ring
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import ManualClock
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.support.brokers import BOUND_S, Place, until

NEVER_S = 3600.0


class Line:
    """A sender's and a worker's half, with nothing between them but a broker and a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.done: list[Job] = []
        self.lost = 0

    async def handle(self, job: Job) -> None:
        self.done.append(job)

    def _lose(self, number: int) -> None:
        self.lost += number

    @asynccontextmanager
    async def sending(self, broker: Broker) -> AsyncIterator[Outbox]:
        bus = MemoryBus()
        relay = Relay(broker, otherwise=lambda _kind: None, runs=("run",), on_lost=self._lose)
        running = asyncio.create_task(relay.run())
        yield Outbox(bus, self.clock, ring=relay.ring)
        running.cancel()
        await asyncio.wait({running})

    @asynccontextmanager
    async def working(
        self, broker: Broker, name: str = "ins_a", handler: Handler | None = None, **how: Any
    ) -> AsyncIterator[None]:
        handlers = dict.fromkeys(("work", "run"), handler or self.handle)
        runner = Runner(
            self.database, MemoryBus(), self.clock, handlers,
            instance_id=name, broker=broker, **how,
        )  # fmt: skip
        running = asyncio.create_task(runner.run())
        yield
        running.cancel()
        await asyncio.wait({running})

    async def put(self, outbox: Outbox, kind: str = "work", delay: float = 0.0) -> str:
        return await self.database.write(lambda tx: outbox.put(tx, kind, {}, delay=delay))

    async def rows(self) -> list[Any]:
        found = await self.database.read(lambda tx: tx.execute(select(jobs)).all())
        return list(found)

    async def left(self, enough: Callable[[list[Any]], bool]) -> list[Any]:
        """The rows once they are as wanted. A job's row goes a moment after its handler."""
        async with asyncio.timeout(BOUND_S):
            while not enough(found := await self.rows()):
                await asyncio.sleep(0.01)
        return found


@pytest.fixture
def line(database: Database) -> Line:
    return Line(database)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself, after a first look."""
    monkeypatch.setattr(module, "POLL_S", NEVER_S)
    monkeypatch.setattr(module, "TOLD_POLL_S", NEVER_S)


@pytest.mark.usefixtures("deaf")
async def test_a_job_comes_by_the_broker_alone(line: Line, place: Place) -> None:
    sender, receiver = await place.run(receives=False), await place.run()
    async with line.working(receiver), line.sending(sender) as outbox:
        put = [await line.put(outbox, kind) for kind in ("work", "run", "work")]
        await until(lambda: len(line.done) == 3)
        assert {job.id for job in line.done} == set(put)
        await line.left(lambda rows: not rows)
    assert line.lost == 0


@pytest.mark.usefixtures("deaf")
async def test_a_clock_that_is_behind_the_senders_does_not_delay_it(
    line: Line, place: Place
) -> None:
    sender, receiver = await place.run(receives=False), await place.run()
    async with line.working(receiver), line.sending(sender) as outbox:
        line.clock.advance(3)
        await line.put(outbox)
        line.clock.advance(-3)
        await until(lambda: len(line.done) == 1)


async def test_many_workers_do_each_job_once(line: Line, place: Place) -> None:
    sender = await place.run(receives=False)
    brokers = [await place.run(name=name) for name in "bc"]
    async with (
        line.working(brokers[0], "ins_b"),
        line.working(brokers[1], "ins_c"),
        line.sending(sender) as outbox,
    ):
        put = [await line.put(outbox, kind) for kind in ("work", "run") * 20]
        await until(lambda: len(line.done) >= 40)
        await line.left(lambda rows: not rows)
    assert sorted(job.id for job in line.done) == sorted(put)


@pytest.mark.usefixtures("deaf")
async def test_doubled_strange_and_early_messages_do_nothing(line: Line, place: Place) -> None:
    sender, receiver = await place.run(receives=False), await place.run()
    async with line.working(receiver), line.sending(sender) as outbox:
        first = await line.put(outbox)
        await until(lambda: len(line.done) == 1)
        later = await line.put(outbox, delay=60)
        await sender.publish([Ring(each, "work", "jobs") for each in (first, first, "job_unknown")])
        last = await line.put(outbox)
        await until(lambda: len(line.done) == 2)
        await line.left(lambda rows: [row.id for row in rows] == [later])
    assert [job.id for job in line.done] == [first, last]


@pytest.mark.usefixtures("deaf")
async def test_who_dies_before_the_claim_is_followed_by_another(line: Line, place: Place) -> None:
    sender, doomed = await place.run(receives=False), await place.run()
    async with line.sending(sender) as outbox:
        put = await line.put(outbox)
        async with asyncio.timeout(BOUND_S):
            [delivery] = await doomed.receive("jobs")  # and nothing more
        assert delivery.ring.job_id == put
        await place.end(doomed)
        async with line.working(await place.run(name="b"), "ins_b"):
            await until(lambda: len(line.done) == 1)
    assert [job.attempt for job in line.done] == [1]


@pytest.mark.usefixtures("deaf")
async def test_who_dies_after_the_claim_leaves_a_job_that_others_find(
    line: Line, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(_job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    sender, doomed = await place.run(receives=False), await place.run()
    async with line.sending(sender) as outbox:
        async with line.working(doomed, "ins_dead", hang):
            await line.put(outbox)
            async with asyncio.timeout(BOUND_S):
                await begun.wait()
        assert [row.state for row in await line.rows()] == ["running"]
        assert await line.database.write(lambda tx: Runner.release(tx, "ins_dead")) == 1
        monkeypatch.setattr(module, "TOLD_POLL_S", 0.05)
        async with line.working(doomed, "ins_b"):
            await until(lambda: len(line.done) == 1)
    assert [job.attempt for job in line.done] == [2]


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_while_the_broker_is_away_jobs_are_found_by_looking(
    line: Line, place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.05)
    sender, receiver = await place.run(receives=False), await place.run()
    async with line.working(receiver), line.sending(sender) as outbox:
        place.down(how)
        first = await line.put(outbox)  # before anybody has noticed
        await until(lambda: sender.trouble is not None)
        second = await line.put(outbox)
        await until(lambda: len(line.done) == 2)
        assert line.lost >= 1
        await place.up(how)
        await until(lambda: sender.trouble is None and receiver.trouble is None)
        lost = line.lost
        third = await line.put(outbox)
        await until(lambda: third in {job.id for job in line.done})
        assert line.lost == lost
    assert sorted(job.id for job in line.done) == sorted([first, second, third])


@pytest.mark.usefixtures("deaf")
async def test_a_worker_without_room_keeps_word_of_one_run_from_others(
    line: Line, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOLD_S", NEVER_S)
    sender = await place.run(receives=False)
    full, free = await place.run(name="b"), await place.run(name="c")
    asked = asyncio.Event()

    async def never() -> None:
        asked.set()
        await asyncio.Event().wait()

    async with (
        line.working(full, "ins_full", room=never),
        line.working(free, "ins_free"),
        line.sending(sender) as outbox,
    ):
        while not asked.is_set():
            await line.put(outbox, "run")
            await asyncio.sleep(0.01)
        for _ in range(5):
            await line.put(outbox, "run")
        # The one that is kept from others waits; Redis gives that to somebody else in the end.
        await line.left(lambda rows: [row.state for row in rows] in (["waiting"], []))
