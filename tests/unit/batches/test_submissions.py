"""Submissions as rows, on SQLite and on PostgreSQL."""

from collections.abc import Sequence
from decimal import Decimal

import pytest

from stationmaster.batches import Batch, Batches
from stationmaster.batches.batch import NewRequest
from stationmaster.batches.submission import Ending, Submission
from stationmaster.batches.submissions import Submissions
from stationmaster.budgets import Budgets
from stationmaster.budgets.entry import CallContext, Held, lost
from stationmaster.gateway.deferred import Ask, Destination
from stationmaster.jobs import Instances, Outbox
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.support.core import ALICE

THERE = Destination("claude", "m", "anthropic", Decimal("0.5"))


class Sorting:
    """Sends there what says so."""

    offered = True

    def destination(self, principal: Principal, ask: Ask) -> Destination | None:
        return THERE if b"there" in ask.raw else None


class House:
    """One of the servers on a database."""

    def __init__(self, database: Database) -> None:
        clock = self.clock = ManualClock()
        self.database = database
        self.instances = Instances(database, clock, lease=10.0)
        self.budgets = Budgets(database, clock, instance_id=self.instances.id)
        outbox = Outbox(MemoryBus(), clock)
        self.batches = Batches(database, clock, outbox, retention=86_400.0, sorting=Sorting())
        self.submissions = Submissions(database, clock, self.instances, self.budgets)

    async def make(self, words: Sequence[str]) -> Batch:
        requests = [NewRequest(f"r{n}", f'"{word}"') for n, word in enumerate(words)]
        return await self.batches.create(ALICE, "messages", requests)

    async def opened(self) -> Submission:
        submission = await self.submissions.open()
        assert submission is not None
        return submission

    async def hold(self, submission: Submission, number: int) -> None:
        call_id = f"{submission.batch_id}:{number}:1"
        context = CallContext(call_id, ALICE.owner, "key_alice", None, None, "claude", "m")
        await self.budgets.reserve(context, 300, holder=submission.id)

    async def holds(self, submission: Submission) -> dict[int, Held]:
        """Of any of its requests, whatever became of them since."""
        found = await self.database.read(lambda tx: self.budgets.held(tx, submission.id))
        return {int(each.context.call_id.split(":")[1]): each for each in found}

    async def state(self, batch: Batch) -> Batch:
        return await self.batches.get(ALICE, batch.id)


@pytest.fixture
async def house(database: Database) -> House:
    made = House(database)
    await made.instances.register()
    return made


async def test_what_goes_there_is_taken_once_and_ends_once(house: House) -> None:
    batch = await house.make(["there", "here", "there"])
    submission = await house.opened()
    assert (submission.to, submission.size, submission.state) == (THERE, 2, "preparing")
    await house.hold(submission, 0)
    assert await house.submissions.intend(submission, 2) is not None
    await house.submissions.adopt(submission, "theirs")
    holds = await house.holds(submission)
    assert list(holds) == [0]

    entry = lost(holds[0], 7)
    endings = [Ending(0, "succeeded", 200, "{}", entry), Ending(2, "expired")]
    assert await house.submissions.end(submission, endings) == endings
    assert await house.submissions.end(submission, endings) == []
    counts = (await house.state(batch)).counts
    assert (counts.succeeded, counts.expired, counts.processing) == (1, 1, 1)
    await house.submissions.finish(submission)
    assert await house.submissions.due() == []


async def test_holds_of_a_submission_are_nobodys_who_died(house: House) -> None:
    await house.make(["there"])
    submission = await house.opened()
    await house.hold(submission, 0)
    assert await house.database.read(house.budgets.holders) == []
    await house.submissions.finish(submission)
    assert await house.holds(submission) == {}


async def test_who_was_overtaken_may_not_send(house: House) -> None:
    batch = await house.make(["there", "there"])
    submission = await house.opened()
    await house.hold(submission, 0)
    await house.submissions.abandon(submission, None, delay=0.0)
    assert await house.submissions.intend(submission, 2) is None
    assert await house.holds(submission) == {}
    again = await house.opened()
    assert (again.size, again.id != submission.id) == (2, True)
    attempts = [each.attempt async for page in house.submissions.pages(again) for each in page]
    assert attempts == [2, 2]  # so that no call's id comes twice
    assert (await house.state(batch)).counts.processing == 2


async def test_what_has_gone_on_is_not_given_up(house: House) -> None:
    await house.make(["there"])
    seen = await house.opened()
    assert await house.submissions.intend(seen, 1) is not None
    await house.submissions.abandon(seen, None, delay=0.0)  # by what was seen before
    now = await house.submissions.get(seen.id)
    assert now is not None
    assert now.state == "submitting"
    assert len([page async for page in house.submissions.pages(now)]) == 1


async def test_a_batch_that_is_cancelled_is_not_sent(house: House) -> None:
    batch = await house.make(["there", "there"])
    submission = await house.opened()
    await house.batches.cancel(ALICE, batch.id)
    assert await house.submissions.intend(submission, 2) is None
    await house.submissions.abandon(submission, None, delay=0.0)
    found = await house.state(batch)
    assert (found.state, found.counts.canceled) == ("ended", 2)


async def test_what_a_provider_takes_no_more_is_made_as_a_call(house: House) -> None:
    await house.make(["there", "there"])
    submission = await house.opened()
    await house.submissions.put_back(submission, [0], delay=0.0, call=True)
    await house.submissions.put_back(submission, [1], delay=5.0)
    await house.submissions.finish(submission)
    assert await house.submissions.open() is None
    house.clock.advance(6.0)
    assert (await house.opened()).size == 1
