"""Jobs as the operator sees them."""

import pytest

from stationmaster.jobs import Job, Outbox, Parked
from stationmaster.jobs.inventory import Inventory, Listed, count
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.storage import Database, Transaction
from tests.unit.jobs.conftest import MakeRunner


class Notes:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []

    def __call__(self, _tx: Transaction, action: str, job: Listed) -> None:
        self.taken.append((action, job.id))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def inventory(database: Database, clock: ManualClock, notes: Notes) -> Inventory:
    return Inventory(database, clock, note=notes)


async def _put(database: Database, outbox: Outbox, kind: str = "work", delay: float = 0) -> str:
    return await database.write(lambda tx: outbox.put(tx, kind, {"about": kind}, delay=delay))


async def _refuse(_job: Job) -> None:
    raise Parked("It cannot be done.")


async def test_a_parked_job_is_seen_and_tried_again(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    job_id = await _put(database, outbox)
    await runner(work=_refuse).drain()
    [found] = await inventory.list(state="parked")
    assert (found.id, found.error, found.attempts) == (job_id, "It cannot be done.", 1)
    assert await inventory.get(job_id) == found
    await inventory.replay(job_id)
    again = await inventory.get(job_id)
    assert (again.state, again.attempts, again.error) == ("waiting", 0, None)
    with pytest.raises(Conflict):
        await inventory.replay(job_id)
    done: list[Job] = []

    async def work(job: Job) -> None:
        done.append(job)

    assert await runner(work=work).drain() == 1
    assert done == [Job(job_id, "work", {"about": "work"}, 1)]
    with pytest.raises(NotFound):
        await inventory.replay(job_id)
    assert notes.taken == [("job.replay", job_id)]


async def test_a_parked_job_is_thrown_away_and_no_other(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    parked, waiting = await _put(database, outbox), await _put(database, outbox, "later")
    await runner(work=_refuse).drain()
    with pytest.raises(Conflict) as raised:
        await inventory.discard(waiting)
    assert raised.value.error_code == "job_not_parked"
    await inventory.discard(parked)
    with pytest.raises(NotFound):
        await inventory.get(parked)
    assert [job.id for job in await inventory.list()] == [waiting]
    assert notes.taken == [("job.discard", parked)]


async def test_a_list_is_of_a_state_a_kind_and_a_length(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, clock: ManualClock
) -> None:
    ids = []
    for kind in ("work", "later", "later"):
        ids.append(await _put(database, outbox, kind))
        clock.advance(1)
    await runner(work=_refuse).drain()
    assert [job.id for job in await inventory.list()] == ids
    assert [job.id for job in await inventory.list(limit=2)] == ids[:2]
    assert [job.id for job in await inventory.list(kind="later")] == ids[1:]
    assert [job.id for job in await inventory.list(state="waiting", kind="work")] == []


async def test_they_are_counted(
    database: Database, outbox: Outbox, runner: MakeRunner, clock: ManualClock
) -> None:
    assert (await count(database, clock.now())).oldest_due is None
    began = clock.now()
    for kind in ("work", "later", "later"):
        await _put(database, outbox, kind)
    await _put(database, outbox, "later", delay=600)
    await runner(work=_refuse).drain()
    clock.advance(30)
    there = await count(database, clock.now())
    assert there.numbers == {("parked", "work"): 1, ("waiting", "later"): 3}
    assert there.oldest_due == began
