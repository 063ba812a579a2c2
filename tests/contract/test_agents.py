"""Both agents keep the same promises."""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from stationmaster.agents import conformance
from stationmaster.agents.base import Agent, LaunchSpec
from stationmaster.agents.claude_code import ClaudeCodeAgent
from stationmaster.agents.scripted import (
    Delegate,
    Output,
    Say,
    ScriptedAgent,
    UseTool,
    WaitFor,
)
from tests.support import wire_upstream as wire

# Valid input for the tools that the suite uses: the first two of the default set.
_WORK = "The work that is given on."
_INPUTS: dict[str, dict[str, Any]] = {"Bash": {"command": "true"}, "Edit": {}}


class _Directories:
    """Hands out a workspace and a home for each session."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._numbers = itertools.count(1)

    def session(self) -> tuple[str, Path, Path]:
        name = f"session-{next(self._numbers)}"
        workspace, home = self._top / name / "workspace", self._top / name / "home"
        workspace.mkdir(parents=True)
        home.mkdir()
        return name, workspace, home


class _Scripted:
    def __init__(self, top: Path) -> None:
        self._directories = _Directories(top)
        self._socket = top / "gateway.sock"
        self._agent = ScriptedAgent()

    @property
    def agent(self) -> Agent:
        return self._agent

    def spec(
        self, *, tools: tuple[str, ...] | None = None, workspace: Path | None = None
    ) -> LaunchSpec:
        name, own, home = self._directories.session()
        return LaunchSpec(
            session_id=name,
            workspace=workspace or own,
            home=home,
            gateway_socket=self._socket,
            gateway_url="http://127.0.0.1:1",
            token="token",
            model="scripted-1",
            tools=tools,
        )

    def will_say(self, text: str) -> None:
        self._agent.script = (Say(text),)

    def will_use(self, tool: str, given: dict[str, Any] | None = None) -> None:
        self._agent.script = (UseTool(tool, given or _INPUTS.get(tool, {})), Say("used"))

    def will_delegate(self, agent: str, tool: str) -> None:
        work = (UseTool(tool, _INPUTS[tool]), Say("done"))
        self._agent.script = (Delegate(agent, work), Say("handed on"))

    def will_output(self, value: Any) -> None:
        self._agent.script = (Output(value),)

    def will_hang(self) -> None:
        self._agent.script = (WaitFor(),)


class _ClaudeCode:
    def __init__(self, top: Path, agent: Agent, upstream: wire.WireUpstream) -> None:
        self._directories = _Directories(top)
        self._agent = agent
        self._upstream = upstream

    @property
    def agent(self) -> Agent:
        return self._agent

    def spec(
        self, *, tools: tuple[str, ...] | None = None, workspace: Path | None = None
    ) -> LaunchSpec:
        name, own, home = self._directories.session()
        assert self._upstream.socket_path is not None
        return LaunchSpec(
            session_id=name,
            workspace=workspace or own,
            home=home,
            gateway_socket=self._upstream.socket_path,
            gateway_url=self._upstream.url,
            token="token",
            model="claude-sonnet-4-5",
            tools=tools,
        )

    def will_say(self, text: str) -> None:
        self._upstream.script = wire.fixed(wire.text(text))

    def will_use(self, tool: str, given: dict[str, Any] | None = None) -> None:
        use = wire.Reply((wire.Tool(tool, given or _INPUTS[tool]),))
        self._upstream.script = wire.steps(use, wire.text("used"))

    def will_delegate(self, agent: str, tool: str) -> None:
        work = {"description": "work", "prompt": _WORK, "subagent_type": agent}
        own = wire.steps(wire.Reply((wire.Tool("Agent", work),)), wire.text("handed on"))
        inner = wire.steps(wire.Reply((wire.Tool(tool, _INPUTS[tool]),)), wire.text("done"))

        def script(request: wire.Json) -> wire.Reply:
            return (inner if _WORK in str(request["messages"][0]) else own)(request)

        self._upstream.script = script

    def will_output(self, value: Any) -> None:
        output = wire.Reply((wire.Tool("StructuredOutput", value),))
        self._upstream.script = wire.steps(output, wire.text("That is all."))

    def will_hang(self) -> None:
        self._upstream.script = wire.fixed(wire.Reply(hold=asyncio.Event()))


@contextmanager
def _directory() -> Iterator[Path]:
    # Not pytest's own: an agent with its own user id cannot pass through that one.
    top = Path(tempfile.mkdtemp(prefix="agents-")).resolve()
    try:
        top.chmod(0o755)
        yield top
    finally:
        shutil.rmtree(top)


@asynccontextmanager
async def _scripted() -> AsyncIterator[conformance.Harness]:
    with _directory() as top:
        yield _Scripted(top)


@asynccontextmanager
async def _claude_code(sandbox: Literal["require", "off"]) -> AsyncIterator[conformance.Harness]:
    with _directory() as top:
        async with wire.WireUpstream(unix=True) as upstream:
            agent = ClaudeCodeAgent(state_dir=top / "state", sandbox=sandbox)
            try:
                yield _ClaudeCode(top, agent, upstream)
            finally:
                await agent.aclose()


_ALL = conformance.CHECKS
# The lower rung shares all but the process's wrapping: what could differ is how it ends.
_ENDINGS = (
    conformance.turns.a_tool_use_has_its_result,
    conformance.turns.close_is_idempotent_and_complete,
    conformance.turns.close_ends_a_running_turn,
    conformance.turns.a_cancelled_launch_leaves_nothing,
    conformance.turns.aclose_closes_all,
)


@pytest.mark.parametrize("check", _ALL, ids=lambda check: check.__name__)
async def test_scripted(check: conformance.Check) -> None:
    async with _scripted() as harness:
        await check(harness)


@pytest.mark.parametrize("check", _ALL, ids=lambda check: check.__name__)
async def test_claude_code_in_bubblewrap(check: conformance.Check) -> None:
    if shutil.which("bwrap") is None and os.environ.get("CI") != "true":
        pytest.skip("bubblewrap is not installed")
    async with _claude_code("require") as harness:
        await check(harness)


@pytest.mark.parametrize("check", _ENDINGS, ids=lambda check: check.__name__)
async def test_claude_code_with_limits_only(check: conformance.Check) -> None:
    async with _claude_code("off") as harness:
        await check(harness)
