"""Calls that wait for a person or a client: decided once, by whoever comes first."""

import asyncio
from typing import Any

import pytest

from stationmaster.agents.scripted import Say, ScriptedAgent, UseTool
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.approvals import Approval, Decision
from stationmaster.sessions.inputs import CustomToolResult, Interrupt, ToolConfirmation
from stationmaster.sessions.runs.executor import Timers
from tests.support.core import ALICE, LEASE, Core, principal
from tests.unit.sessions.talking import ASKING, TOOLS, Talk, say

CUSTOM = {
    "type": "custom",
    "name": "weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
LS = UseTool("Bash", {"command": "ls"}, "a.txt")


async def waiting(core: Core, session_id: str) -> list[Approval]:
    page = await core.approvals.list(ALICE, limit=100, session_id=session_id, state="pending")
    return page.items


def results(book: list[Any]) -> list[tuple[Any, bool]]:
    return [
        (each.data["content"], each.data["is_error"])
        for each in book
        if each.type == "agent.tool_result"
    ]


async def test_a_call_waits_and_is_allowed(talk: Talk, core: Core) -> None:
    talk.script(LS, Say("Done."))
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        now = await talk.now(session)
        assert (now.state.status, now.state.waiting_for) == ("idle", [event_id])
        [approval] = await waiting(core, session.id)
        assert (approval.name, approval.input) == ("bash", {"command": "ls"})
        [said] = await talk.send(session, ToolConfirmation(event_id, allow=True))
        assert said.event.data["result"] == "allow"
        now = await talk.ended(session)
    assert now.state.status == "idle"
    assert await talk.types(session) == [
        "session.created",
        "user.message",
        "run.queued",
        "session.status_running",
        "run.started",
        "run.seated",
        "run.agent_ready",
        "agent.tool_use",
        "session.status_idle",
        "user.tool_confirmation",
        "session.status_running",
        "agent.tool_result",
        "agent.message",
        "session.usage",
        "session.status_idle",
        "run.ended",
    ]
    assert results(await talk.book(session)) == [("a.txt", False)]
    assert (await core.approvals.get(ALICE, approval.id)).state == "allowed"
    await core.pool.aclose()


async def test_a_denied_call_does_not_happen(talk: Talk, core: Core) -> None:
    talk.script(LS, Say("So be it."))
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        await talk.asked(session)
        [approval] = await waiting(core, session.id)
        decided = await core.approvals.decide(ALICE, approval.id, Decision(False, "Not today."))
        assert (decided.state, decided.decided_by) == ("denied", ALICE.key_id)
        await talk.ended(session)
    [(content, is_error)] = results(await talk.book(session))
    assert is_error
    assert "Not today." in content
    await core.pool.aclose()


async def test_changed_input_is_what_runs_and_always_is_not_asked_again(
    talk: Talk, core: Core
) -> None:
    talk.script(LS, UseTool("Bash", {"command": "pwd"}), UseTool("Read", {"file_path": "x"}))
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        await talk.send(
            session, ToolConfirmation(event_id, True, input={"command": "ls -l"}, always=True)
        )
        await talk.until(session, lambda book: len(results(book)) == 2)
        [other] = await talk.asked(session)
        assert other != event_id
        [approval] = await waiting(core, session.id)
        assert approval.name == "read", "bash was allowed for the whole session"
        await talk.send(session, ToolConfirmation(other, False))
        now = await talk.ended(session)
        assert now.state.always == ("bash",)
        talk.script(LS)
        await talk.send(session, say("again"))
        await talk.ended(session, 2)
    await core.pool.aclose()


async def test_of_two_answers_one_decides(talk: Talk, core: Core) -> None:
    talk.script(LS)
    session = await talk.create(say("go"), tools=[ASKING])
    other = core.beside()
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        [approval] = await waiting(core, session.id)
        answers = await asyncio.gather(
            talk.send(session, ToolConfirmation(event_id, True)),
            core.approvals.decide(ALICE, approval.id, Decision(False)),
            other.approvals.decide(ALICE, approval.id, Decision(True)),
            return_exceptions=True,
        )
        lost = [each for each in answers if isinstance(each, BaseException)]
        assert len(lost) == 2
        assert all(isinstance(each, Conflict) for each in lost)
        await talk.ended(session)
    said = [e for e in await talk.book(session) if e.type == "user.tool_confirmation"]
    assert len(said) == 1
    await core.pool.aclose()


@pytest.mark.parametrize("kind", ["unknown", "foreign", "wrong", "twice"])
async def test_wrong_answers_change_nothing(talk: Talk, core: Core, kind: str) -> None:
    talk.script(LS)
    session = await talk.create(say("go"), tools=[ASKING])
    elsewhere = await talk.create()
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        if kind == "twice":
            await talk.send(session, ToolConfirmation(event_id, True))
            await talk.ended(session)
        before = await talk.types(session)
        wrong: dict[str, Any] = {
            "unknown": (session, ToolConfirmation("sevt_unknown", True), Invalid),
            "foreign": (elsewhere, ToolConfirmation(event_id, True), Invalid),
            "wrong": (session, CustomToolResult(event_id), Invalid),
            "twice": (session, ToolConfirmation(event_id, True), Conflict),
        }
        where, input_, error = wrong[kind]
        with pytest.raises(error):
            await talk.send(where, say("and this is not kept either"), input_)
        assert await talk.types(session) == before
        assert await talk.types(elsewhere) == ["session.created"]
        if kind != "twice":
            await talk.send(session, ToolConfirmation(event_id, False))
            await talk.ended(session)
    await core.pool.aclose()


async def test_calls_of_one_message_are_asked_at_once(talk: Talk, core: Core) -> None:
    """And when only some are answered, the rest is named again."""
    assert isinstance(core.agent, ScriptedAgent)
    talk.script(LS, UseTool("Read", {"file_path": "x"}))
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        [first] = await talk.asked(session)
        await talk.send(session, ToolConfirmation(first, True))
        await talk.until(session, lambda book: len(results(book)) == 1)
        [second] = await talk.asked(session)
        await talk.send(session, ToolConfirmation(second, True))
        await talk.ended(session)
    await core.pool.aclose()


async def test_nobody_comes_and_the_call_is_denied(talk: Talk, core: Core) -> None:
    talk.script(LS, Say("Well."))
    session = await talk.create(say("go"), tools=[ASKING])
    timers = Timers(60.0, 60.0, approval=600.0)
    worker = core.worker(1, execution=lambda claim: core.execution(claim, timers=timers))
    async with core.working(worker):
        [event_id] = await talk.asked(session)
        core.clock.advance(601)
        with pytest.raises(Conflict):  # the time is over, whether that was noticed or not
            await talk.send(session, ToolConfirmation(event_id, True))
        await talk.ended(session)
    [approval] = (await core.approvals.list(ALICE, limit=10)).items
    assert (approval.state, approval.decided_by) == ("expired", None)
    [(content, is_error)] = results(await talk.book(session))
    assert is_error
    assert "Nobody answered" in content
    await core.pool.aclose()


async def test_an_interrupt_cancels_what_waits(talk: Talk, core: Core) -> None:
    talk.script(LS)
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        await talk.send(session, Interrupt())
        now = await talk.ended(session)
    assert now.state.stop_reason == {"type": "end_turn"}
    [approval] = (await core.approvals.list(ALICE, limit=10)).items
    assert approval.state == "cancelled"
    with pytest.raises(Conflict):
        await talk.send(session, ToolConfirmation(event_id, True))
    await core.pool.aclose()


async def test_a_custom_tool_is_run_by_the_client(talk: Talk, core: Core) -> None:
    talk.script(UseTool("weather", {"city": "Ulm"}), Say("Take an umbrella."))
    session = await talk.create(say("go"), tools=[TOOLS, CUSTOM])
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        book = {event.type: event.data for event in await talk.book(session)}
        assert book["agent.custom_tool_use"]["id"] == event_id
        assert book["agent.custom_tool_use"]["name"] == "weather"
        rain = [{"type": "text", "text": "Rain."}]
        await talk.send(session, CustomToolResult(event_id, rain))
        await talk.ended(session)
    [(content, is_error)] = results(await talk.book(session))
    assert (content, is_error) in [(rain, False), ("Rain.", False)]
    await core.pool.aclose()


# --- over a restart ---------------------------------------------------------------------------


async def test_an_approval_outlives_the_server_that_asked(talk: Talk, core: Core) -> None:
    talk.script(LS, Say("Done."))
    session = await talk.create(say("go"), tools=[ASKING])
    await core.instances.register()
    worker = core.worker(1)
    running = asyncio.create_task(worker.run())
    [event_id] = await talk.asked(session)
    # It dies: nothing of it writes any more.
    running.cancel()
    for execution, _ in list(worker._running.values()):
        execution.stop(None)
    await core.pool.aclose()
    other = core.beside()
    core.clock.advance(LEASE + 1)
    assert await other.claims.take_over(core.instances.id) == 1
    now = await talk.now(session)
    assert now.state.status == "rescheduling"
    # It can be answered while nobody runs the session.
    [approval] = await waiting(other, session.id)
    assert approval.event_id == event_id
    await other.approvals.decide(ALICE, approval.id, Decision(True))
    async with other.working(other.worker(1)):
        now = await talk.ended(session)
    uses = [e for e in await talk.book(session) if e.type == "agent.tool_use"]
    assert [each.data["id"] for each in uses] == [event_id], "it was not asked a second time"
    assert results(await talk.book(session)) == [("a.txt", False)]
    await other.pool.aclose()


async def test_it_goes_on_waiting_where_it_was_not_answered(talk: Talk, core: Core) -> None:
    talk.script(LS, Say("Done."))
    session = await talk.create(say("go"), tools=[ASKING])
    worker = core.worker(1)
    async with core.working(worker):
        [event_id] = await talk.asked(session)
    # That was an orderly stop: the turn was given back, and nobody counts it as lost.
    now = await talk.now(session)
    assert now.state.status == "rescheduling"
    other = core.beside()
    async with other.working(other.worker(1)):
        assert await talk.asked(session) == [event_id]
        await talk.send(session, ToolConfirmation(event_id, True))
        await talk.ended(session)
    run = (await talk.book(session))[-1]
    assert run.data["state"] == "completed"
    [approval] = (await core.approvals.list(ALICE, limit=10)).items
    assert approval.state == "allowed"
    await core.pool.aclose()
    await other.pool.aclose()


async def test_another_owners_approval_is_not_there(talk: Talk, core: Core) -> None:
    talk.script(LS)
    session = await talk.create(say("go"), tools=[ASKING])
    stranger = principal("mallory", Owner("org_default", "proj_other"))
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        [approval] = await waiting(core, session.id)
        with pytest.raises(NotFound):
            await core.approvals.get(stranger, approval.id)
        with pytest.raises(NotFound):
            await core.approvals.decide(stranger, approval.id, Decision(True))
        with pytest.raises(NotFound):
            await core.sessions.send(stranger, session.id, [ToolConfirmation(event_id, True)])
        assert (await core.approvals.list(stranger, limit=10)).items == []
        await talk.send(session, ToolConfirmation(event_id, True))
        await talk.ended(session)
    await core.pool.aclose()
