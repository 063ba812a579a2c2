"""A table of the tests' own, beside the migrated ones."""

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.schema import CreateTable

from stationmaster.storage import Database, Transaction

notes = Table(
    "notes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("text", String, nullable=False),
)


async def make_notes(database: Database) -> None:
    await database.write(lambda tx: tx.execute(CreateTable(notes)))


def add(tx: Transaction, note_id: int, text: str = "") -> int:
    tx.execute(insert(notes), {"id": note_id, "text": text})
    return note_id


def change(tx: Transaction, note_id: int, text: str) -> None:
    tx.execute(update(notes).where(notes.c.id == note_id).values(text=text))


def ids(tx: Transaction) -> list[int]:
    return list(tx.execute(select(notes.c.id).order_by(notes.c.id)).scalars())
