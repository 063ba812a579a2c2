"""Message Batches, in Anthropic's shape."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class RequestCounts(Reply):
    """How a batch's requests stand. Together they are all of it."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatch(Reply):
    """A batch."""

    id: str
    type: Literal["message_batch"] = "message_batch"
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: RequestCounts
    created_at: str
    expires_at: Annotated[str, Field(description="What has not begun by then expires.")]
    cancel_initiated_at: str | None
    ended_at: str | None
    archived_at: Annotated[str | None, Field(description="When its results were deleted.")]
    results_url: Annotated[
        str | None, Field(description="Where its results are, below this server's address.")
    ]


class MessageBatchPage(Reply):
    """Batches, newest first."""

    data: list[MessageBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None
