"""A parameter that is a list: found by an index, whatever its length."""

from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects import sqlite

from stationmaster.budgets import holds, ledger
from stationmaster.budgets.tables import ledger_news
from stationmaster.storage import Database, Prepared, Transaction, among, given

FIND = Prepared(
    select(ledger_news.c.call_id)
    .where(among(ledger_news.c.call_id, "ids"))
    .order_by(ledger_news.c.call_id)
)
HOT: list[tuple[Prepared, dict[str, Any]]] = [
    (holds._LOCK, {"subjects": ["a"]}),
    (ledger._TAKE, {"calls": ["a"]}),
    (ledger._SHIFT, {"shifts": [["a", 0, 0, 0]]}),
]
ROWS = given("rows", {"name": str, "number": int})
READ = Prepared(select(ROWS.c.name, ROWS.c.number).order_by(ROWS.c.number))


async def test_those_that_are_listed_are_found(database: Database) -> None:
    names = ["a", "b", "c'", 'd"', "ä", "%", "[1]", "null"]

    def verb(tx: Transaction) -> list[list[Any]]:
        for name in names:
            tx.execute(text("INSERT INTO ledger_news VALUES (:name)"), {"name": name})
        lists = [[], ["a"], ["x"], ["a", "a"], names, [f"n{i}" for i in range(5000)] + ["b"]]
        return [[row[0] for row in tx.run(FIND, {"ids": ids})] for ids in lists]

    found = await database.write(verb)
    assert found[:4] == [[], ["a"], [], ["a"]]
    assert sorted(found[4]) == sorted(names)
    assert found[5] == ["b"]


async def test_rows_that_are_given_are_a_table(database: Database) -> None:
    rows = [("a", -(2**62)), ("c'", 0), ('d"[1]', 1), ("ä\\%", 2**62)]

    def verb(tx: Transaction) -> list[Any]:
        return [tx.run(READ, {"rows": each}) for each in ([], rows)]

    assert await database.read(verb) == [[], rows]


async def test_the_statements_of_every_call_use_an_index(database: Database) -> None:
    plans = await database.write(_sqlite if database.dialect == "sqlite" else _postgresql)
    for plan in plans:
        assert "Seq Scan" not in plan
        assert "SCAN budgets" not in plan
        assert "SCAN holds" not in plan
        assert "Index" in plan or "INDEX" in plan, plan


def _sqlite(tx: Transaction) -> list[str]:
    connection = tx._connection
    dialect = sqlite.dialect(paramstyle="qmark")
    found = []
    for statement, values in HOT:
        compiled = statement.compiled(dialect)
        sql = f"EXPLAIN QUERY PLAN {compiled.sql}"
        found.append(str(connection.exec_driver_sql(sql, compiled.bind(values)).all()))
    return found


def _postgresql(tx: Transaction) -> list[str]:
    tx.execute(text("SET LOCAL enable_seqscan = off"))  # the tables are empty
    connection = tx._connection
    found = []
    for statement, values in HOT:
        compiled = statement.compiled(connection.dialect)
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled.sql}", compiled.bind(values)).all()
        found.append("\n".join(row[0] for row in rows))
    return found
