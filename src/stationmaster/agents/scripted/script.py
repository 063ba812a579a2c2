"""The steps of a script."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stationmaster.agents.base import AgentFailure, LaunchSpec


@dataclass(frozen=True, slots=True)
class Say:
    """Yield `text` word by word as deltas, then whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    """Yield thinking, as a delta and whole."""

    text: str


@dataclass(frozen=True, slots=True)
class UseTool:
    """Yield a tool use and its result. A tool that the spec does not allow yields an error.

    The turn's host is asked as it would be by any agent; a custom tool's result is the host's.
    """

    name: str
    input: dict[str, Any] = field(default_factory=dict)
    result: str = "ok"
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write a file into the workspace, as the tool Write. `path` is relative to it."""

    path: str
    content: str | bytes


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Stay silent until `event` is set, the turn is interrupted, or the agent is closed."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Call:
    """Await `call(spec)`, for example a request to the gateway with the spec's token.

    Cancelled where the turn is interrupted. What it raises ends the turn as an error.
    """

    call: Callable[[LaunchSpec], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Delegate:
    """Give work to a sub-agent, which plays `steps`; its last words are the result."""

    agent: str
    steps: "Sequence[Step]" = ()
    prompt: str = "Go on."


@dataclass(frozen=True, slots=True)
class Output:
    """Give `value` as the output after the spec's schema."""

    value: Any


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise `failure` out of the turn; the agent is then gone."""

    failure: AgentFailure


@dataclass(frozen=True, slots=True)
class Finish:
    """End the turn here. Without this step a script ends in success with what was said last."""

    outcome: Literal["success", "max_turns", "error"] = "success"
    text: str = ""
    error: str | None = None


Step = Say | Think | UseTool | Delegate | WriteFile | WaitFor | Call | Output | Fail | Finish

Content = Sequence[dict[str, Any]]
Script = Sequence[Step] | Callable[[LaunchSpec, Content], Sequence[Step]]
