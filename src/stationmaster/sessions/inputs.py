"""What a client sends to a session."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class UserMessage:
    """Something said to the agent: text, image and document blocks of the API.

    Images and documents are base64 data, or plain text; no URL is fetched. Files of `files/` are
    to be put in as base64 by whoever may read them.
    """

    content: list[dict[str, Any]]
    # A JSON schema of the turn's structured output. Ours: the API has none.
    output_schema: dict[str, Any] | None = None
    # Ours too: what the turn's model calls are counted under besides their owner.
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Interrupt:
    """End the running turn soon. Without one it changes nothing."""


@dataclass(frozen=True, slots=True)
class ToolConfirmation:
    """Allow or deny a tool call; `tool_use_id` is the id of its event."""

    tool_use_id: str
    allow: bool
    deny_message: str | None = None
    # Ours: run it with this input instead, and do not ask again for this tool in this session.
    input: dict[str, Any] | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class CustomToolResult:
    """The answer of a custom tool; `custom_tool_use_id` is the id of its event."""

    custom_tool_use_id: str
    content: list[dict[str, Any]] = field(default_factory=list)
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a worker's tool has given; `tool_use_id` is the id of the call's event."""

    tool_use_id: str
    content: list[dict[str, Any]] = field(default_factory=list)
    is_error: bool = False


Input = UserMessage | Interrupt | ToolConfirmation | CustomToolResult | ToolResult
