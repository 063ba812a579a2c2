"""From each schema there ever was, with rows in all of its tables, to the present one and back."""

from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, String, Table, Text, insert, make_url, select

from stationmaster.migrations import HEAD, migrate
from stationmaster.migrations.connection import run
from tests.support.schema import differences, move, revisions

ROWS = 3
KINDS: dict[str, Any] = {"BOOLEAN": bool, "BLOB": bytes, "BYTEA": bytes}
# What a revision reads and understands. All other text may be anything; this is JSON.
SENSE = {
    ("holds", "budget_ids"): '["id_{n}"]',
    ("runs", "state"): "completed",
    ("sessions", "agent"): '{{"model": {{"id": "model_{n}"}}}}',
    ("budgets", "subject_kind"): "run",
    ("budgets", "source"): "server",
    ("budgets", "unit"): "usd",
    ("budgets", "period"): "total",
    ("budgets", "subject"): "run:id_{n}",
    ("holds", "charges"): '[["id_{n}", 0, "usd"]]',
}


def _value(table: str, column: Any, n: int) -> Any:
    if (table, column.name) in SENSE:
        return SENSE[table, column.name].format(n=n)
    if column.name == "id" or column.name.endswith("_id"):
        return f"id_{n}" if isinstance(column.type, String) else n
    if isinstance(column.type, Text):
        return f'{{"{column.name}": {n}}}'
    if isinstance(column.type, String):
        return f"{column.name}_{n}"[-column.type.length :] if column.type.length else f"{n}"
    kind = KINDS.get(str(column.type), int)
    return b"%d" % n if kind is bytes else kind(n)


def _fill(connection: Connection) -> None:
    """Put rows into every table that has none; those of a number belong together."""
    found = MetaData()
    found.reflect(connection)
    for table in found.sorted_tables:
        if connection.execute(select(table)).first() is None:
            made = [
                {column.name: _value(table.name, column, n) for column in table.columns}
                for n in range(1, ROWS + 1)
            ]
            connection.execute(insert(table), made)
    connection.commit()


def _contents(connection: Connection) -> dict[str, dict[str, list[Any]]]:
    """Of each table each column's values, in the order of its key."""
    found = MetaData()
    found.reflect(connection)
    return {
        table.name: _columns(connection, table)
        for table in found.sorted_tables
        if table.name != "alembic_version"
    }


def _columns(connection: Connection, table: Table) -> dict[str, list[Any]]:
    ordered = connection.execute(select(table).order_by(*table.primary_key)).all()
    return {column.name: [row[i] for row in ordered] for i, column in enumerate(table.columns)}


@pytest.mark.parametrize("revision", revisions()[:-1])
async def test_what_was_there_still_is(revision: str, database_url: str) -> None:
    url = make_url(database_url)
    await move(database_url, revision)
    await run(url, _fill)
    before = await run(url, _contents)
    assert all(len(values) in {1, ROWS} for table in before.values() for values in table.values())
    assert await migrate(database_url)
    assert await differences(database_url) == []
    after = await run(url, _contents)
    assert before.keys() <= after.keys()
    for name, columns in before.items():
        for column, values in columns.items():
            if (name, column) != ("holds", "budget_ids"):  # since 0007 they are its charges
                assert after[name][column] == values, (name, column)
    await move(database_url, revision, down=True)
    assert await run(url, _contents) == before


def test_there_is_a_schema_before_this_one() -> None:
    assert revisions()[0] == "0001"
    assert revisions()[-1] == HEAD
