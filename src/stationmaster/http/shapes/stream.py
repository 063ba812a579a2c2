"""Frames of `/v1/stream`, as clients send them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.task import TaskRequest

MAX_SEQ = 2**53 - 1

RequestId = Annotated[
    str | None,
    Field(min_length=1, max_length=64, description="Yours: in every frame that answers this one."),
]
Key = Annotated[str | None, Field(max_length=512, description="Where no header carried it.")]


class AuthFrame(Request):
    """Who asks, as the first frame."""

    type: Literal["auth"]
    id: RequestId = None
    api_key: Annotated[str, Field(max_length=512)]


class ChatMessage(Request):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str | list[dict[str, Any]], Field(description="Text, or blocks of it.")]


class ChatFrame(Request):
    """A model call whose answer comes as it is written."""

    type: Literal["chat"]
    id: RequestId = None
    api_key: Key = None
    model: Annotated[str, Field(min_length=1, max_length=256)] = "sonnet"
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    project_id: Annotated[str | None, Field(max_length=64)] = None


class TaskFrame(TaskRequest):
    """A task for an agent, followed from its first event."""

    type: Literal["agentic_task", "start_task"]
    id: RequestId = None
    api_key: Key = None
    on_disconnect: Annotated[
        Literal["continue", "cancel"],
        Field(description="What becomes of the task when this socket closes."),
    ] = "continue"


class ResumeFrame(Request):
    """Go on following a task, after the event with the number `after`."""

    type: Literal["resume"]
    id: RequestId = None
    api_key: Key = None
    task_id: Annotated[str, Field(max_length=64)]
    after: Annotated[int, Field(ge=0, le=MAX_SEQ)] = 0


class FollowFrame(Request):
    """Follow a session: its events after the number `after`, or else what comes next."""

    type: Literal["follow"]
    id: RequestId = None
    api_key: Key = None
    session_id: Annotated[str, Field(max_length=64)]
    after: Annotated[int | None, Field(ge=0, le=MAX_SEQ)] = None


class CancelFrame(Request):
    """Ask a task to stop."""

    type: Literal["cancel"]
    id: RequestId = None
    api_key: Key = None
    task_id: Annotated[str, Field(max_length=64)]


class PingFrame(Request):
    """Is anybody there."""

    type: Literal["ping"]
    id: RequestId = None


Frame = AuthFrame | ChatFrame | TaskFrame | ResumeFrame | FollowFrame | CancelFrame | PingFrame

FRAMES: dict[str, type[Frame]] = {
    "auth": AuthFrame,
    "chat": ChatFrame,
    "agentic_task": TaskFrame,
    "start_task": TaskFrame,
    "resume": ResumeFrame,
    "follow": FollowFrame,
    "cancel": CancelFrame,
    "ping": PingFrame,
}


class TicketRequest(Request):
    """A ticket that is asked for."""

    bind_address: Annotated[
        bool, Field(description="Whether it is good from the address alone that asks for it.")
    ] = False


class SocketTicket(Reply):
    """A ticket: good once, and for a short time. Times are in seconds."""

    ticket: str
    expires_at: str
    expires_in: int
