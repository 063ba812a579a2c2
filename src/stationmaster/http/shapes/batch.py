"""Prompts in a batch, and the answer to each."""

from typing import Annotated, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply, Request


class BatchPrompt(Request):
    """One prompt."""

    prompt: Annotated[str, Field(min_length=1)]
    id: Annotated[
        str | None,
        Field(min_length=1, max_length=128, description="Yours; else its number from 0."),
    ] = None


class BatchRequest(Request):
    """Prompts to be answered in parallel."""

    prompts: Annotated[
        list[BatchPrompt], Field(min_length=1, description="At most eleven times BATCH_WORKERS.")
    ]
    model: Annotated[
        str | None, Field(min_length=1, max_length=256, description="DEFAULT_MODEL unless given.")
    ] = None
    timeout: Annotated[
        float,
        Field(gt=0, le=300, description="Seconds for each, from its turn on."),
    ] = 30.0


class BatchUsage(Reply):
    """What one answer used."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class BatchError(Reply):
    """Why a prompt failed."""

    code: str
    message: str


class BatchResult(Reply):
    """What came of one prompt."""

    id: str
    prompt: str
    status: Literal["completed", "failed"]
    content: str | None
    usage: BatchUsage
    cost: Annotated[float, Field(description="In dollars.")]
    error: BatchError | None


class BatchReply(Reply):
    """What came of all, in their order."""

    total: int
    completed: int
    failed: int
    results: list[BatchResult]
    total_cost: Annotated[float, Field(description="In dollars.")]
    total_tokens: int
