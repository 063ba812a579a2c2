"""The revision that widens budgets keeps the money that is there, both ways."""

import json

from stationmaster.budgets import Budget, Budgets, Rollups
from stationmaster.budgets.proof import prove
from stationmaster.kernel.clock import ManualClock
from stationmaster.storage import open_database
from tests.support.schema import insert, move, rows

CALL = {
    "organization_id": "org_1",
    "project_id": "proj_1",
    "key_id": "key_1",
    "session_id": "sesn_1",
    "provider": "anthropic",
    "model": "m",
}
LINE = {
    **CALL,
    "at": 1_769_774_400_000,
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_write_tokens": 3,
    "cache_write_1h_tokens": 2,
    "cache_read_tokens": 4,
    "outcome": "complete",
    "duration_ms": 5,
}
BUDGET = {
    "id": "bud_1",
    "organization_id": "org_1",
    "project_id": "proj_1",
    "subject_kind": "run",
    "subject_id": "run_1",
    "limit": 1000,
    "spent": 300,
    "held": 50,
    "refused_at": 7,
    "created_at": 1,
}
HOLD = {
    **CALL,
    "call_id": "call_3",
    "run_id": "run_1",
    "amount": 50,
    "budget_ids": '["bud_1"]',
    "instance_id": "ins_a",
    "created_at": 1,
}


async def _with_money(url: str) -> None:
    await move(url, "0006")
    await insert(url, "budgets", BUDGET)
    await insert(url, "holds", HOLD)
    await insert(
        url,
        "ledger",
        {**LINE, "call_id": "call_1", "run_id": "run_1", "cost": 300},
        {**LINE, "call_id": "call_2", "run_id": None, "cost": 20},
    )


async def test_what_was_spent_and_held_still_is_and_can_be_proven(database_url: str) -> None:
    await _with_money(database_url)
    await move(database_url, "0007")
    database = open_database(database_url)
    budgets = Budgets(database, ManualClock(), instance_id="ins_b")
    assert await database.read(lambda tx: budgets.get(tx, "run", "run_1")) == Budget(
        1000, 300, 50, 7
    )
    assert (await prove(database)).differences == ()
    rollups = Rollups(database)
    assert await rollups.fold() == 2
    assert (await prove(database)).differences == ()
    assert await rows(database_url, "SELECT tokens FROM ledger ORDER BY call_id") == [(10,), (10,)]
    # A hold of the older version is settled by this one.
    assert await database.write(lambda tx: budgets.settle_lost(tx, "ins_a")) == 1
    found = await database.read(lambda tx: budgets.get(tx, "run", "run_1"))
    assert found == Budget(1000, 350, 0, 7)
    assert (await prove(database)).differences == ()
    await database.close()


async def test_going_back_keeps_what_the_older_version_can_hold(database_url: str) -> None:
    await _with_money(database_url)
    await move(database_url, "0007")
    monthly = {
        **BUDGET,
        "id": "bud_2",
        "subject": "key:key_1",
        "subject_kind": "key",
        "subject_id": "key_1",
        "source": "api",
        "period": "month",
        "period_start": 5,
        "period_end": 9,
    }
    await insert(database_url, "budgets", monthly)
    both = [["bud_1", 0, "usd"], ["bud_2", 5, "usd"]]
    hold = {name: value for name, value in HOLD.items() if name != "budget_ids"}
    new = {**hold, "call_id": "call_4", "charges": json.dumps(both)}
    await insert(database_url, "holds", new)
    await move(database_url, "0006", down=True)
    assert await rows(database_url, "SELECT id, spent, held FROM budgets") == [("bud_1", 300, 50)]
    holds = await rows(database_url, "SELECT call_id, budget_ids FROM holds ORDER BY call_id")
    assert [(call_id, json.loads(ids)) for call_id, ids in holds] == [
        ("call_3", ["bud_1"]),
        ("call_4", ["bud_1"]),
    ]
    assert await rows(database_url, "SELECT sum(cost) FROM ledger") == [(320,)]
    await move(database_url, "0007")
