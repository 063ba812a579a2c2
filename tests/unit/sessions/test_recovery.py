"""A server that dies in the middle of a turn, at every moment: none is lost, none is doubled."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import insert, select

from stationmaster.agents.base import AgentExited, LaunchSpec
from stationmaster.agents.scripted import Call, Fail, Say, ScriptedAgent, Step, UseTool
from stationmaster.budgets.entry import CallContext, Reserved
from stationmaster.budgets.tables import ledger
from stationmaster.events import NewEvent
from stationmaster.jobs.tables import instances
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.inputs import Interrupt
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.turn import plan_turn
from stationmaster.sessions.session import Session
from stationmaster.storage import Database, Transaction
from tests.support.core import LEASE, Core
from tests.unit.sessions.talking import WAIT_S, Talk, nothing_is_held, say


class Mortal(Database):
    """A database to a server that dies after so many of its transactions: the rest never comes."""

    def __init__(self, database: Database, writes: int) -> None:
        self.dialect = database.dialect
        self._database = database
        self.left = writes
        self.dead = asyncio.Event()

    async def read(self, query: Callable[[Transaction], Any]) -> Any:
        if self.left <= 0:
            await self._die()
        return await self._database.read(query)

    async def write(self, verb: Callable[[Transaction], Any]) -> Any:
        if self.left <= 0:
            await self._die()
        self.left -= 1
        return await self._database.write(verb)

    async def _die(self) -> None:
        self.dead.set()
        await asyncio.Event().wait()

    async def close(self) -> None: ...


async def prompts(core: Core, session: Session) -> list[str]:
    """What was said to the agent, by its history."""
    assert session.state.history is not None
    entries = await core.seats.sink(session).load(session.state.history, None)
    assert entries is not None
    return [_text(each["message"]["content"]) for each in entries if each["type"] == "user"]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if block.get("type") == "text")


async def one_life(core: Core, mortal: Mortal, directory: Path) -> Core:
    """A server works until it is dead or idle; another finds what it has left."""
    first = Core(mortal, directory, clock=core.clock, agent=ScriptedAgent(_script))
    worker = first.worker(1)
    running = asyncio.create_task(worker.run())
    done = asyncio.create_task(_all_ended(core))
    await asyncio.wait(
        {done, asyncio.create_task(mortal.dead.wait())},
        timeout=WAIT_S,
        return_when=asyncio.FIRST_COMPLETED,
    )
    mortal.left = 0  # whatever is under way ends here
    tasks = [running, done, *(task for _, task in worker._running.values())]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=1.0)
    return first


async def _all_ended(core: Core) -> None:
    while (depth := await core.runs.depth()).queued or depth.running:
        await asyncio.sleep(0.01)


def _script(spec: LaunchSpec, content: Any) -> list[Any]:
    return [Say("Beginning."), UseTool("Bash", {"command": "make"}), Say("Done.")]


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(1, 16))
async def test_a_server_that_dies_after_each_of_its_transactions(
    talk: Talk, core: Core, tmp_path: Path, writes: int
) -> None:
    session = await talk.create(say("the only message"))
    dying = await one_life(core, Mortal(core.database, writes), tmp_path)
    await _register(core, dying)
    core.clock.advance(LEASE + 1)
    await core.claims.take_over(dying.instances.id)
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = _script
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    book = await talk.book(session)
    [end] = [each for each in book if each.type == "run.ended"]
    assert end.data["state"] == "completed"
    said = await prompts(core, now)
    assert sum(each == "the only message" for each in said) == 1, said
    uses = {e.data["id"] for e in book if e.type == "agent.tool_use"}
    results = [e.data["tool_use_event_id"] for e in book if e.type == "agent.tool_result"]
    assert set(results) == uses
    assert len(results) == len(uses), "each call has one outcome"
    await nothing_is_held(core)
    await core.pool.aclose()


async def _register(core: Core, dying: Core) -> None:
    """The dead one's entry in the list of the living, as it stood when it died."""
    now = core.clock.now()
    row = {"id": dying.instances.id, "started_at": now, "lease_until": now + 1}
    await core.database.write(lambda tx: tx.execute(insert(instances), row))


async def lose(core: Core) -> Core:
    """Claim what waits on a server that dies then; return the one that has found it."""
    dead = core.beside()
    await dead.instances.register()
    claim = await dead.claims.next()
    assert claim is not None
    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(dead.instances.id) == 1
    return dead


async def test_what_a_struck_off_server_began_before_it_died_is_found(
    talk: Talk, core: Core
) -> None:
    await core.instances.register()
    await talk.create(say("one"))
    late = core.beside()
    await late.instances.register()
    core.clock.advance(LEASE + 1)
    await core.instances.renew()
    assert await core.claims.take_over(late.instances.id) == 0  # it has nothing yet
    claim = await late.claims.next()  # and has not heard that it counts as dead
    assert claim is not None
    context = CallContext(
        "call_1", claim.run.owner, claim.run.key_id, None, None, "anthropic", "haiku"
    )
    assert isinstance(await late.budgets.reserve(context, 700), Reserved)
    assert await core.instances.dead() == []

    assert await core.claims.take_over_strays() == 1
    again = await core.claims.next()
    assert again is not None
    assert again.run.id == claim.run.id
    assert await core.database.read(core.budgets.holders) == []
    [line] = await core.database.read(
        lambda tx: tx.execute(select(ledger.c.cost, ledger.c.outcome)).all()
    )
    assert tuple(line) == (700, "unknown")
    assert await core.claims.take_over_strays() == 0


async def test_who_is_listed_keeps_what_it_has(talk: Talk, core: Core) -> None:
    await talk.create(say("one"))
    other = core.beside()
    await other.instances.register()
    assert await other.claims.next() is not None
    core.clock.advance(LEASE + 1)  # its time is over, and nobody has struck it off yet
    assert await core.claims.take_over_strays() == 0
    await talk.create(say("two"))
    assert await core.claims.next() is not None
    assert await core.claims.take_over_strays() == 0  # this one is not on the list itself


async def test_a_turn_that_takes_every_server_with_it_is_given_up(talk: Talk, core: Core) -> None:
    session = await talk.create(say("one"), say("two"))
    for _ in range(3):
        await lose(core)
    now = await talk.now(session)
    book = await talk.book(session)
    [end] = [each.data for each in book if each.type == "run.ended"]
    assert (end["state"], end["error"]["code"]) == ("failed", "run_lost_repeatedly")
    [idle] = [each.data for each in book if each.type == "session.status_idle"]
    assert idle["stop_reason"] == {"type": "retries_exhausted"}
    assert now.state.status == "running", "the next message has its turn"
    async with core.working(core.worker(1)):
        await talk.ended(session, 2)
    await core.pool.aclose()


async def test_a_session_may_rather_be_interrupted(talk: Talk, core: Core) -> None:
    session = await talk.create(say("one"), on_crash="interrupt")
    await lose(core)
    now = await talk.now(session)
    [end] = [e.data for e in await talk.book(session) if e.type == "run.ended"]
    assert (end["state"], end["error"]["code"]) == ("interrupted", "worker_lost")
    assert now.state.status == "idle"


@pytest.mark.parametrize("policy", ["resume", "interrupt"])
async def test_a_stop_whose_grace_runs_out_in_the_middle_of_a_turn(
    talk: Talk, core: Core, policy: str
) -> None:
    """Another worker goes on from what is kept, or nobody does: as the session has it."""
    here = asyncio.Event()

    async def reached(_spec: LaunchSpec) -> None:
        here.set()
        await asyncio.Event().wait()

    talk.script(Say("Beginning."), UseTool("Bash", {"command": "make"}), Call(reached))
    session = await talk.create(say("go"), on_crash=policy)
    other = core.beside(agent=ScriptedAgent((Say("It goes on."),)))
    async with core.working(core.worker(1)) as worker, asyncio.timeout(WAIT_S):
        await here.wait()
        async with other.working(other.worker(1)):
            with structlog.testing.capture_logs():
                await worker.drain(0.01)
            now = await talk.ended(session)
    book = await talk.book(session)
    [end] = [each.data for each in book if each.type == "run.ended"]
    starts = [each.data["instance_id"] for each in book if each.type == "run.started"]
    assert core.agent.alive() == 0
    if policy == "interrupt":
        assert (end["state"], end["error"]["code"]) == ("interrupted", "shutting_down")
        assert starts == [core.instances.id]
    else:
        assert end["state"] == "completed"
        assert starts == [core.instances.id, other.instances.id]
        said = await prompts(core, now)
        assert said[0] == "go"
        assert sum(each == "go" for each in said) == 1, said
        assert [e.data["lost"] for e in book if e.type == "run.requeued"] == [0]
        assert len({e.data["history"] for e in book if e.type == "run.seated"}) == 1
    await nothing_is_held(core)
    await core.pool.aclose()
    await other.pool.aclose()


async def test_the_agent_and_the_book_are_told_what_is_not_known(
    talk: Talk, core: Core, tmp_path: Path
) -> None:
    here = asyncio.Event()

    async def reached(_spec: LaunchSpec) -> None:
        here.set()
        await asyncio.Event().wait()

    class Halfway(ScriptedAgent):
        """Never gives the result of its call."""

    steps: list[Step] = [Say("Beginning."), Call(reached), Say("Done.")]
    first = Core(core.database, tmp_path, clock=core.clock, agent=Halfway(steps))
    session = await talk.create(say("go"))
    await first.instances.register()
    worker = first.worker(1)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(WAIT_S):
        await here.wait()
    # A call whose result never came.
    [(execution, task)] = list(worker._running.values())
    await talk.until(session, lambda book: "agent.message" in [e.type for e in book])
    lost: dict[str, Any] = {"id": "sevt_lost", "tool_use_id": "toolu_lost", "name": "bash"}
    execution._journal.add(
        "agent.tool_use", **lost, input={"command": "deploy"}, evaluated_permission="allow"
    )
    await execution._journal.flush()
    running.cancel()
    execution.stop(None)
    await asyncio.wait({task})
    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(first.instances.id) == 1
    talk.script(Say("I will look first."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    [told] = [each for each in await prompts(core, now) if "not known" in each]
    assert "deploy" in told
    book = await talk.book(session)
    [outcome] = [e.data for e in book if e.type == "agent.tool_result"]
    assert (outcome["tool_use_event_id"], outcome["outcome"]) == ("sevt_lost", "unknown")
    [resumed] = [e.data for e in book if e.type == "run.resumed"]
    assert resumed["unknown"] == ["sevt_lost"]
    await core.pool.aclose()


async def test_what_is_not_known_is_told_until_somebody_lives_to_hear_it(
    talk: Talk, core: Core
) -> None:
    """The second server dies, too: the book has the outcome by then, the agent has no note."""
    session = await talk.create(say("go"))
    lost: dict[str, Any] = {"id": "sevt_lost", "tool_use_id": "toolu_lost", "name": "bash"}
    used = {**lost, "input": {"command": "deploy"}, "evaluated_permission": "allow"}
    for attempt in range(2):
        dead = core.beside()
        await dead.instances.register()
        claim = await dead.claims.next()
        assert claim is not None
        planned = await plan_turn(claim, core.database, dead.seats)
        journal = Journal(core.database, core.events, core.records, claim, core.clock)
        writing = asyncio.create_task(journal.run())
        planned.write_down(journal)
        if attempt == 0:
            journal.add("agent.tool_use", **used)
        async with asyncio.timeout(WAIT_S):
            await journal.flush()
        await dead.seats.take(claim, planned.wanted)
        writing.cancel()
        core.clock.advance(LEASE + 1)
        assert await core.claims.take_over(dead.instances.id) == 1
        await dead.pool.aclose()
    talk.script(Say("I will look first."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    [prompt] = await prompts(core, now)
    assert prompt.startswith("go")
    assert "deploy" in prompt
    [outcome] = [e.data for e in await talk.book(session) if e.type == "agent.tool_result"]
    assert (outcome["tool_use_event_id"], outcome["outcome"]) == ("sevt_lost", "unknown")
    await core.pool.aclose()


async def test_a_history_of_which_nothing_was_kept_is_not_gone_on_with(
    talk: Talk, core: Core
) -> None:
    """Nor is its id used again: what the agent wrote itself may still lie in its home."""
    session = await talk.create(say("one"))
    histories = []
    for _ in range(2):
        dead = core.beside()
        await dead.instances.register()
        claim = await dead.claims.next()
        assert claim is not None
        planned = await plan_turn(claim, core.database, dead.seats)
        assert planned.wanted.resume is None
        histories.append((await dead.seats.take(claim, planned.wanted)).live.agent_session_id)
        core.clock.advance(LEASE + 1)
        assert await core.claims.take_over(dead.instances.id) == 1
        await dead.pool.aclose()
    assert len(set(histories)) == 2
    assert (await talk.now(session)).state.history == histories[-1]
    # The turn ends without anything being kept. The next one begins all the same.
    await talk.send(session, Interrupt())
    await talk.send(session, say("two"))
    talk.script(Say("Hello."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session, 2)
    assert now.state.status == "idle"
    assert await prompts(core, now) == ["two"]
    await core.pool.aclose()


async def test_a_server_that_was_given_up_for_dead_writes_no_more(
    talk: Talk, core: Core, tmp_path: Path
) -> None:
    here, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_spec: LaunchSpec) -> None:
        here.set()
        await go_on.wait()

    steps: list[Step] = [Say("Old."), Call(wait), Say("Late.")]
    old = Core(core.database, tmp_path, clock=core.clock, agent=ScriptedAgent(steps))
    session = await talk.create(say("go"))
    await old.instances.register()
    async with old.working(old.worker(1)):
        async with asyncio.timeout(WAIT_S):
            await here.wait()
        core.clock.advance(LEASE + 1)
        assert await core.claims.take_over(old.instances.id) == 1
        talk.script(Say("New."))
        async with core.working(core.worker(1)):
            now = await talk.ended(session)
        go_on.set()
        async with asyncio.timeout(WAIT_S):
            while old.agent.alive():
                await asyncio.sleep(0.01)
    assert now == await talk.now(session)
    entries = await core.seats.sink(session).load(now.state.history or "", None)
    assert "Late." not in str(entries)
    await core.pool.aclose()


class Doubtful(Mortal):
    """Of one transaction nobody knows whether it was committed. It was not."""

    doubts = 1

    async def write(self, verb: Callable[[Transaction], Any]) -> Any:
        entries = getattr(verb, "keywords", {}).get("batch", ())
        if self.doubts and any(each.event.type == "agent.message" for each in entries):
            self.doubts -= 1
            raise Unavailable(code="commit_unknown")
        return await super().write(verb)


async def test_what_an_earlier_attempt_wrote_is_not_taken_for_ones_own(
    talk: Talk, core: Core, tmp_path: Path
) -> None:
    """It looks the same: only its place in the stream tells."""
    session = await talk.create(say("go"))
    dead = core.beside()
    await dead.instances.register()
    claim = await dead.claims.next()
    assert claim is not None
    same = {"run_id": claim.run.id, "content": [{"type": "text", "text": "Same."}]}
    await core.database.write(
        lambda tx: core.events.append(tx, session.id, [NewEvent("agent.message", same)])
    )
    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(dead.instances.id) == 1
    claim = await core.claims.next()
    assert claim is not None
    doubtful = Doubtful(core.database, 1000)
    journal = Journal(doubtful, core.events, core.records, claim, core.clock)
    writing = asyncio.create_task(journal.run())
    journal.add("agent.message", content=same["content"])
    async with asyncio.timeout(WAIT_S):
        await journal.flush()
    writing.cancel()
    assert doubtful.doubts == 0
    assert (await talk.types(session)).count("agent.message") == 2


async def test_the_same_words_said_twice_are_two_messages(talk: Talk, core: Core) -> None:
    """Also where the first of them had its turn cut, and so no known end in the history."""
    talk.script(Say("Well."), Fail(AgentExited("It died.")))
    session = await talk.create(say("go on"))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    assert now.state.position is None
    await talk.send(session, say("go on"))
    dead = core.beside()
    await dead.instances.register()
    claim = await dead.claims.next()
    assert claim is not None
    planned = await plan_turn(claim, core.database, dead.seats)
    await dead.seats.take(claim, planned.wanted)  # and it dies before it has said it
    assert (await talk.now(session)).state.position is not None
    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(dead.instances.id) == 1
    talk.script(Say("Done."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session, 2)
    assert await prompts(core, now) == ["go on", "go on"]
    await core.pool.aclose()
    await dead.pool.aclose()
