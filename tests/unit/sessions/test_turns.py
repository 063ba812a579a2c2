"""A session's turns: one after the other, by the agent that waits in between."""

import asyncio
from typing import Any

import pytest

from stationmaster.agents.base import AgentExited, AgentHistoryMissing, LaunchSpec
from stationmaster.agents.scripted import Fail, Output, Say, ScriptedAgent, UseTool, WaitFor
from stationmaster.agents.scripted.live import ScriptedLive
from stationmaster.agents.slots import PoolLimits
from stationmaster.sessions.inputs import Interrupt
from tests.support.core import Core
from tests.unit.sessions.talking import Talk, nothing_is_held, say


def answering(spec: LaunchSpec, content: Any) -> list[Say]:
    """Says back what it was told."""
    return [Say("You said: " + content[0]["text"])]


def texts(book: list[Any], kind: str = "agent.message") -> list[str]:
    return [each.data["content"][0]["text"] for each in book if each.type == kind]


async def test_a_session_has_turn_after_turn_in_one_process(talk: Talk, core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = answering
    session = await talk.create(title="A talk", metadata={"team": "red"})
    assert (session.state.status, session.state.title) == ("idle", "A talk")
    now = session
    async with core.working(core.worker(2)):
        for number in range(3):
            [sent] = await talk.send(session, say(f"number {number}"))
            assert sent.processed_at is not None
            now = await talk.ended(session, number + 1)
            assert now.state.status == "idle"
            assert now.state.stop_reason == {"type": "end_turn"}
    assert texts(await talk.book(session)) == [f"You said: number {n}" for n in range(3)]
    assert len(core.agent.launched) == 1
    entries = await core.seats.sink(session).load(now.state.history or "", None)
    assert entries is not None
    said = [each["message"]["content"] for each in entries]
    assert len(said) == 6, "each turn is in the history once"
    assert now.state.position == entries[-1]["uuid"]
    await nothing_is_held(core)
    await core.pool.aclose()


async def test_the_book_of_a_turn(talk: Talk, core: Core) -> None:
    talk.script(UseTool("Bash", {"command": "ls"}), Say("Done."))
    session = await talk.create(say("go"))
    async with core.working(core.worker(1)):
        await talk.ended(session)
    assert await talk.types(session) == [
        "session.created",
        "user.message",
        "run.queued",
        "session.status_running",
        "run.started",
        "run.seated",
        "run.agent_ready",
        "agent.tool_use",
        "agent.tool_result",
        "agent.message",
        "session.usage",
        "session.status_idle",
        "run.ended",
    ]
    book = {event.type: event.data for event in await talk.book(session)}
    assert book["agent.tool_use"]["name"] == "bash"
    assert book["agent.tool_use"]["evaluated_permission"] == "allow"
    assert book["agent.tool_result"]["tool_use_event_id"] == book["agent.tool_use"]["id"]
    await core.pool.aclose()


async def test_messages_to_a_running_session_wait_for_their_turns(talk: Talk, core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    gate = asyncio.Event()

    def waiting(spec: LaunchSpec, content: Any) -> list[Any]:
        return [WaitFor(gate), *answering(spec, content)]

    core.agent.script = waiting
    session = await talk.create()
    async with core.working(core.worker(2)):
        sent = [*await talk.send(session, say("a"), say("b"))]
        sent += await talk.send(session, say("c"))
        assert [each.processed_at is None for each in sent] == [False, True, True]
        now = await talk.now(session)
        assert [each["id"] for each in now.state.queue] == [sent[1].id, sent[2].id]
        gate.set()
        now = await talk.ended(session, 3)
    assert texts(await talk.book(session)) == ["You said: a", "You said: b", "You said: c"]
    assert now.state.queue == ()
    seen = await core.sessions.events(talk.by, session.id, limit=1000)
    messages = [each for each in seen if each.event.type == "user.message"]
    assert [each.id for each in messages] == [each.id for each in sent]
    assert all(each.processed_at is not None for each in messages)
    order = [each.event.type for each in seen if each.event.type.startswith("run.")]
    assert order.index("run.ended") < len(order) - 1 - order[::-1].index("run.queued")
    await core.pool.aclose()


async def test_an_interrupt_ends_the_turn_and_the_session_goes_on(talk: Talk, core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Say("Working."), WaitFor())
    session = await talk.create(say("for ever"))
    async with core.working(core.worker(1)):
        await talk.until(session, lambda book: "agent.message" in [e.type for e in book])
        await talk.send(session, Interrupt(), say("something else"))
        core.agent.script = (Say("Else."),)
        now = await talk.ended(session, 2)
    ends = [e.data for e in await talk.book(session) if e.type == "run.ended"]
    assert [each["state"] for each in ends] == ["interrupted", "completed"]
    assert "session.error" not in await talk.types(session)
    assert now.state.status == "idle"
    assert len(core.agent.launched) == 1, "the process was still good"
    await core.pool.aclose()


async def test_an_agent_that_does_not_stop_is_ended(
    talk: Talk, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(_self: ScriptedLive) -> None: ...

    monkeypatch.setattr(ScriptedLive, "interrupt", deaf)
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Say("Working."), WaitFor())
    session = await talk.create(say("for ever"))
    async with core.working(core.worker(1)):
        await talk.until(session, lambda book: "agent.message" in [e.type for e in book])
        await talk.send(session, Interrupt())
        await talk.ended(session)
        core.agent.script = (Say("Again."),)
        await talk.send(session, say("go on"))
        now = await talk.ended(session, 2)
    ends = [e.data["state"] for e in await talk.book(session) if e.type == "run.ended"]
    assert ends == ["interrupted", "completed"]
    assert len(core.agent.launched) == 2
    assert core.agent.launched[1].resume == now.state.history
    await core.pool.aclose()


async def test_an_interrupt_of_a_waiting_turn_and_of_none(talk: Talk, core: Core) -> None:
    session = await talk.create(say("one"), say("two"))
    await talk.send(session, Interrupt())
    now = await talk.now(session)
    assert len(now.state.queue) == 0
    await talk.send(session, Interrupt())
    now = await talk.now(session)
    assert now.state.status == "idle"
    [seen] = await talk.send(session, Interrupt())
    assert seen.processed_at is not None
    assert (await talk.now(session)).state.run_id is None


async def test_a_turn_that_fails_leaves_a_session_that_can_be_used(talk: Talk, core: Core) -> None:
    talk.script(Fail(AgentExited("It died.")))
    session = await talk.create(say("one"))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
        assert now.state.status == "idle"
        talk.script(Say("Here again."))
        await talk.send(session, say("two"))
        await talk.ended(session, 2)
    states = [e.data["state"] for e in await talk.book(session) if e.type == "run.ended"]
    assert states == ["failed", "completed"]
    await core.pool.aclose()


async def test_a_lost_history_terminates_the_session(talk: Talk, core: Core) -> None:
    session = await talk.create(say("one"))
    async with core.working(core.worker(1)):
        await talk.ended(session)
        await core.pool.drop(session.id)

        def forget(tx: Any) -> None:
            core.transcripts.delete_session(tx, session.owner, session.id)

        await core.database.write(forget)
        await talk.send(session, say("two"), say("three"))
        now = await talk.ended(session, 2)
    assert now.state.status == "terminated"
    error = [e.data["error"] for e in await talk.book(session) if e.type == "session.error"][-1]
    assert error["code"] == AgentHistoryMissing.code
    assert len(now.state.queue) == 1, "nobody will have its turn"
    await core.pool.aclose()


async def test_output_after_a_schema(talk: Talk, core: Core) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    talk.script(Output({"answer": 42}), Say("It is 42."))
    session = await talk.create(say("What is it?", output_schema=schema))
    async with core.working(core.worker(1)):
        await talk.ended(session)
    [ended] = [e.data for e in await talk.book(session) if e.type == "run.ended"]
    assert ended["structured"] == {"answer": 42}
    await core.pool.aclose()


async def test_a_first_turn_takes_a_process_that_was_launched_meanwhile(
    talk: Talk, core: Core
) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = answering
    core.pool._limits = PoolLimits(size=1)
    session = await talk.create()
    core.pool._calm_at = 0.0
    await core.pool.tend()
    async with asyncio.timeout(30):
        while not core.pool.stats().warm:
            await asyncio.sleep(0.01)
    await talk.send(session, say("hello"))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    seated = [e.data for e in await talk.book(session) if e.type == "run.seated"]
    assert [each["source"] for each in seated] == ["warm"]
    entries = await core.seats.sink(session).load(now.state.history or "", None)
    assert entries, "what is bound at launch must not matter: the history is the session's"
    assert "slot_" in now.directory
    # Its process waits for the next turn, and not any more when there will be none.
    assert core.pool.stats().idle == 1
    await core.sessions.archive(talk.by, session.id)
    assert core.pool.stats().idle == 0
    await core.pool.aclose()


async def test_a_process_whose_session_was_elsewhere_is_not_used(talk: Talk, core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = answering
    other = core.beside()
    session = await talk.create()
    for number, server in enumerate((core, other, core)):
        await talk.send(session, say(f"number {number}"))
        async with server.working(server.worker(1)):
            await talk.ended(session, number + 1)
    sources = [e.data["source"] for e in await talk.book(session) if e.type == "run.seated"]
    assert sources == ["cold", "cold", "cold"]
    now = await talk.now(session)
    entries = await core.seats.sink(session).load(now.state.history or "", None)
    assert entries is not None
    assert len(entries) == 6, "the third turn knew of the second"
    await core.pool.aclose()
    await other.pool.aclose()
