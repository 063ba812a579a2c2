"""Sums over a stretch of time: whole hours from the roll-ups, the rest from the ledger.

The edges of the stretch, and lines that no roll-up has yet, are read from the ledger itself: a sum
is exact to the millisecond and to the last settled call, whatever the roll-ups have got to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import Table, func, literal, select

from stationmaster.budgets.entry import Usage
from stationmaster.budgets.rollup import HOUR_MS, Sums, add, amounts, hour_of, ledger_sums
from stationmaster.budgets.tables import TOTALS, ledger, ledger_news, usage_hours, usage_tags
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import MicroDollars
from stationmaster.storage import Transaction

Dimension = Literal["project", "key", "user", "model", "provider", "session", "tag"]
Width = Literal["minute", "hour", "day"]

_WIDTH_MS: dict[Width, int] = {"minute": 60_000, "hour": HOUR_MS, "day": 24 * HOUR_MS}
_COLUMNS: dict[Dimension, str] = {
    "project": "project_id",
    "key": "key_id",
    "user": "user_id",
    "model": "model",
    "provider": "provider",
    "session": "session_id",
}
_FOR_EVER = 2**62
NEWS = 1_000  # lines that are asked for by their ids at once


@dataclass(frozen=True, slots=True)
class Total:
    """What some calls have used together."""

    usage: Usage = field(default_factory=Usage)
    cost: MicroDollars = 0
    calls: int = 0

    def __add__(self, other: "Total") -> "Total":
        return Total(self.usage + other.usage, self.cost + other.cost, self.calls + other.calls)


@dataclass(frozen=True, slots=True)
class Sought:
    """Which calls, from `since` to before `until`, and what to tell apart.

    `width` cuts time into the minutes, hours or days of UTC; `by` tells the rest apart. The ids
    and names keep what is of these alone. Tags go with projects only, since a call may have
    several.
    """

    since: Millis
    until: Millis | None = None
    width: Width | None = None
    by: tuple[Dimension, ...] = ()
    project_id: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    provider: str | None = None
    session_id: str | None = None
    tag: str | None = None

    def within(self, project_id: str) -> "Sought":
        """The same of one project. Another project's is empty, not refused."""
        if self.project_id not in {None, project_id}:
            return replace(self, since=0, until=0, project_id=project_id)
        return replace(self, project_id=project_id)


@dataclass(frozen=True, slots=True)
class Row:
    """One sum. `start` is its stretch's, with a `width`; `group` has a value for each of `by`."""

    start: Millis | None
    group: tuple[str | None, ...]
    total: Total


def totals(tx: Transaction, organization_id: str, sought: Sought) -> list[Row]:
    """The sums of what is sought in one organisation. Raises `Invalid` for a sum there is not."""
    if len(set(sought.by)) != len(sought.by):
        raise Invalid("A dimension is named twice.", param="group_by")
    sums: Sums = {}
    if sought.tag is not None or "tag" in sought.by:
        _by_tag(tx, organization_id, sought, sums)
    else:
        _by_columns(tx, organization_id, sought, sums)
    return [
        Row(
            start=key[0] if sought.width else None,
            group=tuple(each or None for each in key[1:]),
            total=_total(values),
        )
        for key, values in sorted(sums.items())
    ]


def _total(sums: Sequence[int]) -> Total:
    named = dict(zip(TOTALS, sums, strict=True))
    return Total(
        usage=Usage(
            named["input_tokens"],
            named["output_tokens"],
            named["cache_write_tokens"],
            named["cache_read_tokens"],
            named["cache_write_1h_tokens"],
        ),
        cost=named["cost"],
        calls=named["calls"],
    )


def _start(column: Any, sought: Sought) -> Any:
    if sought.width is None:
        return literal(0).label("start")
    return (column - column % _WIDTH_MS[sought.width]).label("start")


def _by_columns(tx: Transaction, organization_id: str, sought: Sought, sums: Sums) -> None:
    until = _FOR_EVER if sought.until is None else sought.until
    first, last = hour_of(sought.since + HOUR_MS - 1), hour_of(until)
    at = ledger.c.at
    conditions = _conditions(ledger, organization_id, sought)
    fine = sought.width == "minute" or "session" in sought.by or sought.session_id is not None
    if fine or first >= last:
        stretches: list[tuple[Any, ...]] = [(at >= sought.since, at < until)]
    else:
        stretches = _edges_and_news(tx, (sought.since, first, last, until))
        _add_hours(tx, organization_id, sought, (first, last), sums)
    groups = [_start(at, sought), *(_group(ledger, name) for name in sought.by)]
    for stretch in stretches:
        _collect(tx, ledger_sums(groups, *conditions, *stretch), len(groups), sums)


def _edges_and_news(
    tx: Transaction, bounds: tuple[Millis, Millis, Millis, Millis]
) -> list[tuple[Any, ...]]:
    """The conditions of the lines that are in no roll-up between the bounds in the middle."""
    since, first, last, until = bounds
    at = ledger.c.at
    stretches: list[tuple[Any, ...]] = [(at >= since, at < first), (at >= last, at < until)]
    # By their ids: asked in one with the time, a planner would read the whole of that time.
    after = ""
    while True:
        query = select(ledger_news.c.call_id).where(ledger_news.c.call_id > after)
        ids = tx.execute(query.order_by(ledger_news.c.call_id).limit(NEWS)).scalars().all()
        if not ids:
            return stretches
        stretches.append((at + 0 >= first, at + 0 < last, ledger.c.call_id.in_(ids)))
        after = ids[-1]


def _add_hours(
    tx: Transaction,
    organization_id: str,
    sought: Sought,
    hours: tuple[Millis, Millis],
    sums: Sums,
) -> None:
    table = usage_hours
    groups = [_start(table.c.hour, sought), *(_group(table, name) for name in sought.by)]
    query = (
        select(*groups, *(func.sum(table.c[name]) for name in TOTALS))
        .where(
            *_conditions(table, organization_id, sought),
            table.c.hour >= hours[0],
            table.c.hour < hours[1],
        )
        .group_by(*groups)
    )
    _collect(tx, query, len(groups), sums)


def _group(table: Table, name: Dimension) -> Any:
    return func.coalesce(table.c[_COLUMNS[name]], "").label(name)


def _conditions(table: Table, organization_id: str, sought: Sought) -> list[Any]:
    found = [table.c.organization_id == organization_id]
    for name in _COLUMNS.values():
        value = getattr(sought, name)
        if value is not None:
            found.append(table.c[name] == value)
    return found


def _collect(tx: Transaction, query: Any, groups: int, sums: Sums) -> None:
    for row in tx.execute(query):
        # PostgreSQL sums to a Decimal; where nothing is grouped, nothing sums to None.
        if row[groups]:
            add(sums, tuple(row[:groups]), [int(value) for value in row[groups:]])


def _by_tag(tx: Transaction, organization_id: str, sought: Sought, sums: Sums) -> None:
    others = (sought.key_id, sought.user_id, sought.model, sought.provider, sought.session_id)
    if set(sought.by) - {"tag", "project"} or any(others) or sought.width == "minute":
        raise Invalid(
            "Tags can be told apart by project, day and hour, and by nothing else.",
            param="group_by",
        )
    until = _FOR_EVER if sought.until is None else sought.until
    first, last = hour_of(sought.since + HOUR_MS - 1), hour_of(until)
    mine = [usage_tags.c.organization_id == organization_id]
    if sought.project_id is not None:
        mine.append(usage_tags.c.project_id == sought.project_id)
    if sought.tag is not None:
        mine.append(usage_tags.c.tag == sought.tag)
    rolled = (usage_tags.c.hour >= first, usage_tags.c.hour < last)
    for row in tx.execute(select(usage_tags).where(*mine, *rolled)):
        _add_tag(sums, sought, row, [getattr(row, name) for name in TOTALS])
    _tags_of_lines(tx, organization_id, sought, (first, last, until), sums)


def _tags_of_lines(
    tx: Transaction,
    organization_id: str,
    sought: Sought,
    bounds: tuple[Millis, Millis, Millis],
    sums: Sums,
) -> None:
    first, last, until = bounds
    at = ledger.c.at
    stretches: list[tuple[Any, ...]] = [(at >= sought.since, at < until)]
    if first < last:
        stretches = _edges_and_news(tx, (sought.since, first, last, until))
    mine = [ledger.c.organization_id == organization_id, ledger.c.tags.is_not(None)]
    if sought.project_id is not None:
        mine.append(ledger.c.project_id == sought.project_id)
    for stretch in stretches:
        for line in tx.execute(select(ledger).where(*mine, *stretch)):
            for tag in line.tags:
                if sought.tag in {None, tag}:
                    tagged = _Tagged(tag, line.project_id, hour_of(line.at))
                    _add_tag(sums, sought, tagged, amounts(line))


@dataclass(frozen=True, slots=True)
class _Tagged:
    tag: str
    project_id: str
    hour: Millis


def _add_tag(sums: Sums, sought: Sought, row: Any, values: Sequence[int]) -> None:
    start = 0 if sought.width is None else row.hour - row.hour % _WIDTH_MS[sought.width]
    names = {"tag": row.tag, "project": row.project_id}
    add(sums, (start, *(names[name] for name in sought.by)), values)
