"""Roll-ups, the ledger and the budgets say the same, and the proof finds where they do not."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, update

from stationmaster.budgets import Budgets, Definitions, Reports, Rollups, Sought, Usage
from stationmaster.budgets.proof import prove
from stationmaster.budgets.report import Dimension, Row, Total, Width
from stationmaster.budgets.rollup import FOLD_BATCH, HOUR_MS
from stationmaster.budgets.tables import (
    budget_periods,
    holds,
    ledger,
    ledger_news,
    usage_hours,
    usage_tags,
)
from stationmaster.budgets.tables import (
    budgets as budgets_table,
)
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from tests.unit.budgets.support import ADMIN, OWNER, call, entry, of, rows, set_budget

NOW = 1_769_774_400_000  # 2026-01-30T12:00:00Z
TAGS: list[tuple[str, ...]] = [(), (), ("red",), ("red", "blue")]


async def fill(budgets: Budgets, lines: int, seed: int = 1) -> None:
    """A ledger of a few keys, models and days."""
    rng = random.Random(seed)

    async def one() -> None:
        owner = Owner("org_default", rng.choice(["proj_default", "proj_other"]))
        context = call(
            None,
            owner=owner,
            model=rng.choice(["opus", "haiku"]),
            key_id=rng.choice(["key_1", "key_2"]),
            user_id=rng.choice([None, "user_1"]),
            session_id=rng.choice([None, "sesn_1", "sesn_2"]),
            tags=rng.choice(TAGS),
        )
        usage = Usage(*(rng.randrange(100) for _ in range(4)))
        at = NOW - rng.randrange(40 * 24 * HOUR_MS)
        made = entry(context, rng.randrange(1000), usage=usage, at=at)
        await budgets.reserve(context, made.cost, tokens=made.tokens)
        await budgets.settle(made)

    await asyncio.gather(*(one() for _ in range(lines)))


async def fold_all(rollups: Rollups) -> int:
    folded = 0
    while more := await rollups.fold():
        folded += more
    return folded


async def test_each_line_is_folded_once_by_however_many(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, 80)
    assert (await prove(database)).differences == ()
    others = [Rollups(database) for _ in range(3)]
    assert sum(await asyncio.gather(*(each.fold() for each in (rollups, *others)))) == 80
    assert await fold_all(rollups) == 0
    assert sum(row.calls for row in await rows(database, usage_hours)) == 80
    await fill(budgets, 5, seed=2)
    assert (await prove(database)).differences == ()
    assert await fold_all(rollups) == 5
    proof = await prove(database)
    assert (proof.differences, proof.lines) == ((), 85)
    assert proof.cost == sum(row.cost for row in await rows(database, ledger))


async def test_a_rebuild_gives_what_folding_gave(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, 60)
    await fold_all(rollups)
    tables = (usage_hours, usage_tags)
    folded = [sorted(map(tuple, await rows(database, table))) for table in tables]
    await fill(budgets, 0)
    await database.write(lambda tx: tx.execute(update(usage_hours).values(cost=7)))
    assert (await prove(database)).differences != ()
    assert await rollups.rebuild() == 60
    assert [sorted(map(tuple, await rows(database, table))) for table in tables] == folded
    assert (await prove(database)).differences == ()
    assert await rollups.rebuild() == 60


async def test_rebuilding_while_calls_are_settled_and_folded_loses_none(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, 30)
    await asyncio.gather(
        fill(budgets, 60, seed=2),
        rollups.rebuild(),
        rollups.fold(),
        fill(budgets, 60, seed=3),
        Rollups(database).rebuild(),
        Rollups(database).fold(),
    )
    await fold_all(rollups)
    proof = await prove(database)
    assert (proof.differences, proof.lines) == ((), 150)


async def test_a_fold_takes_no_more_than_its_batch(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, FOLD_BATCH + 1)
    assert [await rollups.fold() for _ in range(3)] == [FOLD_BATCH, 1, 0]
    assert (await prove(database)).differences == ()


PLANTED: list[tuple[Table, str, str]] = [
    (ledger, "cost", "spent of a budget"),
    (ledger, "cost", "cost of usage_hours"),
    (usage_hours, "cost", "cost of usage_hours"),
    (usage_hours, "output_tokens", "output_tokens of usage_hours"),
    (usage_hours, "calls", "calls of usage_hours"),
    (usage_tags, "cost", "cost of usage_tags"),
    (budgets_table, "spent", "spent of a budget"),
    (budgets_table, "held", "held of a budget"),
    (budget_periods, "spent", "spent of a budget"),
    (holds, "amount", "held of a budget"),
]


@pytest.mark.parametrize("by", [1, -1])
@pytest.mark.parametrize(("table", "column", "what"), PLANTED)
async def test_a_difference_of_one_is_found_wherever_it_is(
    *,
    database: Database,
    budgets: Budgets,
    definitions: Definitions,
    rollups: Rollups,
    clock: ManualClock,
    table: Table,
    column: str,
    what: str,
    by: int,
) -> None:
    await set_budget(definitions, "project", "proj_default", 10**9)
    await set_budget(definitions, "key", "key_1", 10**9, period="day")
    await fill(budgets, 20)
    clock.advance(86_400)
    await fill(budgets, 20, seed=2)
    await budgets.reserve(call(), 50)
    await fold_all(rollups)
    assert (await prove(database)).differences == ()

    def plant(tx: Any) -> None:
        keys = list(table.primary_key)
        chosen = tx.execute(select(*keys).where(table.c[column] > 0).limit(1)).one()
        same = [key == value for key, value in zip(keys, chosen, strict=True)]
        tx.execute(update(table).where(*same).values({column: table.c[column] + by}))

    await database.write(plant)
    found = (await prove(database)).differences
    assert what in {each.what for each in found}
    assert all(abs(each.expected - each.found) == 1 for each in found)


async def test_sums_without_lines_and_holds_with_one_are_found(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, 3)
    await fold_all(rollups)
    (line, *_) = await rows(database, ledger)

    def plant(tx: Any) -> None:
        (row, *_) = tx.execute(select(usage_hours)).all()
        tx.execute(insert(usage_hours), {**row._asdict(), "hour": 0})
        tx.execute(
            insert(holds),
            {
                **{name: getattr(line, name) for name in ("call_id", "provider", "model")},
                "organization_id": "org_default",
                "project_id": "proj_default",
                "key_id": "key_1",
                "amount": 0,
                "charges": [],
                "instance_id": "ins_a",
                "created_at": 0,
            },
        )

    await database.write(plant)
    assert {each.what for each in (await prove(database)).differences} == {
        "rows of usage_hours without a line",
        "hold of a call that is in the ledger",
    }


# --- reports ------------------------------------------------------------------------------------


def brute(lines: Sequence[Any], sought: Sought) -> list[Row]:
    """The same sums, line by line."""
    width = {"minute": 60_000, "hour": HOUR_MS, "day": 24 * HOUR_MS}
    sums: dict[tuple[Any, ...], Total] = {}
    for line in lines:
        until = sought.until or 2**62
        if not sought.since <= line.at < until or (
            sought.project_id not in {None, line.project_id}
            or sought.key_id not in {None, line.key_id}
            or sought.session_id not in {None, line.session_id}
        ):
            continue
        start = line.at - line.at % width[sought.width] if sought.width else 0
        total = Total(
            Usage(
                line.input_tokens,
                line.output_tokens,
                line.cache_write_tokens,
                line.cache_read_tokens,
                line.cache_write_1h_tokens,
            ),
            line.cost,
            1,
        )
        for tag in (line.tags or []) if "tag" in sought.by else [None]:
            names = {
                "tag": tag,
                **{
                    n: getattr(line, f"{n}_id", None) for n in ("project", "key", "user", "session")
                },
                "model": line.model,
                "provider": line.provider,
            }
            key = (start, *(names[name] or "" for name in sought.by))
            sums[key] = sums.get(key, Total()) + total
    return [
        Row(key[0] if sought.width else None, tuple(part or None for part in key[1:]), sums[key])
        for key in sorted(sums)
    ]


WAYS: list[tuple[tuple[Dimension, ...], Width | None]] = [
    ((), None),
    (("model", "provider"), None),
    (("key", "user"), "day"),
    (("project",), "hour"),
    (("session",), None),
    (("session", "model"), "day"),
    (("key",), "minute"),
    (("tag",), None),
    (("tag", "project"), "hour"),
]


@pytest.mark.parametrize("folded", [0, 2, 99])
async def test_every_sum_is_what_adding_up_the_lines_gives(
    *,
    database: Database,
    budgets: Budgets,
    rollups: Rollups,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    folded: int,
) -> None:
    monkeypatch.setattr("stationmaster.budgets.totals.NEWS", 7)
    clock.advance((NOW - clock.now()) / 1000)
    reports = Reports(database, clock)
    await fill(budgets, 120)
    if folded:
        await fold_all(rollups)
        await fill(budgets, 15, seed=2)
    lines = await rows(database, ledger)
    rng = random.Random(folded)
    for by, width in WAYS:
        for _ in range(4):
            since = NOW - rng.randrange(45 * 24 * HOUR_MS)
            until = rng.choice([None, since + rng.randrange(20 * 24 * HOUR_MS)])
            sought = Sought(since, until, width, by)
            found = await reports.rows(ADMIN, sought, whole_organization=True)
            assert found == brute(lines, sought), sought
            mine = replace(sought, project_id=OWNER.project_id)
            assert await reports.rows(ADMIN, sought) == brute(lines, mine), mine
    only = Sought(0, key_id="key_2", project_id="proj_other")
    assert await reports.rows(ADMIN, only, whole_organization=True) == brute(lines, only)
    assert await reports.rows(ADMIN, only) == []
    of_one = Sought(0, session_id="sesn_1", by=("model",))
    expected = brute(lines, replace(of_one, project_id=OWNER.project_id))
    assert await reports.rows(ADMIN, of_one) == expected


async def test_what_cannot_be_told_apart_is_refused(database: Database, clock: ManualClock) -> None:
    reports = Reports(database, clock)
    for sought in (
        Sought(0, by=("tag", "model")),
        Sought(0, by=("tag", "tag")),
        Sought(0, tag="red", key_id="key_1"),
        Sought(0, tag="red", width="minute"),
    ):
        with pytest.raises(Invalid):
            await reports.rows(ADMIN, sought)


async def test_who_may_see_the_organisation(database: Database, clock: ManualClock) -> None:
    reports = Reports(database, clock)
    plain = replace(ADMIN, scopes=frozenset({"read:*"}))
    assert await reports.rows(plain, Sought(0)) == []
    with pytest.raises(Denied):
        await reports.rows(plain, Sought(0), whole_organization=True)
    with pytest.raises(Denied):
        await reports.rows(replace(plain, scopes=frozenset()), Sought(0))


async def test_lines_are_exported_in_order_whole_and_alone(
    database: Database, budgets: Budgets, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster.budgets.report.LINES", 7)
    clock.advance((NOW - clock.now()) / 1000)
    reports = Reports(database, clock)
    await fill(budgets, 50)
    lines = [row for row in await rows(database, ledger) if row.project_id == OWNER.project_id]
    found = [line async for page in reports.lines(ADMIN, 0) for line in page]
    assert [line.call_id for line in found] == [
        row.call_id for row in sorted(lines, key=lambda row: (row.at, row.call_id))
    ]
    assert sum(line.cost for line in found) == sum(row.cost for row in lines)
    stranger = of(Owner("org_other", "proj_default"))
    assert [page async for page in reports.lines(stranger, 0)] == []


async def test_the_news_are_empty_once_all_is_folded(
    database: Database, budgets: Budgets, rollups: Rollups
) -> None:
    await fill(budgets, 10)
    await fold_all(rollups)
    assert [row.call_id for row in await rows(database, ledger_news) if row.call_id] == []
