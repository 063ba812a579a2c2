"""Sub-agents have threads of their own; a session can go on from a past turn in two ways."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import (
    Delegate,
    Say,
    ScriptedAgent,
    UseTool,
    WaitFor,
    WriteFile,
)
from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.sessions.inputs import ToolConfirmation
from stationmaster.sessions.session import SessionPatch, SessionRequest
from tests.support.core import ALICE, Core
from tests.unit.sessions.talking import ASKING, TOOLS, Talk, agent_fields, say


async def with_helper(talk: Talk, core: Core, *tools: Any) -> Any:
    helper = await core.agents.create(ALICE, {**agent_fields(*tools), "name": "digger"})
    fields = agent_fields(multiagent={"type": "coordinator", "agents": [helper.id]})
    agent = await core.agents.create(ALICE, fields)
    return await core.sessions.create(ALICE, SessionRequest(agent.id), [say("go")])


async def test_a_sub_agents_work_is_a_thread_with_a_stream(talk: Talk, core: Core) -> None:
    dig = UseTool("Bash", {"command": "dig"}, "gold")
    talk.script(
        Say("Let us see."), Delegate("digger", [dig, Say("Gold!")], "Dig."), Say("We have gold.")
    )
    session = await with_helper(talk, core)
    async with core.working(core.worker(1)):
        await talk.ended(session)
    main, thread = await core.sessions.threads(ALICE, session.id)
    assert (main.parent_id, main.stream_id) == (None, session.id)
    assert (thread.parent_id, thread.agent_name, thread.status) == (main.id, "digger", "idle")
    assert thread.agent["name"] == "digger"
    types = await talk.types(session)
    assert "session.thread_created" in types
    assert types.index("session.thread_status_running") < types.index("session.thread_status_idle")
    assert types.count("agent.message") == 2, "its words are its own thread's"
    of_thread = await core.sessions.events(ALICE, session.id, limit=100, thread_id=thread.id)
    assert [each.event.type for each in of_thread] == [
        "agent.thread_message_received",
        "agent.tool_use",
        "agent.tool_result",
        "agent.message",
        "agent.thread_message_sent",
    ]
    same = await core.sessions.events(ALICE, session.id, limit=100, thread_id=main.id)
    assert [each.event.type for each in same] == types
    with pytest.raises(NotFound):
        await core.sessions.events(ALICE, session.id, limit=1, thread_id="sthr_unknown")
    await core.pool.aclose()


async def test_a_sub_agents_call_is_asked_in_the_sessions_stream(talk: Talk, core: Core) -> None:
    talk.script(Delegate("digger", [UseTool("Bash", {"command": "dig"})], "Dig."), Say("Done."))
    session = await with_helper(talk, core, ASKING)
    async with core.working(core.worker(1)):
        [event_id] = await talk.asked(session)
        await talk.send(session, ToolConfirmation(event_id, True))
        await talk.ended(session)
    asked = [
        each.data
        for each in await talk.book(session)
        if each.type == "agent.tool_use" and each.data["name"] == "bash"
    ]
    [thread] = (await core.sessions.threads(ALICE, session.id))[1:]
    assert [each["session_thread_id"] for each in asked] == [thread.id]
    await core.pool.aclose()


async def test_a_thread_ends_with_its_turn(talk: Talk, core: Core) -> None:
    talk.script(Delegate("digger", [Say("Digging."), WaitFor()], "Dig."))
    session = await with_helper(talk, core)
    worker = core.worker(1)
    async with core.working(worker):
        await talk.until(session, lambda book: "session.thread_created" in {e.type for e in book})
        core.clock.advance(1)
        run_id = (await talk.now(session)).state.run_id
        await core.runs.cancel(ALICE, str(run_id))
        await talk.ended(session)
    [_, thread] = await core.sessions.threads(ALICE, session.id)
    assert thread.status == "idle"
    assert (await talk.types(session)).count("session.thread_status_idle") == 1
    await core.pool.aclose()


# --- forks ------------------------------------------------------------------------------------


def remembering(spec: LaunchSpec, content: Any) -> list[Any]:
    word = content[0]["text"]
    return [WriteFile(f"{word}.txt", word), Say(f"I know {word}.")]


async def prompts(core: Core, session: Any) -> list[str]:
    now = await core.sessions.get(ALICE, session.id)
    entries = await core.seats.sink(now).load(now.state.history or "", None)
    assert entries is not None
    return [
        each["message"]["content"][0]["text"]
        if isinstance(each["message"]["content"], list)
        else each["message"]["content"]
        for each in entries
        if each["type"] == "user" and "tool_result" not in str(each["message"]["content"])
    ]


async def test_a_fork_goes_on_from_a_past_turn(talk: Talk, core: Core) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = remembering
    session = await talk.create(say("one"), say("two"), title="Original", metadata={"a": "b"})
    async with core.working(core.worker(1)):
        await talk.ended(session, 2)
        ends = [e.data["run_id"] for e in await talk.book(session) if e.type == "run.ended"]
        fork = await core.sessions.fork(ALICE, session.id, run_id=ends[0])
        assert fork.forked_from == {"session_id": session.id, "run_id": ends[0]}
        assert (fork.state.title, fork.state.metadata) == ("Original", {"a": "b"})
        whole = await core.sessions.fork(ALICE, session.id)
        for other in (fork, whole):
            await talk.send(other, say("three"))
            await talk.ended(other)
        assert await prompts(core, fork) == ["one", "three"]
        assert await prompts(core, whole) == ["one", "two", "three"]
        assert await prompts(core, session) == ["one", "two"], "the original is as it was"
    names = {path.name for path in await asyncio.to_thread(_files, fork.directory)}
    assert names == {"one.txt", "two.txt", "three.txt"}, "the files are as they were at the fork"
    original = await core.sessions.get(ALICE, session.id)
    names = {path.name for path in await asyncio.to_thread(_files, original.directory)}
    assert names == {"one.txt", "two.txt"}
    await core.pool.aclose()


def _files(directory: str) -> list[Path]:
    return list(Path(directory).iterdir())


async def test_what_cannot_be_forked(talk: Talk, core: Core) -> None:
    fresh = await talk.create()
    with pytest.raises(Conflict):
        await core.sessions.fork(ALICE, fresh.id)
    busy = await talk.create(say("one"))
    with pytest.raises(Conflict) as caught:
        await core.sessions.fork(ALICE, busy.id)
    assert caught.value.error_code == "session_busy"
    async with core.working(core.worker(1)):
        await talk.ended(busy)
    with pytest.raises(NotFound):
        await core.sessions.fork(ALICE, busy.id, run_id="run_unknown")
    run_id = str((await talk.book(busy))[-1].data["run_id"])
    with pytest.raises(NotFound):
        await core.sessions.fork(ALICE, fresh.id, run_id=run_id)
    await core.pool.aclose()


async def test_tools_of_a_session_can_be_changed_between_turns(talk: Talk, core: Core) -> None:
    talk.script(UseTool("Bash", {"command": "ls"}), Say("Done."))
    session = await talk.create(say("one"), tools=[TOOLS])
    async with core.working(core.worker(1)):
        await talk.ended(session)
        fewer = {**ASKING, "configs": [{"name": "read", "enabled": False}]}
        patch = SessionPatch({"agent": {"tools": [fewer]}})
        await core.sessions.update(ALICE, session.id, patch)
        await talk.send(session, say("two"))
        [event_id] = await talk.asked(session)
        await talk.send(session, ToolConfirmation(event_id, True))
        await talk.ended(session, 2)
    assert isinstance(core.agent, ScriptedAgent)
    assert len(core.agent.launched) == 2, "what is bound at launch has changed"
    await core.pool.aclose()
