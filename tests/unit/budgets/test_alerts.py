"""Thresholds: told once for each crossing, into the project's stream."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.budgets import Budgets, Changes, Definitions, Usage
from stationmaster.budgets.alert import Alerts
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database
from tests.unit.budgets.support import ADMIN, call, of, set_budget, use

DAY_S = 86_400


async def told(definitions: Definitions, owner: Owner = ADMIN.owner) -> list[dict[str, Any]]:
    return [
        event.data["threshold"]
        for event in await definitions.told(of(owner), after=0, limit=100)
        if event.type == "budget.alert"
    ]


async def test_ninety_hundredths_are_told_once(budgets: Budgets, definitions: Definitions) -> None:
    made = await set_budget(definitions, "project", "proj_default", 1000)
    await use(budgets, call(), 899)
    assert await told(definitions) == []
    await use(budgets, call(), 1)
    await use(budgets, call(), 50)
    await use(budgets, call(), 50)
    assert await told(definitions) == [{"percent": 90}]
    (event,) = await definitions.told(ADMIN, after=0, limit=None)
    assert event.data["budget_id"] == made.id
    assert event.data["subject"] == {"type": "project", "id": "proj_default"}
    assert (event.data["limit"], event.data["spent"], event.data["remaining"]) == (1000, 900, 100)


async def test_less_than_a_thousand_tokens_left(budgets: Budgets, definitions: Definitions) -> None:
    await set_budget(definitions, "key", "key_1", 100_000, unit="tokens")
    await use(budgets, call(), 0, usage=Usage(99_000))
    assert await told(definitions) == [{"percent": 90}]
    await use(budgets, call(), 0, usage=Usage(1))
    assert await told(definitions) == [{"percent": 90}, {"remaining": 1000}]


async def test_any_that_are_chosen_several_at_once(
    budgets: Budgets, definitions: Definitions
) -> None:
    alerts = Alerts(percent=(10, 50), remaining=(200,))
    await set_budget(definitions, "key", "key_1", 1000, alerts=alerts, mode="soft")
    await use(budgets, call(), 700)
    assert await told(definitions) == [{"percent": 10}, {"percent": 50}]
    await use(budgets, call(), 700)
    assert (await told(definitions))[2:] == [{"remaining": 200}]


async def test_each_period_tells_anew(
    budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    await set_budget(definitions, "key", "key_1", 100, period="day")
    for _ in range(3):
        await use(budgets, call(), 95)
        clock.advance(DAY_S)
    assert await told(definitions) == [{"percent": 90}] * 3


async def test_many_at_once_on_two_servers_tell_once(
    database: Database, budgets: Budgets, definitions: Definitions, clock: ManualClock
) -> None:
    await set_budget(definitions, "project", "proj_default", 100)
    other = Budgets(database, clock, instance_id="ins_b", events=budgets._events)
    await asyncio.gather(*(use((budgets, other)[n % 2], call(), 1) for n in range(100)))
    assert await told(definitions) == [{"percent": 90}]


async def test_a_raised_limit_tells_again_when_it_is_crossed(
    budgets: Budgets, definitions: Definitions
) -> None:
    made = await set_budget(definitions, "key", "key_1", 100)
    await use(budgets, call(), 95)
    await definitions.update(ADMIN, made.id, Changes(limit=1000))
    await use(budgets, call(), 5)
    assert await told(definitions) == [{"percent": 90}]
    await use(budgets, call(), 800)
    assert await told(definitions) == [{"percent": 90}] * 2


async def test_a_lowered_limit_that_is_passed_already_tells_with_the_next_call(
    budgets: Budgets, definitions: Definitions
) -> None:
    made = await set_budget(definitions, "key", "key_1", 1000)
    await use(budgets, call(), 500)
    await definitions.update(ADMIN, made.id, Changes(limit=501))
    assert await told(definitions) == []
    await use(budgets, call(), 1)
    assert await told(definitions) == [{"percent": 90}]


async def test_another_projects_alerts_are_not_shown(
    budgets: Budgets, definitions: Definitions
) -> None:
    await set_budget(definitions, "project", "proj_default", 100)
    await use(budgets, call(), 95)
    assert await told(definitions, Owner("org_default", "proj_other")) == []


@given(
    st.integers(0, 10**15),
    st.lists(st.integers(1, 100), max_size=5),
    st.lists(st.integers(1, 10**15), max_size=5),
    st.lists(st.integers(0, 10**14), max_size=20),
)
def test_whatever_is_spent_each_threshold_is_passed_once(
    limit: int, percent: list[int], remaining: list[int], steps: list[int]
) -> None:
    alerts = Alerts(tuple(set(percent)), tuple(set(remaining)))
    levels = alerts.levels(limit)
    spent, due, fired = 0, alerts.next_after(0, limit), []
    for step in steps:
        spent += step
        if due is not None and spent >= due:
            fired += [what for level, what in levels if due <= level <= spent]
            due = alerts.next_after(spent, limit)
    assert fired == [what for level, what in levels if level <= spent]


@pytest.mark.parametrize(("limit", "level"), [(0, 1), (1, 1), (10, 9), (11, 10), (1000, 900)])
def test_where_ninety_hundredths_are(limit: int, level: int) -> None:
    assert Alerts(percent=(90,)).next_after(0, limit) == level
