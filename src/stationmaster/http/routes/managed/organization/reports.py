"""Usage and cost over time: the ledger's own sums, by stretches of a minute, an hour or a day."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query

from stationmaster.budgets.totals import Row, Sought, Total, Width
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.managed.query import PageCursor, after_number, millis
from stationmaster.http.routes.managed.table import add
from stationmaster.http.services import Services
from stationmaster.http.shapes.managed.session import CacheCreation
from stationmaster.http.shapes.spending import (
    CostBucket,
    CostReportPage,
    CostResult,
    UsageBucket,
    UsageReportPage,
    UsageResult,
)
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Principal

PER_CENT = 10_000  # micro-dollars

# Of each width: ours, milliseconds, buckets in a page where none are asked for, and at most.
_WIDTHS: dict[str, tuple[Width, Millis, int, int]] = {
    "1d": ("day", 86_400_000, 7, 31),
    "1h": ("hour", 3_600_000, 24, 168),
    "1m": ("minute", 60_000, 60, 1440),
}

StartingAt = Annotated[str, Query(max_length=64, description="A time by RFC 3339.")]
EndingAt = Annotated[str | None, Query(max_length=64, description="Left out: now.")]
BucketWidth = Annotated[Literal["1d", "1h", "1m"], Query()]
GroupBy = Annotated[
    list[Literal["model"]] | None,
    Query(alias="group_by[]", max_length=1, description="`model` is what can be told apart."),
]
Models = Annotated[list[str] | None, Query(alias="models[]", max_length=100)]
UserIds = Annotated[list[str] | None, Query(alias="user_ids[]", max_length=100)]
Limit = Annotated[int | None, Query(ge=1, le=1440, description="Stretches in a page.")]


async def get_usage_report(
    services: Given,
    caller: Caller,
    starting_at: StartingAt,
    *,
    ending_at: EndingAt = None,
    bucket_width: BucketWidth = "1d",
    group_by: GroupBy = None,
    models: Models = None,
    user_ids: UserIds = None,
    limit: Limit = None,
    page: PageCursor = None,
) -> UsageReportPage:
    """The organisation's tokens."""
    part = _Part.of(services, (starting_at, ending_at), bucket_width, limit, page)
    sums = await part.sums(services, caller, bool(group_by), models, user_ids)
    return UsageReportPage(
        data=[
            UsageBucket(
                starting_at=iso(start),
                ending_at=iso(start + part.width),
                results=[_usage(model, total) for model, total in sums.get(start, {}).items()],
            )
            for start in part.starts
        ],
        **part.rest(services),
    )


async def get_cost_report(
    services: Given,
    caller: Caller,
    starting_at: StartingAt,
    *,
    ending_at: EndingAt = None,
    bucket_width: BucketWidth = "1d",
    group_by: GroupBy = None,
    models: Models = None,
    user_ids: UserIds = None,
    limit: Limit = None,
    page: PageCursor = None,
) -> CostReportPage:
    """The organisation's cost, exactly as the ledger has it."""
    part = _Part.of(services, (starting_at, ending_at), bucket_width, limit, page)
    sums = await part.sums(services, caller, bool(group_by), models, user_ids)
    return CostReportPage(
        data=[
            CostBucket(
                starting_at=iso(start),
                ending_at=iso(start + part.width),
                results=[_cost(model, total) for model, total in sums.get(start, {}).items()],
            )
            for start in part.starts
        ],
        **part.rest(services),
    )


class _Part:
    """The stretches of one page."""

    def __init__(self, named: Width, width: Millis, starts: range, end: Millis) -> None:
        self.named = named
        self.width = width
        self.starts = starts
        self.end = end

    @classmethod
    def of(
        cls,
        services: Services,
        between: tuple[str, str | None],
        bucket_width: str,
        limit: int | None,
        page: str | None,
    ) -> "_Part":
        """The page that is asked for. Raises `Invalid`."""
        named, width, usual, most = _WIDTHS[bucket_width]
        if limit is not None and limit > most:
            raise Invalid(f"limit is at most {most} for {bucket_width}.", param="limit")
        since = millis(between[0], "starting_at") or 0
        until = millis(between[1], "ending_at")
        end = services.clock.now() + 1 if until is None else until
        if since < 0 or end > _LATEST or since >= end:
            raise Invalid("ending_at must be after starting_at.", param="ending_at")
        first = after_number(page)
        start = since - since % width if first is None else first
        if start % width or not since - width < start < end:
            raise Invalid("page is not a cursor of this list.", code="invalid_cursor", param="page")
        last = min(end, start + (limit or usual) * width)
        return cls(named, width, range(start, last, width), end)

    async def sums(
        self,
        services: Services,
        caller: Principal,
        by_model: bool,
        models: list[str] | None,
        user_ids: list[str] | None,
    ) -> dict[Millis, dict[str | None, Total]]:
        """What was used in each stretch, by model or all together."""
        sought = Sought(
            since=self.starts.start,
            until=min(self.end, self.starts[-1] + self.width),
            width=self.named,
            by=("model", "user"),
        )
        rows = await services.reports.rows(caller, sought, whole_organization=True)
        found: dict[Millis, dict[str | None, Total]] = {}
        for row in rows:
            if _wanted(row, models, user_ids):
                bucket = found.setdefault(row.start or 0, {})
                name = row.group[0] if by_model else None
                bucket[name] = bucket.get(name, Total()) + row.total
        return found

    def rest(self, services: Services) -> dict[str, Any]:
        """What follows the page."""
        following = self.starts[-1] + self.width
        more = following < self.end
        return {
            "data_refreshed_at": iso(services.clock.now()),
            "has_more": more,
            "next_page": str(following) if more else None,
        }


_LATEST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp() * 1000)


def _wanted(row: Row, models: list[str] | None, user_ids: list[str] | None) -> bool:
    model, user = row.group
    return (models is None or model in models) and (user_ids is None or user in user_ids)


def _usage(model: str | None, total: Total) -> UsageResult:
    used = total.usage
    return UsageResult(
        model=model,
        requests=total.calls,
        cache_creation=CacheCreation(
            ephemeral_1h_input_tokens=used.cache_write_1h_tokens,
            ephemeral_5m_input_tokens=used.cache_write_tokens - used.cache_write_1h_tokens,
        ),
        cache_read_input_tokens=used.cache_read_tokens,
        output_tokens=used.output_tokens,
        uncached_input_tokens=used.input_tokens,
    )


def _cost(model: str | None, total: Total) -> CostResult:
    amount = cents(total.cost)
    return CostResult(model=model, requests=total.calls, amount=amount, list_amount=amount)


def cents(amount: MicroDollars) -> str:
    """Micro-dollars in cents, exactly, without zeros at the end."""
    return f"{(Decimal(amount) / PER_CENT).normalize():f}"


def install(api: FastAPI) -> None:
    """Add the routes."""
    tag, here = "organization", "/v1/organizations/analytics"
    for name, endpoint, summary, reply in (
        ("usage_report", get_usage_report, "Report usage", UsageReportPage),
        ("cost_report", get_cost_report, "Report cost", CostReportPage),
    ):
        add(api, "GET", f"{here}/{name}", endpoint, summary=summary, reply=reply, tag=tag)
