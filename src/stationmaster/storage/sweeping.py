"""Deleting what is over, some rows at a time: others wait for each transaction on SQLite."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, delete, select

from stationmaster.storage.database import Database, Transaction

AT_ONCE = 500


async def sweep(
    database: Database,
    table: Table,
    over: ColumnElement[bool],
    *,
    at_once: int = AT_ONCE,
    first: Callable[[Transaction, Sequence[Any]], None] | None = None,
) -> int:
    """Delete the rows for which `over` holds; return how many. Raises `Unavailable`. Idempotent.

    The table has one column as its key. `first` is given the keys that go, in the transaction in
    which they do: for what hangs on them.
    """
    key = next(iter(table.primary_key.columns))
    # Two servers that sweep at once must not wait for each other's rows.
    found = select(key).where(over).limit(at_once).with_for_update(skip_locked=True)

    def some(tx: Transaction) -> int:
        keys = list(tx.execute(found).scalars())
        if not keys:
            return 0
        if first is not None:
            first(tx, keys)
        return int(tx.execute(delete(table).where(key.in_(keys))).rowcount)

    gone = 0
    while deleted := await database.write(some):
        gone += deleted
        if deleted < at_once:
            break
    return gone
