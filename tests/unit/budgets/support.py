"""Calls, and a look at the tables of money."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Table, select

from stationmaster.budgets import (
    Budget,
    Budgets,
    CallContext,
    DefinedBudget,
    Definitions,
    LedgerEntry,
    Outcome,
    Terms,
    Usage,
)
from stationmaster.budgets.definition import SubjectKind
from stationmaster.budgets.entry import Unit
from stationmaster.budgets.tables import holds, ledger
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database

OWNER = Owner("org_default", "proj_default")
ADMIN = Principal("key", "key_1", OWNER, "key_1", frozenset({"*"}))


def call(
    run_id: str | None = "run_1",
    *,
    owner: Owner = OWNER,
    model: str = "m",
    key_id: str = "key_1",
    user_id: str | None = None,
    session_id: str | None = "sesn_1",
    tags: tuple[str, ...] = (),
) -> CallContext:
    return CallContext(
        new_id("call"), owner, key_id, run_id, session_id, "anthropic", model, user_id, tags
    )


def entry(
    context: CallContext,
    cost: MicroDollars,
    *,
    usage: Usage | None = None,
    at: int = 0,
    outcome: Outcome = "complete",
) -> LedgerEntry:
    return LedgerEntry(context, at, usage or Usage(10, 5), cost, outcome, 100)


async def open_budget(
    database: Database, budgets: Budgets, run_id: str, limit: MicroDollars
) -> None:
    await database.write(lambda tx: budgets.open(tx, OWNER, "run", run_id, limit))


async def set_budget(
    definitions: Definitions,
    kind: SubjectKind,
    subject_id: str,
    limit: int,
    *,
    unit: Unit = "usd",
    principal: Principal = ADMIN,
    **terms: Any,
) -> DefinedBudget:
    return await definitions.create(principal, Terms(kind, subject_id, unit, limit, **terms))


async def use(
    budgets: Budgets,
    context: CallContext,
    cost: int,
    *,
    usage: Usage | None = None,
    at: int = 0,
) -> None:
    """Reserve and settle one call."""
    made = entry(context, cost, usage=usage, at=at)
    await budgets.reserve(context, cost, tokens=made.tokens)
    assert await budgets.settle(made)


async def balance(definitions: Definitions, budget: DefinedBudget) -> tuple[int, int]:
    """Spent and held."""
    found = (await definitions.get(ADMIN, budget.id)).balance
    return found.spent, found.held


async def budget_of(database: Database, budgets: Budgets, run_id: str = "run_1") -> Budget:
    found = await database.read(lambda tx: budgets.get(tx, "run", run_id))
    assert found is not None
    return found


async def rows(database: Database, table: Table) -> list[Any]:
    return list(await database.read(lambda tx: tx.execute(select(table)).all()))


async def held_amounts(database: Database) -> list[int]:
    return sorted(row.amount for row in await rows(database, holds))


async def costs(database: Database) -> list[int]:
    return sorted(row.cost for row in await rows(database, ledger))


def of(owner: Owner) -> Principal:
    """The admin of another house."""
    return replace(ADMIN, owner=owner)
