"""Roll-ups: the ledger's sums by hour, kept off the hot path.

A settlement puts its line's id among the news; `fold` adds the news to the sums and takes them
off the list in one transaction, so each line is counted once. Sums and news together are the
ledger at every moment.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from sqlalchemy import Table, delete, func, insert, select

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.budgets.tables import TOTALS, ledger, ledger_news, usage_hours, usage_tags
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, Prepared, Transaction, among

log = structlog.get_logger(__name__)

HOUR_MS = 3_600_000
SLICE_MS = 30 * 24 * HOUR_MS  # what one statement of a rebuild sums
FOLD_BATCH = 500  # lines; other verbs wait for so many at most on SQLite
EVERY_S = 2.0

_LOCK_ID = ""  # of the row among the news that whoever changes the sums locks first
_FORGET = Prepared(delete(ledger_news).where(among(ledger_news.c.call_id, "calls")))
_SUMMED = TOTALS[1:]  # all but the count of calls

Key = tuple[Any, ...]
Sums = dict[Key, list[int]]


def dimensions(table: Table) -> list[str]:
    """What a roll-up is by."""
    return [column.name for column in table.columns if column.name not in TOTALS]


class Rollups:
    """Keeps the sums up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Fold for ever. For a background task; several servers may."""
        while True:
            try:
                folded = await self.fold()
            except Unavailable:
                folded = 0
                log.warning("The usage cannot be summed now; trying again.")
            if folded < FOLD_BATCH:
                await asyncio.sleep(EVERY_S)

    async def fold(self) -> int:
        """Add a batch of the news to the sums; return how many lines."""
        if not await self._database.read(_waiting):  # mostly: then the writer is left alone
            return 0
        return await self._database.write(_fold)

    async def rebuild(self) -> int:
        """Make the sums anew from the ledger alone; return how many lines it has.

        One transaction: cut at any point, the old sums are still there. On SQLite nothing else
        can be written meanwhile.
        """
        return await self._database.write(_rebuild)


def _lock(tx: Transaction) -> None:
    tx.execute(upsert(ledger_news).on_conflict_do_nothing(), {"call_id": _LOCK_ID})
    tx.execute(
        select(ledger_news.c.call_id).where(ledger_news.c.call_id == _LOCK_ID).with_for_update()
    )


def _waiting(tx: Transaction) -> bool:
    news = select(ledger_news.c.call_id).where(ledger_news.c.call_id > _LOCK_ID).limit(1)
    return tx.execute(news).first() is not None


def _fold(tx: Transaction) -> int:
    _lock(tx)
    news = {"calls": [call_id for (call_id,) in tx.run(_NEWS, {})]}
    if not news["calls"]:
        return 0
    groups = len(hour_groups())
    # The database sums: reading each line into Python took a twentieth of what a call costs.
    hours = {row[:groups]: [int(value) for value in row[groups:]] for row in tx.run(_HOURS, news)}
    tags: Sums = {}
    for line in tx.execute(_TAGGED, news):
        for key in tag_keys(line):
            add(tags, key, amounts(line))
    _write(tx, usage_hours, hours)
    _write(tx, usage_tags, tags)
    tx.run(_FORGET, news)
    return len(news["calls"])


def hour_of(at: Millis) -> Millis:
    """The start of the hour that a moment is in."""
    return at - at % HOUR_MS


def hour_key(line: Any) -> Key:
    """Where a line counts in `usage_hours`: its dimensions in their order."""
    return (
        line.project_id,
        hour_of(line.at),
        line.key_id,
        line.user_id or "",
        line.provider,
        line.model,
        line.organization_id,
    )


def tag_keys(line: Any) -> list[Key]:
    """Where a line counts in `usage_tags`."""
    tags = line.tags or ()
    return [(line.project_id, tag, hour_of(line.at), line.organization_id) for tag in tags]


def amounts(line: Any) -> list[int]:
    """What a line counts, in the order of `TOTALS`."""
    return [1, *(getattr(line, name) for name in _SUMMED)]


def add(sums: Sums, key: Key, more: Iterable[int]) -> None:
    """Add to the sums of a key."""
    present = sums.get(key)
    new = list(more)
    sums[key] = new if present is None else [a + b for a, b in zip(present, new, strict=True)]


def ledger_sums(groups: Sequence[Any], *conditions: Any) -> Any:
    """A query that sums the ledger by expressions, with the totals in the order of `TOTALS`."""
    sums = [func.count(), *(func.sum(ledger.c[name]) for name in _SUMMED)]
    return select(*groups, *sums).where(*conditions).group_by(*groups)


def hour_groups() -> list[Any]:
    """The dimensions of `usage_hours` as expressions over the ledger."""
    columns = ledger.c
    return [
        columns.project_id,
        (columns.at - columns.at % HOUR_MS).label("hour"),
        columns.key_id,
        func.coalesce(columns.user_id, "").label("user_id"),
        columns.provider,
        columns.model,
        columns.organization_id,
    ]


_NEWS = Prepared(
    select(ledger_news.c.call_id)
    .where(ledger_news.c.call_id > _LOCK_ID)
    .order_by(ledger_news.c.call_id)
    .limit(FOLD_BATCH)
)
_TOLD = among(ledger.c.call_id, "calls")
_HOURS = Prepared(ledger_sums(hour_groups(), _TOLD))
_TAGGED = select(ledger).where(_TOLD, ledger.c.tags.is_not(None))


def _write(tx: Transaction, table: Table, sums: Sums) -> None:
    if not sums:
        return
    names = dimensions(table)
    adding = upsert(table)
    adding = adding.on_conflict_do_update(
        index_elements=[column.name for column in table.primary_key],
        set_={name: table.c[name] + adding.excluded[name] for name in TOTALS},
    )
    tx.execute(
        adding,
        [  # in one order for everybody
            dict(zip([*names, *TOTALS], [*key, *values], strict=True))
            for key, values in sorted(sums.items())
        ],
    )


def _rebuild(tx: Transaction) -> int:
    _lock(tx)
    tx.execute(delete(ledger_news).where(ledger_news.c.call_id != _LOCK_ID))
    tx.execute(delete(usage_hours))
    tx.execute(delete(usage_tags))
    lines = 0
    # A line that is settled meanwhile is among the news, and not summed here.
    news = select(ledger_news.c.call_id)
    for since, until in slices(tx):
        within = (
            ledger.c.at >= since,
            ledger.c.at < until,
            ledger.c.call_id.not_in(news),
        )
        query = ledger_sums(hour_groups(), *within)
        tx.execute(insert(usage_hours).from_select([*dimensions(usage_hours), *TOTALS], query))
        lines += tx.execute(select(func.count()).select_from(ledger).where(*within)).scalar_one()
        tags: Sums = {}
        for line in tx.execute(select(ledger).where(*within, ledger.c.tags.is_not(None))):
            for key in tag_keys(line):
                add(tags, key, amounts(line))
        _write(tx, usage_tags, tags)
    return lines


def slices(tx: Transaction) -> list[tuple[Millis, Millis]]:
    """The ledger's time in pieces that one statement can take on."""
    first: Millis | None = tx.execute(select(func.min(ledger.c.at))).scalar()
    last: Millis | None = tx.execute(select(func.max(ledger.c.at))).scalar()
    if first is None or last is None:
        return []
    return [(since, since + SLICE_MS) for since in range(hour_of(first), last + 1, SLICE_MS)]
