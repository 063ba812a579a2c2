"""What an agent is to the rest of the server. Each implementation is a package beside this one.

Four layers: a process, its frames, the typed events below, and the turn that yields them.
Implementations are told everything they need; they look nothing up, and know no database.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from stationmaster.agents.spec import (
    CustomTool,
    LaunchSpec,
    Limits,
    McpServer,
    Skill,
    SubAgent,
    TranscriptSink,
)
from stationmaster.kernel.errors import StationmasterError

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentExited",
    "AgentFailure",
    "AgentHistoryLost",
    "AgentHistoryMissing",
    "AgentLimitExceeded",
    "AgentProtocolError",
    "AgentUnavailable",
    "Allow",
    "CustomTool",
    "Delta",
    "Deny",
    "Finished",
    "Host",
    "LaunchSpec",
    "Limits",
    "LiveAgent",
    "McpFailed",
    "McpServer",
    "Message",
    "Permission",
    "Skill",
    "Started",
    "SubAgent",
    "Thinking",
    "ToolAnswer",
    "ToolCall",
    "ToolKind",
    "ToolResult",
    "ToolUse",
    "TranscriptSink",
]

# --- what a turn yields -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The agent is ready and says what it is. First event of a turn.

    `tools` has custom tools by their declared names, and those of tool servers as
    `mcp__server__tool`.
    """

    agent_session_id: str
    model: str
    tools: tuple[str, ...]
    version: str
    skills: tuple[str, ...] = ()
    sub_agents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class McpFailed:
    """A tool server did not start; the agent works without it. After `Started`, in every turn."""

    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a message while it is being written. Never stored; `Message` follows with all."""

    kind: Literal["text", "thinking", "tool_input"]
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """A whole piece of text said to the user. `parent` is the tool use of a sub-agent, if any."""

    text: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """A whole piece of thinking."""

    text: str
    parent: str | None = None


# A tool of the agent's own, one that the client runs, one of a tool server, and giving work to a
# sub-agent: then the call's id is the `parent` of what that one does, and its result ends it.
ToolKind = Literal["tool", "custom", "mcp", "sub_agent"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The agent calls a tool. `target` names the tool server or the sub-agent of such a call."""

    id: str
    name: str
    input: dict[str, Any]
    parent: str | None = None
    kind: ToolKind = "tool"
    target: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's answer. `content` is text, or the blocks as the agent saw them."""

    tool_use_id: str
    content: str | list[dict[str, Any]]
    is_error: bool
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn's end, always the last event. `reported_cost_usd` is the agent's own claim.

    The claim is for comparison only: what is billed is what the gateway metered. The same holds
    for `reported_usage`, the four token classes by their ledger names. `max_cost` is the end by
    `LaunchSpec.max_cost_usd`. `error_code` is for programs: `interrupted`, `output_invalid` (no
    output after `LaunchSpec.output_schema` came), else None. `structured` is the output after that
    schema. `stop_reason` is the model's own, as it says it. `position` is where in its history the
    turn ended; see `LaunchSpec.resume_at`.
    """

    outcome: Literal["success", "max_turns", "max_cost", "error"]
    text: str
    turns: int
    error: str | None = None
    reported_cost_usd: float | None = None
    reported_usage: dict[str, int] | None = None
    error_code: str | None = None
    structured: Any | None = None
    stop_reason: str | None = None
    position: str | None = None


AgentEvent = Started | McpFailed | Delta | Message | Thinking | ToolUse | ToolResult | Finished


# --- what a turn asks -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that has not happened yet. The same as the `ToolUse` of its id, whichever is first."""

    id: str
    name: str
    input: dict[str, Any]
    parent: str | None = None
    kind: ToolKind = "tool"
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Allow:
    """It may happen; with `input` in place of its own where that is given."""

    input: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """It does not happen, and the agent is told why."""

    message: str


Permission = Allow | Deny


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a custom tool answered: text, or text and image blocks of the Messages API."""

    content: str | list[dict[str, Any]]
    is_error: bool = False


class Host(Protocol):
    """The owner of one turn, asked while it runs.

    Both may take as long as a person does; calls of one turn come at once. The end of the turn, an
    interrupt or a close cancels them. What they raise is an error that the agent is told without
    its reason, and the call does not happen.
    """

    async def permit(self, call: ToolCall) -> Permission:
        """Decide on a tool call of a `gated` agent, custom tools and sub-agents' calls included."""
        ...

    async def call_tool(self, call: ToolCall) -> ToolAnswer:
        """Run a custom tool. A `gated` agent's call has been permitted before."""
        ...


# --- failures ---------------------------------------------------------------------------------


class AgentFailure(StationmasterError):
    """The agent failed."""

    code: ClassVar[str] = "agent_failed"

    def __init__(self, message: str | None = None, *, stderr_tail: str = "", **kwargs: Any) -> None:
        """`stderr_tail` is the last of what the agent wrote to stderr, at most 4 KiB."""
        super().__init__(message, **kwargs)
        self.stderr_tail = stderr_tail


class AgentUnavailable(AgentFailure):
    """The agent cannot be started."""

    code = "agent_unavailable"


class AgentExited(AgentFailure):
    """The agent ended before its turn did."""

    code = "agent_exited"


class AgentProtocolError(AgentFailure):
    """The agent wrote something that is not its protocol, or a frame over the bound."""

    code = "agent_protocol_error"


class AgentHistoryMissing(AgentUnavailable):
    """There is no such history to go on with. Nothing was started in its place."""

    code = "agent_history_missing"


class AgentHistoryLost(AgentFailure):
    """What happened could not be kept in the agent's history. The agent was stopped.

    Where the sink's own error has a code, it is this one's.
    """

    code = "agent_history_lost"


class AgentLimitExceeded(AgentFailure):
    """The agent went over a limit and was stopped. `details["limit"]` names it."""

    code = "agent_limit_exceeded"


# --- the two protocols ------------------------------------------------------------------------


class LiveAgent(Protocol):
    """One started agent, serving one session. Not safe for two turns at once."""

    @property
    def rung(self) -> str:
        """How it is confined: `bubblewrap`, `user`, `limits`, or `none` for one without process."""
        ...

    @property
    def agent_session_id(self) -> str:
        """The uuid of its history: what a later launch gives as `resume`."""
        ...

    @property
    def ended(self) -> bool:
        """Whether it serves no turn any more, by `close` or by itself. Then it never will again."""
        ...

    async def settle(self) -> None:
        """Between turns: end every process that a turn has started and left running. Idempotent."""
        ...

    def memory(self) -> int:
        """Resident bytes of its processes, by the operating system; 0 where it has none.

        Takes some milliseconds: call it in a thread.
        """
        ...

    def turn(
        self, content: Sequence[dict[str, Any]], host: Host | None = None
    ) -> AsyncGenerator[AgentEvent, None]:
        """Say `content` (Messages API content blocks) and yield what happens, `Finished` last.

        Without a `host` every call that one would be asked about is denied. When `Finished` comes,
        the turn is in `LaunchSpec.transcripts`. Raises an `AgentFailure` where the agent cannot
        finish. Closing the iterator early leaves the turn running: call `interrupt` or `close`.
        """
        ...

    async def interrupt(self) -> None:
        """Ask the running turn to end soon. It then yields `Finished`. Idempotent."""
        ...

    async def close(self) -> None:
        """End the agent and every process of it; return when they are gone.

        Idempotent, bounded (at most 5 s), and completes even where the caller is cancelled.
        """
        ...


class Agent(Protocol):
    """A kind of agent that can be launched."""

    @property
    def name(self) -> str:
        """Its name in `/health` and on the run, such as `claude_code`."""
        ...

    @property
    def default_tools(self) -> tuple[str, ...]:
        """The tools that a run gets which names none."""
        ...

    @property
    def known_tools(self) -> frozenset[str]:
        """Every tool a request may name; another is refused before anything starts."""
        ...

    async def launch(self, spec: LaunchSpec) -> LiveAgent:
        """Start one. Raises `AgentUnavailable`. If cancelled, nothing is left running."""
        ...

    async def reap(self) -> int:
        """Kill what an earlier server left behind; return how many. Called at start."""
        ...

    def alive(self) -> int:
        """Processes of this kind running now, counted from the operating system."""
        ...

    async def aclose(self) -> None:
        """Close every live agent and stop the background work. Idempotent."""
        ...
