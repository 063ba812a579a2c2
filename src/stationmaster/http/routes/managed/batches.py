"""Message Batches: `/v1/messages/batches`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from stationmaster.batches import Batch, Item
from stationmaster.batches.batches import PREFIXES, SCOPE
from stationmaster.batches.intake import MAX_REQUESTS, read_message_batch
from stationmaster.http.cursors import id_cursor
from stationmaster.http.deps import Caller, Given
from stationmaster.http.guard import media_type_of
from stationmaster.http.once import MAX_BATCH_BYTES
from stationmaster.http.routes.managed.query import PAGE_SIZE, LongLimit
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.batch import MessageBatch, MessageBatchPage, RequestCounts
from stationmaster.http.shapes.managed.terms import Deleted
from stationmaster.http.spool import spooled
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.principal import Principal
from stationmaster.providers.headers import to_provider

HERE = "/v1/messages/batches"
PREFIX = PREFIXES["messages"]
JSON_LINES = "application/x-jsonl"

BatchId = Annotated[str, Path(description=f"The batch's id, `{PREFIX}_…`.")]
AfterId = Annotated[
    str | None, Query(max_length=128, description="Only batches older than this one.")
]
BeforeId = Annotated[
    str | None, Query(max_length=128, description="Only batches newer than this one.")
]


async def create_message_batch(request: Request, services: Given, caller: Caller) -> MessageBatch:
    """Take in up to 100,000 Messages requests, to be made one by one when there is room."""
    caller.require(SCOPE)
    if media_type_of(request) != "application/json":
        raise Invalid("The body must be JSON.", code="unsupported_media_type")
    headers = to_provider(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in request.scope["headers"]
    )
    # One at a time in memory; the others wait on the disk.
    async with (
        spooled(request.scope, request.receive, limit=MAX_BATCH_BYTES) as body,
        services.batches.entrance,
    ):
        requests = await asyncio.to_thread(read_message_batch, await body.whole())
        batch = await services.batches.create(caller, "messages", requests, headers)
    return _view(batch)


async def list_message_batches(
    services: Given,
    caller: Caller,
    *,
    limit: LongLimit = PAGE_SIZE,
    after_id: AfterId = None,
    before_id: BeforeId = None,
) -> MessageBatchPage:
    """The project's batches, newest first."""
    if after_id is not None and before_id is not None:
        raise Invalid("after_id goes without before_id.", param="after_id")
    found = await services.batches.list(
        caller,
        ["messages"],
        limit=limit,
        after=id_cursor(after_id, PREFIX, "after_id"),
        before=id_cursor(before_id, PREFIX, "before_id"),
    )
    data = [_view(item) for item in found.items]
    return MessageBatchPage(
        data=data,
        has_more=found.next_cursor is not None,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


async def get_message_batch(batch_id: BatchId, services: Given, caller: Caller) -> MessageBatch:
    """A batch, and how far it is."""
    return _view(await services.batches.get(caller, _id(caller, batch_id)))


async def cancel_message_batch(batch_id: BatchId, services: Given, caller: Caller) -> MessageBatch:
    """Begin none of its requests any more. What is under way is finished, and billed."""
    return _view(await services.batches.cancel(caller, _id(caller, batch_id)))


async def delete_message_batch(batch_id: BatchId, services: Given, caller: Caller) -> Deleted:
    """Delete a batch that has ended, and its results."""
    await services.batches.delete(caller, _id(caller, batch_id))
    return Deleted(id=batch_id, type="message_batch_deleted")


async def message_batch_results(batch_id: BatchId, services: Given, caller: Caller) -> Response:
    """What came of each request, a line of JSON each, once the batch has ended."""
    pages = await services.batches.results(caller, _id(caller, batch_id))
    return StreamingResponse(_lines(pages), media_type=JSON_LINES)


async def _lines(pages: AsyncIterator[Sequence[Item]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(_line(item) for item in page)


def _line(item: Item) -> bytes:
    result: dict[str, Any] = {"type": item.outcome}
    if item.reply is not None:
        name = "message" if item.outcome == "succeeded" else "error"
        result[name] = msgspec.Raw(item.reply.encode())
    return msgspec.json.encode({"custom_id": item.custom_id, "result": result}) + b"\n"


def _id(caller: Principal, batch_id: str) -> str:
    """The id of a batch in this shape. Raises `Denied` and `NotFound`."""
    caller.require(SCOPE)
    return check_id(batch_id, PREFIX)


def _view(batch: Batch) -> MessageBatch:
    ready = batch.ended_at is not None and batch.archived_at is None
    counts = batch.counts
    assert batch.state != "entering", "nobody is shown one"
    return MessageBatch(
        id=batch.id,
        processing_status=batch.state,
        request_counts=RequestCounts(
            processing=counts.processing,
            succeeded=counts.succeeded,
            errored=counts.errored,
            canceled=counts.canceled,
            expired=counts.expired,
        ),
        created_at=iso(batch.created_at),
        expires_at=iso(batch.expires_at),
        cancel_initiated_at=_time(batch.cancel_at),
        ended_at=_time(batch.ended_at),
        archived_at=_time(batch.archived_at),
        results_url=f"{HERE}/{batch.id}/results" if ready else None,
    )


def _time(at: Millis | None) -> str | None:
    return None if at is None else iso(at)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["requests"],
                    "additionalProperties": False,
                    "properties": {
                        "requests": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MAX_REQUESTS,
                            "items": {
                                "type": "object",
                                "required": ["custom_id", "params"],
                                "additionalProperties": False,
                                "properties": {
                                    "custom_id": {
                                        "type": "string",
                                        "pattern": "^[A-Za-z0-9_-]{1,64}$",
                                        "description": "Unique in the batch.",
                                    },
                                    "params": {
                                        "type": "object",
                                        "required": ["model", "max_tokens", "messages"],
                                        "description": "As the body of `/v1/messages`.",
                                    },
                                },
                            },
                        }
                    },
                }
            }
        },
    },
}


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, one = "batches", f"{HERE}/{{batch_id}}"
    add(
        api,
        "POST",
        HERE,
        create_message_batch,
        tag=tag,
        summary="Make a batch",
        reply=MessageBatch,
        extra=_BODY,
    )
    add(
        api,
        "GET",
        HERE,
        list_message_batches,
        tag=tag,
        summary="List batches",
        reply=MessageBatchPage,
    )
    shown: dict[str, Any] = {"tag": tag, "reply": MessageBatch, "refusals": (404,)}
    add(api, "GET", one, get_message_batch, summary="Show a batch", **shown)
    shown["refusals"] = (404, 409)
    add(api, "POST", f"{one}/cancel", cancel_message_batch, summary="Cancel a batch", **shown)
    shown["reply"] = Deleted
    add(api, "DELETE", one, delete_message_batch, summary="Delete a batch", **shown)
    add(
        api,
        "GET",
        f"{one}/results",
        message_batch_results,
        tag=tag,
        summary="Read what came of a batch",
        refusals=(404,),
        response_class=Response,
        responses={
            200: {
                "description": "A line of JSON for each request",
                "content": {JSON_LINES: {"schema": {"type": "string"}}},
            }
        },
    )
