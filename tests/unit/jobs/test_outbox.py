"""The outbox: written with the verb, done at least once, retried, parked, taken back."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select

from stationmaster.jobs import Job, Outbox, Parked, Runner
from stationmaster.jobs import outbox as module
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Unavailable
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database, Transaction
from tests.unit.jobs.conftest import MakeRunner


class Done:
    """A handler that keeps what it was given, and fails when told to."""

    def __init__(self, *failures: Exception) -> None:
        self.jobs: list[Job] = []
        self._failures = list(failures)

    async def __call__(self, job: Job) -> None:
        self.jobs.append(job)
        if self._failures:
            raise self._failures.pop(0)


async def _put(
    database: Database, outbox: Outbox, kind: str = "work", delay: float = 0.0, **payload: Any
) -> str:
    return await database.write(lambda tx: outbox.put(tx, kind, payload, delay=delay))


async def _rows(database: Database) -> list[Any]:
    rows = await database.read(lambda tx: tx.execute(select(jobs).order_by(jobs.c.id)).all())
    return list(rows)


async def test_a_job_is_done_once_and_gone(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    work = Done()
    job_id = await _put(database, outbox, number=1, text="a\0b")
    assert await runner(work=work).drain() == 1
    assert work.jobs == [Job(job_id, "work", {"number": 1, "text": "a\0b"}, 1)]
    assert await runner(work=work).drain() == 0
    assert await _rows(database) == []


async def test_a_job_of_a_verb_that_fails_never_was(
    database: Database, outbox: Outbox, runner: MakeRunner, bus: MemoryBus
) -> None:
    wake = bus.subscribe(module.TOPIC)

    def verb(tx: Transaction) -> None:
        outbox.put(tx, "work", {})
        raise Conflict

    with pytest.raises(Conflict):
        await database.write(verb)
    assert await runner(work=Done()).drain() == 0
    assert wake.take() == []
    await _put(database, outbox)
    assert wake.take() == ["work"]


async def test_a_job_is_due_after_its_delay(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    work = Done()
    drainer = runner(work=work)
    await _put(database, outbox, delay=60)
    assert await drainer.drain() == 0
    clock.advance(59.999)
    assert await drainer.drain() == 0
    clock.advance(0.001)
    assert await drainer.drain() == 1


async def test_jobs_are_done_in_the_order_they_are_due(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    work = Done()
    for delay in (30, 10, 20):
        await _put(database, outbox, delay=delay, at=delay)
    clock.advance(60)
    await runner(work=work).drain()
    assert [job.payload["at"] for job in work.jobs] == [10, 20, 30]


async def test_a_failing_job_is_tried_again_later_and_later_and_then_parked(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    work = Done(*(ValueError(f"no {number}") for number in range(20)))
    drainer = runner(work=work)
    await _put(database, outbox)
    for attempt in range(1, module.MAX_ATTEMPTS):
        assert await drainer.drain() == 1
        assert await drainer.drain() == 0, "tried again at once"
        delay = module.FIRST_DELAY_S * 2 ** (attempt - 1)
        clock.advance(delay - 0.001)
        assert await drainer.drain() == 0, "tried again too early"
        clock.advance(0.001)
    assert await drainer.drain() == 1
    clock.advance(1_000_000)
    assert await drainer.drain() == 0
    assert [job.attempt for job in work.jobs] == list(range(1, module.MAX_ATTEMPTS + 1))
    (row,) = await _rows(database)
    assert (row.state, row.instance_id) == ("parked", None)
    assert row.error == f"ValueError('no {module.MAX_ATTEMPTS - 1}')"


async def test_a_job_that_succeeds_at_last_is_gone(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    work = Done(ValueError("once"))
    drainer = runner(work=work)
    await _put(database, outbox)
    await drainer.drain()
    clock.advance(10)
    await drainer.drain()
    assert [job.attempt for job in work.jobs] == [1, 2]
    assert await _rows(database) == []


async def test_a_handler_may_park_a_job_at_once_with_any_words(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    drainer = runner(work=Done(Parked("hope\0less \ud800")))
    await _put(database, outbox)
    await drainer.drain()
    clock.advance(1_000_000)
    assert await drainer.drain() == 0
    (row,) = await _rows(database)
    assert (row.state, row.error) == ("parked", "hope\0less ?")


async def test_one_failing_job_does_not_hold_up_the_others(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    bad, good = Done(ValueError("no")), Done()
    await _put(database, outbox, "bad")
    await _put(database, outbox, "good")
    assert await runner(bad=bad, good=good).drain() == 2
    assert len(good.jobs) == 1


async def test_a_runner_takes_only_what_it_can_handle(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    await _put(database, outbox, "unknown")
    assert await runner(work=Done()).drain() == 0
    assert await runner(unknown=Done()).drain() == 1


async def test_two_runners_never_do_the_same_job_at_once(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    done: list[str] = []

    async def work(job: Job) -> None:
        done.append(job.id)
        await asyncio.sleep(0)  # let the other runner in

    put = {await _put(database, outbox) for _ in range(70)}
    runners = [runner(f"ins_{name}", work=work) for name in "abc"]

    async def drain_all(index: int) -> None:
        while await runners[index].drain():
            pass

    await asyncio.gather(*(drain_all(index) for index in range(3)))
    assert sorted(done) == sorted(put)
    assert await _rows(database) == []


async def test_what_a_dead_instance_was_doing_is_done_by_another(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    begun = asyncio.Event()
    work = Done()

    async def hang(_job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    dead = runner("ins_dead", work=hang)
    job_id = await _put(database, outbox)
    dying = asyncio.create_task(dead.drain())
    await begun.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    other = runner("ins_other", work=work)
    assert await other.drain() == 0, "taken from an instance that may live"
    assert await database.write(lambda tx: other.release(tx, "ins_dead")) == 1
    assert await database.write(lambda tx: other.release(tx, "ins_dead")) == 0
    assert await other.drain() == 1
    assert [(job.id, job.attempt) for job in work.jobs] == [(job_id, 2)]


async def test_a_runner_takes_up_again_what_a_fault_of_the_database_cut(
    database: Database, outbox: Outbox, runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Done()
    drainer = runner(work=work)
    for number in range(3):
        await _put(database, outbox, number=number)
    real, writes = database.write, 0

    async def write(verb: Any) -> Any:
        nonlocal writes
        writes += 1
        if writes == 2:  # the first job is done, but that cannot be written down
            raise Unavailable
        return await real(verb)

    monkeypatch.setattr(database, "write", write)
    with pytest.raises(Unavailable):
        await drainer.drain()
    assert await drainer.drain() == 3
    numbers = [job.payload["number"] for job in work.jobs]
    assert (len(numbers), set(numbers)) == (4, {0, 1, 2})
    assert await _rows(database) == []


async def test_run_does_what_comes_and_survives_the_database_being_away(
    database: Database, outbox: Outbox, runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    done: asyncio.Queue[Job] = asyncio.Queue()
    running = asyncio.create_task(runner(work=done.put).run())
    async with asyncio.timeout(30):
        await _put(database, outbox, number=1)
        assert (await done.get()).payload == {"number": 1}

        real, away = database.write, asyncio.Event()

        async def refuse(_verb: Any) -> Any:
            away.set()
            raise Unavailable

        job_id = await _put(database, outbox, number=2, delay=0)
        monkeypatch.setattr(database, "write", refuse)
        await away.wait()
        monkeypatch.setattr(database, "write", real)
        found = {(await done.get()).id}
        await _put(database, outbox, number=3)
        found.add((await done.get()).id)
        assert job_id in found
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_doorbell_rings_whether_or_not_its_job_is_claimed(
    database: Database, outbox: Outbox, bus: MemoryBus, clock: ManualClock
) -> None:
    done: asyncio.Queue[Job] = asyncio.Queue()
    heard = asyncio.Event()
    runner = Runner(
        database, bus, clock, {"work": done.put}, instance_id="ins_a", heard={"bell": heard.set}
    )
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(30):
        await _put(database, outbox, "work")
        await done.get()
        await _put(database, outbox, "bell")
        await heard.wait()
        assert [row.state for row in await _rows(database) if row.kind == "bell"] == ["waiting"]
        await _put(database, outbox, "work")
        await done.get()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_orderly_cancelled_run_stops_listening(runner: MakeRunner, bus: MemoryBus) -> None:
    running = asyncio.create_task(runner(work=Done()).run())
    while not bus.listeners(module.TOPIC):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert bus.listeners(module.TOPIC) == 0


async def test_a_job_that_takes_every_server_with_it_is_parked(
    database: Database, outbox: Outbox, runner: MakeRunner
) -> None:
    deadly, harmless = Done(), Done()
    await _put(database, outbox, "deadly")
    await _put(database, outbox, "harmless")
    for _ in range(module.MAX_ATTEMPTS):
        claimed = await database.write(runner("ins_dead", deadly=deadly)._claim)
        assert [job.kind for job in claimed] == ["deadly"]
        await database.write(lambda tx: runner().release(tx, "ins_dead"))
    assert await runner("ins_b", deadly=deadly, harmless=harmless).drain() == 1
    assert (len(deadly.jobs), len(harmless.jobs)) == (0, 1)
    [row] = await _rows(database)
    assert (row.state, row.error) == ("parked", module.DEADLY)


async def test_jobs_that_end_together_are_struck_off_together(
    database: Database, outbox: Outbox, runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await _put(database, outbox) for _ in range(10)]
    failed = await _put(database, outbox, "fails")
    made = runner(work=Done(), fails=Done(RuntimeError("No.")))
    claimed = await database.write(made._claim)
    struck: list[list[str]] = []
    strike_off = made._strike_off

    async def noted(gone: Sequence[str]) -> list[None]:
        struck.append(sorted(gone))
        return await strike_off(gone)

    monkeypatch.setattr(made._ends, "_work", noted)
    await made._do_all(claimed)
    assert struck == [sorted(ids)]
    assert [(row.id, row.state) for row in await _rows(database)] == [(failed, "waiting")]
