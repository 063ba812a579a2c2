"""What the operator offers to agents: tool servers and skills. No request makes one of these."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from stationmaster.agents.base import McpServer, Skill


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Tool servers and skills by name, and the tools that agents may have.

    A key may use a tool server with the scope `use:mcp` or `use:mcp.NAME`, and a skill with
    `use:skills` or `use:skills.NAME`.
    """

    tools: frozenset[str] = frozenset()
    mcp_servers: dict[str, McpServer] = field(default_factory=dict)
    skills: dict[str, Skill] = field(default_factory=dict)

    def servers_named(self, names: Iterable[str]) -> tuple[McpServer, ...]:
        """The tool servers with these names, as far as the operator still offers them."""
        return tuple(self.mcp_servers[name] for name in names if name in self.mcp_servers)

    def skills_named(self, names: Iterable[str]) -> tuple[Skill, ...]:
        """The skills with these names, as far as the operator still offers them."""
        return tuple(self.skills[name] for name in names if name in self.skills)
