"""What the operator offers to agents: skills of a directory, tool servers of a file."""

import json
from pathlib import Path
from typing import Any

from stationmaster.agents.admission import NAME, RESERVED
from stationmaster.agents.base import Agent, AgentUnavailable, McpServer, Skill
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.settings import Settings

SKILL_FILE = "SKILL.md"
_FIELDS = frozenset({"type", "command", "args", "env", "url", "headers"})


def catalogue(settings: Settings, agent: Agent) -> Catalogue:
    """Read them, once. Raises `AgentUnavailable` where something in it is wrong."""
    return Catalogue(
        tools=agent.known_tools,
        mcp_servers=_servers(settings.mcp_servers_file) if settings.mcp_servers_file else {},
        skills=_skills(settings.skills_dir) if settings.skills_dir else {},
    )


def _skills(directory: Path) -> dict[str, Skill]:
    try:
        places = sorted(path for path in directory.iterdir() if (path / SKILL_FILE).is_file())
    except OSError as error:
        raise _wrong("SKILLS_DIR", f"cannot be read: {error.strerror}") from None
    for path in places:
        if NAME.fullmatch(path.name) is None:
            raise _wrong("SKILLS_DIR", f"has a skill with the name {path.name[:64]!r}")
    return {path.name: Skill(path.name, path.resolve()) for path in places}


def _servers(file: Path) -> dict[str, McpServer]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong("MCP_SERVERS_FILE", f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _wrong("MCP_SERVERS_FILE", "is not JSON") from None
    servers = found.get("mcpServers") if isinstance(found, dict) else None
    if not isinstance(servers, dict):
        raise _wrong("MCP_SERVERS_FILE", "has no object mcpServers")
    return {name: _server(name, fields) for name, fields in servers.items()}


def _server(name: str, fields: Any) -> McpServer:
    at = f"has a server {name[:64]!r}"
    if NAME.fullmatch(name) is None or name in RESERVED:
        raise _wrong("MCP_SERVERS_FILE", f"{at}, which is not a name that it can have")
    if not isinstance(fields, dict) or not set(fields) <= _FIELDS:
        raise _wrong("MCP_SERVERS_FILE", f"{at} with fields that are not known")
    command, url = fields.get("command"), fields.get("url")
    if not (isinstance(command, str) ^ isinstance(url, str)):
        raise _wrong("MCP_SERVERS_FILE", f"{at} that has not either a command or a url")
    args = fields.get("args", [])
    if not isinstance(args, list) or not all(isinstance(each, str) for each in args):
        raise _wrong("MCP_SERVERS_FILE", f"{at} whose args are not a list of texts")
    return McpServer(
        name,
        command=command,
        args=tuple(args),
        env=_texts(fields.get("env", {}), f"{at} whose env"),
        url=url,
        headers=_texts(fields.get("headers", {}), f"{at} whose headers"),
    )


def _texts(value: Any, at: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise _wrong("MCP_SERVERS_FILE", f"{at} are not texts by name")
    return value


def _wrong(setting: str, what: str) -> AgentUnavailable:
    return AgentUnavailable(f"{setting} {what}.", code="offers_invalid")
