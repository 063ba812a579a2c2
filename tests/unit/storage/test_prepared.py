"""Prepared statements do what executed ones do, on both databases."""

import asyncio

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from stationmaster.kernel.errors import Conflict
from stationmaster.storage import Database, Json, Prepared, Transaction

boxes = Table(
    "boxes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("label", String),
    Column("content", Json, nullable=False),
)

PUT = Prepared(insert(boxes))
TAKE = Prepared(
    delete(boxes).where(boxes.c.id == bindparam("box")).returning(boxes.c.content, boxes.c.label)
)
RELABEL = Prepared(
    update(boxes).where(boxes.c.id == bindparam("box")).values(label=bindparam("new"))
)
ALL = Prepared(select(boxes.c.id, boxes.c.label, boxes.c.content).order_by(boxes.c.id))

SOME = Prepared(
    select(boxes.c.id)
    .where(boxes.c.id != 2)
    .order_by(boxes.c.id)
    .limit(bindparam("most", type_=Integer()))
)

CONTENT = {"words": ["a", "ü", None], "number": 1.5}


@pytest.fixture
async def shelf(database: Database) -> Database:
    await database.write(lambda tx: tx.execute(CreateTable(boxes)))
    return database


def box(number: int, content: object = None) -> dict[str, object]:
    return {"id": number, "label": None, "content": content}


async def test_values_go_in_and_come_out_as_their_columns_mean_them(shelf: Database) -> None:
    assert await shelf.write(lambda tx: tx.run(PUT, box(1, CONTENT))) == []
    assert await shelf.read(lambda tx: tx.run(ALL, {})) == [(1, None, CONTENT)]
    executed = await shelf.read(lambda tx: tx.execute(select(boxes)).all())
    assert [tuple(row) for row in executed] == [(1, None, CONTENT)]
    assert await shelf.write(lambda tx: tx.run(RELABEL, {"box": 1, "new": "tools"})) == []
    assert await shelf.write(lambda tx: tx.run(TAKE, {"box": 1})) == [(CONTENT, "tools")]
    assert await shelf.write(lambda tx: tx.run(TAKE, {"box": 1})) == []


async def test_many_at_once_are_one_transaction(shelf: Database) -> None:
    with pytest.raises(IntegrityError):
        await shelf.write(lambda tx: tx.run_many(PUT, [box(n % 5, n) for n in range(6)]))
    assert await shelf.read(lambda tx: tx.run(ALL, {})) == []
    await shelf.write(lambda tx: tx.run_many(PUT, [box(n, n) for n in range(5)]))
    assert await shelf.read(lambda tx: tx.run(ALL, {})) == [(n, None, n) for n in range(5)]


async def test_more_than_one_statement_takes_are_all_written(shelf: Database) -> None:
    rows = [box(number, [number]) for number in range(100)]
    await shelf.write(lambda tx: tx.run_many(PUT, rows))
    await shelf.write(
        lambda tx: tx.run_many(RELABEL, [{"box": n, "new": f"box {n}"} for n in range(100)])
    )
    found = await shelf.read(lambda tx: tx.run(ALL, {}))
    assert found == [(number, f"box {number}", [number]) for number in range(100)]


async def test_one_that_fails_among_many_verbs_is_undone_alone(shelf: Database) -> None:
    def verb(tx: Transaction, number: int) -> None:
        tx.run(PUT, box(number, number))
        if number == 3:
            raise Conflict("no")
        if number == 5:
            tx.run(PUT, box(number, "again"))

    results = await asyncio.gather(
        *(shelf.write(lambda tx, number=number: verb(tx, number)) for number in range(8)),  # type: ignore[misc]
        return_exceptions=True,
    )
    assert isinstance(results[3], Conflict)
    assert isinstance(results[5], IntegrityError)
    assert [row[0] for row in await shelf.read(lambda tx: tx.run(ALL, {}))] == [0, 1, 2, 4, 6, 7]


async def test_an_error_does_not_quote_what_was_to_be_written(shelf: Database) -> None:
    def verb(tx: Transaction) -> None:
        tx.run(PUT, box(1, "first"))
        tx.run(PUT, box(1, "private words"))

    with pytest.raises(IntegrityError) as caught:
        await shelf.write(verb)
    assert "private words" not in str(caught.value)


async def test_what_a_statement_says_itself_needs_no_value(shelf: Database) -> None:
    """A constant of its own, and what a dialect adds to it: SQLite's LIMIT has an OFFSET."""
    for number in (1, 2, 3, 4):
        await shelf.write(lambda tx, number=number: tx.run(PUT, box(number, "x")))  # type: ignore[misc]
    assert await shelf.read(lambda tx: tx.run(SOME, {"most": 2})) == [(1,), (3,)]
    assert await shelf.write(lambda tx: tx.run(SOME, {"most": 2})) == [(1,), (3,)]
