"""The SDK's messages become the events of a turn. What is not known here is skipped."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from claude_agent_sdk import (
    AssistantMessage,
    ContentBlock,
    ResultMessage,
    ServerToolResultBlock,
    ServerToolUseBlock,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from stationmaster.agents.base import (
    AgentEvent,
    Delta,
    Finished,
    LaunchSpec,
    McpFailed,
    Message,
    Started,
    Thinking,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.claude_code.outfit import PLUGIN
from stationmaster.agents.claude_code.toolbox import Toolbox

_DELTAS: dict[str, tuple[Literal["text", "thinking", "tool_input"], str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_input", "partial_json"),
}
_LIMITS: dict[str, Literal["max_turns", "max_cost"]] = {
    "error_max_turns": "max_turns",
    "error_max_budget_usd": "max_cost",
}
_NO_OUTPUT = "error_max_structured_output_retries"
OUTPUT_INVALID = "output_invalid"
# A tool server that is still on its way is none that failed.
_SERVER_FAILED = frozenset({"failed", "needs-auth", "disabled"})

# The wire's names of the four token classes, by the ledger's.
_USAGE = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_write_tokens": "cache_creation_input_tokens",
    "cache_read_tokens": "cache_read_input_tokens",
}


class Translator:
    """Translates one turn of an agent that was launched as `spec` says."""

    def __init__(self, spec: LaunchSpec, toolbox: Toolbox) -> None:
        self.started = False
        self._spec = spec
        self._toolbox = toolbox
        self._position: str | None = None

    def translate(self, message: object) -> Iterator[AgentEvent]:
        """The events of one message: none, one, or one for each of its blocks.

        `Started` comes first whatever the agent sends first.
        """
        events = list(self._events(message))
        if events and not self.started and not isinstance(events[0], Started):
            yield self._start({})
        yield from events

    def _events(self, message: object) -> Iterator[AgentEvent]:
        match message:
            case SystemMessage(subtype="init", data=data):
                if not self.started:
                    yield self._start(data)
                    yield from _failed_servers(data)
            case StreamEvent(event=event, parent_tool_use_id=None):
                yield from _delta(event)
            case AssistantMessage(content=blocks, parent_tool_use_id=parent):
                self._pass(message.uuid, parent)
                for block in blocks:
                    yield from self._said(block, parent)
            case UserMessage(content=list() as blocks, parent_tool_use_id=parent):
                self._pass(message.uuid, parent)
                for block in blocks:
                    if isinstance(block, ToolResultBlock):
                        yield _result(block, parent)
            case ResultMessage():
                end = finished(message, structured=self._spec.output_schema is not None)
                yield replace(end, position=self._position)
            case _:
                return

    def _pass(self, position: str | None, parent: str | None) -> None:
        if position is not None and parent is None:
            self._position = position

    def _start(self, data: dict[str, Any]) -> Started:
        self.started = True
        skills, agents = set(_names(data, "skills")), set(_names(data, "agents"))
        return Started(
            agent_session_id=str(data.get("session_id") or self._spec.agent_session_id or ""),
            model=str(data.get("model") or self._spec.model),
            tools=tuple(self._toolbox.name(tool) for tool in _names(data, "tools")),
            version=str(data.get("claude_code_version", "")),
            skills=tuple(
                skill.name for skill in self._spec.skills if f"{PLUGIN}:{skill.name}" in skills
            ),
            sub_agents=tuple(agent.name for agent in self._spec.sub_agents if agent.name in agents),
        )

    def _said(self, block: ContentBlock, parent: str | None) -> Iterator[AgentEvent]:
        match block:
            case TextBlock(text=text):
                yield Message(text, parent)
            case ThinkingBlock(thinking=text):
                yield Thinking(text, parent)
            case ToolUseBlock(id=id_, name=name, input=given):
                kind, target = self._toolbox.kind(name, given)
                yield ToolUse(id_, self._toolbox.name(name), dict(given), parent, kind, target)
            case ServerToolUseBlock(id=id_, name=server_tool, input=given):
                yield ToolUse(id_, str(server_tool), dict(given), parent)
            case ServerToolResultBlock(tool_use_id=id_, content=content):
                yield ToolResult(id_, [dict(content)], is_error=False, parent=parent)
            case ToolResultBlock():
                yield _result(block, parent)


def _names(data: dict[str, Any], key: str) -> list[str]:
    found = data.get(key)
    return [str(name) for name in found] if isinstance(found, list) else []


def _failed_servers(data: dict[str, Any]) -> Iterator[McpFailed]:
    servers = data.get("mcp_servers")
    for server in servers if isinstance(servers, list) else ():
        if isinstance(server, dict) and server.get("status") in _SERVER_FAILED:
            yield McpFailed(str(server.get("name", "")), str(server["status"]))


def finished(message: ResultMessage, *, structured: bool = False) -> Finished:
    """The turn's end. A failed API call arrives as a success that is an error: `is_error` rules.

    `structured` says that an output after a schema was asked for.
    """
    text, error, code = message.result or "", None, None
    outcome: Literal["success", "max_turns", "max_cost", "error"]
    if message.subtype in _LIMITS:
        outcome = _LIMITS[message.subtype]
    elif not message.is_error and message.subtype == "success":
        outcome = "success"
    else:
        outcome = "error"
        error = "; ".join(message.errors or ()) or text or message.subtype
    if message.subtype == _NO_OUTPUT or (
        structured and outcome == "success" and message.structured_output is None
    ):
        outcome, code = "error", OUTPUT_INVALID
        error = "The agent gave no output that fits the schema."
    return Finished(
        outcome,
        text,
        message.num_turns,
        error=error,
        reported_cost_usd=message.total_cost_usd,
        reported_usage=_usage(message.usage),
        error_code=code,
        structured=message.structured_output,
        stop_reason=message.stop_reason,
    )


def _usage(reported: dict[str, Any] | None) -> dict[str, int] | None:
    if not isinstance(reported, dict):
        return None
    counts = {name: reported.get(wire) for name, wire in _USAGE.items()}
    return {name: max(0, each) if isinstance(each, int) else 0 for name, each in counts.items()}


def _delta(event: dict[str, Any]) -> Iterator[Delta]:
    delta = event.get("delta")
    if event.get("type") != "content_block_delta" or not isinstance(delta, dict):
        return
    known = _DELTAS.get(str(delta.get("type")))
    if known is not None:
        kind, name = known
        text = delta.get(name)
        if isinstance(text, str) and text:
            yield Delta(kind, text)


def _result(block: ToolResultBlock, parent: str | None) -> ToolResult:
    content = block.content if block.content is not None else ""
    return ToolResult(block.tool_use_id, content, bool(block.is_error), parent)
