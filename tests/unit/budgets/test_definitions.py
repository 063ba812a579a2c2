"""Budgets are set, listed, changed and deleted by those who may, and nothing else happens."""

from dataclasses import replace
from typing import Any

import pytest

from stationmaster.budgets import (
    Budgets,
    Changes,
    Definitions,
    Refused,
    Reserved,
    Terms,
)
from stationmaster.budgets.alert import Alerts
from stationmaster.budgets.definition import MAX_LIMIT, MAX_PER_SUBJECT, check_tags
from stationmaster.budgets.proof import prove
from stationmaster.budgets.tables import budget_periods
from stationmaster.budgets.tables import budgets as table
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from tests.unit.budgets.support import (
    ADMIN,
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

NOBODY = replace(ADMIN, scopes=frozenset({"write:messages"}))
USER = replace(ADMIN, scopes=frozenset({"read:*", "write:*"}))
MANAGER = replace(ADMIN, scopes=frozenset({"read:budgets", "admin:budgets"}))
GOOD = Terms("key", "key_1", "usd", 100)


async def test_what_is_set_is_shown(definitions: Definitions) -> None:
    made = await set_budget(
        definitions, "key", "key_1", 500, period="week", mode="soft", time_zone="Asia/Tokyo"
    )
    assert await definitions.get(ADMIN, made.id) == made
    assert (made.terms.limit, made.terms.period, made.terms.mode) == (500, "week", "soft")
    assert made.terms.time_zone == "Asia/Tokyo"
    assert made.period_end is not None
    assert made.period_end - made.period_start == 7 * 86_400_000
    assert (made.balance.spent, made.balance.held, made.balance.remaining) == (0, 0, 500)
    assert made.alerts == Alerts(percent=(90, 100))


async def test_it_counts_from_when_it_is_made(budgets: Budgets, definitions: Definitions) -> None:
    under_way = call()
    await budgets.reserve(under_way, 60)
    made = await set_budget(definitions, "key", "key_1", 100)
    assert await budgets.settle(entry(under_way, 60))
    assert await balance(definitions, made) == (0, 0)


async def test_pages_newest_first_without_the_servers_own(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    await open_budget(database, budgets, "run_1", 5)
    ids = [(await set_budget(definitions, "key", f"key_{n}", n)).id for n in range(5)]
    first = await definitions.list(ADMIN, limit=3)
    assert first.next_cursor is not None
    second = await definitions.list(ADMIN, limit=3, after=first.next_cursor)
    assert second.next_cursor is None
    assert [each.id for each in (*first.items, *second.items)] == sorted(ids, reverse=True)
    only = await definitions.list(ADMIN, subject_kind="key", subject_id="key_3")
    assert [each.id for each in only.items] == [ids[3]]


async def test_a_change_is_in_force_at_once(budgets: Budgets, definitions: Definitions) -> None:
    made = await set_budget(definitions, "key", "key_1", 100)
    assert isinstance(await budgets.reserve(call(), 150), Refused)
    changed = await definitions.update(ADMIN, made.id, Changes(limit=200))
    assert changed.terms.limit == 200
    assert await budgets.reserve(call(), 150) == Reserved(150)
    await definitions.update(ADMIN, made.id, Changes(limit=10))
    assert isinstance(await budgets.reserve(call(), 0), Refused)
    await definitions.update(ADMIN, made.id, Changes(mode="soft"))
    assert await budgets.reserve(call(), 150) == Reserved(150)


async def test_what_is_deleted_limits_nothing_and_its_calls_settle_all_the_same(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    made = await set_budget(definitions, "key", "key_1", 100, period="day")
    await use(budgets, call(), 5)
    clock.advance(86_400)
    under_way = call()
    await budgets.reserve(under_way, 60)
    gone = await definitions.delete(ADMIN, made.id)
    assert (gone.id, gone.balance.held) == (made.id, 60)
    assert await budgets.reserve(call(), 10**9) == Reserved(10**9)
    assert await budgets.settle(entry(under_way, 60))
    assert await rows(database, table) == await rows(database, budget_periods) == []
    assert (await prove(database)).differences == ()
    with pytest.raises(NotFound):
        await definitions.get(ADMIN, made.id)


@pytest.mark.parametrize(
    "terms",
    [
        replace(GOOD, limit=-1),
        replace(GOOD, limit=MAX_LIMIT + 1),
        replace(GOOD, period="year"),  # type: ignore[arg-type]
        replace(GOOD, mode="hardly"),  # type: ignore[arg-type]
        replace(GOOD, subject_kind="planet"),  # type: ignore[arg-type]
        replace(GOOD, time_zone="Nowhere"),
        replace(GOOD, subject_kind="tag", subject_id="a tag"),
        replace(GOOD, subject_kind="tag", subject_id=""),
        replace(GOOD, alerts=Alerts(percent=(0,))),
        replace(GOOD, alerts=Alerts(percent=(101,))),
        replace(GOOD, alerts=Alerts(remaining=(0,))),
        replace(GOOD, alerts=Alerts(percent=tuple(range(1, 12)))),
    ],
)
async def test_terms_that_make_no_sense(
    database: Database, definitions: Definitions, terms: Terms
) -> None:
    with pytest.raises(Invalid):
        await definitions.create(ADMIN, terms)
    assert await rows(database, table) == []


@pytest.mark.parametrize(
    ("kind", "subject_id"),
    [
        ("organization", "org_other"),
        ("key", "key_unknown"),
        ("user", "user_unknown"),
        ("session", "sesn_unknown"),
        ("run", "run_unknown"),
    ],
)
async def test_subjects_that_are_not_there(
    database: Database, definitions: Definitions, kind: Any, subject_id: str
) -> None:
    with pytest.raises(NotFound):
        await set_budget(definitions, kind, subject_id, 1)
    assert await rows(database, table) == []


@pytest.mark.parametrize("principal", [NOBODY, USER])
async def test_who_may_not(definitions: Definitions, principal: Any) -> None:
    made = await set_budget(definitions, "key", "key_1", 5)
    for verb in (
        definitions.create(principal, GOOD),
        definitions.update(principal, made.id, Changes(limit=1)),
        definitions.delete(principal, made.id),
    ):
        with pytest.raises(Denied):
            await verb
    if principal is NOBODY:
        with pytest.raises(Denied):
            await definitions.get(principal, made.id)
        with pytest.raises(Denied):
            await definitions.list(principal)
    assert (await definitions.get(ADMIN, made.id)).terms.limit == 5


async def test_what_is_above_the_project_needs_who_manages_the_organisation(
    definitions: Definitions,
) -> None:
    with pytest.raises(Denied):
        await set_budget(definitions, "organization", "org_default", 5, principal=MANAGER)
    with pytest.raises(NotFound):
        await set_budget(definitions, "project", "proj_other", 5, principal=MANAGER)
    other = await set_budget(definitions, "project", "proj_other", 5)
    with pytest.raises(NotFound):
        await definitions.get(MANAGER, other.id)
    above = await set_budget(definitions, "organization", "org_default", 5)
    assert await definitions.get(MANAGER, above.id) == above
    with pytest.raises(Denied):
        await definitions.update(MANAGER, above.id, Changes(limit=10))


async def test_another_organisations_budget_is_not_there(definitions: Definitions) -> None:
    made = await set_budget(definitions, "key", "key_1", 5)
    stranger = of(Owner("org_other", OWNER.project_id))
    for verb in (
        definitions.get(stranger, made.id),
        definitions.update(stranger, made.id, Changes(limit=1)),
        definitions.delete(stranger, made.id),
        definitions.get(stranger, new_id("bud")),
        definitions.get(stranger, "bud_nonsense"),
    ):
        with pytest.raises(NotFound, match="There is no budget with this id"):
            await verb
    assert (await definitions.list(stranger)).items == []


async def test_the_servers_own_budgets_can_be_seen_and_not_changed(
    database: Database, budgets: Budgets, definitions: Definitions
) -> None:
    await open_budget(database, budgets, "run_1", 5)
    (row,) = await rows(database, table)
    assert (await definitions.get(ADMIN, row.id)).by_server
    for verb in (
        definitions.update(ADMIN, row.id, Changes(limit=10**9)),
        definitions.delete(ADMIN, row.id),
    ):
        with pytest.raises(Conflict):
            await verb


async def test_a_subject_has_only_so_many(definitions: Definitions) -> None:
    for _ in range(MAX_PER_SUBJECT):
        await set_budget(definitions, "key", "key_1", 5)
    with pytest.raises(Conflict):
        await set_budget(definitions, "key", "key_1", 5)


def test_tags() -> None:
    assert check_tags(("a", "team/b.c:d@e-f_1", "a")) == ("a", "team/b.c:d@e-f_1")
    for wrong in (("",), ("a b",), ("-a",), ("a" * 65,), ("a", "b", "c", "d", "e"), ("ä",)):
        with pytest.raises(Invalid):
            check_tags(wrong)
