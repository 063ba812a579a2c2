"""Sessions in the words of `/api/execute`, and in those of lists with an envelope beside them."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stationmaster.http.shapes.base import Reply, Request
from stationmaster.http.shapes.task import MAX_TAGS, ModelName, Name

OWN_WORKSPACE = "/workspace"


class JobSessionRequest(Request):
    """A session to be made."""

    workspace: Annotated[
        str | None,
        Field(max_length=256, description="`/workspace`: a session's workspace is its own."),
    ] = None


class PromptRequest(Request):
    """What an agent is to do."""

    prompt: Annotated[str, StringConstraints(min_length=1)]
    workspace: Annotated[
        str | None,
        Field(max_length=256, description="`/workspace`: a session's workspace is its own."),
    ] = None
    model: Annotated[ModelName | None, Field(description="Of a session that is new.")] = None
    dangerously_skip_permissions: Annotated[
        bool,
        Field(
            alias="dangerouslySkipPermissions",
            description="Of a session that is new: whether its calls of tools wait for nobody."
            " The sandbox holds either way.",
        ),
    ] = True
    on_disconnect: Annotated[
        Literal["continue", "cancel"],
        Field(alias="onDisconnect", description="What becomes of the job when its client goes."),
    ] = "continue"
    tags: Annotated[
        list[Name],
        Field(
            default_factory=list,
            max_length=MAX_TAGS,
            description="What the turn's model calls are counted under, for budgets and reports;"
            " those of the header `x-stationmaster-tags` come first.",
        ),
    ]


class ExecuteRequest(PromptRequest):
    """What an agent is to do, in a new session or in one that goes on."""

    resume_session_id: Annotated[
        str | None, Field(alias="resumeSessionId", max_length=64, description="Go on with this.")
    ] = None


class JobSession(Reply):
    """A session."""

    sessionId: str  # noqa: N815 - as the guide has it
    session_id: str
    id: str
    workspace: str
    status: Literal["idle", "running", "rescheduling", "terminated"]
    title: str | None
    model: str | None
    metadata: dict[str, str]
    created: str
    created_at: str
    updated_at: str
    archived_at: str | None


class Enveloped(Reply):
    """What stands around an answer for clients that look for `success` first."""

    success: Literal[True] = True
    message: str
    timestamp: str


class JobSessionReply(JobSession, Enveloped):
    """A session as one guide's clients look for it, and in `data` as the other's do."""

    data: JobSession


class Pagination(Reply):
    """Where in a list an answer is."""

    total_count: Annotated[int, Field(description="Of all that the filters let through.")]
    limit: int
    offset: int
    has_more: bool


class JobSessions(Reply):
    """Sessions, newest first."""

    sessions: list[JobSession]
    pagination: Pagination


class JobSessionList(JobSessions, Enveloped):
    """Sessions as one guide's clients look for them, and in `data` as the other's do."""

    data: JobSessions
    count: Annotated[int, Field(description="Of the sessions in this answer.")]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]


class JobSessionDeleted(Reply):
    """A session that is there no more."""

    success: Literal[True] = True
    sessionId: str  # noqa: N815 - as the guide has it


class JobStatus(Reply):
    """Whether the server is at work."""

    status: Literal["idle", "busy"]
    timestamp: str
    active: Annotated[int, Field(description="Runs at work.")]
    queued: Annotated[int, Field(description="Runs that wait for a worker.")]
