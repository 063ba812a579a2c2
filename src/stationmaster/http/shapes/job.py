"""Background jobs, as the server's operators see them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class BackgroundJob(Reply):
    """Work behind requests that is not done yet."""

    id: str
    kind: Annotated[str, Field(description="What is to be done, such as `run.queued`.")]
    state: Annotated[
        Literal["waiting", "running", "parked"],
        Field(description="A parked one was given up, and waits for you."),
    ]
    attempts: Annotated[int, Field(description="How often it was tried.")]
    created_at: str
    due_at: Annotated[str, Field(description="When a waiting one may begin.")]
    instance_id: Annotated[str | None, Field(description="The server that has it.")]
    error: Annotated[
        str | None, Field(description="What its last try ended with. Secrets are masked.")
    ]
    payload: Annotated[dict[str, Any], Field(description="What it is about. Secrets are masked.")]


class BackgroundJobList(Reply):
    """Jobs, the oldest first."""

    jobs: list[BackgroundJob]
    has_more: bool
    next: Annotated[str | None, Field(description="The next page's `after`; null on the last.")]
