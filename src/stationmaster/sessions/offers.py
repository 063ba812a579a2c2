"""What of the operator's catalogue, and which other agents, a definition names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stationmaster.agents.admission import NAME, NAME_FORM
from stationmaster.agents.base import McpServer, Skill
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.checks import bounded, refuse_unknown
from stationmaster.sessions.toolset import API_NAMES, custom_tools_of, tools_of, unsupported

MAX_SERVERS = 20
MAX_SKILLS = 20
MAX_SUB_AGENTS = 20


def check_mcp_servers(
    given: Any, catalogue: Catalogue, principal: Principal
) -> list[dict[str, Any]]:
    """Tool servers by their names in the catalogue. Its URL must be the catalogue's, if it has one.

    A server that is a command of the operator's is named with the URL `catalogue://NAME`.
    """
    made = []
    for index, each in enumerate(_list(given, "mcp_servers", MAX_SERVERS)):
        at = f"mcp_servers.{index}"
        if not isinstance(each, Mapping) or each.get("type") != "url":
            raise Invalid(f"{at}.type must be url.", param=f"{at}.type")
        refuse_unknown(each, {"type", "name", "url"}, at)
        name = bounded(each.get("name"), 255, f"{at}.name", least=1)
        url = bounded(each.get("url"), 2048, f"{at}.url", least=1)
        offered = catalogue.mcp_servers.get(name)
        if offered is None or url not in {offered.url, f"catalogue://{name}"}:
            raise Denied(
                f"The operator offers no MCP server {name[:64]!r} with this URL.",
                code="mcp_server_not_offered",
                param=at,
            )
        _entitled(principal, "mcp", name, at)
        made.append({"type": "url", "name": name, "url": url})
    _unique([each["name"] for each in made], "mcp_servers")
    return made


def check_skills(given: Any, catalogue: Catalogue, principal: Principal) -> list[dict[str, Any]]:
    """Skills by their names in the catalogue."""
    made = []
    for index, each in enumerate(_list(given, "skills", MAX_SKILLS)):
        at = f"skills.{index}"
        if not isinstance(each, Mapping) or each.get("type") not in {"custom", "anthropic"}:
            raise Invalid(f"{at}.type must be custom.", param=f"{at}.type")
        refuse_unknown(each, {"type", "skill_id", "version"}, at)
        name = bounded(each.get("skill_id"), 255, f"{at}.skill_id", least=1)
        if each["type"] != "custom" or name not in catalogue.skills:
            raise Denied(
                f"The operator offers no skill {name[:64]!r}.",
                code="skill_not_offered",
                param=f"{at}.skill_id",
            )
        if each.get("version") not in {None, "latest"}:
            raise unsupported(f"{at}.version")
        _entitled(principal, "skills", name, at)
        made.append({"type": "custom", "skill_id": name, "version": "latest"})
    _unique([each["skill_id"] for each in made], "skills")
    return made


def check_multiagent(
    given: Any, look_up: Callable[[str, int | None], int]
) -> dict[str, Any] | None:
    """Sub-agents: other agents of the project, at the versions that they have now.

    `check_team` looks at them in whole.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or given.get("type") != "coordinator":
        raise unsupported("multiagent.type")
    refuse_unknown(given, {"type", "agents"}, "multiagent")
    made: list[dict[str, Any]] = []
    for index, each in enumerate(_list(given.get("agents"), "multiagent.agents", MAX_SUB_AGENTS)):
        at = f"multiagent.agents.{index}"
        reference = {"type": "agent", "id": each} if isinstance(each, str) else each
        if not isinstance(reference, Mapping) or reference.get("type") != "agent":
            raise unsupported(f"{at}.type")
        refuse_unknown(reference, {"type", "id", "version"}, at)
        other, version = reference.get("id"), reference.get("version")
        if not isinstance(other, str) or not isinstance(version, int | None):
            raise Invalid(f"{at} does not name an agent.", param=at)
        made.append({"type": "agent", "id": other, "version": look_up(other, version)})
    if not made:
        raise Invalid("multiagent.agents is empty.", param="multiagent.agents")
    _unique([each["id"] for each in made], "multiagent.agents")
    return {"type": "coordinator", "agents": made}


def check_team(
    agent: dict[str, Any], others: Sequence[dict[str, Any]], catalogue: Catalogue
) -> None:
    """Raise `Invalid` where an agent could not be launched with these sub-agents."""
    own = tools_of(agent, catalogue.tools)
    allowed = {*own, *(tool.name for tool in custom_tools_of(agent))}
    names: set[str] = set()
    for index, other in enumerate(others):
        at, name = f"multiagent.agents.{index}", other["name"]
        if NAME.fullmatch(name) is None:
            raise Invalid(
                f"The agent {name[:64]!r} cannot be a sub-agent by this name: that has"
                f" {NAME_FORM}.",
                code="sub_agent_name",
                param=at,
            )
        if name in names:
            raise Invalid(
                f"There is another sub-agent named {name!r}.", code="sub_agent_name", param=at
            )
        names.add(name)
        for tool in tools_of(other, catalogue.tools):
            # By giving work on, the agent could get what it was not given itself.
            if tool not in allowed:
                raise Invalid(
                    f"The sub-agent {name!r} has the tool {API_NAMES[tool]!r}, which the agent"
                    " itself has not.",
                    code="sub_agent_tool",
                    param=at,
                )


def servers_of(agent: dict[str, Any], catalogue: Catalogue) -> tuple[McpServer, ...]:
    """The tool servers of a snapshot that the operator still offers."""
    return catalogue.servers_named(each["name"] for each in agent["mcp_servers"])


def skills_of(agent: dict[str, Any], catalogue: Catalogue) -> tuple[Skill, ...]:
    """The skills of a snapshot that the operator still offers."""
    return catalogue.skills_named(each["skill_id"] for each in agent["skills"])


def usable(principal: Principal, kind: str, name: str) -> bool:
    """Whether a caller's scopes and profile allow one of the `skills` or of the `mcp` servers."""
    profile = principal.profile
    if profile is not None:
        allows = profile.allows_skill if kind == "skills" else profile.allows_server
        if not allows(name):
            return False
    return _in_scope(principal, kind, name)


def _in_scope(principal: Principal, kind: str, name: str) -> bool:
    return principal.may(f"use:{kind}") or principal.may(f"use:{kind}.{name}")


def _entitled(principal: Principal, kind: str, name: str, at: str) -> None:
    if not _in_scope(principal, kind, name):
        raise Denied(f"This credential may not use {name[:64]!r}.", scope=f"use:{kind}", param=at)


def _list(given: Any, at: str, most: int) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise Invalid(f"{at} is not a list.", param=at)
    if len(given) > most:
        raise Invalid(f"{at} has more than {most} entries.", param=at)
    return given


def _unique(names: list[str], at: str) -> None:
    if len(set(names)) != len(names):
        raise Invalid(f"{at} names one thing twice.", param=at)
