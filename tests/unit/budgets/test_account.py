"""Reserve, settle, lose: each hold becomes exactly one line of the ledger."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import event

from stationmaster.budgets import Budget, Budgets, CallContext, Refused, Reserved, Usage
from stationmaster.budgets.tables import ledger
from stationmaster.kernel.clock import ManualClock
from stationmaster.storage import Database, open_database
from stationmaster.storage.postgresql import PostgresDatabase
from tests.support.databases import Databases
from tests.support.postgres import PostgresServer
from tests.unit.budgets.support import (
    budget_of,
    call,
    costs,
    entry,
    held_amounts,
    open_budget,
    rows,
)


async def test_a_hold_becomes_an_entry(database: Database, budgets: Budgets) -> None:
    await open_budget(database, budgets, "run_1", 1000)
    context = call()
    assert await budgets.reserve(context, 300) == Reserved(300)
    assert await budget_of(database, budgets) == Budget(1000, 0, 300, None)
    assert await held_amounts(database) == [300]
    usage = Usage(1, 2, 3, 4, 2)
    assert await budgets.settle(entry(context, 120, usage=usage, at=5))
    budget = await budget_of(database, budgets)
    assert (budget, budget.remaining) == (Budget(1000, 120, 0, None), 880)
    assert await held_amounts(database) == []
    (row,) = await rows(database, ledger)
    assert row.call_id == context.call_id
    assert (row.run_id, row.session_id, row.key_id) == ("run_1", "sesn_1", "key_1")
    assert (row.input_tokens, row.output_tokens, row.cache_write_tokens) == (1, 2, 3)
    assert (row.cache_read_tokens, row.cache_write_1h_tokens) == (4, 2)
    assert (row.cost, row.outcome, row.at, row.duration_ms) == (120, "complete", 5, 100)
    totals = await database.read(lambda tx: budgets.run_totals(tx, "run_1"))
    assert totals == (usage, 120, 1)


async def test_settling_twice_bills_once(database: Database, budgets: Budgets) -> None:
    await open_budget(database, budgets, "run_1", 1000)
    context = call()
    await budgets.reserve(context, 300)
    settled = await asyncio.gather(*(budgets.settle(entry(context, 100)) for _ in range(8)))
    assert sorted(settled) == [False] * 7 + [True]
    assert await budget_of(database, budgets) == Budget(1000, 100, 0, None)
    assert await costs(database) == [100]


async def test_settling_what_was_never_held_bills_nothing(
    database: Database, budgets: Budgets
) -> None:
    assert not await budgets.settle(entry(call(), 100))
    assert await costs(database) == []


async def test_a_refusal_leaves_nothing_but_its_time(
    database: Database, budgets: Budgets, clock: ManualClock
) -> None:
    await open_budget(database, budgets, "run_1", 100)
    await budgets.reserve(call(), 60)
    assert await budgets.reserve(call(), 41, final=False) == Refused(40, 60, 100, "run", "run_1")
    assert await budget_of(database, budgets) == Budget(100, 0, 60, None)
    # What others hold may come back: that is no end of the run, and not written down.
    passing = await budgets.reserve(call(), 41)
    assert isinstance(passing, Refused)
    assert passing.passing(41)
    assert await budget_of(database, budgets) == Budget(100, 0, 60, None)
    final = await budgets.reserve(call(), 101)
    assert isinstance(final, Refused)
    assert not final.passing(101)
    assert await budget_of(database, budgets) == Budget(100, 0, 60, clock.now())
    assert await held_amounts(database) == [60]
    assert await costs(database) == []
    assert await budgets.reserve(call(), 40) == Reserved(40)  # exactly what is left


async def test_zero_is_a_value(database: Database, budgets: Budgets) -> None:
    await open_budget(database, budgets, "run_1", 0)
    assert await budgets.reserve(call(), 1) == Refused(0, 0, 0, "run", "run_1")
    assert await budgets.reserve(call(), 0) == Reserved(0)


async def test_a_call_dearer_than_its_hold_is_billed_in_full_and_ends_the_budget(
    database: Database, budgets: Budgets
) -> None:
    await open_budget(database, budgets, "run_1", 100)
    context = call()
    await budgets.reserve(context, 50)
    await budgets.settle(entry(context, 130))
    budget = await budget_of(database, budgets)
    assert (budget.spent, budget.held, budget.remaining) == (130, 0, 0)
    assert await budgets.reserve(call(), 0) == Refused(0, 0, 100, "run", "run_1")


async def test_a_call_without_a_budget_is_held_and_billed_all_the_same(
    database: Database, budgets: Budgets
) -> None:
    contexts = [call(None), call("run_without")]
    for context in contexts:
        assert await budgets.reserve(context, 10**12) == Reserved(10**12)
        assert await budgets.settle(entry(context, 7))
    assert await costs(database) == [7, 7]


async def test_a_budget_made_after_the_hold_is_not_lowered_by_it(
    database: Database, budgets: Budgets
) -> None:
    context = call()
    await budgets.reserve(context, 50)
    await open_budget(database, budgets, "run_1", 100)
    await budgets.settle(entry(context, 20))
    budget = await budget_of(database, budgets)
    assert (budget.held, budget.remaining) == (0, 100)


@pytest.mark.parametrize("round_", range(2))
async def test_sixty_four_at_once_against_a_budget_for_ten_admit_ten(
    database: Database, budgets: Budgets, round_: int
) -> None:
    amount = 100 + round_
    await open_budget(database, budgets, "run_1", 10 * amount + amount - 1)
    contexts = [call() for _ in range(64)]
    answers = await asyncio.gather(*(budgets.reserve(context, amount) for context in contexts))
    admitted = [c for c, a in zip(contexts, answers, strict=True) if isinstance(a, Reserved)]
    assert len(admitted) == 10
    assert (await budget_of(database, budgets)).held == 10 * amount
    # Each that gives its hold back makes room for one.
    settled = await asyncio.gather(*(budgets.settle(entry(c, 0)) for c in admitted[:3]))
    assert all(settled)
    answers = await asyncio.gather(*(budgets.reserve(call(), amount) for _ in range(64)))
    assert sum(isinstance(answer, Reserved) for answer in answers) == 3


async def test_servers_at_once_admit_no_more_than_one_would(
    databases: Databases, clock: ManualClock
) -> None:
    """Each decides a batch of its own: it is the budget's row that keeps them apart."""
    url = databases.url()
    opened = [databases.open(url) for _ in range(8)]
    servers = [
        Budgets(database, clock, instance_id=f"ins_{number}")
        for number, database in enumerate(opened)
    ]
    await open_budget(opened[0], servers[0], "run_1", 1_099)
    for _ in range(3):
        calls = [(server, call()) for server in servers for _ in range(8)]
        answers = await asyncio.gather(*(server.reserve(each, 100) for server, each in calls))
        admitted = [
            one for one, answer in zip(calls, answers, strict=True) if isinstance(answer, Reserved)
        ]
        assert len(admitted) == 10
        assert (await budget_of(opened[0], servers[0])).held == 1_000
        await asyncio.gather(*(server.settle(entry(each, 0)) for server, each in admitted))
    assert await budget_of(opened[0], servers[0]) == Budget(1_099, 0, 0, None)


async def test_budgets_cost_no_trip_more_on_postgresql(
    postgres_template: str, postgres_server: PostgresServer, clock: ManualClock
) -> None:
    """Calls on one hot budget wait for each other's: each trip while its row is locked counts."""
    database = open_database(postgres_server.url(postgres_server.create(postgres_template)))
    assert isinstance(database, PostgresDatabase)
    budgets = Budgets(database, clock, instance_id="ins_a")
    await open_budget(database, budgets, "run_1", 10_000)
    trips: Counter[str] = Counter()

    @event.listens_for(database._engine.sync_engine, "before_cursor_execute")
    def trip(*_: object) -> None:
        trips[at] += 1

    for at in ("run_1", "run_without"):
        calls = [call(at) for _ in range(20)]
        await asyncio.gather(*(budgets.reserve(each, 100) for each in calls))
        await asyncio.gather(*(budgets.settle(entry(each, 50)) for each in calls))
    assert trips["run_1"] == trips["run_without"] == 4
    assert await budget_of(database, budgets) == Budget(10_000, 1_000, 0, None)
    await database.close()


async def test_reserves_and_settles_of_several_runs_at_once_do_not_deadlock(
    database: Database, budgets: Budgets
) -> None:
    names = [f"run_{number}" for number in range(4)]
    for name in names:
        await open_budget(database, budgets, name, 10_000)

    async def one(context: CallContext) -> None:
        assert await budgets.reserve(context, 10) == Reserved(10)
        assert await budgets.settle(entry(context, 3))

    await asyncio.gather(*(one(call(names[number % 4])) for number in range(80)))
    for name in names:
        assert await budget_of(database, budgets, name) == Budget(10_000, 60, 0, None)


async def test_the_calls_of_a_dead_instance_are_billed_their_whole_hold(
    database: Database, budgets: Budgets, clock: ManualClock
) -> None:
    await open_budget(database, budgets, "run_1", 1000)
    dead = Budgets(database, clock, instance_id="ins_dead")
    lost, mine, without = call(), call(), call(None)
    await dead.reserve(lost, 300)
    await dead.reserve(without, 7)
    await budgets.reserve(mine, 200)
    clock.advance(2)
    assert await database.read(lambda tx: budgets.holds_of(tx, "ins_dead")) == 2
    assert await database.write(lambda tx: budgets.settle_lost(tx, "ins_dead")) == 2
    assert await database.write(lambda tx: budgets.settle_lost(tx, "ins_dead")) == 0
    assert await budget_of(database, budgets) == Budget(1000, 300, 200, None)
    assert await held_amounts(database) == [200]
    found = {row.call_id: row for row in await rows(database, ledger)}
    assert (found[lost.call_id].cost, found[lost.call_id].outcome) == (300, "unknown")
    assert found[lost.call_id].duration_ms == 2000
    assert found[without.call_id].cost == 7
    # It was not dead after all, and settles late.
    assert not await dead.settle(entry(lost, 5))
    assert await costs(database) == [7, 300]


async def test_a_clock_that_steps_back_makes_no_negative_duration(
    database: Database, budgets: Budgets, clock: ManualClock
) -> None:
    await budgets.reserve(call(), 1)
    clock.advance(-3600)
    await database.write(lambda tx: budgets.settle_lost(tx, "ins_a"))
    (row,) = await rows(database, ledger)
    assert row.duration_ms == 0


async def test_a_call_id_holds_once(database: Database, budgets: Budgets) -> None:
    await open_budget(database, budgets, "run_1", 1000)
    context = call()
    await budgets.reserve(context, 10)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await budgets.reserve(context, 10)
    assert (await budget_of(database, budgets)).held == 10
