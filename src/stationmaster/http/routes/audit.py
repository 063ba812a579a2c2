"""The audit log: listed and exported."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Query
from starlette.responses import Response, StreamingResponse

from stationmaster.audit import Entry, Sought
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.routes.tasks import Limit
from stationmaster.http.shapes.audit import AuditEntry, AuditList
from stationmaster.kernel.clock import iso
from stationmaster.kernel.paging import DEFAULT_LIMIT

Action = Annotated[
    str | None,
    Query(
        max_length=64, description="An action, such as `key.create`, or `key.*` for all of them."
    ),
]
Actor = Annotated[str | None, Query(max_length=64, description="The id of who acted.")]
Target = Annotated[str | None, Query(max_length=128, description="The id of what it was done to.")]
Outcome = Annotated[
    Literal["success", "refused", "failed"] | None, Query(description="How it went.")
]
Since = Annotated[
    int | None, Query(ge=0, le=2**53, description="Not before this time, in ms since 1970.")
]
Until = Annotated[int | None, Query(ge=0, le=2**53, description="Before this time, likewise.")]

_EXPORT: dict[str, Any] = {
    "description": "The entries, as `format` says",
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "text/csv": {"schema": {"type": "string"}},
    },
}
_COLUMNS = tuple(AuditEntry.model_fields)
# A spreadsheet would run what begins so.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def list_audit(
    services: Given,
    caller: Caller,
    *,
    action: Action = None,
    actor: Actor = None,
    target: Target = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    after: Annotated[
        str | None, Query(max_length=64, description="`next` of the page before.")
    ] = None,
) -> AuditList:
    """The organisation's audit log, newest first."""
    sought = Sought(action, actor, target, outcome, since, until)
    page = await services.audit.list(caller, sought, limit=limit, after=after)
    return AuditList(
        entries=[_view(entry) for entry in page.items],
        has_more=page.next_cursor is not None,
        next=page.next_cursor,
    )


async def export_audit(
    services: Given,
    caller: Caller,
    *,
    format: Annotated[Literal["json", "csv"], Query(description="How to write it.")] = "json",
    action: Action = None,
    actor: Actor = None,
    target: Target = None,
    outcome: Outcome = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """The organisation's audit log, oldest first, all of it, streamed. That is itself on record."""
    sought = Sought(action, actor, target, outcome, since, until)
    pages = await services.audit.export(caller, sought)
    if format == "csv":
        return _attachment(_csv(pages), "text/csv; charset=utf-8", "audit.csv")
    return _attachment(_json(pages), "application/json", "audit.json")


def _attachment(body: AsyncIterator[bytes], media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-type": media_type}
    return StreamingResponse(body, headers=headers)


async def _json(pages: AsyncIterator[Sequence[Entry]]) -> AsyncIterator[bytes]:
    lead = b'{"entries":['
    async for page in pages:
        for entry in page:
            yield lead + msgspec.json.encode(_view(entry).model_dump(mode="json"))
            lead = b",\n"
    yield (lead if lead.startswith(b"{") else b"") + b"]}\n"


async def _csv(pages: AsyncIterator[Sequence[Entry]]) -> AsyncIterator[bytes]:
    yield _line(_COLUMNS)
    async for page in pages:
        yield b"".join(_line(_cells(entry)) for entry in page)


def _cells(entry: Entry) -> list[str]:
    view = _view(entry).model_dump(mode="json")
    view["details"] = msgspec.json.encode(view["details"]).decode()
    return [_cell(view[name]) for name in _COLUMNS]


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) else text


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _view(entry: Entry) -> AuditEntry:
    return AuditEntry(
        seq=entry.seq,
        at=iso(entry.at),
        organization_id=entry.organization_id,
        project_id=entry.project_id,
        actor_kind=entry.actor_kind,
        actor_id=entry.actor_id,
        actor_hint=entry.actor_hint,
        address=entry.address,
        request_id=entry.request_id,
        action=entry.action,
        target=entry.target,
        outcome=entry.outcome,
        details=dict(entry.details),
        hash=entry.hash,
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "audit", "/v1/audit"
    add(
        api,
        "GET",
        here,
        list_audit,
        tag=tag,
        summary="List the audit log",
        reply=AuditList,
        errors=(422,),
    )
    add(
        api,
        "GET",
        f"{here}/export",
        export_audit,
        tag=tag,
        summary="Export the audit log",
        errors=(422,),
        responses={200: _EXPORT},
        response_class=Response,
    )
