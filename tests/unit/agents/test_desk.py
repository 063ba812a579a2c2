import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stationmaster.agents.base import (
    Allow,
    CustomTool,
    Deny,
    LaunchSpec,
    Permission,
    ToolAnswer,
    ToolCall,
)
from stationmaster.agents.claude_code.desk import Desk
from stationmaster.agents.claude_code.mask import MASK, Mask
from stationmaster.agents.claude_code.toolbox import Toolbox

_TOOL = CustomTool("look_up", "Looks up.", {"type": "object"})


class _Host:
    def __init__(self, permission: Permission | None = None) -> None:
        self.permission = permission
        self.asked: list[ToolCall] = []
        self.waiting = asyncio.Event()
        self.cancelled = False

    async def permit(self, call: ToolCall) -> Permission:
        self.asked.append(call)
        if self.permission is not None:
            return self.permission
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError("unreachable")

    async def call_tool(self, call: ToolCall) -> ToolAnswer:
        self.asked.append(call)
        return ToolAnswer("found")


def _desk(*, gated: bool = True, mask: Mask | None = None) -> Desk:
    spec = LaunchSpec(
        session_id="s",
        workspace=Path("/w"),
        home=Path("/h"),
        gateway_socket=Path("/g"),
        gateway_url="http://127.0.0.1:1",
        token="token",
        model="m",
        gated=gated,
        custom_tools=(_TOOL,),
    )
    return Desk(spec, Toolbox(spec), mask=mask)


async def _ask(desk: Desk, tool: str = "Bash", **given: Any) -> dict[str, Any]:
    asked: Any = {
        "hook_event_name": "PreToolUse",
        "tool_name": tool,
        "tool_input": {"command": "true"},
        "tool_use_id": "toolu_1",
        **given,
    }
    output: Any = await desk.before_tool(asked, "toolu_1", {"signal": None})
    found: dict[str, Any] = output.get("hookSpecificOutput", {})
    return found


async def test_each_answer() -> None:
    desk = _desk()
    desk.open(_Host(Allow()))
    said = await _ask(desk)
    assert said["permissionDecision"] == "allow"
    assert "updatedInput" not in said
    desk.open(_Host(Allow({})))
    assert (await _ask(desk))["updatedInput"] == {}
    desk.open(_Host(Deny("no")))
    said = await _ask(desk)
    assert (said["permissionDecision"], said["permissionDecisionReason"]) == ("deny", "no")


async def test_whatever_the_agent_sends_is_asked_about_and_breaks_nothing() -> None:
    desk = _desk()
    host = _Host(Deny("no"))
    desk.open(host)
    for given in ({"tool_input": None}, {"tool_input": ["x"]}, {"agent_id": 7}):
        assert (await _ask(desk, **given))["permissionDecision"] == "deny"
    assert [call.input for call in host.asked] == [{}, {}, {"command": "true"}]


async def test_a_call_of_a_sub_agent_is_under_the_call_that_gave_the_work() -> None:
    desk = _desk()
    host = _Host(Allow())
    desk.open(host)
    desk.notice({"type": "system", "subtype": "task_started", "task_id": "a1", "tool_use_id": "t"})
    desk.notice({"type": "system", "subtype": "task_started", "task_id": 3})
    await _ask(desk, agent_id="a1")
    await _ask(desk, agent_id="unknown")
    await _ask(desk)
    assert [call.parent for call in host.asked] == ["t", "unknown", None]


async def test_closing_cancels_what_waits_and_says_no() -> None:
    desk = _desk()
    host = _Host()
    desk.open(host)
    asking = asyncio.create_task(_ask(desk))
    await host.waiting.wait()
    desk.close()
    assert (await asking)["permissionDecision"] == "deny"
    assert host.cancelled
    assert (await _ask(desk))["permissionDecision"] == "deny"
    assert len(host.asked) == 1


async def test_a_question_that_is_taken_back_is_cancelled() -> None:
    desk = _desk()
    host = _Host()
    desk.open(host)
    asking = asyncio.create_task(_ask(desk))
    await host.waiting.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await asyncio.wait({asyncio.create_task(_turn_of_the_loop())})
    assert host.cancelled


async def _turn_of_the_loop() -> None:
    await asyncio.sleep(0)


async def test_without_gates_the_agents_own_rules_decide() -> None:
    desk = _desk(gated=False)
    host = _Host(Deny("no"))
    desk.open(host)
    assert await _ask(desk) == {}
    assert (await _ask(desk, "look_up"))["permissionDecision"] == "allow"
    assert host.asked == []


async def test_an_output_after_a_schema_is_nobodys_decision() -> None:
    desk = _desk()
    desk.open(_Host(Deny("no")))
    assert await _ask(desk, "StructuredOutput") == {}


async def test_a_login_is_hidden_from_the_host() -> None:
    desk = _desk(mask=Mask(["the-token"]))
    host = _Host(Allow())
    desk.open(host)
    await _ask(desk, tool_input={"command": "echo the-token"})
    assert host.asked[0].input == {"command": f"echo {MASK}"}


async def test_prefixed_names_are_the_clients_too() -> None:
    """Should a later CLI not leave the names alone."""
    desk = _desk()
    host = _Host(Allow())
    desk.open(host)
    for name in ("look_up", "mcp__custom__look_up"):
        await _ask(desk, name)
    await _ask(desk, "mcp__custom__other")
    assert [(call.name, call.kind) for call in host.asked] == [
        ("look_up", "custom"),
        ("look_up", "custom"),
        ("mcp__custom__other", "mcp"),
    ]


async def test_a_call_without_a_permission_of_its_own_is_not_run() -> None:
    """What runs in the sandbox can forge the request for a call, but not the permission."""
    desk = _desk()
    host = _Host(Allow())
    desk.open(host)
    await _ask(desk, "look_up")
    call: Any = SimpleNamespace(meta={"claudecode/toolUseId": "toolu_1"})
    forged: Any = SimpleNamespace(meta={"claudecode/toolUseId": "toolu_2"})
    assert desk.take(forged) is None
    assert desk.take(SimpleNamespace(meta=None)) is None
    assert desk.take(call) == "toolu_1"
    assert desk.take(call) is None
    await _ask(desk, "look_up")
    desk.open(host)
    assert desk.take(call) is None
    assert _desk(gated=False).take(forged) == "toolu_2"
