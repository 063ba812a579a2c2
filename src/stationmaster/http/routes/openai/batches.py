"""Batches of a file's requests, as OpenAI's clients know them: `/v1/batches`."""

import asyncio
from typing import Annotated, BinaryIO

from fastapi import FastAPI, Path, Query

from stationmaster.batches import Batch
from stationmaster.batches.batch import NewRequest, Operation
from stationmaster.batches.batches import PREFIXES, SCOPE
from stationmaster.batches.intake import read_batch_file
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.openai.places import BATCHES
from stationmaster.http.routes.openai.table import add
from stationmaster.http.shapes.openai import (
    BatchSubmission,
    BatchSubmissions,
    OpenAIBatch,
    OpenAIBatchPage,
    OpenAIBatchRequest,
    OpenAICounts,
)
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.principal import Principal

PREFIX = PREFIXES["chat"]
MAX_INPUT_BYTES = 200 * 1000 * 1000
LONGEST_LINE = 32 * 1000 * 1000  # bytes, as any call of a model

_OPERATIONS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
}

BatchId = Annotated[str, Path(description=f"The batch's id, `{PREFIX}_…`.")]
AnyId = Annotated[
    str, Path(description=f"The id of a batch of either API, `{PREFIX}_…` or `msgbatch_…`.")
]


async def create_openai_batch(
    body: OpenAIBatchRequest, services: Given, caller: Caller
) -> OpenAIBatch:
    """Take in the requests of a file, to be made one by one when there is room."""
    caller.require(SCOPE)
    caller.require("write:files")  # for what comes of it
    caller.require("read:files")
    file, content = await services.stored_files.open(caller, body.input_file_id)
    with content:
        if file.purpose != "batch":
            raise Invalid("The file's purpose must be batch.", param="input_file_id")
        if file.size > MAX_INPUT_BYTES:
            raise TooLarge(f"The file is larger than {MAX_INPUT_BYTES} bytes.")
        async with services.batches.entrance:
            requests = await asyncio.to_thread(_read, content, body.endpoint)
            batch = await services.batches.create(
                caller,
                _OPERATIONS[body.endpoint],
                requests,
                details={
                    "endpoint": body.endpoint,
                    "input_file_id": file.id,
                    "metadata": body.metadata,
                },
            )
    return _view(batch)


def _read(content: BinaryIO, endpoint: str) -> list[NewRequest]:
    return read_batch_file(iter(lambda: content.readline(LONGEST_LINE), b""), endpoint)


async def list_openai_batches(
    services: Given,
    caller: Caller,
    *,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="Only older ones.")] = None,
) -> OpenAIBatchPage:
    """The project's batches, newest first."""
    found = await services.batches.list(
        caller, list(_OPERATIONS.values()), limit=limit, after=id_cursor(after, PREFIX, "after")
    )
    data = [_view(item) for item in found.items]
    return OpenAIBatchPage(
        data=data,
        has_more=found.next_cursor is not None,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


async def get_openai_batch(batch_id: BatchId, services: Given, caller: Caller) -> OpenAIBatch:
    """A batch, and how far it is."""
    return _view(await services.batches.get(caller, _id(caller, batch_id)))


async def cancel_openai_batch(batch_id: BatchId, services: Given, caller: Caller) -> OpenAIBatch:
    """Begin none of its requests any more. What is under way is finished, and billed."""
    return _view(await services.batches.cancel(caller, _id(caller, batch_id)))


async def list_batch_submissions(
    batch_id: AnyId, services: Given, caller: Caller
) -> BatchSubmissions:
    """What of a batch went into batches of its providers' own, and how far that is."""
    found = await services.batches.progress(caller, batch_id)
    return BatchSubmissions(
        data=[
            BatchSubmission(
                id=each.id,
                provider=each.provider,
                model=each.model,
                state=each.state,
                requests=each.requests,
                counts=None if each.counts is None else dict(each.counts),
                upstream_id=each.upstream_id,
                sent_at=_seconds(each.sent_at),
                next_look_at=_seconds(each.next_at),
                note=each.note,
            )
            for each in found
        ]
    )


def _id(caller: Principal, batch_id: str) -> str:
    """The id of a batch in this shape. Raises `Denied` and `NotFound`."""
    caller.require(SCOPE)
    return check_id(batch_id, PREFIX)


def _view(batch: Batch) -> OpenAIBatch:
    counts, output = batch.counts, batch.output
    over = _seconds(batch.ended_at) if output is not None else None
    cancelled = batch.cancel_at is not None
    expired = not cancelled and counts.expired > 0
    status = "in_progress" if batch.state == "in_progress" else "cancelling"
    if batch.state == "ended":
        status = "cancelled" if cancelled else "expired" if expired else "completed"
        status = status if over is not None else "finalizing"
    total = sum((counts.processing, counts.succeeded, counts.errored, counts.canceled))
    return OpenAIBatch(
        id=batch.id,
        endpoint=batch.details["endpoint"],
        input_file_id=batch.details["input_file_id"],
        status=status,  # type: ignore[arg-type]
        output_file_id=None if output is None else output.file_id,
        error_file_id=None if output is None else output.error_file_id,
        created_at=batch.created_at // 1000,
        in_progress_at=batch.created_at // 1000,
        expires_at=batch.expires_at // 1000,
        finalizing_at=_seconds(batch.ended_at),
        completed_at=over if status == "completed" else None,
        expired_at=over if status == "expired" else None,
        cancelling_at=_seconds(batch.cancel_at),
        cancelled_at=over if status == "cancelled" else None,
        request_counts=OpenAICounts(
            total=total + counts.expired, completed=counts.succeeded, failed=counts.errored
        ),
        metadata=batch.details["metadata"],
    )


def _seconds(at: Millis | None) -> int | None:
    return None if at is None else at // 1000


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, one = "batches", f"{BATCHES}/{{batch_id}}"
    add(
        api,
        "POST",
        BATCHES,
        create_openai_batch,
        tag=tag,
        summary="Make a batch of a file",
        reply=OpenAIBatch,
    )
    add(
        api,
        "GET",
        BATCHES,
        list_openai_batches,
        tag=tag,
        summary="List batches of files",
        reply=OpenAIBatchPage,
        refusals=(),
    )
    add(
        api,
        "GET",
        one,
        get_openai_batch,
        tag=tag,
        summary="Show a batch of a file",
        reply=OpenAIBatch,
    )
    add(
        api,
        "POST",
        f"{one}/cancel",
        cancel_openai_batch,
        tag=tag,
        summary="Cancel a batch of a file",
        reply=OpenAIBatch,
        refusals=(404, 409),
    )
    add(
        api,
        "GET",
        f"{one}/submissions",
        list_batch_submissions,
        tag=tag,
        summary="Show what went into batches of providers",
        reply=BatchSubmissions,
    )
