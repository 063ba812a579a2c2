"""One launched scripted agent."""

import asyncio
import itertools
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stationmaster.agents.base import (
    AgentEvent,
    AgentExited,
    AgentHistoryLost,
    Delta,
    Deny,
    Finished,
    Host,
    LaunchSpec,
    McpFailed,
    Message,
    Started,
    Thinking,
    ToolAnswer,
    ToolCall,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.scripted.notebook import Notebook
from stationmaster.agents.scripted.script import (
    Call,
    Content,
    Delegate,
    Fail,
    Finish,
    Output,
    Say,
    Step,
    Think,
    UseTool,
    WaitFor,
    WriteFile,
)
from stationmaster.kernel.errors import Conflict, StationmasterError

VERSION = "1"
_WORDS = re.compile(r"\S*\s+|\S+")  # together they are the text
INTERRUPTED = "interrupted"
OUTPUT_INVALID = "output_invalid"
DELEGATE = "Agent"

_NOBODY = "Nobody is there to decide on this call."
_FAILED = "The server could not answer."


class ScriptedLive:
    """Plays steps as turns. `steps` says which; `forgotten` is called at the end."""

    def __init__(
        self,
        spec: LaunchSpec,
        tools: tuple[str, ...],
        notebook: Notebook,
        *,
        steps: Callable[[LaunchSpec, Content], Sequence[Step]],
        forgotten: Callable[["ScriptedLive"], None],
    ) -> None:
        self._spec = spec
        self._notebook = notebook
        self._steps = steps
        self._forgotten = forgotten
        self._tool_ids = itertools.count(1)
        self._custom = {tool.name for tool in spec.custom_tools}
        self._tools = (*tools, *(tool.name for tool in spec.custom_tools))
        self._interrupted = asyncio.Event()
        self._closed = asyncio.Event()
        self._running = False
        self._host: Host | None = None
        self._said = ""
        self._turns = 0
        self._output: Any = None

    @property
    def rung(self) -> str:
        """It has no process to confine."""
        return "none"

    @property
    def agent_session_id(self) -> str:
        """The id of its history."""
        return self._notebook.session

    @property
    def ended(self) -> bool:
        """Whether it is over; see `LiveAgent.ended`."""
        return self._closed.is_set()

    async def settle(self) -> None:
        """It has no process: nothing is left."""

    def memory(self) -> int:
        """It has no process: 0."""
        return 0

    async def turn(
        self, content: Sequence[dict[str, Any]], host: Host | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        """Play the script; see `LiveAgent.turn`."""
        self._check_open()
        if self._running:
            raise Conflict("A turn is running already.", code="agent_busy")
        self._running = True
        self._interrupted.clear()
        self._host, self._said, self._turns, self._output = host, "", 1, None
        try:
            await self._note("user", list(content))
            for event in self._greeting():
                yield event
            for step in self._steps(self._spec, content):
                async for event in self._play(step):
                    yield event
                    if isinstance(event, Finished):
                        return
                self._check_open()
                if self._interrupted.is_set():
                    yield self._end(Finished("error", "", 0, INTERRUPTED, error_code=INTERRUPTED))
                    return
            yield self._end(Finished("success", "", 0))
        finally:
            self._running = False

    async def interrupt(self) -> None:
        """End the running turn; see `LiveAgent.interrupt`."""
        self._interrupted.set()

    async def close(self) -> None:
        """End it; see `LiveAgent.close`."""
        self._closed.set()
        self._forgotten(self)

    # --- events -------------------------------------------------------------------------------

    def _greeting(self) -> list[AgentEvent]:
        spec = self._spec
        started = Started(
            self.agent_session_id,
            spec.model,
            self._tools,
            VERSION,
            skills=tuple(skill.name for skill in spec.skills),
            sub_agents=tuple(agent.name for agent in spec.sub_agents),
        )
        failed = [
            McpFailed(server.name, "It cannot be run.")
            for server in spec.mcp_servers
            if server.command is None or not os.access(server.command, os.X_OK)
        ]
        return [started, *failed]

    def _end(self, end: Finished) -> Finished:
        end = replace(
            end,
            text=end.text or self._said,
            turns=self._turns,
            structured=self._output,
            stop_reason="end_turn",
            position=self._notebook.position,
        )
        if end.outcome == "success" and self._spec.output_schema and self._output is None:
            words = "The agent gave no output that fits the schema."
            return replace(end, outcome="error", error=words, error_code=OUTPUT_INVALID)
        return end

    async def _play(
        self, step: Step, parent: str | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        match step:
            case WaitFor(event=awaited):
                await self._unless_ended(awaited.wait())
            case Output(value=value):
                self._output = value
            case Fail(failure=failure):
                await self.close()
                raise failure
            case Finish(outcome=outcome, text=text, error=reason):
                yield self._end(Finished(outcome, text, 0, reason))
            case Say() | Think():
                for event in await self._spoken(step, parent):
                    yield event
            case _:
                async for event in self._work(step, parent):
                    yield event

    async def _work(
        self, step: Call | WriteFile | UseTool | Delegate, parent: str | None
    ) -> AsyncGenerator[AgentEvent, None]:
        match step:
            case Call(call=call):
                try:
                    await self._unless_ended(call(self._spec))
                except Exception as error:  # noqa: BLE001  whatever the given call raises
                    yield self._end(Finished("error", "", 0, str(error)))
            case WriteFile(path=path, content=content):
                await asyncio.to_thread(_write, self._spec.workspace / path, content)
                async for event in self._use(UseTool("Write", {"file_path": path}), parent):
                    yield event
            case UseTool():
                async for event in self._use(step, parent):
                    yield event
            case Delegate():
                async for event in self._delegate(step):
                    yield event

    async def _spoken(self, step: Say | Think, parent: str | None) -> list[AgentEvent]:
        block = {"type": "text" if isinstance(step, Say) else "thinking"}
        await self._note("assistant", [{**block, block["type"]: step.text}], parent)
        whole = Message(step.text, parent) if isinstance(step, Say) else Thinking(step.text, parent)
        if parent is not None:
            return [whole]
        if isinstance(step, Think):
            return [Delta("thinking", step.text), whole]
        self._said = step.text
        return [*(Delta("text", word) for word in _WORDS.findall(step.text)), whole]

    # --- tools --------------------------------------------------------------------------------

    async def _use(self, step: UseTool, parent: str | None) -> AsyncGenerator[AgentEvent, None]:
        self._turns += 1
        use = self._called(step.name, step.input, parent)
        await self._note_use(use)
        yield use
        answer = await self._answer(use, step)
        yield await self._result(use, answer)

    async def _delegate(self, step: Delegate) -> AsyncGenerator[AgentEvent, None]:
        self._turns += 1
        use = self._called(
            DELEGATE, {"subagent_type": step.agent, "prompt": step.prompt, "description": ""}, None
        )
        await self._note_use(use)
        yield use
        known = any(agent.name == step.agent for agent in self._spec.sub_agents)
        refusal = await self._refusal(use) if known else _error("There is no such agent.")
        if isinstance(refusal, ToolAnswer):
            yield await self._result(use, refusal)
            return
        said = ""
        for inner in step.steps:
            async for event in self._play(inner, use.id):
                said = event.text if isinstance(event, Message) else said
                yield event
        yield await self._result(use, ToolAnswer(said))

    def _called(self, name: str, given: dict[str, Any], parent: str | None) -> ToolUse:
        id_ = f"toolu_{self.agent_session_id}_{next(self._tool_ids)}"
        use = ToolUse(id_, name, given, parent)
        if name in self._custom:
            return replace(use, kind="custom")
        if name == DELEGATE:
            return replace(use, kind="sub_agent", target=str(given["subagent_type"]))
        if name.startswith("mcp__"):
            return replace(use, kind="mcp", target=name.split("__")[1])
        return use

    async def _answer(self, use: ToolUse, step: UseTool) -> ToolAnswer:
        if use.name not in self._tools and use.kind != "mcp":
            return _error(f"No such tool available: {use.name}")
        asked = await self._refusal(use)
        if isinstance(asked, ToolAnswer):
            return asked
        if use.kind != "custom":
            return ToolAnswer(step.result, step.is_error)
        host = self._host
        if host is None:
            return _error(_NOBODY)
        return await self._ask(lambda: host.call_tool(asked)) or _error(_FAILED)

    async def _refusal(self, use: ToolUse) -> ToolAnswer | ToolCall:
        """The call as it may happen, or what is answered in its place."""
        call = ToolCall(use.id, use.name, use.input, use.parent, use.kind, use.target)
        if not self._spec.gated:
            return call
        host = self._host
        if host is None:
            return _error(_NOBODY)
        permission = await self._ask(lambda: host.permit(call))
        if permission is None:
            return _error(_FAILED)
        if isinstance(permission, Deny):
            return _error(permission.message)
        return call if permission.input is None else replace(call, input=permission.input)

    async def _ask(self, question: Callable[[], Awaitable[Any]]) -> Any:
        """The host's answer; None where it fails, or the turn ends before."""
        try:
            return await self._unless_ended(question())
        except Exception:  # noqa: BLE001  whatever a host raises
            return None

    async def _result(self, use: ToolUse, answer: ToolAnswer) -> ToolResult:
        block = {
            "type": "tool_result",
            "tool_use_id": use.id,
            "content": answer.content,
            "is_error": answer.is_error,
        }
        await self._note("user", [block], use.parent)
        return ToolResult(use.id, answer.content, answer.is_error, use.parent)

    # --- helpers ------------------------------------------------------------------------------

    async def _note_use(self, use: ToolUse) -> None:
        block = {"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}
        await self._note("assistant", [block], use.parent)

    async def _note(self, role: str, content: Any, parent: str | None = None) -> None:
        subpath = None if parent is None else f"subagents/agent-{parent}"
        try:
            await self._notebook.add(role, content, subpath)
        except StationmasterError as error:
            await self.close()
            raise AgentHistoryLost(error.message, code=error.error_code) from error
        except Exception as error:
            await self.close()
            raise AgentHistoryLost from error

    async def _unless_ended(self, wanted: Awaitable[Any]) -> Any:
        work = asyncio.ensure_future(wanted)
        ends = [asyncio.ensure_future(end.wait()) for end in (self._interrupted, self._closed)]
        try:
            await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for task in (work, *ends):
                task.cancel()
            # Its own end is seen above; here it is only waited for.
            await asyncio.gather(work, *ends, return_exceptions=True)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise AgentExited("The agent was closed.")


def _error(words: str) -> ToolAnswer:
    return ToolAnswer(words, is_error=True)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
