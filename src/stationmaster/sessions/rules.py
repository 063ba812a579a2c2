"""Whether a tool call may happen: decided here, whatever the agent's own rules say.

In this order: a rule that denies; what somebody allowed for the whole session; a rule that asks;
a rule that allows; the policy of the agent's definition. A tool that the definition does not have
is denied. Rules are the session's, and those of the definition of the agent that calls.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Literal, cast

from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.profile import Profile, matches
from stationmaster.sessions.checks import bounded, refuse_unknown
from stationmaster.sessions.toolset import API_NAMES, NAMES, TOOLSET

Action = Literal["allow", "ask", "deny"]
ACTIONS: tuple[Action, ...] = ("allow", "ask", "deny")
MAX_RULES = 100
MAX_PATTERN_BYTES = 1000

# What a pattern is compared with, by the tool's name in the API.
_SUBJECTS = {
    "bash": "command",
    "edit": "file_path",
    "read": "file_path",
    "write": "file_path",
    "glob": "pattern",
    "grep": "pattern",
    "web_fetch": "url",
    "web_search": "query",
}
_PATHS = {"edit", "read", "write"}
# What makes more than one command of a line, or one that is not seen in it.
_SHELL = re.compile(r"&&|\|\||[;&|\n`<>(){}]|\$\(?")


@dataclass(frozen=True, slots=True)
class Rule:
    """`tool` is a name, or a beginning of names (`mcp__docs__*`), or `*`.

    `pattern` is a glob over the whole of what the tool is to do: a command, a path, a URL. A
    command that is more than one matches no pattern of a rule that allows.
    """

    tool: str
    action: Action
    pattern: str | None = None

    def fits(self, name: str, input_: Mapping[str, Any]) -> bool:
        """Whether the rule is about this call."""
        if not matches(name, (_api_name(self.tool),)):
            return False
        if self.pattern is None:
            return True
        subject = input_.get(_SUBJECTS.get(name, ""), "")
        subject = subject if isinstance(subject, str) else ""
        if name in _PATHS:
            return fnmatchcase(posixpath.normpath(subject), self.pattern)
        if name != "bash":
            return fnmatchcase(subject, self.pattern)
        if self.action == "allow":
            return _SHELL.search(subject) is None and fnmatchcase(subject.strip(), self.pattern)
        parts = [subject, *_SHELL.split(subject)]
        return any(fnmatchcase(part.strip(), self.pattern) for part in parts)


class Rules:
    """What decides on the tool calls of one session's agent."""

    def __init__(
        self, agent: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], always: Sequence[str]
    ) -> None:
        self._agent = agent
        others = (agent.get("multiagent") or {}).get("agents", [])
        self._others: dict[str | None, Mapping[str, Any]] = {each["name"]: each for each in others}
        self._rules = _parsed(rules)
        # Each agent's own, by its name; None is the session's own agent.
        self._own = {name: _parsed(each.get("rules", ())) for name, each in self._others.items()}
        self._own[None] = _parsed(agent.get("rules", ()))
        self._always = set(always)

    @property
    def gated(self) -> bool:
        """Whether any call could be asked about or denied: else the agent need not wait for us."""
        policies = [
            each["permission_policy"]["type"]
            for agent in (self._agent, *self._others.values())
            for tool in agent["tools"]
            if tool["type"] != "custom"
            for each in (tool["default_config"], *tool["configs"])
            if each["enabled"]
        ]
        asks = any(policy != "always_allow" for policy in policies)
        rules = [*self._rules, *chain.from_iterable(self._own.values())]
        return asks or any(rule.action != "allow" for rule in rules)

    def allow_always(self, name: str) -> None:
        """Somebody has said so."""
        self._always.add(name)

    def decide(
        self,
        name: str,
        input_: Mapping[str, Any],
        *,
        server: str | None = None,
        agent: str | None = None,
    ) -> Action:
        """By the tool's name in the API.

        `server` is the tool server of an MCP tool, `agent` the name of the sub-agent that calls.
        """
        whole = f"mcp__{server}__{name}" if server is not None else name
        rules = [*self._rules, *self._own.get(agent, self._own[None])]
        actions = {rule.action for rule in rules if rule.fits(whole, input_)}
        if "deny" in actions:
            return "deny"
        if name in self._always:
            return "allow"
        for action in ("ask", "allow"):
            if action in actions:
                return cast("Action", action)
        caller = self._agent if agent is None else self._others.get(agent, self._agent)
        return self._policy(caller, name, server)

    @staticmethod
    def _policy(agent: Mapping[str, Any], name: str, server: str | None) -> Action:
        for tool in agent["tools"]:
            if server is None and tool["type"] == TOOLSET:
                break
            if server is not None and tool.get("mcp_server_name") == server:
                break
        else:
            return "allow" if server is None else "deny"
        config = next((each for each in tool["configs"] if each["name"] == name), None)
        if config is None:
            # The agent's own small tools (its list of tasks) are in no definition.
            if server is None and name not in NAMES:
                return "allow"
            config = tool["default_config"]
        if not config["enabled"]:
            return "deny"
        return "ask" if config["permission_policy"]["type"] == "always_ask" else "allow"


def _parsed(rules: Sequence[Mapping[str, Any]]) -> list[Rule]:
    return [Rule(each["tool"], each["action"], each.get("pattern")) for each in rules]


def session_rules(
    given: Sequence[Mapping[str, Any]], profile: Profile | None, tools: frozenset[str]
) -> tuple[dict[str, Any], ...]:
    """A session's rules: those asked for, and what its maker's profile denies.

    Raises `Invalid` with `param`.
    """
    made = check_rules(given)
    if profile is not None:
        denied = [tool for tool in sorted(tools) if not profile.allows_tool(tool)]
        for tool in [*denied, *profile.blocked_tools]:
            made.append({"tool": _api_name(tool), "action": "deny"})
    return tuple(made)


def check_rules(given: Any) -> list[dict[str, Any]]:
    """Rules as kept. Raises `Invalid` with `param`."""
    if not isinstance(given, list | tuple) or len(given) > MAX_RULES:
        raise Invalid(f"rules is not a list of at most {MAX_RULES} rules.", param="rules")
    return [_checked(each, f"rules.{index}") for index, each in enumerate(given)]


def _checked(given: Any, at: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise Invalid(f"{at} is not an object.", param=at)
    refuse_unknown(given, {"tool", "action", "pattern"}, at)
    if given.get("action") not in ACTIONS:
        raise Invalid(f"{at}.action must be one of {', '.join(ACTIONS)}.", param=f"{at}.action")
    made = {
        "tool": _api_name(bounded(given.get("tool"), 256, f"{at}.tool", least=1)),
        "action": given["action"],
    }
    if given.get("pattern") is not None:
        made["pattern"] = bounded(given["pattern"], MAX_PATTERN_BYTES, f"{at}.pattern", least=1)
    return made


def _api_name(name: str) -> str:
    return API_NAMES.get(name, name)
