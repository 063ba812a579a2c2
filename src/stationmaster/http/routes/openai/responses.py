"""Responses that are kept, as OpenAI's clients know them: `/v1/responses/{response_id}`."""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Path, Query
from starlette.responses import JSONResponse, Response

from stationmaster.gateway.dispatch import SCOPE
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.openai.places import RESPONSES
from stationmaster.http.routes.openai.table import add
from stationmaster.http.shapes.openai import OpenAIInputItems, OpenAIResponseDeleted
from stationmaster.kernel.errors import NotFound
from stationmaster.responses import Conversation

ResponseId = Annotated[str, Path(description="The response's id, `resp_…`.", max_length=256)]
_WORDS = {"assistant": "output_text"}
_PREFIXES = {"function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


async def get_response(response_id: ResponseId, services: Given, caller: Caller) -> Response:
    """A response that you asked for, as it was answered."""
    caller.require(SCOPE)
    found = await services.responses.get(caller, response_id)
    return Response(found.response, media_type="application/json")


async def delete_response(
    response_id: ResponseId, services: Given, caller: Caller
) -> OpenAIResponseDeleted:
    """Forget a response. Nothing can go on after it any more."""
    caller.require(SCOPE)
    await services.responses.delete(caller, response_id)
    return OpenAIResponseDeleted(id=response_id)


async def list_response_input(
    response_id: ResponseId,
    services: Given,
    caller: Caller,
    *,
    limit: Annotated[int, Query(ge=1, le=100, description="How many at most.")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="An item's id.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="From which end.")] = "desc",
) -> Response:
    """All that a response answers to: its own input, and the turns before it."""
    caller.require(SCOPE)
    items = _items(response_id, await services.responses.get(caller, response_id))
    if order == "desc":
        items.reverse()
    begin = 0
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise NotFound("There is no such item.", param="after")
        begin = places[0] + 1
    page = items[begin : begin + limit]
    return JSONResponse(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": begin + limit < len(items),
        }
    )


def _items(response_id: str, found: Conversation) -> list[dict[str, Any]]:
    return [
        _item(response_id, number, msgspec.json.decode(raw))
        for number, raw in enumerate((*found.before, *found.input))
    ]


def _item(response_id: str, number: int, item: Any) -> dict[str, Any]:
    """An item with the members that a client may leave out, and one that is listed has."""
    shown = dict(item) if isinstance(item, dict) else {"content": str(item)}
    kind = shown.setdefault("type", "message")
    if not isinstance(shown.get("id"), str):
        seed = f"{response_id} {number}".encode()
        prefix = _PREFIXES.get(kind, "msg")
        shown["id"] = f"{prefix}_{hashlib.sha256(seed).hexdigest()[:32]}"
    if kind == "message":
        shown.setdefault("status", "completed")
        if isinstance(shown.get("content"), str):
            words = _WORDS.get(str(shown.get("role")), "input_text")
            shown["content"] = [{"type": words, "text": shown["content"]}]
    return shown


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, one = "models", f"{RESPONSES}/{{response_id}}"
    add(
        api,
        "GET",
        one,
        get_response,
        tag=tag,
        summary="Show a response",
        content={"application/json": {"schema": {"type": "object"}}},
    )
    add(
        api,
        "DELETE",
        one,
        delete_response,
        tag=tag,
        summary="Forget a response",
        reply=OpenAIResponseDeleted,
    )
    add(
        api,
        "GET",
        f"{one}/input_items",
        list_response_input,
        tag=tag,
        summary="List what a response answers to",
        reply=OpenAIInputItems,
    )
