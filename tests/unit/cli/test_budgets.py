"""The commands around money: what is asked of the server, and what is done to the database."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, update

from stationmaster.budgets import Budgets, CallContext, LedgerEntry, Usage
from stationmaster.budgets.tables import budgets, ledger, usage_hours
from stationmaster.cli.application import run
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, open_database
from tests.support.command import Command
from tests.support.scripted_http import Answer, ScriptedServer

BUDGET: dict[str, Any] = {
    "id": "bud_1",
    "subject": {"type": "key", "id": "key_1"},
    "limit_usd": "5.00",
    "limit_tokens": None,
    "mode": "hard",
    "period": "month",
    "spent": "1.25",
    "held": "0.00",
    "remaining": "3.75",
}
SHOWN = [
    "ID     OF         MODE  PERIOD  LIMIT  SPENT  HELD   LEFT",
    "bud_1  key key_1  hard  month   $5.00  $1.25  $0.00  $3.75",
]


def test_a_budget_is_set(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of(BUDGET, 201)]
    code, out, _ = command(
        *("budgets", "create", "key", "key_1", "--usd", "5.00", "--period", "month"),
        *("--alert-percent", "50", "--alert-percent", "90"),
    )
    assert (code, out.splitlines()) == (0, SHOWN)
    assert server.requests[0].json == {
        "subject": {"type": "key", "id": "key_1"},
        "limit_usd": "5.00",
        "period": "month",
        "mode": "hard",
        "time_zone": "UTC",
        "alerts": {"percent": [50, 90]},
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "key", "key_1"],
        ["create", "key", "key_1", "--usd", "1", "--tokens", "1"],
        ["create", "planet", "--usd", "1"],
        ["create", "key", "--tokens", "-1"],
        ["update", "bud_1"],
    ],
)
def test_half_a_wish_asks_nothing(
    server: ScriptedServer, command: Command, arguments: list[str]
) -> None:
    code, _, err = command("budgets", *arguments)
    assert (code, server.requests) == (2, [])
    assert err


def test_budgets_are_listed_shown_changed_and_deleted(
    server: ScriptedServer, command: Command
) -> None:
    tokens = {**BUDGET, "id": "bud_2", "limit_usd": None, "limit_tokens": 10, "spent": 1}
    server.answers = [
        Answer.of({"budgets": [BUDGET, tokens], "next": "bud_2"}),
        Answer.of(BUDGET),
        Answer.of(BUDGET),
        Answer.of(BUDGET),
    ]
    code, out, err = command("budgets", "list", "--of", "key")
    assert code == 0
    assert "10 tokens  1 tokens" in out
    assert err == "There are more: --after bud_2\n"
    code, out, _ = command("budgets", "show", "bud_1", "-o", "json")
    assert (code, json.loads(out)) == (0, BUDGET)
    assert command("budgets", "update", "bud_1", "--usd", "9")[0] == 0
    assert command("budgets", "delete", "bud_1")[1] == "Budget bud_1 is deleted.\n"
    assert [(each.method, each.path) for each in server.requests] == [
        ("GET", "/v1/budgets?limit=20&subject_type=key"),
        ("GET", "/v1/budgets/bud_1"),
        ("PATCH", "/v1/budgets/bud_1"),
        ("DELETE", "/v1/budgets/bud_1"),
    ]
    assert server.requests[2].json == {"limit_usd": "9"}


def test_alerts_are_a_table(server: ScriptedServer, command: Command) -> None:
    data = {"budget_id": "bud_1", "subject": {"type": "project", "id": "p"}}
    server.answers = [
        Answer.of(
            {
                "alerts": [
                    {"seq": 1, "created_at": "t", "data": {**data, "threshold": {"percent": 90}}},
                    {"seq": 2, "created_at": "t", "data": {**data, "threshold": {"remaining": 5}}},
                ],
                "next": 2,
            }
        )
    ]
    _, out, _ = command("budgets", "alerts")
    assert out.splitlines()[1:] == [
        "1    t     bud_1   project p  90 % spent",
        "2    t     bud_1   project p  less than 5 left",
    ]


def test_usage_is_told_apart_and_exported(server: ScriptedServer, command: Command) -> None:
    part = {"tokens": 1200, "cost": 0.5, "calls": 2}
    found = {
        "project_id": "p",
        "period": "week",
        "total_tokens": 1200,
        "total_cost": 0.5,
        "limit": 5000,
        "remaining": 3800,
        "groups": [{**part, "starts_at": "2026-01-01", "by": {"key": "key_1"}}],
    }
    server.answers = [Answer.of(found), Answer(200, b"call_id,at\n")]
    code, out, _ = command("usage", "--period", "week", "--by", "day,key", "--organization")
    assert code == 0
    assert out.splitlines() == [
        "Project p, week",
        "Budget 5,000 tokens, 3,800 left",
        "DAY,KEY           TOKENS  COST",
        "2026-01-01 key_1  1,200   $0.5000",
        "all               1,200   $0.5000",
    ]
    asked = "/v1/usage?period=week&group_by=day%2Ckey&scope=organization"
    assert server.requests[0].path == asked
    assert command("usage", "--export", "csv")[0] == 0
    assert server.requests[1].path == "/v1/usage/export?period=month&format=csv"


# --- on the database itself ---------------------------------------------------------------------


def _used(url: str) -> None:
    async def use() -> None:
        database = open_database(url)
        budgets = Budgets(database, ManualClock(), instance_id="ins_a")
        await database.write(lambda tx: budgets.open(tx, Owner("o", "p"), "run", "run_1", 1000))
        for number in range(5):
            context = CallContext(f"call_{number}", Owner("o", "p"), "k", "run_1", "s", "a", "m")
            await budgets.reserve(context, 100)
            await budgets.settle(LedgerEntry(context, 10, Usage(1, 2), 70, "complete", 1))
        await database.close()

    asyncio.run(use())


def _plant(url: str) -> None:
    async def plant() -> None:
        database: Database = open_database(url)
        one = ledger.c.call_id == "call_3"
        await database.write(lambda tx: tx.execute(update(ledger).where(one).values(cost=71)))
        await database.close()

    asyncio.run(plant())


def test_the_ledger_is_verified_and_its_sums_rebuilt(
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "books.db"
    path.write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{path}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    _used(url)
    assert run(["ledger", "verify"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "5 lines of the ledger, $0.000350; 1 budgets, 0 open holds.",
        "They agree to the micro-dollar.",
    ]
    assert run(["ledger", "rebuild"]) == 0
    assert "from 5 lines" in capsys.readouterr().out
    _plant(url)
    assert run(["ledger", "verify", "-o", "json"]) == 1
    proof = json.loads(capsys.readouterr().out)
    assert proof["agree"] is False
    assert {(each["what"], each["expected"], each["found"]) for each in proof["differences"]} == {
        ("spent of a budget", 351, 350),
        ("cost of usage_hours", 351, 350),
    }
    assert run(["ledger", "verify"]) == 1
    assert "The books do not agree." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "column", "what"),
    [
        (usage_hours, "cost", "cost of usage_hours"),
        (budgets, "spent", "spent of a budget"),
        (budgets, "held", "held of a budget"),
    ],
    ids=["roll-ups", "spent", "held"],
)
def test_a_micro_dollar_too_many_is_found(
    *,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    table: Table,
    column: str,
    what: str,
) -> None:
    path = tmp_path / "books.db"
    path.write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{path}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url)
    _used(url)
    assert run(["ledger", "rebuild"]) == 0
    assert run(["ledger", "verify"]) == 0

    async def plant() -> None:
        database = open_database(url)
        more = update(table).values({column: table.c[column] + 1})
        assert await database.write(lambda tx: tx.execute(more).rowcount) == 1
        await database.close()

    asyncio.run(plant())
    capsys.readouterr()
    assert run(["ledger", "verify", "-o", "json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["differences"]
    assert (found["what"], found["found"] - found["expected"]) == (what, 1)


def test_a_database_of_another_version_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'empty.db'}")
    assert run(["ledger", "verify"]) == 5
    assert "this version needs" in capsys.readouterr().err
