"""What is said of submissions, and what becomes of them with their batch."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update

from stationmaster.batches.batch import Progress
from stationmaster.batches.tables import batch_submissions
from stationmaster.kernel.clock import Millis
from stationmaster.storage import Transaction


def progress_of(tx: Transaction, batch_id: str) -> Sequence[Progress]:
    """See `Batches.progress`."""
    rows = tx.execute(
        select(batch_submissions)
        .where(batch_submissions.c.batch_id == batch_id)
        .order_by(batch_submissions.c.id)
    ).all()
    futile = [row.id for row in rows if row.state == "ended" and row.upstream_id is None]
    return [
        Progress(
            id=row.id,
            provider=row.provider,
            model=row.model,
            state=row.state,
            requests=row.size,
            counts=row.counts,
            upstream_id=row.upstream_id,
            sent_at=row.sent_at,
            next_at=None if row.state == "ended" else row.next_at,
            note=row.note,
        )
        for row in rows
        if row.id not in futile[:-1]
    ]


def look_now(tx: Transaction, batch_id: str, now: Millis) -> None:
    """Have the open submissions of a batch looked at next."""
    open_ = (batch_submissions.c.batch_id == batch_id, batch_submissions.c.state != "ended")
    tx.execute(update(batch_submissions).where(*open_).values(next_at=now))


def forget(tx: Transaction, batch_id: str) -> None:
    """Delete those of a batch that have ended. One that has not goes when it ends."""
    over = (batch_submissions.c.batch_id == batch_id, batch_submissions.c.state == "ended")
    tx.execute(delete(batch_submissions).where(*over))
