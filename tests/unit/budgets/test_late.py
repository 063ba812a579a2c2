"""What could not be settled when it was due, and holds whose caller is gone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stationmaster.budgets import Budget, Budgets, Reserved
from stationmaster.budgets.proof import prove
from stationmaster.kernel.errors import Unavailable
from stationmaster.storage import Database, Transaction
from tests.unit.budgets.support import budget_of, call, costs, entry, held_amounts, open_budget


class Failing:
    """A database that fails the next writes: before their commit, or after it."""

    def __init__(self, database: Database) -> None:
        self.real = database
        self.before = 0
        self.after = 0
        self.gate: asyncio.Event | None = None

    async def read(self, query: Callable[[Transaction], Any]) -> Any:
        return await self.real.read(query)

    async def write(self, verb: Callable[[Transaction], Any]) -> Any:
        if self.before:
            self.before -= 1
            raise Unavailable(code="database_unavailable")
        result = await self.real.write(verb)
        if self.gate is not None:
            await self.gate.wait()
        if self.after:
            self.after -= 1
            raise Unavailable(code="commit_unknown")
        return result


@pytest.fixture
def failing(database: Database) -> Failing:
    return Failing(database)


@pytest.fixture
def shaky(failing: Failing, clock: Any) -> Budgets:
    return Budgets(failing, clock, instance_id="ins_a")  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_settlement_that_fails_is_made_up_for(
    database: Database, shaky: Budgets, failing: Failing, when: str
) -> None:
    await open_budget(database, shaky, "run_1", 1000)
    context = call()
    await shaky.reserve(context, 300)
    setattr(failing, when, 1)
    with pytest.raises(Unavailable):
        await shaky.settle(entry(context, 100))
    assert await shaky.reconcile() == (1 if when == "before" else 0)
    assert await shaky.reconcile() == 0
    assert await budget_of(database, shaky) == Budget(1000, 100, 0, None)
    assert await costs(database) == [100]


async def test_a_hold_that_may_be_there_is_given_back(
    database: Database, shaky: Budgets, failing: Failing
) -> None:
    await open_budget(database, shaky, "run_1", 1000)
    failing.after = 1
    with pytest.raises(Unavailable):
        await shaky.reserve(call(), 300)
    assert await held_amounts(database) == [300]
    assert await shaky.reconcile() == 1
    assert await budget_of(database, shaky) == Budget(1000, 0, 0, None)
    failing.before = 1
    with pytest.raises(Unavailable):
        await shaky.reserve(call(), 300)
    assert await shaky.reconcile() == 0
    assert (await prove(database)).differences == ()


async def test_while_the_database_is_away_nothing_is_forgotten(
    database: Database, shaky: Budgets, failing: Failing
) -> None:
    contexts = [call(None) for _ in range(3)]
    for context in contexts:
        await shaky.reserve(context, 10)
    failing.before = 10
    for context in contexts:
        with pytest.raises(Unavailable):
            await shaky.settle(entry(context, 7))
    with pytest.raises(Unavailable):
        await shaky.reconcile()
    failing.before = 0
    assert await shaky.reconcile() == 3
    assert await costs(database) == [7, 7, 7]


async def test_a_caller_that_goes_away_while_it_reserves_leaves_no_hold(
    database: Database, shaky: Budgets, failing: Failing
) -> None:
    await open_budget(database, shaky, "run_1", 1000)
    failing.gate = asyncio.Event()
    reserving = asyncio.ensure_future(shaky.reserve(call(), 300))
    while not await held_amounts(database):
        await asyncio.sleep(0)
    reserving.cancel()
    await asyncio.wait([reserving])
    failing.gate.set()
    while not await shaky.reconcile():
        await asyncio.sleep(0)
    assert await budget_of(database, shaky) == Budget(1000, 0, 0, None)
    assert await held_amounts(database) == []


async def test_a_caller_that_goes_away_while_it_settles_is_billed(
    database: Database, budgets: Budgets
) -> None:
    context = call(None)
    assert await budgets.reserve(context, 10) == Reserved(10)
    settling = asyncio.ensure_future(budgets.settle(entry(context, 7)))
    await asyncio.sleep(0)
    settling.cancel()
    while not await costs(database):
        await asyncio.sleep(0)
    assert await costs(database) == [7]
