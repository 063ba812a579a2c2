"""What a spec may say, for every kind of agent: much of it comes from a request or a definition."""

import json
import re
from collections.abc import Sequence

from stationmaster.agents.spec import LaunchSpec, McpServer, SubAgent
from stationmaster.kernel.errors import Invalid

_SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Names that an agent uses itself: neither a client's tool nor a tool server may take one.
DELEGATES = frozenset({"Agent", "Task"})
OUTPUT_TOOL = "StructuredOutput"
CUSTOM_SERVER = "custom"
RESERVED = DELEGATES | {"Skill", "ToolSearch", OUTPUT_TOOL, CUSTOM_SERVER}
SERVER_PREFIX = "mcp__"
MAX_CUSTOM_TOOLS = 128  # all definitions travel in one frame of the control protocol

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]|_(?!_)){0,63}")
"""Of a sub-agent, a tool server or a skill: other names end up in the names of tools."""
NAME_FORM = "1 to 64 letters, digits, dashes and single underscores, with a letter or digit first"

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,199}")
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
# It is one argument, which the kernel bounds at 128 KiB.
_MAX_SCHEMA_BYTES = 100_000
_MAX_SUB_AGENTS = 32


def check(
    spec: LaunchSpec,
    *,
    known: frozenset[str],
    default: Sequence[str],
) -> None:
    """Raise `Invalid`, with the spec's field as its parameter, for what cannot be launched.

    `known` are the agent's tools, and `default` those that it has where none are named.
    """
    _check_model(spec.model, "model")
    _check_tools(spec.tools or (), known, "tools")
    for name in ("resume", "resume_at", "agent_session_id"):
        value: str | None = getattr(spec, name)
        if value is not None and _SESSION.fullmatch(value) is None:
            raise Invalid("This is not the id of an agent's session.", param=name)
    if spec.resume_at is not None and spec.resume is None:
        raise Invalid("There is nothing to go on with from there.", param="resume_at")
    _check_custom_tools(spec, known)
    _check_sub_agents(spec, default if spec.tools is None else spec.tools)
    _check_servers(spec.mcp_servers)
    _check_names([skill.name for skill in spec.skills], "skills")
    _check_schema(spec)


def _check_model(model: str, param: str) -> None:
    if _MODEL.fullmatch(model) is None:
        raise Invalid("This is not the name of a model.", param=param)


def _check_tools(tools: Sequence[str], known: frozenset[str], param: str) -> None:
    unknown = sorted(set(tools) - known)
    if unknown:
        raise Invalid(f"There is no tool {unknown[0]!r}.", param=param)


def is_taken(name: str, known: frozenset[str]) -> bool:
    """Whether an agent whose own tools are `known` has this name for something already."""
    return name in known or name in RESERVED or name.startswith(SERVER_PREFIX)


def _check_custom_tools(spec: LaunchSpec, known: frozenset[str]) -> None:
    names = [tool.name for tool in spec.custom_tools]
    if len(names) > MAX_CUSTOM_TOOLS:
        raise Invalid(f"There may be {MAX_CUSTOM_TOOLS} custom tools.", param="custom_tools")
    for name in names:
        if _TOOL_NAME.fullmatch(name) is None:
            raise Invalid("This is not the name of a tool.", param="custom_tools")
        if is_taken(name, known):
            raise Invalid(f"The name {name!r} is taken by another tool.", param="custom_tools")
    _check_unique(names, "custom_tools")
    for tool in spec.custom_tools:
        if tool.input_schema.get("type") != "object":
            raise Invalid("A tool's input schema is of the type object.", param="custom_tools")


def _check_sub_agents(spec: LaunchSpec, tools: Sequence[str]) -> None:
    _check_names([agent.name for agent in spec.sub_agents], "sub_agents")
    if len(spec.sub_agents) > _MAX_SUB_AGENTS:
        raise Invalid(f"There may be {_MAX_SUB_AGENTS} sub-agents.", param="sub_agents")
    allowed = frozenset((*tools, *(tool.name for tool in spec.custom_tools)))
    servers = tuple(f"{SERVER_PREFIX}{server.name}__" for server in spec.mcp_servers)
    for agent in spec.sub_agents:
        _check_sub_agent(agent, allowed, servers)


def _check_sub_agent(agent: SubAgent, allowed: frozenset[str], servers: tuple[str, ...]) -> None:
    if agent.model is not None:
        _check_model(agent.model, "sub_agents")
    # By giving work on, the agent could get what it was not given itself.
    own = [tool for tool in agent.tools or () if not tool.startswith(servers)]
    _check_tools(own, allowed, "sub_agents")


def _check_servers(servers: Sequence[McpServer]) -> None:
    _check_names([server.name for server in servers], "mcp_servers")
    for server in servers:
        if server.name in RESERVED or (server.command is None) == (server.url is None):
            raise Invalid("A tool server has a name and a command or a URL.", param="mcp_servers")


def _check_names(names: Sequence[str], param: str) -> None:
    for name in names:
        if NAME.fullmatch(name) is None:
            raise Invalid(f"The name {name!r} cannot be used.", param=param)
    _check_unique(names, param)


def _check_unique(names: Sequence[str], param: str) -> None:
    if len(set(names)) != len(names):
        raise Invalid("A name is given twice.", param=param)


def _check_schema(spec: LaunchSpec) -> None:
    if spec.output_schema is None:
        return
    if len(json.dumps(spec.output_schema)) > _MAX_SCHEMA_BYTES:
        raise Invalid("The output schema is too long.", param="output_schema")
