"""Parameters that are a list or a table: one form and one plan, whatever their length."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import BigInteger, Column, MetaData, String, Table, insert, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from stationmaster.budgets import holds, ledger
from stationmaster.budgets.tables import holds as holds_table
from stationmaster.budgets.tables import ledger as ledger_table
from stationmaster.budgets.tables import ledger_news
from stationmaster.kernel.errors import Invalid
from stationmaster.storage import (
    Database,
    Json,
    Prepared,
    Transaction,
    among,
    given,
    open_database,
    spread,
    spread_out,
)

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
HOT_THERE: list[tuple[Prepared, dict[str, Any]]] = [
    (
        holds._RAISE_AND_INSERT,
        {"raises": [["a", 0]], **spread_out(holds_table.columns, [])},
    ),
    (
        ledger._INSERT_AND_SHIFT,
        {"shifts": [["a", 0, 0, 0]], **spread_out(ledger_table.columns, [])},
    ),
]
SHELF = Table(
    "shelf",
    MetaData(),
    Column("name", String(8)),
    Column("number", BigInteger),
    Column("inside", Json),
)
FILL = Prepared(insert(SHELF).from_select(SHELF.columns.keys(), select(spread(SHELF.columns))))
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


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[Database]:
    database = open_database(postgres_url, pool_size=1)
    await database.write(lambda tx: tx.execute(CreateTable(SHELF)))
    yield database
    await database.close()


async def test_rows_that_are_spread_go_in_as_they_are(postgres: Database) -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "number": -(2**62), "inside": [["x", 1], ["y", 2]]},
        {"name": "c'", "number": None, "inside": None},
        {"name": 'ä"{},', "number": 2**62, "inside": {"NULL": [[]]}},
        {"name": "NULL", "number": 0, "inside": []},
        {"name": None, "number": 0, "inside": "\0"},
    ]

    def verb(tx: Transaction) -> list[Any]:
        for some in ([], rows[:1], rows[1:]):
            tx.run(FILL, spread_out(SHELF.columns, [tuple(row.values()) for row in some]))
        return [dict(row._mapping) for row in tx.execute(select(SHELF))]

    assert await postgres.write(verb) == rows


@pytest.mark.parametrize(("name", "error"), [("n" * 9, DBAPIError), ("\0", Invalid)])
async def test_what_does_not_fit_is_refused_not_cut(
    postgres: Database, name: str, error: type[Exception]
) -> None:
    row = (name, 1, None)
    with pytest.raises(error):
        await postgres.write(lambda tx: tx.run(FILL, spread_out(SHELF.columns, [row])))
    assert await postgres.read(lambda tx: tx.execute(select(SHELF)).all()) == []


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
    for statement, values in HOT + HOT_THERE:
        compiled = statement.compiled(connection.dialect)
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled.sql}", compiled.bind(values)).all()
        found.append("\n".join(row[0] for row in rows))
    return found
