"""What agents can be given, by the caller's rights."""

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.capability import (
    AgentOffer,
    Capabilities,
    Counts,
    McpServerOffer,
    SkillOffer,
)
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.agents import AgentVersion
from stationmaster.sessions.offers import usable
from stationmaster.sessions.toolset import NAMES

MOST_AGENTS = 1000
PAGE = 100
MAX_SKILL_FILE = 64 * 1024  # bytes of a SKILL.md that are looked at

_DESCRIPTION = re.compile(r"^description:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


async def get_capabilities(services: Given, caller: Caller) -> Capabilities:
    """The project's agents, and what the operator offers to agents, as far as you may use it."""
    offers = services.offers
    agents = [_agent(found, offers.tools) for found in await _agents(services, caller)]
    skills = [
        SkillOffer(
            name=name,
            description=await asyncio.to_thread(_description, skill.directory),
            command=f"/{name}",
        )
        for name, skill in sorted(offers.skills.items())
        if usable(caller, "skills", name)
    ]
    servers = [
        McpServerOffer(name=name, url=server.url or f"catalogue://{name}")
        for name, server in sorted(offers.mcp_servers.items())
        if usable(caller, "mcp", name)
    ]
    profile = caller.profile
    tools = sorted(name for name in offers.tools if profile is None or profile.allows_tool(name))
    return Capabilities(
        agents=agents,
        skills=skills,
        mcp_servers=servers,
        tools=tools,
        counts=Counts(
            agents=len(agents), skills=len(skills), mcp_servers=len(servers), tools=len(tools)
        ),
        agents_count=len(agents),
        skills_count=len(skills),
    )


async def _agents(services: Services, caller: Principal) -> list[AgentVersion]:
    if not caller.may("read:agents"):
        return []
    found: list[AgentVersion] = []
    after: str | None = None
    while len(found) < MOST_AGENTS:
        page = await services.agents.list(caller, limit=PAGE, after=after)
        found += page.items
        after = page.next_cursor
        if after is None:
            break
    profile = caller.profile
    return [each for each in found if profile is None or profile.allows_agent(each.definition.name)]


def _agent(found: AgentVersion, offered: frozenset[str]) -> AgentOffer:
    definition = found.definition
    return AgentOffer(
        id=found.id,
        name=definition.name,
        description=definition.description,
        tools=[name for tool in definition.tools for name in _names(tool, offered)],
        model=str(definition.model["id"]),
    )


def _names(tool: dict[str, Any], offered: frozenset[str]) -> list[str]:
    if tool["type"] == "custom":
        return [str(tool["name"])]
    if tool["type"] == "mcp_toolset":
        return [f"mcp:{tool['mcp_server_name']}"]
    enabled = {each["name"]: each["enabled"] for each in tool["configs"]}
    default = tool["default_config"]["enabled"]
    return [name for name, own in NAMES.items() if own in offered and enabled.get(name, default)]


def _description(directory: Path) -> str | None:
    """What the skill's own file says of it."""
    try:
        with (directory / "SKILL.md").open(encoding="utf-8", errors="replace") as file:
            found = _DESCRIPTION.search(file.read(MAX_SKILL_FILE))
    except OSError:
        return None
    return None if found is None else found[1].strip("\"'")


def install(api: FastAPI) -> None:
    """Add the routes."""
    add(
        api,
        "GET",
        "/v1/capabilities",
        get_capabilities,
        tag="capabilities",
        summary="List what agents can be given",
        reply=Capabilities,
    )
