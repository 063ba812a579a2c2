"""Raising a stream's head and inserting what follows it, in as few trips as the database allows."""

from collections.abc import Sequence

from msgspec.json import encode
from sqlalchemy import bindparam, insert, text, update

from stationmaster.events.event import NewEvent
from stationmaster.events.tables import events, streams
from stationmaster.kernel.clock import Millis
from stationmaster.storage import Prepared, Transaction

_raise = (
    update(streams)
    .where(streams.c.id == bindparam("stream"))
    .values(head=streams.c.head + bindparam("by"))
    .returning(streams.c.head)
)
_RAISE = Prepared(_raise)
_RAISE_IN_EPOCH = Prepared(_raise.where(streams.c.epoch == bindparam("in_epoch")))
_INSERT = Prepared(insert(events))

# PostgreSQL does both in one statement. Each waits for the row of the stream, so the order of
# commits is the order of numbers there too.
_AT_ONCE = """
    WITH raised AS (
        UPDATE streams SET head = head + CAST(:by AS bigint)
        WHERE id = CAST(:stream AS varchar) {in_epoch} RETURNING head
    ), put AS (
        INSERT INTO events (stream_id, seq, at, type, version, data)
        SELECT CAST(:stream AS varchar), raised.head - CAST(:by AS bigint) + new.place,
               CAST(:at AS bigint), new.type, new.version, new.data
        FROM raised, unnest(
            CAST(:types AS text[]), CAST(:versions AS integer[]), CAST(:data AS text[])
        ) WITH ORDINALITY AS new (type, version, data, place)
    )
    SELECT head FROM raised
"""
_BOTH = text(_AT_ONCE.format(in_epoch=""))
_BOTH_IN_EPOCH = text(_AT_ONCE.format(in_epoch="AND epoch = CAST(:in_epoch AS bigint)"))


def put(
    tx: Transaction,
    stream_id: str,
    new: Sequence[NewEvent],
    at: Millis,
    *,
    epoch: int | None,
) -> int | None:
    """Write a batch; return the first one's number. None where there is no such stream or epoch."""
    where = {"stream": stream_id, "by": len(new)}
    if epoch is not None:
        where["in_epoch"] = epoch
    if tx.dialect == "postgresql":
        values = {
            "at": at,
            "types": [event.type for event in new],
            "versions": [event.version for event in new],
            "data": [encode(event.data).decode() for event in new],
        }
        statement = _BOTH if epoch is None else _BOTH_IN_EPOCH
        head = tx.execute(statement, {**where, **values}).scalar()
        return None if head is None else int(head) - len(new) + 1
    rows = tx.run(_RAISE if epoch is None else _RAISE_IN_EPOCH, where)
    if not rows:
        return None
    first = int(rows[0][0]) - len(new) + 1
    tx.run_many(
        _INSERT,
        [
            {
                "stream_id": stream_id,
                "seq": first + index,
                "at": at,
                "type": event.type,
                "version": event.version,
                "data": event.data,
            }
            for index, event in enumerate(new)
        ],
    )
    return first
