"""What is in the outbox, for the operator: seen, tried again, thrown away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, Select, delete, func, select, update

from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.storage import Database, Transaction

State = Literal["waiting", "running", "parked"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A job as it stands. `due_at` is when a waiting one may begin; `error` is its last one's."""

    id: str
    kind: str
    state: State
    attempts: int
    created_at: Millis
    due_at: Millis
    instance_id: str | None
    error: str | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs there are, by state and kind, and since when the first waits that is due."""

    numbers: Mapping[tuple[str, str], int]
    oldest_due: Millis | None


Note = Callable[[Transaction, str, Listed], None]
"""Puts on record, in the same transaction, what was done (`job.replay`) with which job."""


class Inventory:
    """The jobs that there are. A job that is done is there no more."""

    def __init__(self, database: Database, clock: Clock, *, note: Note) -> None:
        self._database = database
        self._clock = clock
        self._note = note

    async def list(
        self, *, state: State | None = None, kind: str | None = None, limit: int = 100
    ) -> list[Listed]:
        """The oldest first, at most `limit`."""
        which = select(jobs).order_by(jobs.c.created_at, jobs.c.id).limit(limit)
        if state is not None:
            which = which.where(jobs.c.state == state)
        if kind is not None:
            which = which.where(jobs.c.kind == kind)
        return await self._database.read(lambda tx: [_listed(row) for row in tx.execute(which)])

    async def get(self, job_id: str) -> Listed:
        """One. Raises `NotFound`."""
        return await self._database.read(lambda tx: _one(tx, select(jobs), job_id))

    async def replay(self, job_id: str) -> Listed:
        """Let a parked one be tried again, as often as a new one. Raises `NotFound`, `Conflict`."""
        again = {"state": "waiting", "attempts": 0, "run_at": self._clock.now(), "error": None}

        def verb(tx: Transaction) -> Listed:
            found = _parked(tx, job_id)
            tx.execute(update(jobs).where(jobs.c.id == job_id).values(**again))
            self._note(tx, "job.replay", found)
            return found

        return await self._database.write(verb)

    async def discard(self, job_id: str) -> Listed:
        """Throw a parked one away; what it was. Raises `NotFound`, `Conflict`."""

        def verb(tx: Transaction) -> Listed:
            found = _parked(tx, job_id)
            tx.execute(delete(jobs).where(jobs.c.id == job_id))
            self._note(tx, "job.discard", found)
            return found

        return await self._database.write(verb)


async def count(database: Database, now: Millis) -> Counts:
    """How many there are at `now`."""

    def verb(tx: Transaction) -> Counts:
        grouped = select(jobs.c.state, jobs.c.kind, func.count()).group_by(
            jobs.c.state, jobs.c.kind
        )
        rows: Any = tx.execute(grouped)
        numbers = {(state, kind): number for state, kind, number in rows}
        due = (jobs.c.state == "waiting", jobs.c.run_at <= now)
        return Counts(numbers, tx.execute(select(func.min(jobs.c.run_at)).where(*due)).scalar())

    return await database.read(verb)


def _parked(tx: Transaction, job_id: str) -> Listed:
    found = _one(tx, select(jobs).with_for_update(), job_id)
    if found.state != "parked":
        raise Conflict(f"The job is {found.state}, not parked.", code="job_not_parked")
    return found


def _one(tx: Transaction, which: Select[Any], job_id: str) -> Listed:
    row = tx.execute(which.where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFound("There is no such job: it may be done.", code="job_not_found")
    return _listed(row)


def _listed(row: Row[Any]) -> Listed:
    return Listed(
        id=row.id,
        kind=row.kind,
        state=row.state,
        attempts=row.attempts,
        created_at=row.created_at,
        due_at=row.run_at,
        instance_id=row.instance_id,
        error=row.error,
        payload=row.payload,
    )
