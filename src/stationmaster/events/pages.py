"""Pages of a stream, bounded by number and by bytes: an event may hold pictures."""

from typing import Any

from sqlalchemy import Integer, Select, bindparam, case, func, select

from stationmaster.events.event import Event
from stationmaster.events.tables import events
from stationmaster.storage import Prepared, Transaction, octets

PAGE_BYTES = 8 * 1024**2  # of one page, as kept; one event alone may be larger


def page(tx: Transaction, stream_id: str, after: int, limit: int) -> list[Event]:
    """The first events of a stream that follow number `after`, in order.

    At most `limit`, and fewer where they are large: the end of the stream is where none comes.
    """
    return page_and_more(tx, stream_id, after, limit)[0]


def page_and_more(
    tx: Transaction, stream_id: str, after: int, limit: int
) -> tuple[list[Event], bool]:
    """See `page`; and whether more may follow."""
    rows = tx.run(_AFTER, _values(stream_id, after, limit))
    found = [Event(*row[:-1]) for row in rows]
    # The last column is the last number that was looked at: what follows was too large.
    return found, bool(found) and (len(found) == limit or found[-1].seq < rows[-1][-1])


def page_before(tx: Transaction, stream_id: str, before: int, limit: int) -> list[Event]:
    """The last events of a stream that precede number `before`, in order. Bounded as `page`."""
    rows = tx.run(_BEFORE, _values(stream_id, before, limit))
    return [Event(*row[:-1]) for row in reversed(rows)]


def _values(stream_id: str, beside: int, limit: int) -> dict[str, Any]:
    return {"stream": stream_id, "beside": beside, "limit": limit, "most": PAGE_BYTES}


def _bounded(*, newest: bool) -> Select[Any]:
    """As many as fit, but at least one. What does not fit is measured where it lies."""
    seq, beside = events.c.seq, bindparam("beside", type_=events.c.seq.type)
    here = [
        events.c.stream_id == bindparam("stream", type_=events.c.stream_id.type),
        seq < beside if newest else seq > beside,
    ]
    size = octets(events.c.data).label("size")
    most = bindparam("limit", type_=Integer())
    way = seq.desc() if newest else seq.asc()
    found = select(seq, size).where(*here).order_by(way).limit(most).subquery()
    way_on = found.c.seq.desc() if newest else found.c.seq.asc()
    upto = func.sum(found.c.size).over(order_by=way_on).label("upto")
    summed = select(found.c.seq, upto).subquery()
    fits = case((summed.c.upto <= bindparam("most", type_=Integer()), summed.c.seq))
    first, last = func.min(summed.c.seq), func.max(summed.c.seq)
    edge = func.coalesce(func.min(fits), last) if newest else func.coalesce(func.max(fits), first)
    bounds = select(edge.label("edge"), last.label("last")).subquery()
    within = seq >= bounds.c.edge if newest else seq <= bounds.c.edge
    # In the order of an event's fields.
    return select(*events.c, size, bounds.c.last).where(*here, within).order_by(way)


_AFTER = Prepared(_bounded(newest=False))
_BEFORE = Prepared(_bounded(newest=True))
