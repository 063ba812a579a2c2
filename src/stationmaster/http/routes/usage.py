"""What was used and what it cost."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, cast

import msgspec
from fastapi import FastAPI, Query
from starlette.responses import StreamingResponse

from stationmaster.budgets.report import Dimension, Line, Only, Row, Total, Width
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.usage import ModelUsage, Usage, UsageGroup
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import to_dollars

_DIMENSIONS = ("project", "key", "user", "model", "provider", "session", "tag")
_WIDTHS = ("hour", "day")
_MAX_GROUPS = 4

Period = Annotated[
    str,
    Query(
        max_length=32,
        description="`month` is the calendar month in UTC, `week` the last 7 days, `day` the"
        " last 24 hours.",
    ),
]
Scope = Annotated[
    Literal["project", "organization"],
    Query(description="Your project, or your whole organisation if you may manage it."),
]
Id = Annotated[str | None, Query(max_length=128)]


async def get_usage(
    *,
    services: Given,
    caller: Caller,
    period: Period = "month",
    group_by: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Tell apart, separated by commas: `day` or `hour`, and `project`, `key`,"
            " `user`, `model`, `provider`, `session`; or `tag`, with `project`.",
        ),
    ] = None,
    key_id: Id = None,
    user_id: Id = None,
    model: Id = None,
    session_id: Id = None,
    scope: Scope = "project",
) -> Usage:
    """What the key's project has used, by model, to the last call that is settled."""
    width, by = _groups(group_by)
    report = await services.reports.usage(
        caller,
        period,
        by=by,
        width=width,
        only=Only(key_id, user_id, model, session_id),
        whole_organization=scope == "organization",
    )
    total = report.total
    return Usage(
        project_id=report.project_id,
        period=report.period,
        since=iso(report.since),
        total_tokens=total.usage.total,
        total_cost=to_dollars(total.cost),
        total_calls=total.calls,
        by_model={name: ModelUsage(**_sums(part)) for name, part in report.by_model.items()},
        limit=report.limit,
        remaining=report.remaining,
        groups=[_group(row, by) for row in report.groups],
    )


async def export_usage(
    services: Given,
    caller: Caller,
    period: Period = "month",
    format: Annotated[
        Literal["csv", "json"], Query(description="CSV with a header, or a JSON array.")
    ] = "csv",
    scope: Scope = "project",
) -> StreamingResponse:
    """The ledger's lines, one for each call, oldest first; streamed, however many there are."""
    _, since = services.reports.since(period)
    pages = services.reports.lines(caller, since, whole_organization=scope == "organization")
    # The first before the head goes out: until then an error still has its status.
    first: list[Line] = await anext(pages, [])
    write, media_type = (_csv, "text/csv") if format == "csv" else (_json, "application/json")
    return StreamingResponse(
        write(first, pages),
        media_type=f"{media_type}; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="usage.{format}"'},
    )


def _groups(group_by: str | None) -> tuple[Width | None, tuple[Dimension, ...]]:
    names = [name.strip() for name in group_by.split(",")] if group_by else []
    unknown = set(names) - {*_DIMENSIONS, *_WIDTHS}
    widths = [name for name in names if name in _WIDTHS]
    if unknown or len(widths) > 1 or len(names) > _MAX_GROUPS or len(set(names)) < len(names):
        raise Invalid(
            f"group_by takes day or hour, and up to {_MAX_GROUPS} in all of"
            f" {', '.join(_DIMENSIONS)}.",
            param="group_by",
        )
    by = tuple(cast(Dimension, name) for name in names if name not in _WIDTHS)
    return cast(Width, widths[0]) if widths else None, by


def _group(row: Row, by: tuple[Dimension, ...]) -> UsageGroup:
    return UsageGroup(
        **_sums(row.total),
        starts_at=None if row.start is None else iso(row.start),
        by=dict(zip(by, row.group, strict=True)),
    )


def _sums(part: Total) -> dict[str, Any]:
    return {
        "tokens": part.usage.total,
        "cost": to_dollars(part.cost),
        "calls": part.calls,
        "input_tokens": part.usage.input_tokens,
        "output_tokens": part.usage.output_tokens,
        "cache_write_tokens": part.usage.cache_write_tokens,
        "cache_read_tokens": part.usage.cache_read_tokens,
    }


# --- lines of the ledger ------------------------------------------------------------------------


def _record(line: Line) -> dict[str, Any]:
    return {
        "call_id": line.call_id,
        "at": iso(line.at),
        "project_id": line.project_id,
        "key_id": line.key_id,
        "user_id": line.user_id,
        "session_id": line.session_id,
        "run_id": line.run_id,
        "tags": list(line.tags),
        "provider": line.provider,
        "model": line.model,
        "input_tokens": line.usage.input_tokens,
        "output_tokens": line.usage.output_tokens,
        "cache_write_tokens": line.usage.cache_write_tokens,
        "cache_write_1h_tokens": line.usage.cache_write_1h_tokens,
        "cache_read_tokens": line.usage.cache_read_tokens,
        "cost": to_dollars(line.cost),
        "outcome": line.outcome,
        "duration_ms": line.duration_ms,
    }


_FIELDS = (
    "call_id",
    "at",
    "project_id",
    "key_id",
    "user_id",
    "session_id",
    "run_id",
    "tags",
    "provider",
    "model",
    "input_tokens",
    "output_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "cost",
    "outcome",
    "duration_ms",
)


async def _csv(first: list[Line], rest: AsyncIterator[list[Line]]) -> AsyncIterator[bytes]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _FIELDS)
    writer.writeheader()
    async for page in _pages(first, rest):
        writer.writerows(_cells(line) for line in page)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _cells(line: Line) -> dict[str, Any]:
    record = _record(line)
    record["tags"] = " ".join(line.tags)
    record["cost"] = f"{record['cost']:.6f}"
    # A spreadsheet would run a cell that begins like a formula.
    formula = ("=", "+", "-", "@")
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(formula) else value
        for name, value in record.items()
    }


async def _json(first: list[Line], rest: AsyncIterator[list[Line]]) -> AsyncIterator[bytes]:
    before = b"["
    async for page in _pages(first, rest):
        lines = b",\n".join(msgspec.json.encode(_record(line)) for line in page)
        yield before + lines if lines else b""
        before = b",\n" if lines else before
    yield b"]\n" if before != b"[" else b"[]\n"


async def _pages(first: list[Line], rest: AsyncIterator[list[Line]]) -> AsyncIterator[list[Line]]:
    yield first
    async for page in rest:
        yield page


def install(api: FastAPI) -> None:
    """Add the routes."""
    add(
        api,
        "GET",
        "/v1/usage",
        get_usage,
        tag="usage",
        summary="Show usage and cost",
        reply=Usage,
        errors=(422,),
    )
    add(
        api,
        "GET",
        "/v1/usage/export",
        export_usage,
        tag="usage",
        summary="Export usage, call by call",
        errors=(422,),
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "The lines, in the format asked for",
                "content": {
                    "text/csv": {"schema": {"type": "string"}},
                    "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
                },
            }
        },
    )
