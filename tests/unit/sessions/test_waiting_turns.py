"""A turn that waits for somebody holds up no other."""

import asyncio

import pytest
import structlog

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import Call, Say, ScriptedAgent, Step, UseTool
from stationmaster.sessions.inputs import Interrupt, ToolConfirmation
from stationmaster.sessions.runs import gate
from stationmaster.sessions.runs import worker as worker_module
from stationmaster.sessions.runs.worker import Worker
from stationmaster.sessions.session import Session
from stationmaster.sessions.tables import approvals
from tests.support.core import Core, principal
from tests.unit.sessions.talking import ASKING, WAIT_S, Talk, nothing_is_held, say

LS = UseTool("Bash", {"command": "ls"}, "a.txt")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No doorbell rings here, and slots are lent at once."""
    monkeypatch.setattr(worker_module, "POLL_S", 0.02)
    monkeypatch.setattr(gate, "LEND_AFTER_S", 0.0)


class Room:
    """Where an agent stays until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def stay(self, _spec: LaunchSpec) -> None:
        self.entered.set()
        await self.leave.wait()


def plays(core: Core, room: Room | None = None) -> None:
    """An agent that asks, unless it is told to stay in the room, or to work."""

    def script(_spec: LaunchSpec, content: object) -> list[Step]:
        if "stay" in str(content) and room is not None:
            return [Call(room.stay), Say("Out again.")]
        return [LS, Say("Done.")] if "ask" in str(content) else [Say("Worked.")]

    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = script


async def until_waiting(worker: Worker, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while worker.waiting != count:
            await asyncio.sleep(0.01)


async def told(core: Core) -> list[bool]:
    query = approvals.select().order_by(approvals.c.id)
    rows = await core.database.read(lambda tx: tx.execute(query).all())
    return [row.told for row in rows]


async def answer(talk: Talk, session: Session) -> None:
    [event_id] = await talk.asked(session)
    await talk.send(session, ToolConfirmation(event_id, allow=True))


async def test_another_turn_goes_on_meanwhile(talk: Talk, core: Core) -> None:
    plays(core)
    async with core.working(core.worker(1, waiting=1)) as worker:
        asking = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(asking)
        await until_waiting(worker, 1)
        assert worker.active == 0
        other = await talk.create(say("work"))
        await talk.ended(other)
        await answer(talk, asking)
        await talk.ended(asking)
        assert (worker.active, worker.waiting) == (0, 0)
    await nothing_is_held(core)
    await core.pool.aclose()


async def test_who_is_answered_soon_does_not_queue_again(
    talk: Talk, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEND_AFTER_S", WAIT_S)
    plays(core)
    async with core.working(core.worker(1, waiting=1)) as worker:
        asking = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(asking)
        other = await talk.create(say("work"))
        assert (worker.active, worker.waiting) == (1, 0)
        await answer(talk, asking)
        await talk.ended(asking)
        await talk.ended(other)
    await core.pool.aclose()


async def test_beyond_the_most_that_may_wait_a_turn_keeps_its_slot(talk: Talk, core: Core) -> None:
    plays(core)
    async with core.working(core.worker(1, waiting=1)) as worker:
        first = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(first)
        await until_waiting(worker, 1)
        second = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(second)
        third = await talk.create(say("work"))
        assert (worker.active, worker.waiting) == (1, 1)
        assert "run.started" not in await talk.types(third)
        await answer(talk, second)
        await talk.ended(second)
        await talk.ended(third)
        await answer(talk, first)
        await talk.ended(first)
    await core.pool.aclose()


async def test_an_answered_turn_waits_for_a_slot_and_its_answer_is_not_used_up(
    talk: Talk, core: Core
) -> None:
    room = Room()
    plays(core, room)
    async with core.working(core.worker(1, waiting=1)) as worker:
        asking = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(asking)
        await until_waiting(worker, 1)
        busy = await talk.create(say("stay"))
        async with asyncio.timeout(WAIT_S):
            await room.entered.wait()
        await answer(talk, asking)
        late = await talk.create(say("work"))
        for _ in range(20):  # let it come as far as it will
            await asyncio.sleep(0.01)
        assert await told(core) == [False]
        assert (worker.active, worker.waiting) == (1, 1)
        room.leave.set()
        await talk.ended(busy)
        await talk.ended(asking)
        await talk.ended(late)
        assert await told(core) == [True]
    begun = {
        session.id: next(e.at for e in await talk.book(session) if e.type == "agent.message")
        for session in (asking, late)
    }
    assert begun[asking.id] <= begun[late.id]
    await core.pool.aclose()


async def test_an_interrupt_ends_a_turn_that_waits_for_its_slot(talk: Talk, core: Core) -> None:
    room = Room()
    plays(core, room)
    async with core.working(core.worker(1, waiting=1)) as worker:
        asking = await talk.create(say("ask"), tools=[ASKING])
        await talk.asked(asking)
        await until_waiting(worker, 1)
        busy = await talk.create(say("stay"))
        async with asyncio.timeout(WAIT_S):
            await room.entered.wait()
        await answer(talk, asking)
        await talk.send(asking, Interrupt())
        await talk.ended(asking)
        async with asyncio.timeout(WAIT_S):
            while (worker.active, worker.waiting) != (1, 0):
                await asyncio.sleep(0.01)
        room.leave.set()
        await talk.ended(busy)
        assert (worker.active, worker.waiting) == (0, 0)
    await core.pool.aclose()


async def test_a_stop_gives_a_waiting_turn_back_at_once(talk: Talk, core: Core) -> None:
    plays(core)
    resumes = await talk.create(say("ask"), tools=[ASKING])
    ends = await talk.create(say("ask"), tools=[ASKING], on_crash="interrupt")
    async with core.working(core.worker(2, waiting=2)) as worker:
        for session in (resumes, ends):
            await talk.asked(session)
        await until_waiting(worker, 2)
        stopping = asyncio.create_task(worker.drain(WAIT_S))
        await talk.until(resumes, lambda book: book[-1].type == "session.status_rescheduled")
        # The other can wait here alone.
        assert (worker.waiting, stopping.done()) == (1, False)
        await answer(talk, ends)
        with structlog.testing.capture_logs():
            await stopping
        [end] = [e.data for e in await talk.book(ends) if e.type == "run.ended"]
        assert end["state"] == "completed"
    other = core.beside()
    async with other.working(other.worker(1, waiting=1)):
        await answer(talk, resumes)
        await talk.ended(resumes)
    uses = [e for e in await talk.book(resumes) if e.type == "agent.tool_use"]
    assert len(uses) == 1, "it was not asked about twice"
    await core.pool.aclose()
    await other.pool.aclose()


async def test_for_fairness_who_waits_is_not_at_work(talk: Talk, core: Core) -> None:
    room = Room()
    plays(core, room)
    bob = Talk(core, principal("bob"))
    async with core.working(core.worker(1, waiting=2)) as worker:
        for _ in range(2):
            await talk.asked(await talk.create(say("ask"), tools=[ASKING]))
        await until_waiting(worker, 2)
        core.clock.advance(1)
        await bob.create(say("stay"))
        async with asyncio.timeout(WAIT_S):
            await room.entered.wait()
        await bob.create(say("work"))
        mine = await talk.create(say("work"))
        claim = await core.beside().claims.next()
        assert claim is not None
        assert claim.session.id == mine.id, "two of this key wait, one of the other is at work"
    await core.pool.aclose()
