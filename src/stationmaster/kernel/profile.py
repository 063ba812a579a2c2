"""What the runs of a credential may use."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stationmaster.kernel.money import MicroDollars

WRITING_TOOLS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
NETWORK_TOOLS = frozenset({"WebFetch", "WebSearch"})


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounds of every run of a credential. Sizes are in bytes, durations in seconds.

    `tools`, `agents` and `skills` are names and beginnings of names (`*`, `mcp__docs__*`); what is
    blocked is blocked, whatever else allows it. None is no bound of this profile's: the server's
    holds.
    """

    name: str
    tools: tuple[str, ...] = ("*",)
    blocked_tools: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    concurrent_tasks: int | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    cost: MicroDollars | None = None
    network: bool = False
    filesystem: Literal["readonly", "readwrite"] = "readonly"
    workspace_bytes: int | None = None
    priority: Literal["low", "normal", "high"] | None = None  # the highest of a run

    def allows_tool(self, name: str) -> bool:
        """Whether a run may use the tool, by its name and by what it needs."""
        if matches(name, self.blocked_tools):
            return False
        if name in WRITING_TOOLS and self.filesystem == "readonly":
            return False
        if name in NETWORK_TOOLS and not self.network:
            return False
        return matches(name, self.tools)

    def allows_agent(self, name: str) -> bool:
        """Whether a run may have the sub-agent."""
        return matches(name, self.agents)

    def allows_skill(self, name: str) -> bool:
        """Whether a run may have the skill."""
        return matches(name, self.skills)

    def allows_server(self, name: str) -> bool:
        """Whether a run may have the tool server: every one of its tools, `mcp__NAME__…`."""
        tools = f"mcp__{name}__"
        blocked = any(
            pattern.startswith(tools) or matches(tools, (pattern,))
            for pattern in self.blocked_tools
        )
        return not blocked and matches(tools, self.tools)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns is the name or, where it ends in `*`, a beginning of it."""
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns
    )
