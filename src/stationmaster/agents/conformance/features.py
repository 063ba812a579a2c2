"""Sub-agents, tool servers, skills, and output after a schema."""

from pathlib import Path

from stationmaster.agents.base import (
    AgentUnavailable,
    Allow,
    McpFailed,
    McpServer,
    Message,
    Skill,
    SubAgent,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.conformance.asking import Desk
from stationmaster.agents.conformance.harness import (
    Check,
    Harness,
    check_turn,
    end_of,
    launch,
    promise,
    raises,
    run_turn,
    start_of,
)
from stationmaster.kernel.errors import Invalid

_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "number"}},
    "required": ["answer"],
    "additionalProperties": False,
}


def _helper(tool: str) -> SubAgent:
    return SubAgent("helper", "Helps.", "You help.", tools=(tool,))


async def a_sub_agent_works_under_its_call(harness: Harness) -> None:
    """The call that gives it work is the parent of all it does, and its result the end of that."""
    tool = harness.agent.default_tools[0]
    harness.will_delegate("helper", tool)
    live = await launch(harness, gated=True, sub_agents=(_helper(tool),))
    desk = Desk(Allow())
    events = await run_turn(live, host=desk)
    check_turn(events)
    promise(start_of(events).sub_agents == ("helper",), "The agent knows its sub-agents.")
    uses = [event for event in events if isinstance(event, ToolUse)]
    promise([use.kind for use in uses] == ["sub_agent", "tool"], "Both calls are reported.")
    given, inner = uses
    promise(given.target == "helper" and given.parent is None, "It says who gets the work.")
    promise(inner.name == tool and inner.parent == given.id, "The work is the call's.")
    said = [event for event in events if isinstance(event, Message) and event.parent]
    promise([(m.text, m.parent) for m in said] == [("done", given.id)], "So are its words.")
    results = {event.tool_use_id: event for event in events if isinstance(event, ToolResult)}
    promise(results[inner.id].parent == given.id, "So is a result.")
    promise(not results[inner.id].is_error, "A permitted call of a sub-agent happens.")
    promise("done" in str(results[given.id].content), "The result is what it said last.")
    promise(events.index(results[given.id]) > events.index(said[0]), "The result is its end.")
    asked = [(call.id, call.kind, call.parent) for call in desk.asked]
    promise(
        asked == [(given.id, "sub_agent", None), (inner.id, "tool", given.id)],
        "The host is asked about both, and by whom they are.",
    )
    promise(end_of(events).text != "done", "A sub-agent's words are not the turn's.")
    await live.close()


async def a_sub_agent_gets_no_more_tools(harness: Harness) -> None:
    """What the agent has not, it cannot get by giving work on."""
    mine, other = harness.agent.default_tools[:2]
    await raises(
        Invalid,
        launch(harness, tools=(mine,), sub_agents=(_helper(other),)),
        "A sub-agent with more tools is refused at launch.",
    )
    promise(harness.agent.alive() == 0, "A refused launch leaves nothing.")


async def a_tool_server_that_does_not_start_is_reported(harness: Harness) -> None:
    """In each turn, by its name and a reason; the agent works without it."""
    harness.will_say("all the same")
    broken = McpServer("broken", "/nonexistent/tool-server")
    live = await launch(harness, mcp_servers=(broken,))
    for _ in range(2):
        events = await run_turn(live)
        check_turn(events)
        failed = [event for event in events if isinstance(event, McpFailed)]
        promise([event.server for event in failed] == ["broken"], "It is reported once.")
        promise(bool(failed[0].reason), "With a reason.")
        promise(end_of(events).outcome == "success", "The turn goes on.")
    await live.close()


async def skills_are_there_or_the_launch_fails(harness: Harness) -> None:
    """A skill is listed at the start; one that is missing is a typed failure."""
    spec = harness.spec()
    directory = spec.home.parent / "greeting"
    directory.mkdir()
    missing = Skill("greeting", directory)
    error = await raises(
        AgentUnavailable, launch(harness, skills=(missing,)), "A skill must be there."
    )
    promise(error.error_code == "agent_skill_missing", "The code says what is missing.")
    promise(harness.agent.alive() == 0, "A failed launch leaves nothing.")
    _write_skill(directory)
    harness.will_say("ahoy")
    live = await launch(harness, skills=(missing,))
    events = await run_turn(live)
    promise(start_of(events).skills == ("greeting",), "The agent has its skills.")
    await live.close()


async def output_follows_the_schema(harness: Harness) -> None:
    """It is there at the turn's end; where none came, the turn is an error with its code."""
    live = await launch(harness, output_schema=_SCHEMA)
    for value in ({"answer": 42}, {"answer": 43}):
        harness.will_output(value)
        end = end_of(await run_turn(live))
        promise(end.outcome == "success", "An output ends the turn well.")
        promise(end.structured == value, "The output is the model's.")
    harness.will_say("forty-two")
    end = end_of(await run_turn(live))
    promise(end.outcome == "error", "Words are no output.")
    promise(end.error_code == "output_invalid", "The code says what is missing.")
    await live.close()


CHECKS: tuple[Check, ...] = (
    a_sub_agent_works_under_its_call,
    a_sub_agent_gets_no_more_tools,
    a_tool_server_that_does_not_start_is_reported,
    skills_are_there_or_the_launch_fails,
    output_follows_the_schema,
)


def _write_skill(directory: Path) -> None:
    directory.chmod(0o755)
    path = directory / "SKILL.md"
    path.write_text("---\nname: greeting\ndescription: How to greet.\n---\nSay ahoy.\n")
    path.chmod(0o644)
