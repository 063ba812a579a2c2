"""Which request is made next, and what is written down of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Row, or_, select, update

from stationmaster.batches.batch import Operation, Taken
from stationmaster.batches.batches import close, count
from stationmaster.batches.ports import Answer
from stationmaster.batches.tables import batch_requests, batches
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction

CANDIDATES = 8  # batches looked at for one request

Lost = Callable[[Operation], Answer]
"""What a request is answered whose server died."""


class Desk:
    """Takes requests and puts answers away. Of the batches that wait, each has its turn."""

    def __init__(self, database: Database, clock: Clock, instances: Instances) -> None:
        self._database = database
        self._clock = clock
        self._instances = instances

    async def take(self) -> Taken | None:
        """A request that is due, for this server alone; None where there is none."""
        return await self._database.write(self._take)

    def _take(self, tx: Transaction) -> Taken | None:
        now = self._clock.now()
        waiting = tx.execute(
            select(batches)
            .where(
                batches.c.state == "in_progress",
                batches.c.expires_at > now,
                # One of which nothing is made here need not be looked through.
                or_(batches.c.native.is_(None), batches.c.native < batches.c.total),
            )
            .order_by(batches.c.turn_at, batches.c.id)
            .limit(CANDIDATES)
            .with_for_update(skip_locked=True)  # in no order that others lock in: never wait
        ).all()
        for batch in waiting:
            row = tx.execute(
                select(batch_requests)
                .where(
                    batch_requests.c.batch_id == batch.id,
                    batch_requests.c.state == "waiting",
                    batch_requests.c.due_at <= now,
                    batch_requests.c.destination.is_(None),
                )
                .order_by(batch_requests.c.due_at, batch_requests.c.number)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            # With nothing due it goes behind the others too: they may be more than are looked at.
            tx.execute(update(batches).where(batches.c.id == batch.id).values(turn_at=now))
            if row is not None:
                tx.execute(
                    update(batch_requests)
                    .where(*_at(row.batch_id, row.number))
                    .values(
                        state="running",
                        instance_id=self._instances.id,
                        attempts=row.attempts + 1,
                    )
                )
                return _taken(batch, row)
        return None

    async def put_away(self, taken: Taken, answer: Answer) -> None:
        """Write the answer down, and count it. Where another has taken over, change nothing."""
        held = _Held(taken.batch_id, taken.number, self._instances.id)
        await self._database.write(lambda tx: self._end(tx, held, answer))

    def _end(self, tx: Transaction, held: "_Held", answer: Answer) -> None:
        outcome = "succeeded" if 200 <= answer.status < 300 else "errored"
        _lock(tx, held.batch_id)
        ended = tx.execute(
            update(batch_requests)
            .where(*held.still())
            .values(
                state=outcome,
                status=answer.status,
                reply=answer.body.decode(),
                body="",
                instance_id=None,
            )
        )
        if ended.rowcount:
            count(tx, held.batch_id, outcome, 1, self._clock.now())

    async def put_back(self, taken: Taken, *, delay: float) -> None:
        """Let it wait again for `delay` seconds; where the batch is being cancelled, end it."""
        held = _Held(taken.batch_id, taken.number, self._instances.id)

        def verb(tx: Transaction) -> None:
            batch = _lock(tx, taken.batch_id)
            now = self._clock.now()
            tx.execute(
                update(batch_requests)
                .where(*held.still())
                .values(
                    state="waiting",
                    instance_id=None,
                    due_at=now + round(delay * 1000),
                )
            )
            if batch.state == "canceling":
                close(tx, taken.batch_id, "canceled", now)
            elif batch.expires_at <= now:
                close(tx, taken.batch_id, "expired", now)

        await self._database.write(verb)

    async def expire(self) -> None:
        """End what waits in batches whose time is over."""

        def verb(tx: Transaction) -> None:
            now = self._clock.now()
            late = (
                select(batches.c.id)
                .where(batches.c.state == "in_progress", batches.c.expires_at <= now)
                .order_by(batches.c.id)
                .with_for_update(skip_locked=True)
            )
            for batch_id in tx.execute(late).scalars().all():
                close(tx, batch_id, "expired", now)

        await self._database.write(verb)

    async def bury(self, lost: Lost) -> int:
        """End the requests that dead servers were making; return how many.

        How far they came is unknown and may be billed: they are not made again.
        """

        def dead(tx: Transaction) -> list[Row[Any]]:
            held = select(batch_requests.c.instance_id).where(
                batch_requests.c.instance_id.is_not(None)
            )
            ids = tx.execute(held.distinct()).scalars().all()
            gone = [each for each in ids if not self._instances.is_alive(tx, str(each))]
            query = (
                select(
                    batch_requests.c.batch_id,
                    batch_requests.c.number,
                    batch_requests.c.instance_id,
                    batches.c.operation,
                )
                .join(batches, batches.c.id == batch_requests.c.batch_id)
                .where(batch_requests.c.instance_id.in_(gone))
            )
            return list(tx.execute(query).all()) if gone else []

        rows = await self._database.read(dead)
        for row in rows:
            held, answer = _Held(row.batch_id, row.number, row.instance_id), lost(row.operation)
            await self._database.write(partial(self._end, held=held, answer=answer))
        return len(rows)


@dataclass(frozen=True, slots=True)
class _Held:
    """A request, and which server makes it."""

    batch_id: str
    number: int
    instance_id: str

    def still(self) -> tuple[Any, ...]:
        """Where that is so."""
        return (
            *_at(self.batch_id, self.number),
            batch_requests.c.state == "running",
            batch_requests.c.instance_id == self.instance_id,
        )


def _at(batch_id: str, number: int) -> tuple[Any, Any]:
    return (batch_requests.c.batch_id == batch_id, batch_requests.c.number == number)


def _lock(tx: Transaction, batch_id: str) -> Row[Any]:
    # Before its requests, as everywhere: two that count at once would wait for each other.
    return tx.execute(select(batches).where(batches.c.id == batch_id).with_for_update()).one()


def _taken(batch: Row[Any], row: Row[Any]) -> Taken:
    return Taken(
        batch_id=batch.id,
        number=row.number,
        owner=Owner(batch.organization_id, batch.project_id),
        key_id=batch.key_id,
        operation=batch.operation,
        headers=tuple((name, value) for name, value in batch.headers),
        body=row.body,
        attempt=row.attempts + 1,
    )
