import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.base import (
    AgentEvent,
    AgentExited,
    AgentUnavailable,
    Delta,
    Finished,
    LaunchSpec,
    Message,
    Started,
    Thinking,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.scripted import (
    Call,
    Fail,
    Finish,
    Say,
    Script,
    ScriptedAgent,
    Step,
    Think,
    UseTool,
    WaitFor,
    WriteFile,
)


def _spec(tmp_path: Path) -> LaunchSpec:
    return LaunchSpec(
        session_id="s",
        workspace=tmp_path,
        home=tmp_path,
        gateway_socket=tmp_path / "gateway.sock",
        gateway_url="http://127.0.0.1:1",
        token="run-token",
        model="m",
    )


async def _play(tmp_path: Path, script: Script) -> list[AgentEvent]:
    live = await ScriptedAgent(script).launch(_spec(tmp_path))
    return [event async for event in live.turn([{"type": "text", "text": "Go."}])]


def _end(events: list[AgentEvent], *values: Any) -> Finished:
    """The end as expected, but for where it was."""
    assert isinstance(events[-1], Finished)
    position = events[-1].position
    assert position is not None
    return replace(Finished(*values), stop_reason="end_turn", position=position)


async def test_every_step(tmp_path: Path) -> None:
    called: list[str] = []

    async def call(spec: LaunchSpec) -> None:
        called.append(spec.token)

    events = await _play(
        tmp_path,
        (Think("hm"), Say("a b"), WriteFile("d/f.txt", "text"), UseTool("Bash", result="no"),
         Call(call), Finish("max_turns")),
    )  # fmt: skip
    assert [event for event in events if not isinstance(event, Started | ToolUse | ToolResult)] == [
        Delta("thinking", "hm"),
        Thinking("hm"),
        Delta("text", "a "),
        Delta("text", "b"),
        Message("a b"),
        _end(events, "max_turns", "a b", 3),
    ]
    assert isinstance(events[0], Started)
    assert events[0].tools == ScriptedAgent.default_tools
    assert (tmp_path / "d" / "f.txt").read_text() == "text"
    assert called == ["run-token"]
    assert [event.name for event in events if isinstance(event, ToolUse)] == ["Write", "Bash"]


async def test_a_call_that_raises_ends_the_turn_as_an_error(tmp_path: Path) -> None:
    async def call(_spec: LaunchSpec) -> None:
        raise ValueError("402 budget")

    events = await _play(tmp_path, (Say("x"), Call(call), Say("never")))
    assert events[-1] == _end(events, "error", "x", 1, "402 budget")


async def test_an_interrupt_cancels_a_call(tmp_path: Path) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def call(_spec: LaunchSpec) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    live = await ScriptedAgent((Call(call),)).launch(_spec(tmp_path))

    async def read() -> list[AgentEvent]:
        return [event async for event in live.turn([])]

    reading = asyncio.create_task(read())
    await begun.wait()
    await live.interrupt()
    events = await reading
    assert events[-1] == replace(
        _end(events, "error", "", 1, "interrupted"), error_code="interrupted"
    )
    assert cancelled.is_set()


async def test_waiting_ends_with_its_event(tmp_path: Path) -> None:
    event = asyncio.Event()
    event.set()
    events = await _play(tmp_path, (WaitFor(event), Say("on")))
    assert events[-1] == _end(events, "success", "on", 1)


async def test_failures(tmp_path: Path) -> None:
    agent = ScriptedAgent((Fail(AgentExited("gone", stderr_tail="tail")),))
    live = await agent.launch(_spec(tmp_path))
    with pytest.raises(AgentExited, match="gone"):
        [event async for event in live.turn([])]
    assert agent.alive() == 0
    agent.launch_failure = AgentUnavailable("not today")
    with pytest.raises(AgentUnavailable, match="not today"):
        await agent.launch(_spec(tmp_path))


async def test_a_script_may_depend_on_what_is_said(tmp_path: Path) -> None:
    def script(spec: LaunchSpec, content: object) -> list[Step]:
        return [Say(f"{spec.session_id} {content}")]

    agent = ScriptedAgent(script)
    live = await agent.launch(_spec(tmp_path))
    events = [event async for event in live.turn([{"type": "text", "text": "x"}])]
    assert events[-1] == _end(events, "success", "s [{'type': 'text', 'text': 'x'}]", 1)
    assert [spec.token for spec in agent.launched] == ["run-token"]
