"""Whose tool a name is: the CLI's own, the client's, a tool server's, or a way to a sub-agent."""

from typing import Any

from stationmaster.agents.admission import CUSTOM_SERVER, DELEGATES, SERVER_PREFIX
from stationmaster.agents.base import LaunchSpec, ToolKind

# The tool server that the client's tools are to the CLI calls them by their plain names; were it to
# stop doing so, the prefix would come back.
_CUSTOM_PREFIX = f"{SERVER_PREFIX}{CUSTOM_SERVER}__"


class Toolbox:
    """The tools of one launch."""

    def __init__(self, spec: LaunchSpec) -> None:
        self._custom = frozenset(tool.name for tool in spec.custom_tools)

    def name(self, name: str) -> str:
        """The tool's name for everybody but the CLI."""
        own = name.removeprefix(_CUSTOM_PREFIX)
        return own if own in self._custom else name

    def kind(self, name: str, given: dict[str, Any]) -> tuple[ToolKind, str | None]:
        """What kind of tool `name` is, and the tool server or sub-agent of a call with `given`."""
        if self.name(name) in self._custom:
            return "custom", None
        if name in DELEGATES:
            chosen = given.get("subagent_type")
            return "sub_agent", chosen if isinstance(chosen, str) else None
        if name.startswith(SERVER_PREFIX):
            return "mcp", name.removeprefix(SERVER_PREFIX).partition("__")[0]
        return "tool", None
