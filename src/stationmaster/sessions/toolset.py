"""The tools of an agent's definition, and what they are in our agents' words."""

import re
from collections.abc import Mapping
from typing import Any

from stationmaster.agents.admission import MAX_CUSTOM_TOOLS, is_taken
from stationmaster.agents.base import CustomTool
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.checks import bounded, refuse_unknown
from stationmaster.sessions.schema import check_schema

TOOLSET = "agent_toolset_20260401"
# The API's names, and the agent's own.
NAMES = {
    "bash": "Bash",
    "edit": "Edit",
    "read": "Read",
    "write": "Write",
    "glob": "Glob",
    "grep": "Grep",
    "web_fetch": "WebFetch",
    "web_search": "WebSearch",
}
API_NAMES = {ours: theirs for theirs, ours in NAMES.items()}
MAX_TOOLS = 256
MAX_DESCRIPTION_BYTES = 16_384

ALLOW: dict[str, Any] = {"type": "always_allow"}
ASK: dict[str, Any] = {"type": "always_ask"}

_CONFIG = {"name", "type", "enabled", "permission_policy"}
_CUSTOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def unsupported(param: str) -> Invalid:
    """The error for what is in the API and not here."""
    return Invalid(f"{param} is not supported by this server.", code="unsupported", param=param)


def check_tools(
    given: Any, catalogue: Catalogue, servers: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The definition's `tools`, checked and filled in. Raises `Invalid` and `Denied`."""
    if given is None:
        given = []
    if not isinstance(given, list):
        raise Invalid("tools is not a list.", param="tools")
    made = [_tool(each, index, catalogue) for index, each in enumerate(given)]
    if len(made) > MAX_TOOLS:
        raise Invalid(f"An agent has at most {MAX_TOOLS} tools.", param="tools")
    custom = [each["name"] for each in made if each["type"] == "custom"]
    if len(custom) > MAX_CUSTOM_TOOLS:
        raise Invalid(f"An agent has at most {MAX_CUSTOM_TOOLS} custom tools.", param="tools")
    _unique(custom, "custom tools")
    _unique([each["type"] for each in made if each["type"] == TOOLSET], "toolsets")
    named = [each["mcp_server_name"] for each in made if each["type"] == "mcp_toolset"]
    _unique(named, "MCP toolsets")
    if set(named) != {each["name"] for each in servers}:
        raise Invalid(
            "tools must have one mcp_toolset for each of mcp_servers, and no other.",
            param="tools",
        )
    return made


def _unique(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise Invalid(f"tools has two {what} of one name.", param="tools")


def _tool(given: Any, index: int, catalogue: Catalogue) -> dict[str, Any]:
    at = f"tools.{index}"
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == TOOLSET:
        return _toolset(given, at, catalogue)
    if kind == "mcp_toolset":
        return _mcp_toolset(given, at)
    if kind == "custom":
        return _custom(given, at, catalogue)
    raise Invalid(f"There is no kind of tool {str(kind)[:64]!r}.", param=f"{at}.type")


def _toolset(given: Mapping[str, Any], at: str, catalogue: Catalogue) -> dict[str, Any]:
    refuse_unknown(given, {"type", "configs", "default_config"}, at)
    default = _default(given.get("default_config"), f"{at}.default_config", ALLOW)
    configs = []
    for number, config in enumerate(_list(given.get("configs"), f"{at}.configs")):
        here = f"{at}.configs.{number}"
        name = config.get("name") if isinstance(config, Mapping) else None
        if name not in NAMES:
            raise Invalid(f"There is no tool {str(name)[:64]!r}.", param=f"{here}.name")
        for field, value in config.items():
            if value is not None and field not in _CONFIG:
                raise unsupported(f"{here}.{field}")
        made = {"name": name, "type": name, **_switches(config, here, default)}
        if made["enabled"] and NAMES[name] not in catalogue.tools:
            raise Denied(
                f"The tool {name!r} is not offered here.",
                code="tool_not_allowed",
                param=f"{here}.name",
            )
        configs.append(made)
    _unique([each["name"] for each in configs], "configs")
    return {"type": TOOLSET, "configs": configs, "default_config": default}


def _mcp_toolset(given: Mapping[str, Any], at: str) -> dict[str, Any]:
    refuse_unknown(given, {"type", "mcp_server_name", "configs", "default_config"}, at)
    server = bounded(given.get("mcp_server_name"), 255, f"{at}.mcp_server_name", least=1)
    default = _default(given.get("default_config"), f"{at}.default_config", ASK)
    configs = []
    for number, config in enumerate(_list(given.get("configs"), f"{at}.configs")):
        here = f"{at}.configs.{number}"
        if not isinstance(config, Mapping):
            raise Invalid(f"{here} is not an object.", param=here)
        refuse_unknown(config, {"name", "enabled", "permission_policy"}, here)
        name = bounded(config.get("name"), 255, f"{here}.name", least=1)
        configs.append({"name": name, **_switches(config, here, default)})
    _unique([each["name"] for each in configs], "configs")
    return {
        "type": "mcp_toolset",
        "mcp_server_name": server,
        "configs": configs,
        "default_config": default,
    }


def _custom(given: Mapping[str, Any], at: str, catalogue: Catalogue) -> dict[str, Any]:
    refuse_unknown(given, {"type", "name", "description", "input_schema"}, at)
    name = given.get("name")
    if not isinstance(name, str) or _CUSTOM_NAME.fullmatch(name) is None:
        raise Invalid(
            f"{at}.name must be 1 to 64 letters, digits, underscores or dashes.",
            param=f"{at}.name",
        )
    if name in NAMES or name in API_NAMES or is_taken(name, catalogue.tools):
        raise Invalid(f"{name!r} is a tool of the agent's own.", param=f"{at}.name")
    description = bounded(given.get("description"), MAX_DESCRIPTION_BYTES, f"{at}.description")
    schema = check_schema(given.get("input_schema"), f"{at}.input_schema")
    return {"type": "custom", "name": name, "description": description, "input_schema": schema}


def _default(given: Any, at: str, policy: dict[str, Any]) -> dict[str, Any]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise Invalid(f"{at} is not an object.", param=at)
    refuse_unknown(given, {"enabled", "permission_policy"}, at)
    return _switches(given, at, {"enabled": True, "permission_policy": policy})


def _switches(given: Mapping[str, Any], at: str, default: dict[str, Any]) -> dict[str, Any]:
    enabled, policy = given.get("enabled"), given.get("permission_policy")
    if enabled is None:
        enabled = default["enabled"]
    if not isinstance(enabled, bool):
        raise Invalid(f"{at}.enabled is neither true nor false.", param=f"{at}.enabled")
    if policy is None:
        policy = default["permission_policy"]
    if not isinstance(policy, Mapping) or set(policy) != {"type"}:
        raise Invalid(f"{at}.permission_policy is not a policy.", param=f"{at}.permission_policy")
    if policy["type"] == "auto":
        raise unsupported(f"{at}.permission_policy.type")
    if policy["type"] not in {"always_allow", "always_ask"}:
        raise Invalid(
            f"{at}.permission_policy.type must be always_allow or always_ask.",
            param=f"{at}.permission_policy.type",
        )
    return {"enabled": enabled, "permission_policy": {"type": policy["type"]}}


def _list(given: Any, at: str) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise Invalid(f"{at} is not a list.", param=at)
    return given


# --- what a session's agent has ---------------------------------------------------------------


def tools_of(agent: dict[str, Any], offered: frozenset[str]) -> tuple[str, ...]:
    """The agent's own tools that a snapshot enables, by their own names."""
    toolset = next((each for each in agent["tools"] if each["type"] == TOOLSET), None)
    if toolset is None:
        return ()
    named = {each["name"]: each["enabled"] for each in toolset["configs"]}
    return tuple(
        ours
        for theirs, ours in NAMES.items()
        if ours in offered and named.get(theirs, toolset["default_config"]["enabled"])
    )


def custom_tools_of(agent: dict[str, Any]) -> tuple[CustomTool, ...]:
    """The tools of a snapshot that its client runs."""
    return tuple(
        CustomTool(each["name"], each["description"], each["input_schema"])
        for each in agent["tools"]
        if each["type"] == "custom"
    )
