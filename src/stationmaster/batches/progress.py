"""What is said of submissions, and what becomes of them with their batch."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import delete, select, update

from stationmaster.batches.batch import Batch, Counts, Progress
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


def with_told(tx: Transaction, found: Sequence[Batch]) -> list[Batch]:
    """Batches with what their providers tell of requests whose answers are not here yet."""
    going = [batch.id for batch in found if batch.state != "ended"]
    told = _told(tx, going) if going else {}
    return [replace(each, counts=_sum(each.counts, told.get(each.id, {}))) for each in found]


def _told(tx: Transaction, batch_ids: Collection[str]) -> Mapping[str, "Counter[str]"]:
    rows = tx.execute(
        select(batch_submissions.c.batch_id, batch_submissions.c.counts).where(
            batch_submissions.c.batch_id.in_(batch_ids),
            batch_submissions.c.state == "in_progress",
        )
    ).all()
    told: dict[str, Counter[str]] = {}
    for row in rows:
        told.setdefault(row.batch_id, Counter()).update(row.counts or {})
    return told


def _sum(own: Counts, told: Mapping[str, int]) -> Counts:
    ended = {name: told.get(name, 0) for name in ("succeeded", "errored", "canceled", "expired")}
    left = own.processing - sum(ended.values())
    if left < 0:  # a provider that cannot count
        return own
    more = {name: getattr(own, name) + number for name, number in ended.items()}
    return Counts(processing=left, **more)


def take_off(tx: Transaction, submission_id: str, here: Mapping[str, int]) -> None:
    """Note that so many requests, by outcome, are counted with their batch from now on."""
    mine = batch_submissions.c.id == submission_id
    told = tx.execute(select(batch_submissions.c.counts).where(mine)).scalar()
    if told:
        left = {name: max(0, number - here.get(name, 0)) for name, number in told.items()}
        tx.execute(update(batch_submissions).where(mine).values(counts=left))


def look_now(tx: Transaction, batch_id: str, now: Millis) -> None:
    """Have the open submissions of a batch looked at next."""
    open_ = (batch_submissions.c.batch_id == batch_id, batch_submissions.c.state != "ended")
    tx.execute(update(batch_submissions).where(*open_).values(next_at=now))


def forget(tx: Transaction, batch_id: str) -> None:
    """Delete those of a batch that have ended. One that has not goes when it ends."""
    over = (batch_submissions.c.batch_id == batch_id, batch_submissions.c.state == "ended")
    tx.execute(delete(batch_submissions).where(*over))
