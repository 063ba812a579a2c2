"""What is put to the turn's host: permission for each call, and the client's own tools."""

import asyncio
from dataclasses import replace
from typing import Any

from stationmaster.agents.base import (
    AgentEvent,
    AgentFailure,
    Allow,
    CustomTool,
    Deny,
    Permission,
    ToolAnswer,
    ToolCall,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.conformance.harness import (
    PATIENCE_SECONDS,
    Check,
    Harness,
    check_turn,
    close,
    end_of,
    launch,
    promise,
    raises,
    run_turn,
    start_of,
)
from stationmaster.kernel.errors import Invalid

WEATHER = CustomTool(
    "get_weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_ROME = {"city": "Rome"}
# A picture of one pixel.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Desk:
    """A host that answers as it is told, and keeps what it was asked."""

    def __init__(self, *permissions: Permission, answer: ToolAnswer | None = None) -> None:
        self.permissions = list(permissions)
        self.answer = answer or ToolAnswer("sunny")
        self.asked: list[ToolCall] = []
        self.called: list[ToolCall] = []

    async def permit(self, call: ToolCall) -> Permission:
        """The next of the given permissions; the last one repeats."""
        self.asked.append(call)
        return self.permissions.pop(0) if len(self.permissions) > 1 else self.permissions[0]

    async def call_tool(self, call: ToolCall) -> ToolAnswer:
        """The given answer."""
        self.called.append(call)
        return self.answer


class _Silent:
    """A host that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def permit(self, _call: ToolCall) -> Permission:
        await self._wait()
        return Allow()

    async def call_tool(self, _call: ToolCall) -> ToolAnswer:
        await self._wait()
        return ToolAnswer("late")

    async def _wait(self) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class _Failing:
    """A host that breaks."""

    async def permit(self, _call: ToolCall) -> Permission:
        raise ValueError("a secret of the server's")

    async def call_tool(self, _call: ToolCall) -> ToolAnswer:
        raise ValueError("a secret of the server's")


async def a_gated_call_is_asked_about_first(harness: Harness) -> None:
    """The host sees each call of a gated agent once, as it is then reported; and it happens."""
    tool = harness.agent.default_tools[0]
    harness.will_use(tool)
    live = await launch(harness, gated=True)
    for _ in range(2):
        desk = Desk(Allow())
        events = await run_turn(live, host=desk)
        check_turn(events)
        uses = [event for event in events if isinstance(event, ToolUse)]
        promise(len(uses) == 1 and len(desk.asked) == 1, "A call is asked about once.")
        promise(
            (desk.asked[0].id, desk.asked[0].name, desk.asked[0].input, desk.asked[0].kind)
            == (uses[0].id, uses[0].name, uses[0].input, "tool"),
            "What is asked about is what is reported.",
        )
        promise([r.is_error for r in _results(events)] == [False], "A permitted call happens.")
    await live.close()


async def a_call_that_is_not_gated_is_not_asked_about(harness: Harness) -> None:
    """Without `gated` the host is not asked for permission."""
    harness.will_use(harness.agent.default_tools[0])
    live = await launch(harness)
    desk = Desk(Deny("no"))
    events = await run_turn(live, host=desk)
    promise(desk.asked == [], "Nothing is asked.")
    promise([r.is_error for r in _results(events)] == [False], "The call happens.")
    await live.close()


async def a_denied_call_does_not_happen(harness: Harness) -> None:
    """The agent is told why, and goes on."""
    live = await launch(harness, gated=True, custom_tools=(WEATHER,))
    for tool, given in ((harness.agent.default_tools[0], None), (WEATHER.name, _ROME)):
        harness.will_use(tool, given)
        desk = Desk(Deny("not on a Sunday"))
        events = await run_turn(live, host=desk)
        check_turn(events)
        results = _results(events)
        promise([result.is_error for result in results] == [True], "A denied call is an error.")
        promise("not on a Sunday" in str(results[0].content), "The agent is told why.")
        promise(desk.called == [], "A denied call does not happen.")
        promise(end_of(events).outcome == "success", "A denial does not end the turn.")
    await live.close()


async def changed_input_is_what_runs(harness: Harness) -> None:
    """Permission with another input replaces the agent's."""
    harness.will_use(WEATHER.name, _ROME)
    live = await launch(harness, gated=True, custom_tools=(WEATHER,))
    desk = Desk(Allow({"city": "Oslo"}))
    events = await run_turn(live, host=desk)
    promise([call.input for call in desk.asked] == [_ROME], "The host sees what was meant.")
    promise([call.input for call in desk.called] == [{"city": "Oslo"}], "What was changed runs.")
    promise(end_of(events).outcome == "success", "The turn goes on.")
    await live.close()


async def without_a_host_nothing_is_permitted(harness: Harness) -> None:
    """A gated agent whose turn nobody owns can only talk."""
    live = await launch(harness, gated=True, custom_tools=(WEATHER,))
    for tool, given in ((harness.agent.default_tools[0], None), (WEATHER.name, _ROME)):
        harness.will_use(tool, given)
        events = await run_turn(live)
        promise([r.is_error for r in _results(events)] == [True], "Nobody permits it.")
        promise(end_of(events).outcome == "success", "The turn ends all the same.")
    await live.close()


async def a_host_that_fails_permits_nothing(harness: Harness) -> None:
    """Neither does its reason reach the agent."""
    for gated in (True, False):
        harness.will_use(WEATHER.name, _ROME)
        live = await launch(harness, gated=gated, custom_tools=(WEATHER,))
        events = await run_turn(live, host=_Failing())
        results = _results(events)
        promise([result.is_error for result in results] == [True], "A failure is a no.")
        promise("secret" not in str(results[0].content), "The reason stays in the server.")
        promise(end_of(events).outcome == "success", "The turn goes on.")
        await live.close()


async def an_interrupt_ends_the_waiting(harness: Harness) -> None:
    """A turn that waits for its host is interrupted as fast as another; the next one is clean."""
    for gated in (True, False):
        harness.will_use(WEATHER.name, _ROME)
        live = await launch(harness, gated=gated, custom_tools=(WEATHER,))
        host = _Silent()
        reader = asyncio.create_task(run_turn(live, host=host))
        await _wait(host.asked)
        await live.interrupt()
        events = await reader
        check_turn(events)
        promise(end_of(events).outcome == "error", "An interrupted turn is no success.")
        promise(end_of(events).error_code == "interrupted", "Its code says why.")
        await _wait(host.cancelled)
        harness.will_say("still here")
        promise(end_of(await run_turn(live)).text == "still here", "The next turn is clean.")
        await live.close()


async def a_close_ends_the_waiting(harness: Harness) -> None:
    """The host is not left waiting for an agent that is gone."""
    harness.will_use(WEATHER.name, _ROME)
    live = await launch(harness, custom_tools=(WEATHER,))
    host = _Silent()
    reader = asyncio.create_task(run_turn(live, host=host))
    await _wait(host.asked)
    await close(live)
    await raises(AgentFailure, reader, "The reader of a closed agent gets a failure.")
    await _wait(host.cancelled)
    promise(harness.agent.alive() == 0, "A turn that waits does not outlive the close.")


async def a_custom_tool_is_the_clients(harness: Harness) -> None:
    """It is reported under its declared name, and its answer is the host's."""
    harness.will_use(WEATHER.name, _ROME)
    live = await launch(harness, tools=(), custom_tools=(WEATHER,))
    desk = Desk(answer=ToolAnswer("sunny"))
    events = await run_turn(live, host=desk)
    check_turn(events)
    promise(start_of(events).tools == (WEATHER.name,), "The agent has it, by its name.")
    uses = [event for event in events if isinstance(event, ToolUse)]
    promise(
        [(use.name, use.kind, use.input) for use in uses] == [(WEATHER.name, "custom", _ROME)],
        "The call is reported as the client knows it.",
    )
    promise(
        desk.called == [ToolCall(uses[0].id, WEATHER.name, _ROME, None, "custom")],
        "The host runs it, once.",
    )
    results = _results(events)
    promise([r.tool_use_id for r in results] == [uses[0].id], "Its result names its use.")
    promise("sunny" in str(results[0].content), "The answer is the host's.")
    promise(not results[0].is_error, "It went well.")
    await live.close()


async def a_custom_tool_may_fail_or_show(harness: Harness) -> None:
    """Errors and pictures come through."""
    harness.will_use(WEATHER.name, _ROME)
    live = await launch(harness, custom_tools=(WEATHER,))
    events = await run_turn(live, host=Desk(answer=ToolAnswer("no such city", is_error=True)))
    promise([r.is_error for r in _results(events)] == [True], "An error stays one.")
    promise("no such city" in str(_results(events)[0].content), "With its words.")
    source = {"type": "base64", "media_type": "image/png", "data": _PIXEL}
    shown: list[dict[str, Any]] = [
        {"type": "text", "text": "as seen"},
        {"type": "image", "source": source},
    ]
    events = await run_turn(live, host=Desk(answer=ToolAnswer(shown)))
    content = _results(events)[0].content
    promise(not isinstance(content, str), "A picture comes as a block.")
    kinds = [block["type"] for block in content if isinstance(block, dict)]
    # An agent may add where it has put the picture.
    promise(kinds[:2] == ["text", "image"], "Every block comes, in order.")
    promise(end_of(events).outcome == "success", "The turn goes on.")
    await live.close()


async def custom_names_take_no_other_tools(harness: Harness) -> None:
    """A custom tool cannot stand in for one of the agent's, nor twice for another."""
    mine = harness.agent.default_tools[0]
    wrong = [(replace(WEATHER, name=mine),), (WEATHER, WEATHER), (replace(WEATHER, name="a b"),)]
    for tools in wrong:
        await raises(
            Invalid, launch(harness, custom_tools=tools), "Such names are refused at launch."
        )
    promise(harness.agent.alive() == 0, "A refused launch leaves nothing.")


CHECKS: tuple[Check, ...] = (
    a_gated_call_is_asked_about_first,
    a_call_that_is_not_gated_is_not_asked_about,
    a_denied_call_does_not_happen,
    changed_input_is_what_runs,
    without_a_host_nothing_is_permitted,
    a_host_that_fails_permits_nothing,
    an_interrupt_ends_the_waiting,
    a_close_ends_the_waiting,
    a_custom_tool_is_the_clients,
    a_custom_tool_may_fail_or_show,
    custom_names_take_no_other_tools,
)


def _results(events: list[AgentEvent]) -> list[ToolResult]:
    return [event for event in events if isinstance(event, ToolResult)]


async def _wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await event.wait()
