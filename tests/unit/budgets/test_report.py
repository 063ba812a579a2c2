"""What was used, by model and period."""

from dataclasses import replace

import msgspec
import pytest

from stationmaster.budgets import Budgets, Reports, Usage
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Denied, Invalid
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database
from tests.unit.budgets.support import OWNER, call, entry

NOW = 1_769_774_400_000  # 2026-01-30T12:00:00Z
DAY = 86_400_000
READER = Principal("key", "key_1", OWNER, "key_1", frozenset({"read:usage"}))


@pytest.fixture
def reports(database: Database, clock: ManualClock) -> Reports:
    clock.advance((NOW - clock.now()) / 1000)
    return Reports(database, clock)


async def _used(
    budgets: Budgets, at: int, cost: int, *, model: str = "m", owner: Owner = OWNER
) -> None:
    context = call(None, owner=owner, model=model)
    await budgets.reserve(context, cost)
    await budgets.settle(entry(context, cost, at=at, usage=Usage(1, 2, 3, 4, 3)))


@pytest.mark.parametrize(
    ("period", "ago", "counted"),
    [
        ("day", DAY, True),
        ("day", DAY + 1, False),
        ("week", 7 * DAY, True),
        ("week", 7 * DAY + 1, False),
        ("month", 29 * DAY + DAY // 2, True),  # the first of January, 00:00
        ("month", 29 * DAY + DAY // 2 + 1, False),
    ],
)
async def test_periods(
    budgets: Budgets, reports: Reports, period: str, ago: int, counted: bool
) -> None:
    await _used(budgets, NOW - ago, 5)
    report = await reports.usage(READER, period)
    assert report.total.cost == (5 if counted else 0)
    assert report.total.calls == counted


async def test_models_apart_and_together(budgets: Budgets, reports: Reports) -> None:
    for cost in (1, 2, 3):
        await _used(budgets, NOW, cost, model="opus")
    await _used(budgets, NOW, 10, model="haiku")
    report = await reports.usage(READER, "day")
    assert list(report.by_model) == ["haiku", "opus"]
    assert (report.by_model["opus"].cost, report.by_model["opus"].calls) == (6, 3)
    assert report.by_model["opus"].usage == Usage(3, 6, 9, 12, 9)
    assert (report.total.cost, report.total.calls) == (16, 4)
    assert report.total.usage == Usage(4, 8, 12, 16, 12)
    assert (report.project_id, report.period, report.since) == (OWNER.project_id, "day", NOW - DAY)


@pytest.mark.parametrize(
    "other", [Owner("org_default", "proj_other"), Owner("org_other", "proj_default")]
)
async def test_another_owners_usage_is_not_there(
    budgets: Budgets, reports: Reports, other: Owner
) -> None:
    await _used(budgets, NOW, 5, owner=other)
    assert (await reports.usage(READER, "month")).by_model == {}
    mine = await reports.usage(replace(READER, owner=other), "month")
    assert mine.total.cost == 5


@pytest.mark.parametrize("period", ["", "year", "DAY", "day'--"])
async def test_periods_that_are_none(reports: Reports, period: str) -> None:
    with pytest.raises(Invalid):
        await reports.usage(READER, period)


async def test_who_may_not_read_usage(reports: Reports) -> None:
    with pytest.raises(Denied):
        await reports.usage(replace(READER, scopes=frozenset({"read:tasks"})), "day")


async def test_what_the_offline_script_answered_says_so(budgets: Budgets, reports: Reports) -> None:
    await _used(budgets, NOW, 1, model="opus")
    offline = msgspec.structs.replace(call(None, model="opus"), provider="offline")
    await budgets.reserve(offline, 2)
    await budgets.settle(entry(offline, 2, at=NOW))
    report = await reports.usage(READER, "day")
    assert {name: part.cost for name, part in report.by_model.items()} == {
        "opus": 1,
        "opus (offline)": 2,
    }
