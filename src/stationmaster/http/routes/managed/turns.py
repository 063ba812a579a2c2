"""The turns of a session that have ended: a part of ours."""

from functools import partial
from typing import Any, Literal

from fastapi import FastAPI

from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.history import Wanted, page_of
from stationmaster.http.routes.managed.money import cents
from stationmaster.http.routes.managed.query import PAGE_SIZE, PageCursor, PageLimit
from stationmaster.http.routes.managed.sessions import SessionId
from stationmaster.http.routes.managed.table import add
from stationmaster.http.shapes.managed.session import Turn, TurnError, TurnPage
from stationmaster.http.shapes.managed.terms import Amount
from stationmaster.kernel.clock import iso
from stationmaster.sessions.runs.state import ENDED
from stationmaster.sessions.session import SessionEvent


async def list_turns(
    session_id: SessionId,
    services: Given,
    caller: Caller,
    *,
    limit: PageLimit = PAGE_SIZE,
    page: PageCursor = None,
    order: Literal["asc", "desc"] = "desc",
) -> TurnPage:
    """The turns of a session that have ended: how, with what output, at what cost."""
    head = await services.sessions.head(caller, session_id)
    found = await page_of(
        partial(services.sessions.events, caller, session_id),
        head,
        Wanted(limit=limit, page=page, order=order, types=frozenset({ENDED})),
        _view,
    )
    data = [Turn.model_validate(item) for item in found.data]
    return TurnPage(data=data, next_page=found.next_page)


def _view(found: SessionEvent) -> dict[str, Any]:
    data = found.event.data
    error = data.get("error")
    turn = Turn(
        id=data["run_id"],
        session_id=found.event.stream_id,
        state=data["state"],
        result=data.get("result"),
        structured_output=data.get("structured"),
        error=None if error is None else TurnError(code=error["code"], message=error["message"]),
        model_calls=data["model_calls"],
        list_cost=Amount(amount=cents(data["cost"])),
        ended_at=iso(found.event.at),
    )
    return turn.model_dump()


def install(api: FastAPI) -> None:
    """Add the route."""
    add(
        api,
        "GET",
        "/v1/sessions/{session_id}/turns",
        list_turns,
        summary="List a session's turns",
        reply=TurnPage,
        refusals=(404,),
    )
