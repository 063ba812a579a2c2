"""Sealing anew what an older key of the operator's sealed, some rows at a time."""

from sqlalchemy import Table, select, update

from stationmaster.storage.database import Database, Transaction
from stationmaster.storage.sealing import Sealer

AT_ONCE = 100


async def reseal(database: Database, table: Table, sealer: Sealer) -> int:
    """Seal the table's `sealed` with the present key where it is another's; return how many.

    Each row's value is sealed for the table's name and the row's `id`. Raises `Unavailable`, and
    `SealBroken` for one that cannot be opened. Idempotent: what was done before stays done.
    """
    rows = table.c
    some = select(rows.id, rows.sealed).order_by(rows.id).limit(AT_ONCE)

    def verb(tx: Transaction) -> tuple[int, str | None]:
        found = tx.execute(some.where(rows.id > after)).all()
        stale = [row for row in found if sealer.stale(row.sealed)]
        for row in stale:
            sealed = sealer.reseal(row.sealed, purpose=f"{table.name}:{row.id}")
            tx.execute(update(table).where(rows.id == row.id).values(sealed=sealed))
        return len(stale), found[-1].id if found else None

    done, after = 0, ""
    while True:
        resealed, last = await database.write(verb)
        done += resealed
        if last is None:
            return done
        after = last
