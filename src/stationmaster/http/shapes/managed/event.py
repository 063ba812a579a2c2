"""What clients send to a session, and what comes back."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.managed.terms import JsonObject, NextPage

MAX_EVENTS = 50  # in one request

Blocks = Annotated[
    list[JsonObject],
    Field(max_length=1000, description="Blocks of `text`, `image` or `document`."),
]


class UserMessage(Request):
    """Something said to the agent."""

    type: Literal["user.message"]
    content: Annotated[Blocks, Field(min_length=1)]
    output_schema: Annotated[
        JsonObject | None,
        Field(description="Ours: a JSON schema that the turn's output must be after."),
    ] = None


class UserInterrupt(Request):
    """End the turn at work."""

    type: Literal["user.interrupt"]
    session_thread_id: Annotated[
        str | None, Field(description="Null, or the session's own thread.")
    ] = None


class UserToolConfirmation(Request):
    """A person's word on a call that waits for it."""

    type: Literal["user.tool_confirmation"]
    tool_use_id: Annotated[str, Field(description="The id of the call's event.")]
    result: Literal["allow", "deny"]
    deny_message: Annotated[
        str | None, Field(max_length=10_000, description="For the agent; with `deny` alone.")
    ] = None


class UserCustomToolResult(Request):
    """What a custom tool has given."""

    type: Literal["user.custom_tool_result"]
    custom_tool_use_id: Annotated[str, Field(description="The id of the call's event.")]
    content: Blocks = Field(default_factory=list)
    is_error: bool | None = None


class UserToolResult(Request):
    """What a tool has given that a worker of a self-hosted environment has run."""

    type: Literal["user.tool_result"]
    tool_use_id: Annotated[str, Field(description="The id of the call's event.")]
    content: Blocks = Field(default_factory=list)
    is_error: bool | None = None


class Unsupported(Request):
    """Events of the API that this server does not know; refused by name."""

    type: Literal["user.define_outcome", "system.message"]
    # Taken in only to be refused: what else it holds does not matter.
    description: Any = None
    rubric: Any = None
    max_iterations: Any = None
    content: Any = None


ClientEvent = Annotated[
    UserMessage
    | UserInterrupt
    | UserToolConfirmation
    | UserCustomToolResult
    | UserToolResult
    | Unsupported,
    Field(discriminator="type"),
]
TAGS = frozenset(
    {
        "user.message",
        "user.interrupt",
        "user.tool_confirmation",
        "user.custom_tool_result",
        "user.define_outcome",
        "user.tool_result",
        "system.message",
    }
)


class EventSend(Request):
    """Events for a session: all of them are taken, or none."""

    events: Annotated[list[ClientEvent], Field(min_length=1, max_length=MAX_EVENTS)]


class SentEvents(Reply):
    """The events as they were taken."""

    data: list[JsonObject]


class SessionEventPage(Reply):
    """Events of a session."""

    data: Annotated[
        list[JsonObject],
        Field(description="Each with `id`, `type`, `processed_at` and the fields of its type."),
    ]
    next_page: NextPage
