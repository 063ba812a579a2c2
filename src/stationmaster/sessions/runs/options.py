"""What a caller asks of a run, checked against what the server allows."""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import msgspec

from stationmaster.access.profiles import from_row as profile_from_row
from stationmaster.agents.base import Agent, SubAgent
from stationmaster.budgets.definition import check_tags
from stationmaster.kernel.errors import Denied, Invalid, TooLarge
from stationmaster.kernel.money import MicroDollars, to_dollars
from stationmaster.kernel.profile import Profile
from stationmaster.sessions.runs.bounds import Bounds, Shares, bounds_of, check_kit
from stationmaster.sessions.runs.priority import Priority, priority_of
from stationmaster.sessions.schema import check_schema

PermissionMode = Literal["default", "acceptEdits", "bypassPermissions", "plan"]

MAX_PROMPT_BYTES = 1_000_000
MAX_SYSTEM_PROMPT_BYTES = 100_000
MAX_TURNS = 1000
MAX_PATH_BYTES = 4096
MAX_METADATA = 16  # pairs; with the sizes below, what the Messages API's own resources allow
MAX_METADATA_KEY_BYTES = 64
MAX_METADATA_VALUE_BYTES = 512
# It becomes an argument of the agent's command line: it must not look like an option.
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,127}")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """A request for a run. None means the server's default.

    `tools` restricts: an empty tuple means no tools. `agents` are sub-agents, by the names or ids
    of the project's agents; `skills` and `mcp_servers` are names of the operator's catalogue.
    `timeout` is in seconds. `workspace` names a shared workspace, in which the run gets a directory
    of its own; None is a workspace of its own. `working_directory` is a directory inside the
    workspace. `tags` are what its model calls are counted under besides their owner.
    """

    prompt: str
    system_prompt: str | None = None
    model: str | None = None
    tools: tuple[str, ...] | None = None
    agents: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()
    max_turns: int | None = None
    max_cost: MicroDollars | None = None
    timeout: float | None = None
    permission_mode: str | None = None
    workspace: str | None = None
    working_directory: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    priority: str | None = None


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The server's defaults and ceilings. Durations are in seconds, money in micro-dollars."""

    default_model: str
    default_timeout: float
    max_timeout: float
    default_cost: MicroDollars
    max_cost: MicroDollars
    max_queue: int
    shares: Shares = field(default_factory=Shares)


class Kit(msgspec.Struct, frozen=True):
    """What a task's agent has beyond its tools; skills and tool servers by name. See `Kits`."""

    sub_agents: tuple[SubAgent, ...] = ()
    skills: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()


class RunPlan(msgspec.Struct, frozen=True):
    """Options with every default filled in: what stands in the run's row and is carried out."""

    prompt: str
    system_prompt: str | None
    model: str
    tools: tuple[str, ...]
    max_turns: int | None
    max_cost: MicroDollars
    timeout: float
    permission_mode: PermissionMode
    working_directory: str | None
    metadata: dict[str, str]
    # Started by the server's owner, whose own login it may use where there is one.
    by_owner: bool = False
    # Of a session's turn: the number of its message's event. The rest is on the session.
    message_seq: int | None = None
    output_schema: dict[str, Any] | None = None
    # By the profile of who started it.
    bounds: Bounds | None = None
    kit: Kit = Kit()
    tags: tuple[str, ...] = ()
    priority: Priority = "normal"

    def to_json(self) -> dict[str, Any]:
        """As kept in the row."""
        return cast("dict[str, Any]", msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RunPlan":
        """As read from the row."""
        return msgspec.convert(data, cls)


def plan(
    options: RunOptions,
    limits: RunLimits,
    agent: Agent,
    *,
    by_owner: bool = False,
    profile: Profile | None = None,
) -> RunPlan:
    """Check the options and fill in the defaults, all but the kit and the priority.

    Raises `Invalid`, `TooLarge` or `Denied`.

    `profile` narrows what the server allows: what is asked for beyond it is refused, and the
    defaults are what it leaves of them.
    """
    limits = _held_to(limits, profile)
    if not options.prompt.strip():
        raise Invalid("The description of the task is empty.", param="description")
    _bounded(options.prompt, MAX_PROMPT_BYTES, "description")
    if options.system_prompt is not None:
        _bounded(options.system_prompt, MAX_SYSTEM_PROMPT_BYTES, "system_prompt")
    if options.model is not None and MODEL.fullmatch(options.model) is None:
        raise Invalid("model is not a model's name.", param="model")
    _small(options)
    mode = options.permission_mode or "bypassPermissions"
    if mode not in get_args(PermissionMode):
        known = ", ".join(get_args(PermissionMode))
        raise Invalid(f"permission_mode must be one of {known}.", param="permission_mode")
    if options.max_turns is not None and not 1 <= options.max_turns <= MAX_TURNS:
        raise Invalid(f"max_turns must be between 1 and {MAX_TURNS}.", param="max_turns")
    timeout = _timeout(options.timeout, limits)
    return RunPlan(
        prompt=options.prompt,
        system_prompt=options.system_prompt,
        model=options.model or limits.default_model,
        tools=_tools(options.tools, agent, profile),
        max_turns=options.max_turns,
        max_cost=_cost(options.max_cost, limits),
        timeout=timeout,
        permission_mode=cast(PermissionMode, mode),
        working_directory=options.working_directory,
        metadata=options.metadata,
        by_owner=by_owner,
        output_schema=(
            None
            if options.output_schema is None
            else check_schema(options.output_schema, "output_schema")
        ),
        bounds=bounds_of(profile, timeout),
        tags=check_tags(options.tags),
    )


def held_turn(
    limits: RunLimits, held: dict[str, Any] | None
) -> tuple[RunLimits, Bounds | None, Priority]:
    """What holds for a session's turn, by what its message was written down with."""
    profile = profile_from_row(held)
    found = _held_to(limits, profile)
    return found, bounds_of(profile, found.max_timeout), priority_of(None, profile)


def _held_to(limits: RunLimits, profile: Profile | None) -> RunLimits:
    """The server's limits, or the profile's where they are tighter."""
    if profile is None:
        return limits
    cost = limits.max_cost if profile.cost is None else min(limits.max_cost, profile.cost)
    seconds = limits.max_timeout
    if profile.seconds is not None:
        seconds = min(seconds, profile.seconds)
    return replace(
        limits,
        max_cost=cost,
        default_cost=min(limits.default_cost, cost),
        max_timeout=seconds,
        default_timeout=min(limits.default_timeout, seconds),
    )


def _small(options: RunOptions) -> None:
    if options.working_directory is not None:
        _bounded(options.working_directory, MAX_PATH_BYTES, "working_directory")
    if len(options.metadata) > MAX_METADATA:
        raise Invalid(f"metadata has more than {MAX_METADATA} entries.", param="metadata")
    for key, value in options.metadata.items():
        _bounded(key, MAX_METADATA_KEY_BYTES, "metadata")
        _bounded(value, MAX_METADATA_VALUE_BYTES, "metadata")


def _bounded(text: str, limit: int, param: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Invalid(f"{param} is not valid Unicode text.", param=param) from None
    if size > limit:
        raise TooLarge(f"{param} is larger than {limit} bytes.", param=param)
    if "\0" in text:
        raise Invalid(f"{param} holds a NUL character.", param=param)


def _tools(tools: tuple[str, ...] | None, agent: Agent, profile: Profile | None) -> tuple[str, ...]:
    if tools is None:
        usual = agent.default_tools
        return tuple(tool for tool in usual if profile is None or profile.allows_tool(tool))
    check_kit(profile, tools=tools)
    for tool in tools:
        if tool not in agent.known_tools:
            raise Denied(
                f"There is no tool {tool[:64]!r} that a task may use.",
                code="tool_not_allowed",
                param="allow_tools",
            )
    return tuple(dict.fromkeys(tools))


def _cost(cost: MicroDollars | None, limits: RunLimits) -> MicroDollars:
    if cost is None:
        return limits.default_cost
    if not 0 <= cost <= limits.max_cost:
        raise Invalid(
            f"max_cost must be between 0 and {to_dollars(limits.max_cost):g} dollars.",
            param="max_cost",
        )
    return cost


def _timeout(timeout: float | None, limits: RunLimits) -> float:
    if timeout is None:
        return limits.default_timeout
    if not 1 <= timeout <= limits.max_timeout:  # also refuses NaN
        raise Invalid(
            f"timeout must be between 1 and {limits.max_timeout:g} seconds.", param="timeout"
        )
    return timeout
