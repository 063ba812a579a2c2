"""Jobs as the operator sees them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import delete

from stationmaster.jobs import Job, Outbox, Parked
from stationmaster.jobs.inventory import Inventory, Listed, Note, count
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database, Transaction
from stationmaster.telemetry import Redactor
from tests.unit.jobs.conftest import MakeRunner

OURS = "org_ours"
KNOWN = "a-secret-that-is-known"


def _key(organization_id: str = OURS, *scopes: str) -> Principal:
    return Principal("key", "key_a", Owner(organization_id, "proj"), "key_a", frozenset(scopes))


OPERATOR = _key(OURS, "admin:jobs")


class Notes:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str, str, int]] = []

    def __call__(self, principal: Principal) -> Note:
        def note(_tx: Transaction, action: str, job: Listed) -> None:
            self.taken.append((principal.id, action, job.id, job.attempts))

        return note


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def inventory(database: Database, clock: ManualClock, notes: Notes) -> Inventory:
    mask = Redactor(KNOWN).scrub
    return Inventory(database, clock, operators=OURS, noting=notes, mask=mask)


async def _ids(inventory: Inventory, **which: Any) -> list[str]:
    page = await inventory.list(OPERATOR, **{"limit": 100, **which})
    return [job.id for job in page.items]


async def _put(database: Database, outbox: Outbox, kind: str = "work", delay: float = 0) -> str:
    return await database.write(lambda tx: outbox.put(tx, kind, {"about": kind}, delay=delay))


async def _refuse(_job: Job) -> None:
    raise Parked("It cannot be done.")


async def test_a_parked_job_is_seen_and_tried_again(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    job_id = await _put(database, outbox)
    await runner(work=_refuse).drain()
    [found] = (await inventory.list(OPERATOR, state="parked", limit=1)).items
    assert (found.id, found.error, found.attempts) == (job_id, "It cannot be done.", 1)
    assert await inventory.get(OPERATOR, job_id) == found
    again = await inventory.replay(OPERATOR, job_id)
    assert await inventory.get(OPERATOR, job_id) == again
    assert (again.state, again.attempts, again.error) == ("waiting", 0, None)
    with pytest.raises(Conflict):
        await inventory.replay(OPERATOR, job_id)
    done: list[Job] = []

    async def work(job: Job) -> None:
        done.append(job)

    assert await runner(work=work).drain() == 1
    assert done == [Job(job_id, "work", {"about": "work"}, 1)]
    with pytest.raises(NotFound):
        await inventory.replay(OPERATOR, job_id)
    assert notes.taken == [("key_a", "job.replay", job_id, 1)]


async def test_whoever_works_is_told_of_a_job_that_is_due_again(
    database: Database, clock: ManualClock, runner: MakeRunner, notes: Notes
) -> None:
    """As of a new one, after the commit; and not of one that is refused."""
    told: list[tuple[str, str]] = []

    def ring(job_id: str, kind: str) -> None:
        told.append((job_id, kind))

    outbox = Outbox(MemoryBus(), clock, ring=ring)
    mask = Redactor(KNOWN).scrub
    inventory = Inventory(database, clock, operators=OURS, noting=notes, mask=mask, outbox=outbox)
    job_id = await _put(database, outbox)
    await runner(work=_refuse).drain()
    told.clear()
    await inventory.replay(OPERATOR, job_id)
    assert told == [(job_id, "work")]
    with pytest.raises(Conflict):
        await inventory.replay(OPERATOR, job_id)
    assert told == [(job_id, "work")]


async def test_a_parked_job_is_thrown_away_and_no_other(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    parked, waiting = await _put(database, outbox), await _put(database, outbox, "later")
    await runner(work=_refuse).drain()
    with pytest.raises(Conflict) as raised:
        await inventory.discard(OPERATOR, waiting)
    assert raised.value.error_code == "job_not_parked"
    await inventory.discard(OPERATOR, parked)
    with pytest.raises(NotFound):
        await inventory.get(OPERATOR, parked)
    assert await _ids(inventory) == [waiting]
    assert notes.taken == [("key_a", "job.discard", parked, 1)]


async def test_a_list_is_of_a_state_a_kind_and_a_length(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, clock: ManualClock
) -> None:
    ids = []
    for kind in ("work", "later", "later"):
        ids.append(await _put(database, outbox, kind))
        clock.advance(1)
    await runner(work=_refuse).drain()
    assert await _ids(inventory) == ids
    assert await _ids(inventory, limit=2) == ids[:2]
    assert await _ids(inventory, kind="later") == ids[1:]
    assert await _ids(inventory, state="waiting", kind="work") == []


async def test_pages_hold_each_once_whatever_is_done_meanwhile(
    database: Database, outbox: Outbox, inventory: Inventory, clock: ManualClock
) -> None:
    ids = []
    for number in range(5):
        ids.append(await _put(database, outbox))
        clock.advance(number % 2)  # some of the same moment
    ids = await _ids(inventory)
    first = await inventory.list(OPERATOR, limit=2)
    assert [job.id for job in first.items] == ids[:2]
    await database.write(lambda tx: tx.execute(delete(jobs).where(jobs.c.id.in_(ids[1:3]))))
    second = await inventory.list(OPERATOR, limit=2, after=first.next_cursor)
    assert ([job.id for job in second.items], second.next_cursor) == (ids[3:], None)
    for strange in ("", "x", "1", ".job_a", "-1.job_a", f"{10**20}.a"):
        with pytest.raises(Invalid):
            await inventory.list(OPERATOR, limit=2, after=strange)


async def test_of_two_who_replay_one_at_once_one_does(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    for verb in (inventory.replay, inventory.discard):
        job_id = await _put(database, outbox)
        await runner(work=_refuse).drain()
        notes.taken.clear()
        both = [verb(OPERATOR, job_id), verb(OPERATOR, job_id)]
        ends = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(isinstance(end, Listed) for end in ends) == [False, True]
        [refused] = [end for end in ends if not isinstance(end, Listed)]
        assert isinstance(refused, Conflict if verb == inventory.replay else NotFound)
        assert len(notes.taken) == 1


async def test_only_the_servers_own_people_see_them(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory, notes: Notes
) -> None:
    job_id = await _put(database, outbox)
    await runner(work=_refuse).drain()
    verbs = (inventory.get, inventory.replay, inventory.discard)
    for scopes in ((), ("admin:server",), ("read:*", "write:*")):
        asking = _key(OURS, *scopes)
        with pytest.raises(Denied):
            await inventory.list(asking, limit=1)
        for verb in verbs:
            with pytest.raises(Denied):
                await verb(asking, job_id)
    tenant = _key("org_other", "*")
    with pytest.raises(Denied):
        await inventory.list(tenant, limit=1)
    for verb in verbs:
        told = set()
        for each in (job_id, "job_that_never_was"):
            with pytest.raises(NotFound) as raised:
                await verb(tenant, each)
            told.add((raised.value.error_code, raised.value.message))
        assert len(told) == 1
    assert notes.taken == []
    assert (await inventory.get(OPERATOR, job_id)).state == "parked"


async def test_secrets_are_masked_wherever_they_are(
    database: Database, outbox: Outbox, runner: MakeRunner, inventory: Inventory
) -> None:
    shaped = "sk-ant-api03-abcdefghijklmnopqrst"
    payload = {"url": f"https://a:{KNOWN}@b", "more": [{"key": shaped}, 7], "run_id": "run_a"}

    async def refuse(_job: Job) -> None:
        raise Parked(f"It refused {shaped} and {KNOWN}.")

    job_id = await database.write(lambda tx: outbox.put(tx, "work", payload))
    await runner(work=refuse).drain()
    [listed] = (await inventory.list(OPERATOR, limit=1)).items
    for found in (listed, await inventory.get(OPERATOR, job_id)):
        assert found.error == "It refused [redacted] and [redacted]."
        assert found.payload["run_id"] == "run_a"
        assert found.payload["more"] == [{"key": "[redacted]"}, 7]
        assert KNOWN not in str(found)
    done: list[Job] = []

    async def work(job: Job) -> None:
        done.append(job)

    await inventory.replay(OPERATOR, job_id)
    await runner(work=work).drain()
    assert [job.payload for job in done] == [payload]  # who does it is told all


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
