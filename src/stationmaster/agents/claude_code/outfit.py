"""What an agent finds in its home: its system prompt, its tool servers, the operator's skills."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stationmaster.agents.admission import CUSTOM_SERVER
from stationmaster.agents.base import AgentUnavailable, LaunchSpec, McpServer
from stationmaster.agents.claude_code.sandbox import INSIDE_PLUGIN

# Skills come as a plugin of this name, and are `skills:NAME` to the CLI.
PLUGIN = "skills"
_MANIFEST = {"name": PLUGIN, "version": "1", "description": "Skills of this installation."}
_SKILL_FILE = "SKILL.md"


@dataclass(frozen=True, slots=True)
class Outfit:
    """Where it is, by the paths that the agent sees; None for what it has not."""

    prompt: Path | None = None
    tool_servers: Path | None = None
    plugin: Path | None = None


def write_outfit(spec: LaunchSpec, *, boxed: bool) -> Outfit:
    """Write it into the agent's home. Blocks.

    With `boxed` the sandbox shows the skills in a place of its own, read-only; elsewhere they are
    links, and the operator's permissions keep them. Raises `AgentUnavailable`.
    """
    (spec.home / "tmp").mkdir(mode=0o700, exist_ok=True)
    prompt = tool_servers = plugin = None
    if spec.system_prompt is not None:
        prompt = _write(spec.home / "system-prompt.md", spec.system_prompt)
    if spec.custom_tools or spec.mcp_servers:
        # In a file: an argument is visible to everybody on the machine.
        tool_servers = _write(spec.home / "tool-servers.json", json.dumps(_servers(spec)))
    if spec.skills:
        check_skills(spec)
        plugin = Path(INSIDE_PLUGIN) if boxed else _link_skills(spec)
    return Outfit(prompt, tool_servers, plugin)


def check_skills(spec: LaunchSpec) -> None:
    """Raise `AgentUnavailable` for a skill that is not there. Blocks."""
    for skill in spec.skills:
        if not skill.directory.is_absolute() or not (skill.directory / _SKILL_FILE).is_file():
            raise AgentUnavailable(
                f"The skill {skill.name!r} has no {_SKILL_FILE}.", code="agent_skill_missing"
            )


def write_manifest(directory: Path) -> Path:
    """Write what makes a directory of skills a plugin; return its directory. Idempotent. Blocks."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "plugin.json"
    text = json.dumps(_MANIFEST)
    if not path.is_file() or path.read_text() != text:
        # Replaced as a whole: another agent may be starting from it.
        written = directory / f".plugin.json.{os.getpid()}"
        written.write_text(text)
        written.replace(path)
    return directory


def _link_skills(spec: LaunchSpec) -> Path:
    plugin = spec.home / "plugin"
    if plugin.is_symlink():
        plugin.unlink()
    shutil.rmtree(plugin, ignore_errors=True)
    (plugin / "skills").mkdir(parents=True)
    write_manifest(plugin / ".claude-plugin")
    for skill in spec.skills:
        (plugin / "skills" / skill.name).symlink_to(skill.directory)
    return plugin


def _servers(spec: LaunchSpec) -> dict[str, Any]:
    # Those of the type sdk are served by us, over the control protocol.
    servers = {server.name: _server(server) for server in spec.mcp_servers}
    if spec.custom_tools:
        servers[CUSTOM_SERVER] = {"type": "sdk", "name": CUSTOM_SERVER}
    return {"mcpServers": servers}


def _server(server: McpServer) -> dict[str, Any]:
    if server.command is None:
        return {"type": "sdk", "name": server.name}
    return {
        "type": "stdio",
        "command": server.command,
        "args": list(server.args),
        "env": dict(server.env),
    }


def _write(path: Path, text: str) -> Path:
    # Unlinked first: an earlier agent of this session may have put a link there.
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
