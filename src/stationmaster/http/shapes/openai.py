"""Files and batches, in OpenAI's shape. Times are in seconds since 1970."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request

Endpoint = Literal["/v1/chat/completions", "/v1/embeddings", "/v1/responses"]


class OpenAIFile(Reply):
    """A file, without its content."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class OpenAIFilePage(Reply):
    """Files, newest first."""

    object: Literal["list"] = "list"
    data: list[OpenAIFile]
    has_more: bool
    first_id: str | None
    last_id: str | None


class OpenAIDeleted(Reply):
    """A file that is there no more."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class OpenAIBatchRequest(Request):
    """A batch to be made of a file."""

    input_file_id: Annotated[str, Field(max_length=64)]
    endpoint: Endpoint
    completion_window: Literal["24h"]
    metadata: Annotated[
        dict[
            Annotated[str, Field(max_length=64)],
            Annotated[str, Field(max_length=512)],
        ]
        | None,
        Field(max_length=16),
    ] = None


class OpenAICounts(Reply):
    """How a batch's requests stand."""

    total: int
    completed: int
    failed: int


class OpenAIBatch(Reply):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: Literal["in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: OpenAICounts
    metadata: dict[str, str] | None


class OpenAIBatchPage(Reply):
    """Batches, newest first."""

    object: Literal["list"] = "list"
    data: list[OpenAIBatch]
    has_more: bool
    first_id: str | None
    last_id: str | None


class BatchSubmission(Reply):
    """Requests of a batch that went to their provider together, into a batch of its own."""

    id: str
    object: Literal["batch_submission"] = "batch_submission"
    provider: Annotated[str, Field(description="Its name in the configuration.")]
    model: str
    state: Annotated[
        Literal["preparing", "submitting", "in_progress", "ended"],
        Field(
            description="While it is submitting it is not known yet whether the provider has it."
        ),
    ]
    requests: Annotated[int, Field(description="How many went there.")]
    counts: Annotated[
        dict[str, int] | None,
        Field(description="Of these by state, as the provider last said. Null: it has not yet."),
    ]
    upstream_id: Annotated[str | None, Field(description="The provider's id for it.")]
    sent_at: int | None
    next_look_at: Annotated[int | None, Field(description="When the provider is asked again.")]
    note: Annotated[str | None, Field(description="What is wrong, where something is.")]


class BatchSubmissions(Reply):
    """All of a batch, in the order of their making."""

    object: Literal["list"] = "list"
    data: list[BatchSubmission]


class OpenAIResponseDeleted(Reply):
    """A response that is kept no more."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class OpenAIInputItems(Reply):
    """What a response answers to, an item each."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
