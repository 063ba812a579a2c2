"""Where the CLI's questions are put to the owner of the turn: may this call happen; run this tool.

The CLI asks over its control protocol and waits. An answer that never comes is a no: the turn's
end, an interrupt and a close cancel what still waits.
"""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import structlog
from claude_agent_sdk import HookContext, HookInput, HookJSONOutput
from mcp import types as wire
from mcp.server import Server

from stationmaster.agents.admission import CUSTOM_SERVER, OUTPUT_TOOL
from stationmaster.agents.base import (
    Allow,
    CustomTool,
    Deny,
    Host,
    LaunchSpec,
    ToolAnswer,
    ToolCall,
)
from stationmaster.agents.claude_code.mask import Mask
from stationmaster.agents.claude_code.toolbox import Toolbox

_log = structlog.get_logger(__name__)

_NOBODY = "Nobody is there to decide on this call."
_UNDECIDED = "This call was not decided on before the turn ended."
_FAILED = "The server could not decide on this call."
_TOOL_FAILED = "The tool could not be run."
_TOOL_USE_ID = "claudecode/toolUseId"
# The calls of one turn whose sub-agent is remembered: far more than one has.
_REMEMBERED = 10_000


class Desk:
    """Serves one live agent. A turn's host is there from `open` to `close`."""

    def __init__(self, spec: LaunchSpec, toolbox: Toolbox, *, mask: Mask | None = None) -> None:
        """`mask` hides what a host must not see either."""
        self._mask = mask
        self._gated = spec.gated
        self._tools = spec.custom_tools
        self._toolbox = toolbox
        self._host: Host | None = None
        self._waiting: set[asyncio.Task[Any]] = set()
        # A sub-agent's work is one call's, and what it calls is then that call's.
        self._callers: dict[str, str] = {}
        self._parents: dict[str, str | None] = {}
        self._permitted: set[str] = set()

    def open(self, host: Host | None) -> None:
        """A turn begins."""
        self._host = host
        self._parents.clear()
        self._permitted.clear()

    def close(self) -> None:
        """No more answers in this turn; what waits for one is told so. Idempotent."""
        self._host = None
        self.dismiss()

    def dismiss(self) -> None:
        """Stop waiting for the answers that are not there yet."""
        for task in self._waiting:
            task.cancel()

    def notice(self, frame: dict[str, Any]) -> None:
        """Look at every frame before anybody else does, in order."""
        if frame.get("type") == "system" and frame.get("subtype") == "task_started":
            task, call = frame.get("task_id"), frame.get("tool_use_id")
            if isinstance(task, str) and isinstance(call, str):
                self._callers[task] = call

    async def before_tool(
        self, given: HookInput, _tool_use_id: str | None, _context: HookContext
    ) -> HookJSONOutput:
        """The CLI's hook before each tool call. Never raises: the CLI must get its answer."""
        asked: dict[str, Any] = dict(given)
        call = self._call(asked)
        if len(self._parents) < _REMEMBERED:
            self._parents[call.id] = call.parent
        if call.name == OUTPUT_TOOL:
            return {}
        if not self._gated:
            # The agent's own rules are about what it does itself.
            return _decision("allow") if call.kind == "custom" else {}
        if self._host is None:
            return _decision("deny", permissionDecisionReason=_NOBODY)
        try:
            answer = await self._ask(self._host.permit(call))
        except Exception:  # noqa: BLE001  whatever a host raises
            _log.exception("A tool call could not be decided on.", tool=call.name)
            return _decision("deny", permissionDecisionReason=_FAILED)
        match answer:
            case Allow(input=changed):
                self._permitted.add(call.id)
                return _decision("allow", **({} if changed is None else {"updatedInput": changed}))
            case Deny(message=message):
                return _decision("deny", permissionDecisionReason=message)
        return _decision("deny", permissionDecisionReason=_UNDECIDED)

    def take(self, context: Any) -> str | None:
        """The id of the call that a tool server of ours is asked for; None for one not permitted.

        A permission is for one call. What runs in the sandbox can write to the CLI's stdout, and
        so ask for a call that the hook never saw.
        """
        id_ = str((context.meta or {}).get(_TOOL_USE_ID, ""))
        if not self._gated:
            return id_
        if id_ not in self._permitted:
            _log.warning("An agent asked for a tool without permission; it was not run.")
            return None
        self._permitted.discard(id_)
        return id_

    def server(self) -> "Server[Any]":
        """The tool server that the client's tools are to the CLI."""

        async def tools(_context: Any, _params: Any) -> wire.ListToolsResult:
            return wire.ListToolsResult(tools=[_described(tool) for tool in self._tools])

        async def call(context: Any, params: wire.CallToolRequestParams) -> wire.CallToolResult:
            return await self._run(params.name, params.arguments or {}, self.take(context))

        return Server(CUSTOM_SERVER, version="1", on_list_tools=tools, on_call_tool=call)

    async def _run(self, name: str, given: dict[str, Any], id_: str | None) -> wire.CallToolResult:
        if self._host is None or id_ is None:
            return _result(ToolAnswer(_NOBODY, is_error=True))
        call = ToolCall(id_, name, self._shown(given), self._parents.get(id_), "custom")
        try:
            answer = await self._ask(self._host.call_tool(call))
            return _result(answer or ToolAnswer(_UNDECIDED, is_error=True))
        except Exception:  # noqa: BLE001  whatever a host raises
            _log.exception("A custom tool could not be run.", tool=name)
            return _result(ToolAnswer(_TOOL_FAILED, is_error=True))

    def _call(self, asked: dict[str, Any]) -> ToolCall:
        given = asked.get("tool_input")
        given = dict(given) if isinstance(given, dict) else {}
        said = str(asked.get("tool_name", ""))
        kind, target = self._toolbox.kind(said, given)
        agent = asked.get("agent_id")
        parent = self._callers.get(agent, agent) if isinstance(agent, str) else None
        id_ = str(asked.get("tool_use_id", ""))
        return ToolCall(id_, self._toolbox.name(said), self._shown(given), parent, kind, target)

    def _shown(self, given: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = given if self._mask is None else self._mask.value(given)
        return shown

    async def _ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """The answer; None where it was not waited for to the end.

        Where the CLI takes its question back, the caller is cancelled, and the question with it.
        """
        task = asyncio.ensure_future(question)
        self._waiting.add(task)
        try:
            await asyncio.wait({task})
            return None if task.cancelled() else task.result()
        finally:
            self._waiting.discard(task)
            task.cancel()


def _decision(decision: str, **more: Any) -> HookJSONOutput:
    said = {"hookEventName": "PreToolUse", "permissionDecision": decision, **more}
    output: Any = {"hookSpecificOutput": said}
    return output  # type: ignore[no-any-return]


def _described(tool: CustomTool) -> wire.Tool:
    return wire.Tool(
        name=tool.name, description=tool.description, input_schema=dict(tool.input_schema)
    )


def _result(answer: ToolAnswer) -> wire.CallToolResult:
    said = answer.content
    blocks = [{"type": "text", "text": said}] if isinstance(said, str) else said
    return wire.CallToolResult(
        content=[_block(block) for block in blocks], is_error=answer.is_error
    )


def _block(block: dict[str, Any]) -> wire.TextContent | wire.ImageContent:
    match block:
        case {"type": "text", "text": str(text)}:
            return wire.TextContent(type="text", text=text)
        case {
            "type": "image",
            "source": {"type": "base64", "data": str(data), "media_type": str(kind)},
        }:
            return wire.ImageContent(type="image", data=data, mime_type=kind)
    # What the protocol has no block for is at least readable.
    return wire.TextContent(type="text", text=json.dumps(block))
