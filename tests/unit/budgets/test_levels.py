"""Budgets of every level, unit, mode and period, several at once."""

import asyncio
from datetime import UTC, datetime

import pytest

from stationmaster.budgets import Budgets, CallContext, Definitions, Refused, Reserved, Usage
from stationmaster.budgets.definition import SubjectKind
from stationmaster.budgets.proof import prove
from stationmaster.budgets.tables import budget_periods
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import BudgetExceeded
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from tests.unit.budgets.support import (
    OWNER,
    balance,
    call,
    entry,
    of,
    open_budget,
    rows,
    set_budget,
    use,
)

LEVELS: list[tuple[SubjectKind, str]] = [
    ("organization", "org_default"),
    ("project", "proj_default"),
    ("key", "key_1"),
    ("user", "user_1"),
    ("session", "sesn_1"),
    ("run", "run_1"),
    ("tag", "red"),
]


def full() -> CallContext:
    return call(user_id="user_1", tags=("red", "blue"))


@pytest.mark.parametrize(("kind", "subject_id"), LEVELS)
async def test_each_level_refuses_alone_and_names_itself(
    budgets: Budgets, definitions: Definitions, kind: SubjectKind, subject_id: str
) -> None:
    for level, name in LEVELS:
        limit = 99 if level == kind else 1000
        await set_budget(definitions, level, name, limit)
    assert await budgets.reserve(full(), 100) == Refused(99, 0, 99, kind, subject_id)
    assert await budgets.reserve(full(), 99) == Reserved(99)


async def test_a_call_counts_against_all_its_budgets_and_no_other(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    mine = [await set_budget(definitions, kind, name, 1000) for kind, name in LEVELS]
    mine.append(await set_budget(definitions, "key", "key_1", 500, period="day"))
    others = [
        await set_budget(definitions, "key", "key_2", 0),
        await set_budget(definitions, "tag", "green", 0),
        await set_budget(definitions, "user", "user_2", 0),
    ]
    context = full()
    assert await budgets.reserve(context, 300) == Reserved(300)
    assert [await balance(definitions, each) for each in mine] == [(0, 300)] * 8
    await budgets.settle(entry(context, 120))
    assert [await balance(definitions, each) for each in mine] == [(120, 0)] * 8
    assert [await balance(definitions, each) for each in others] == [(0, 0)] * 3
    assert (await prove(database)).differences == ()


async def test_another_organisations_budget_on_the_same_names_is_nothing_to_us(
    budgets: Budgets, definitions: Definitions
) -> None:
    stranger = of(Owner("org_other", "proj_default"))
    for kind in ("key", "user", "session", "run"):
        await set_budget(definitions, kind, f"{kind}_1", 0, principal=stranger)
    await set_budget(definitions, "tag", "red", 0, principal=stranger)
    assert await budgets.reserve(call("run_1", user_id="user_1"), 10) == Reserved(10)


async def test_a_refusal_raises_no_budget_at_all(
    budgets: Budgets, definitions: Definitions
) -> None:
    wide = await set_budget(definitions, "organization", "org_default", 1000)
    narrow = await set_budget(definitions, "key", "key_1", 10)
    assert isinstance(await budgets.reserve(full(), 11), Refused)
    assert await balance(definitions, wide) == await balance(definitions, narrow) == (0, 0)


async def test_a_run_and_its_sub_agents_cannot_escape_their_project(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    project = await set_budget(definitions, "project", "proj_default", 250)
    for run in ("run_1", "run_2"):
        await open_budget(database, budgets, run, 200)
    first = [call("run_1"), call("run_1")]
    assert [await budgets.reserve(each, 100) for each in first] == [Reserved(100)] * 2
    assert await budgets.reserve(call("run_1"), 1) == Refused(0, 200, 200, "run", "run_1")
    answer = await budgets.reserve(call("run_2"), 100)
    assert answer == Refused(50, 200, 250, "project", "proj_default")
    assert await balance(definitions, project) == (0, 200)


async def test_tokens_are_a_unit_of_their_own(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    tokens = await set_budget(definitions, "project", "proj_default", 100, unit="tokens")
    dollars = await set_budget(definitions, "project", "proj_default", 5000)
    context = call()
    assert await budgets.reserve(context, 3000, tokens=60) == Reserved(3000)
    refused = await budgets.reserve(call(), 1, tokens=41)
    assert refused == Refused(40, 60, 100, "project", "proj_default", "tokens")
    await budgets.settle(entry(context, 7, usage=Usage(1, 2, 3, 4, 3)))
    assert await balance(definitions, tokens) == (10, 0)
    assert await balance(definitions, dollars) == (7, 0)
    assert (await prove(database)).differences == ()


async def test_tokens_of_a_lost_call_are_its_whole_hold(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    tokens = await set_budget(definitions, "key", "key_1", 100, unit="tokens")
    await budgets.reserve(call(), 3000, tokens=60)
    await database.write(lambda tx: budgets.settle_lost(tx, "ins_a"))
    assert await balance(definitions, tokens) == (60, 0)
    assert (await prove(database)).differences == ()


async def test_a_soft_budget_only_counts(budgets: Budgets, definitions: Definitions) -> None:
    soft = await set_budget(definitions, "key", "key_1", 10, mode="soft")
    context = call()
    assert await budgets.reserve(context, 50) == Reserved(50)
    await budgets.settle(entry(context, 40))
    assert await balance(definitions, soft) == (40, 0)
    assert await budgets.reserve(call(), 50) == Reserved(50)


async def test_a_degrading_budget_asks_for_less_and_then_lets_pass(
    budgets: Budgets, definitions: Definitions
) -> None:
    await set_budget(definitions, "key", "key_1", 10, mode="degrade")
    context = call()
    asked = await budgets.reserve(context, 50)
    assert asked == Refused(10, 0, 10, "key", "key_1", "usd", "degrade")
    assert await budgets.reserve(context, 50, degraded=True) == Reserved(50)


async def test_a_hard_budget_is_told_before_one_that_degrades(
    budgets: Budgets, definitions: Definitions
) -> None:
    await set_budget(definitions, "key", "key_1", 10, mode="degrade")
    await set_budget(definitions, "project", "proj_default", 40)
    answer = await budgets.reserve(call(), 50)
    assert isinstance(answer, Refused)
    assert (answer.subject_kind, answer.mode) == ("project", "hard")


async def test_what_waiting_cannot_help_is_told_before_what_others_hold(
    budgets: Budgets, definitions: Definitions
) -> None:
    await set_budget(definitions, "project", "proj_default", 100)
    await set_budget(definitions, "key", "key_2", 60)
    await budgets.reserve(call(key_id="key_1"), 90)
    answer = await budgets.reserve(call(key_id="key_2"), 70)
    assert isinstance(answer, Refused)
    assert (answer.subject_kind, answer.passing(70)) == ("key", False)


async def test_zero_is_zero_in_every_unit(budgets: Budgets, definitions: Definitions) -> None:
    await set_budget(definitions, "key", "key_1", 0)
    await set_budget(definitions, "key", "key_2", 0, unit="tokens")
    assert isinstance(await budgets.reserve(call(key_id="key_1"), 1), Refused)
    assert isinstance(await budgets.reserve(call(key_id="key_2"), 0, tokens=1), Refused)


# --- periods ------------------------------------------------------------------------------------


def at(clock: ManualClock, moment: str) -> None:
    now = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    clock.advance(now - clock.now() / 1000)


async def test_a_new_day_begins_with_nothing_spent_and_what_was_held_stays_yesterdays(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    at(clock, "2026-01-30T23:00:00")
    day = await set_budget(definitions, "key", "key_1", 100, period="day")
    late = call()
    await budgets.reserve(late, 70)
    assert isinstance(await budgets.reserve(call(), 31), Refused)
    at(clock, "2026-01-31T00:00:00")
    assert await balance(definitions, day) == (0, 0)  # shown before anybody spends in it
    assert await budgets.reserve(call(), 100) == Reserved(100)
    assert await balance(definitions, day) == (0, 100)
    assert await budgets.settle(entry(late, 65))
    assert await balance(definitions, day) == (0, 100)
    (past,) = await rows(database, budget_periods)
    assert (past.budget_id, past.spent, past.held) == (day.id, 65, 0)
    assert (await prove(database)).differences == ()


@pytest.mark.parametrize(
    ("period", "last", "first"),
    [
        ("day", "2026-03-28T22:59:59", "2026-03-28T23:00:00"),
        ("week", "2026-03-29T21:59:59", "2026-03-29T22:00:00"),  # summer time began that day
        ("month", "2026-03-31T21:59:59", "2026-03-31T22:00:00"),
    ],
)
async def test_periods_are_of_the_time_zones_calendar(
    *,
    budgets: Budgets,
    definitions: Definitions,
    clock: ManualClock,
    period: str,
    last: str,
    first: str,
) -> None:
    at(clock, last)
    await set_budget(definitions, "key", "key_1", 10, period=period, time_zone="Europe/Berlin")
    await use(budgets, call(), 10)
    assert isinstance(await budgets.reserve(call(), 1), Refused)
    at(clock, first)
    assert await budgets.reserve(call(), 10) == Reserved(10)


async def test_many_calls_at_the_turn_of_a_period_turn_it_over_once(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    at(clock, "2026-01-30T23:59:59")
    day = await set_budget(definitions, "key", "key_1", 100, period="day")
    await use(budgets, call(), 100)
    at(clock, "2026-01-31T00:00:01")
    elsewhere = Budgets(database, clock, instance_id="ins_b")
    answers = await asyncio.gather(
        *((budgets, elsewhere)[number % 2].reserve(call(), 10) for number in range(64))
    )
    assert sum(isinstance(answer, Reserved) for answer in answers) == 10
    assert await balance(definitions, day) == (0, 100)
    assert [row.spent for row in await rows(database, budget_periods)] == [100]
    assert (await prove(database)).differences == ()


async def test_a_clock_that_is_behind_does_not_bring_yesterday_back(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    at(clock, "2026-01-31T00:00:01")
    day = await set_budget(definitions, "key", "key_1", 100, period="day")
    await use(budgets, call(), 60)
    at(clock, "2026-01-30T23:59:59")
    assert isinstance(await budgets.reserve(call(), 41), Refused)
    assert await balance(definitions, day) == (60, 0)
    assert await rows(database, budget_periods) == []


async def test_hundreds_of_calls_on_crossing_budgets_do_not_deadlock(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    for name in ("red", "blue", "green"):
        await set_budget(definitions, "tag", name, 100_000)
    await set_budget(definitions, "project", OWNER.project_id, 100_000)
    pairs = [("red", "blue"), ("blue", "green"), ("green", "red"), ("blue", "red")]
    stores = [budgets, Budgets(database, clock, instance_id="ins_b")]

    async def one(number: int) -> None:
        context = call(None, tags=pairs[number % 4])
        store = stores[number % 2]
        assert await store.reserve(context, 10) == Reserved(10)
        assert await store.settle(entry(context, 3))

    await asyncio.gather(*(one(number) for number in range(300)))
    assert (await prove(database)).differences == ()


# --- before a run begins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject_id"),
    [("organization", "org_default"), ("project", "proj_default"), ("key", "key_1"), ("user", "u")],
)
async def test_a_run_does_not_begin_where_nothing_is_left(
    database: Database,
    budgets: Budgets,
    definitions: Definitions,
    kind: SubjectKind,
    subject_id: str,
) -> None:
    async def room() -> None:
        await database.read(lambda tx: budgets.require_room(tx, OWNER, "key_1", "u"))

    await set_budget(definitions, kind, subject_id, 100)
    await set_budget(definitions, kind, subject_id, 0, mode="soft")
    await set_budget(definitions, "key", "key_2", 0)
    context = call(user_id="u")
    await budgets.reserve(context, 100)
    await room()  # others hold it, and may give it back
    await budgets.settle(entry(context, 99))
    await room()
    await use(budgets, call(user_id="u"), 1)
    with pytest.raises(BudgetExceeded, match=kind):
        await room()


async def test_a_new_period_lets_runs_begin_again(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    async def room() -> None:
        await database.read(lambda tx: budgets.require_room(tx, OWNER, "key_1"))

    await set_budget(definitions, "key", "key_1", 100, period="day")
    await use(budgets, call(), 100)
    with pytest.raises(BudgetExceeded):
        await room()
    clock.advance(86_400)
    await room()
    await set_budget(definitions, "key", "key_1", 0, period="day")
    clock.advance(86_400)
    with pytest.raises(BudgetExceeded):
        await room()
