"""What was used and what it cost, by whatever it can be told apart by."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from sqlalchemy import and_, or_, select

from stationmaster.budgets.entry import Usage
from stationmaster.budgets.tables import budgets, ledger
from stationmaster.budgets.totals import Dimension, Row, Sought, Total, Width, totals
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

Period = Literal["day", "week", "month"]
"""`month` is the calendar month in UTC; `week` and `day` are the last 7 days and 24 hours."""

OFFLINE = "offline"
LINES = 1_000  # of the ledger in one page of an export

_ROLLING_MS = {"day": 86_400_000, "week": 7 * 86_400_000}

ModelUsage = Total


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A project's usage since `since`.

    What the built-in script answered stands apart, as `MODEL (offline)`: it is priced like the
    model that was asked for, but nobody is charged for it. `limit` and `remaining` are those of the
    project's budget of tokens, if it has one: that of the same period before any other.
    """

    project_id: str
    period: Period
    since: Millis
    by_model: dict[str, ModelUsage]
    limit: int | None = None
    remaining: int | None = None
    groups: tuple[Row, ...] = ()

    @property
    def total(self) -> ModelUsage:
        """All models together."""
        return sum(self.by_model.values(), Total())


@dataclass(frozen=True, slots=True)
class Only:
    """Whose usage alone."""

    key_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One settled call, as it is exported."""

    call_id: str
    at: Millis
    project_id: str
    key_id: str
    user_id: str | None
    session_id: str | None
    run_id: str | None
    tags: tuple[str, ...]
    provider: str
    model: str
    usage: Usage
    cost: int
    outcome: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a project has used this month, and its budget of tokens, None where it has none."""

    tokens: int
    cost: MicroDollars
    limit: int | None
    remaining: int | None


class Reports:
    """Reads the roll-ups and the ledger. Each report is of one point in time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def usage(
        self,
        principal: Principal,
        period: str,
        *,
        by: tuple[Dimension, ...] = (),
        width: Width | None = None,
        only: Only | None = None,
        whole_organization: bool = False,
    ) -> UsageReport:
        """The usage of the caller's project, or with the right to manage it the organisation.

        With `by` or `width` there are also sums told apart by these; `only` keeps what is of some
        key, user, model or session. Raises `Invalid` for an unknown period or combination.
        """
        principal.require("read:usage")
        if whole_organization:
            principal.require("admin:organization")
        known, since = self.since(period)
        only = only or Only()
        sought = Sought(
            since=since,
            project_id=None if whole_organization else principal.owner.project_id,
            key_id=only.key_id,
            user_id=only.user_id,
            model=only.model,
            session_id=only.session_id,
        )
        models = replace(sought, by=("model", "provider"))
        apart = replace(sought, by=by, width=width)

        def query(tx: Transaction) -> tuple[list[Row], list[Row], tuple[int, int] | None]:
            organization_id = principal.owner.organization_id
            groups = totals(tx, organization_id, apart) if by or width else []
            rows = totals(tx, organization_id, models)
            return rows, groups, _allowance(tx, principal, known, self._clock.now())

        rows, groups, allowance = await self._database.browse(query)
        by_model: dict[str, ModelUsage] = {}
        for row in rows:
            model, provider = row.group
            name = f"{model} (offline)" if provider == OFFLINE else str(model)
            by_model[name] = by_model.get(name, Total()) + row.total
        limit, remaining = allowance or (None, None)
        return UsageReport(
            principal.owner.project_id, known, since, by_model, limit, remaining, tuple(groups)
        )

    async def standing(self, principal: Principal) -> Standing:
        """Where the caller's project stands this month. For choosing a model: needs no right."""
        _, since = self.since("month")
        sought = Sought(since=since, project_id=principal.owner.project_id)

        def query(tx: Transaction) -> tuple[list[Row], tuple[int, int] | None]:
            rows = totals(tx, principal.owner.organization_id, sought)
            return rows, _allowance(tx, principal, "month", self._clock.now())

        rows, allowance = await self._database.read(query)
        total = sum((row.total for row in rows), Total())
        limit, remaining = allowance or (None, None)
        return Standing(total.usage.total, total.cost, limit, remaining)

    def since(self, period: str) -> tuple[Period, Millis]:
        """When the day, week or month of a report began. Raises `Invalid` for an unknown one."""
        if period not in get_args(Period):
            raise Invalid("period must be day, week or month.", param="period")
        known = cast(Period, period)
        now = self._clock.now()
        if known in _ROLLING_MS:
            return known, now - _ROLLING_MS[known]
        today = datetime.fromtimestamp(now / 1000, UTC)
        first = datetime(today.year, today.month, 1, tzinfo=UTC)
        return known, int(first.timestamp() * 1000)

    async def rows(
        self, principal: Principal, sought: Sought, *, whole_organization: bool = False
    ) -> list[Row]:
        """The sums of what is sought, in the order of time and groups.

        Of the caller's project, or with the right to manage it of the organisation. Raises
        `Invalid` for what cannot be told apart.
        """
        principal.require("read:usage")
        if whole_organization:
            principal.require("admin:organization")
        else:
            sought = sought.within(principal.owner.project_id)
        organization_id = principal.owner.organization_id
        return await self._database.browse(lambda tx: totals(tx, organization_id, sought))

    async def lines(
        self,
        principal: Principal,
        since: Millis,
        until: Millis | None = None,
        *,
        whole_organization: bool = False,
    ) -> AsyncIterator[list[Line]]:
        """The ledger's lines from `since` to before `until` (by default now), a page at a time.

        Of the project, or with the right to manage it of the organisation. Nothing is kept open
        between the pages.
        """
        principal.require("read:usage")
        if whole_organization:
            principal.require("admin:organization")
        end = self._clock.now() + 1 if until is None else until
        columns = ledger.c
        mine = [columns.organization_id == principal.owner.organization_id, columns.at < end]
        if not whole_organization:
            mine.append(columns.project_id == principal.owner.project_id)
        after: tuple[Millis, str] = (since, "")
        while True:
            at, call_id = after
            query = (
                select(ledger)
                .where(
                    *mine,
                    or_(columns.at > at, and_(columns.at == at, columns.call_id > call_id)),
                )
                .order_by(columns.at, columns.call_id)
                .limit(LINES)
            )
            rows = await self._database.browse(lambda tx, page=query: tx.execute(page).all())  # type: ignore[misc]
            if not rows:
                return
            yield [_line(row) for row in rows]
            after = (rows[-1].at, rows[-1].call_id)


def _allowance(
    tx: Transaction, principal: Principal, period: Period, now: Millis
) -> tuple[int, int] | None:
    """The limit of the project's budget of tokens, and what is left of it."""
    rows = tx.execute(
        select(budgets).where(
            budgets.c.subject == f"project:{principal.owner.project_id}",
            budgets.c.organization_id == principal.owner.organization_id,
            budgets.c.unit == "tokens",
        )
    ).all()
    if not rows:
        return None
    rows = [row for row in rows if row.period == period] or rows

    def left(row: Any) -> int:
        if row.period_end is not None and now >= row.period_end:
            return int(row.limit)  # nobody has spent anything in this period yet
        return max(0, int(row.limit) - int(row.spent) - int(row.held))

    tightest = min(rows, key=left)
    return int(tightest.limit), left(tightest)


def _line(row: Any) -> Line:
    return Line(
        call_id=row.call_id,
        at=row.at,
        project_id=row.project_id,
        key_id=row.key_id,
        user_id=row.user_id,
        session_id=row.session_id,
        run_id=row.run_id,
        tags=tuple(row.tags or ()),
        provider=row.provider,
        model=row.model,
        usage=Usage(
            row.input_tokens,
            row.output_tokens,
            row.cache_write_tokens,
            row.cache_read_tokens,
            row.cache_write_1h_tokens,
        ),
        cost=row.cost,
        outcome=row.outcome,
        duration_ms=row.duration_ms,
    )


__all__ = [
    "Dimension",
    "Line",
    "ModelUsage",
    "Only",
    "Period",
    "Reports",
    "Row",
    "Sought",
    "Total",
    "UsageReport",
    "Width",
]
