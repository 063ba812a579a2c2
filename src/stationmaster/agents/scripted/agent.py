"""Launches agents that play scripts as an agent would work."""

import asyncio
from collections.abc import Sequence

from stationmaster.agents import admission
from stationmaster.agents.base import AgentFailure, AgentUnavailable, LaunchSpec
from stationmaster.agents.scripted.live import ScriptedLive
from stationmaster.agents.scripted.notebook import Histories, open_notebook
from stationmaster.agents.scripted.script import Content, Say, Script, Step

__all__ = ["DEFAULT_TOOLS", "ScriptedAgent", "ScriptedLive"]

DEFAULT_TOOLS = ("Bash", "Edit", "Glob", "Grep", "Read", "Write")

_DONE: Script = (Say("Done."),)


class ScriptedAgent:
    """Launches agents that play `script`, or what `script(spec, content)` returns for a turn.

    `script` may be replaced between turns. `launch_failure`, where set, is raised by the next
    launches. `launched` keeps every spec; `histories` what agents without a sink remember.
    """

    name = "scripted"
    default_tools = DEFAULT_TOOLS
    known_tools = frozenset(DEFAULT_TOOLS)

    def __init__(self, script: Script = _DONE) -> None:
        self.script = script
        self.launch_failure: AgentFailure | None = None
        self.launched: list[LaunchSpec] = []
        self.histories: Histories = {}
        self._live: set[ScriptedLive] = set()

    async def launch(self, spec: LaunchSpec) -> ScriptedLive:
        """Start one; see `Agent.launch`."""
        if self.launch_failure is not None:
            raise self.launch_failure
        admission.check(spec, known=self.known_tools, default=self.default_tools)
        await asyncio.to_thread(_check_directories, spec)
        notebook = await open_notebook(spec, self.histories)
        self.launched.append(spec)
        live = ScriptedLive(
            spec,
            self.default_tools if spec.tools is None else spec.tools,
            notebook,
            steps=self._steps,
            forgotten=self._live.discard,
        )
        self._live.add(live)
        return live

    async def reap(self) -> int:
        """Nothing is ever left behind: 0."""
        return 0

    def alive(self) -> int:
        """How many have been launched and not closed."""
        return len(self._live)

    async def aclose(self) -> None:
        """Close them all. Idempotent."""
        for live in list(self._live):
            await live.close()

    def _steps(self, spec: LaunchSpec, content: Content) -> Sequence[Step]:
        return self.script(spec, content) if callable(self.script) else self.script


def _check_directories(spec: LaunchSpec) -> None:
    if not spec.workspace.is_dir():
        raise AgentUnavailable(
            "The workspace is not an existing directory.", code="agent_workspace_missing"
        )
    for skill in spec.skills:
        if not (skill.directory / "SKILL.md").is_file():
            raise AgentUnavailable(
                f"The skill {skill.name!r} has no SKILL.md.", code="agent_skill_missing"
            )
