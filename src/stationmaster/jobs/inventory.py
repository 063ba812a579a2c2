"""What is in the outbox, for the operator: seen, tried again, thrown away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, delete, func, or_, select, update

from stationmaster.jobs.outbox import Outbox
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

State = Literal["waiting", "running", "parked"]

SCOPE = "admin:jobs"


@dataclass(frozen=True, slots=True)
class Listed:
    """A job as it stands. `due_at` is when a waiting one may begin; `error` is its last one's.

    In `error` and `payload` what looks like a secret, or is known for one, is masked.
    """

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
    """The jobs that there are. A job that is done is there no more.

    They are the server's, of every organisation: only who belongs to the server's own, and has
    the scope `admin:jobs`, may see them. To others a job is not there.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        operators: str,
        noting: Callable[[Principal], Note],
        mask: Callable[[str], str],
        outbox: Outbox | None = None,
    ) -> None:
        """`operators` is the id of the server's own organisation.

        `noting` is asked before the transaction begins who is to be put on record. `mask` takes
        the secrets out of a text. Without an `outbox` nobody is told of a job that is due again: it
        is found by polling.
        """
        self._database = database
        self._clock = clock
        self._operators = operators
        self._noting = noting
        self._mask = mask
        self._outbox = outbox

    async def list(
        self,
        principal: Principal,
        *,
        state: State | None = None,
        kind: str | None = None,
        limit: int,
        after: str | None = None,
    ) -> Page[Listed]:
        """The oldest first. `after` is the cursor of the page before.

        Raises `Denied`, and `Invalid` for a cursor that never was one.
        """
        principal.require(SCOPE)
        if principal.owner.organization_id != self._operators:
            raise Denied("Jobs are the server's: only its own organisation sees them.")
        which = select(jobs).order_by(jobs.c.created_at, jobs.c.id).limit(limit + 1)
        if state is not None:
            which = which.where(jobs.c.state == state)
        if kind is not None:
            which = which.where(jobs.c.kind == kind)
        if after is not None:
            at, job_id = _position(after)
            same = and_(jobs.c.created_at == at, jobs.c.id > job_id)
            which = which.where(or_(jobs.c.created_at > at, same))
        rows = await self._database.read(lambda tx: tx.execute(which).all())
        items = [self._listed(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(items, f"{items[-1].created_at}.{items[-1].id}" if more else None)

    async def get(self, principal: Principal, job_id: str) -> Listed:
        """One. Raises `Denied`, `NotFound`."""
        self._admit(principal)
        return await self._database.read(lambda tx: self._one(tx, select(jobs), job_id))

    async def replay(self, principal: Principal, job_id: str) -> Listed:
        """Let a parked one be tried again, as often as a new one; how it waits.

        Raises `Denied`, `NotFound`, `Conflict`.
        """
        self._admit(principal)
        note, now = self._noting(principal), self._clock.now()

        def verb(tx: Transaction) -> Listed:
            found = self._parked(tx, job_id)
            again = {"state": "waiting", "attempts": 0, "run_at": now, "error": None}
            tx.execute(update(jobs).where(jobs.c.id == job_id).values(**again))
            note(tx, "job.replay", found)
            if self._outbox is not None:
                self._outbox.tell(tx, job_id, found.kind)
            return replace(found, state="waiting", attempts=0, due_at=now, error=None)

        return await self._database.write(verb)

    async def discard(self, principal: Principal, job_id: str) -> Listed:
        """Throw a parked one away; what it was. Raises `Denied`, `NotFound`, `Conflict`."""
        self._admit(principal)
        note = self._noting(principal)

        def verb(tx: Transaction) -> Listed:
            found = self._parked(tx, job_id)
            tx.execute(delete(jobs).where(jobs.c.id == job_id))
            note(tx, "job.discard", found)
            return found

        return await self._database.write(verb)

    def _admit(self, principal: Principal) -> None:
        principal.require(SCOPE)
        if principal.owner.organization_id != self._operators:
            raise _not_there()

    def _parked(self, tx: Transaction, job_id: str) -> Listed:
        found = self._one(tx, select(jobs).with_for_update(), job_id)
        if found.state != "parked":
            raise Conflict(f"The job is {found.state}, not parked.", code="job_not_parked")
        return found

    def _one(self, tx: Transaction, which: Select[Any], job_id: str) -> Listed:
        row = tx.execute(which.where(jobs.c.id == job_id)).first()
        if row is None:
            raise _not_there()
        return self._listed(row)

    def _listed(self, row: Row[Any]) -> Listed:
        return Listed(
            id=row.id,
            kind=row.kind,
            state=row.state,
            attempts=row.attempts,
            created_at=row.created_at,
            due_at=row.run_at,
            instance_id=row.instance_id,
            error=_masked(row.error, self._mask),
            payload=_masked(row.payload, self._mask),
        )


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


def _not_there() -> NotFound:
    return NotFound("There is no such job: it may be done.", code="job_not_found")


def _position(after: str) -> tuple[Millis, str]:
    at, _, job_id = after.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 16 and job_id):
        raise Invalid("after must be `next` of the page before.", param="after")
    return int(at), job_id


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked(item, mask) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, mask) for item in value]
    return value
