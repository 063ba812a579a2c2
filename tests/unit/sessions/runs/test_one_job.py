"""A server that takes one job: it does what was begun at its own door, else what waits."""

import asyncio

import pytest

from stationmaster.jobs import Job
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.claims import HEAD_START_S, Claim
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.settlement import Ending
from tests.support.core import ALICE, Core, Seen

DONE = Ending("completed", result="done")


class NoClaims:
    """Nothing waits, or what is set."""

    def __init__(self) -> None:
        self.reserved: Claim | None = None
        self.waiting: Claim | None = None
        self.asked = 0

    async def own(self) -> Claim | None:
        return self.reserved

    async def next(self) -> Claim | None:
        self.asked += 1
        return self.waiting


@pytest.fixture
def here(core: Core) -> Core:
    """A server for one job, beside another."""
    return core.beside(one_job=OneJob())


def job_of(core: Core) -> OneJob:
    assert core.one_job is not None
    return core.one_job


# --- who begins one here ----------------------------------------------------------------------


async def test_one_request_is_inside_at_a_time() -> None:
    job = OneJob()
    assert [await job.enter() for _ in range(2)] == [True, False]
    job.leave(begun=False)
    assert await job.enter()
    job.leave(begun=True)
    assert await job.enter() is False


async def test_what_another_has_done_meanwhile_lets_the_next_in() -> None:
    job, claims = OneJob(), NoClaims()
    assert await job.enter()
    assert await job.claim(claims) is None  # it may be about to begin
    job.leave(begun=True)
    assert job.taken
    await job.claim(claims)
    assert await job.enter()


async def test_a_claim_on_its_way_and_a_request_do_not_both_take_it(core: Core) -> None:
    await core.start()
    job, claims, go, asked = OneJob(), NoClaims(), asyncio.Event(), asyncio.Event()
    claims.waiting = await core.claims.next()

    async def slow() -> Claim | None:
        asked.set()
        await go.wait()
        return claims.waiting

    claims.next = slow  # type: ignore[method-assign]
    claiming = asyncio.create_task(job.claim(claims))
    await asked.wait()
    entering = asyncio.create_task(job.enter())
    go.set()
    assert await claiming is claims.waiting
    assert not await entering


async def test_a_claim_that_fails_takes_nothing() -> None:
    job, claims = OneJob(), NoClaims()

    async def away() -> Claim | None:
        raise Unavailable("The database is away.")

    claims.next = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await job.claim(claims)
    assert await job.enter()


# --- whose run it is --------------------------------------------------------------------------


async def test_what_is_begun_inside_is_for_this_server(core: Core, here: Core) -> None:
    older = await core.start()
    await job_of(here).enter()
    mine = await here.start()
    first = await core.claims.next()
    assert first is not None
    assert first.run.id == older.id
    assert await core.claims.next() is None
    claim = await job_of(here).claim(here.claims)
    assert claim is not None
    assert claim.run.id == mine.id
    assert (await core.checked(mine)) == claim.run
    assert not job_of(here).reserving
    assert (await here.start()).instance_id is None


async def test_its_own_comes_before_what_waits_longer(core: Core, here: Core) -> None:
    await core.start()
    await job_of(here).enter()
    mine = await here.start()
    claim = await job_of(here).claim(here.claims)
    assert claim is not None
    assert claim.run.id == mine.id


async def test_one_that_does_not_come_for_it_loses_it(core: Core, here: Core) -> None:
    await job_of(here).enter()
    mine = await here.start()
    core.clock.advance(HEAD_START_S - 0.001)
    assert await core.claims.next() is None
    core.clock.advance(0.001)
    claim = await core.claims.next()
    assert claim is not None
    assert claim.run.id == mine.id
    assert claim.run.instance_id == core.instances.id
    assert await job_of(here).claim(here.claims) is None


async def test_one_that_was_cancelled_meanwhile_is_nobodys(core: Core, here: Core) -> None:
    await job_of(here).enter()
    mine = await here.start()
    job_of(here).leave(begun=True)
    await core.runs.cancel(ALICE, mine.id)
    assert await job_of(here).claim(here.claims) is None
    assert not job_of(here).taken


async def test_one_that_is_given_back_is_for_anybody(core: Core, here: Core) -> None:
    await job_of(here).enter()
    run = await here.start()
    claim = await job_of(here).claim(here.claims)
    assert claim is not None
    back = await core.database.write(
        lambda tx: core.settlement.requeue(
            tx, core.records.lock(tx, run.id), reason="shutting_down", lost=False
        )
    )
    assert back == await core.checked(run)
    assert await core.claims.next() is not None


# --- the worker -------------------------------------------------------------------------------


async def test_a_worker_for_one_job_claims_no_second(core: Core) -> None:
    seen, here = Seen(), core.beside(one_job=OneJob())
    runs = [await core.start() for _ in range(3)]
    worker = here.worker(5, seen)
    async with asyncio.timeout(60), here.working(worker):
        while not seen.ended_runs:
            await asyncio.sleep(0)
        for _ in range(3):
            await worker.ring(Job("job_1", "run.queued", {}, 1))
            await asyncio.sleep(0)
    states = [(await core.checked(run)).state.state for run in runs]
    assert states == ["completed", "queued", "queued"]
