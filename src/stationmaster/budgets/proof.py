"""The proof that the books agree: the ledger, its roll-ups, and the budgets, to the micro-dollar.

Read in one snapshot, beside everything else that goes on. It finds any difference of one.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, func, select

from stationmaster.budgets.rollup import (
    Sums,
    add,
    amounts,
    dimensions,
    hour_groups,
    hour_key,
    ledger_sums,
    slices,
    tag_keys,
)
from stationmaster.budgets.tables import (
    TOTALS,
    budget_periods,
    budgets,
    holds,
    ledger,
    ledger_news,
    usage_hours,
    usage_tags,
)
from stationmaster.kernel.clock import Millis
from stationmaster.storage import Database, Transaction

PAGE = 5_000  # lines held in memory at once
MOST = 1_000  # differences that are listed; more say nothing more

Account = tuple[str, Millis]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two figures that should be one. `what` names the second, `expected` is by the ledger."""

    what: str
    where: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and what did not agree."""

    lines: int
    cost: int
    budgets: int
    holds: int
    differences: tuple[Difference, ...]

    @property
    def holds_good(self) -> bool:
        """Whether the books agree."""
        return not self.differences


async def prove(database: Database) -> Proof:
    """Compare the books. Takes as long as reading the ledger does. Raises `Unavailable`."""
    return await database.read(_prove)


def _prove(tx: Transaction) -> Proof:
    spent: Counter[Account] = Counter()
    held: Counter[Account] = Counter()
    lines = cost = 0
    for line in _lines(tx):
        lines += 1
        cost += line.cost
        for budget_id, start, unit in line.charges or ():
            spent[budget_id, start] += line.cost if unit == "usd" else line.tokens
    open_holds = tx.execute(select(holds).order_by(holds.c.call_id)).all()
    for hold in open_holds:
        for budget_id, start, unit in hold.charges:
            held[budget_id, start] += hold.amount if unit == "usd" else hold.tokens
    accounts = _accounts(tx)
    found: list[Difference] = []
    for account, (is_spent, is_held) in accounts.items():
        where = f"{account[0]} from {account[1]}"
        found += _unlike("spent of a budget", where, spent[account], is_spent)
        found += _unlike("held of a budget", where, held[account], is_held)
    found += [
        Difference("hold of a call that is in the ledger", call_id, 0, 1)
        for call_id in tx.execute(
            select(holds.c.call_id).join(ledger, ledger.c.call_id == holds.c.call_id)
        ).scalars()
    ]
    found += _roll_ups(tx)
    return Proof(lines, cost, len(accounts), len(open_holds), tuple(found[:MOST]))


def _lines(tx: Transaction) -> Iterator[Any]:
    after = ""
    columns = (ledger.c.call_id, ledger.c.cost, ledger.c.tokens, ledger.c.charges)
    while True:
        query = select(*columns).where(ledger.c.call_id > after).order_by(ledger.c.call_id)
        page = tx.execute(query.limit(PAGE)).all()
        if not page:
            return
        yield from page
        after = page[-1].call_id


def _accounts(tx: Transaction) -> dict[Account, tuple[int, int]]:
    columns = ("period_start", "spent", "held")
    present = select(budgets.c.id, *(budgets.c[name] for name in columns))
    past = select(budget_periods.c.budget_id, *(budget_periods.c[name] for name in columns))
    found: dict[Account, tuple[int, int]] = {}
    for query in (present, past):
        for budget_id, start, spent, held in map(tuple, tx.execute(query).all()):
            found[budget_id, start] = (spent, held)
    return found


def _unlike(what: str, where: str, expected: int, found: int) -> list[Difference]:
    return [] if expected == found else [Difference(what, where, expected, found)]


def _roll_ups(tx: Transaction) -> Iterator[Difference]:
    """Compare the roll-ups and what they do not have yet with the ledger."""
    news: tuple[Sums, Sums] = {}, {}
    waiting = tx.execute(
        select(ledger).join(ledger_news, ledger_news.c.call_id == ledger.c.call_id)
    )
    for line in waiting:
        add(news[0], hour_key(line), amounts(line))
        for key in tag_keys(line):
            add(news[1], key, amounts(line))
    compared: set[Millis] = set()
    for since, until in slices(tx):
        within = (ledger.c.at >= since, ledger.c.at < until)
        hours: Sums = {}
        groups = hour_groups()
        for row in map(tuple, tx.execute(ledger_sums(groups, *within))):
            add(hours, row[: len(groups)], map(int, row[len(groups) :]))
        yield from _compare(tx, usage_hours, hours, news[0], (since, until))
        tags: Sums = {}
        for line in tx.execute(select(ledger).where(*within, ledger.c.tags.is_not(None))):
            for key in tag_keys(line):
                add(tags, key, amounts(line))
        yield from _compare(tx, usage_tags, tags, news[1], (since, until))
        compared.add(since)
    yield from _strays(tx, compared)


def _compare(
    tx: Transaction, table: Table, expected: Sums, news: Sums, within: tuple[Millis, Millis]
) -> Iterator[Difference]:
    names = dimensions(table)
    hour = names.index("hour")
    found: Sums = {}
    query = select(table).where(table.c.hour >= within[0], table.c.hour < within[1])
    for row in tx.execute(query):
        add(found, tuple(getattr(row, n) for n in names), [getattr(row, n) for n in TOTALS])
    for key, values in news.items():
        if within[0] <= key[hour] < within[1]:
            add(found, key, values)
    nothing = [0] * len(TOTALS)
    for key in sorted(expected.keys() | found.keys()):
        both = zip(expected.get(key, nothing), found.get(key, nothing), strict=True)
        for name, (is_expected, is_found) in zip(TOTALS, both, strict=True):
            where = " ".join(str(part) for part in key)
            yield from _unlike(f"{name} of {table.name}", where, is_expected, is_found)


def _strays(tx: Transaction, compared: set[Millis]) -> Iterator[Difference]:
    """Sums of hours in which the ledger has nothing at all."""
    for table in (usage_hours, usage_tags):
        query = select(func.count()).select_from(table)
        if compared:
            last = max(end for _, end in slices(tx))
            query = query.where((table.c.hour < min(compared)) | (table.c.hour >= last))
        rows = int(tx.execute(query).scalar_one())
        yield from _unlike(f"rows of {table.name} without a line", "outside of the ledger", 0, rows)
