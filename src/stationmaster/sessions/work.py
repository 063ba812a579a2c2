"""The verbs on the work of self-hosted environments: for their workers, and for who looks on."""

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import msgspec
import structlog
from sqlalchemy import ColumnElement, Row, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert  # its ON CONFLICT is SQLite's too

from stationmaster.access import WorkTokens
from stationmaster.kernel.clock import Clock, Millis, iso
from stationmaster.kernel.errors import (
    Conflict,
    Denied,
    Invalid,
    NotAsExpected,
    NotFound,
    Unavailable,
)
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.live.bus import Bus
from stationmaster.sessions.checks import patched
from stationmaster.sessions.environments import find_environment
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.tables import pollers, work
from stationmaster.sessions.topics import work_topic
from stationmaster.sessions.work_queue import HELD, WorkItem, WorkQueue, work_of
from stationmaster.storage import Database, Transaction

__all__ = ["NO_HEARTBEAT", "Beat", "Work", "WorkItem", "WorkStats"]

log = structlog.get_logger(__name__)

SCOPE = "work:environments"
NO_HEARTBEAT = "NO_HEARTBEAT"
RECLAIM_MS = 5000  # as the API has it
SEEN_MS = 30_000  # as well: how long a worker that has polled is counted
NOTED_MS = 10_000  # how often it is written down that a worker polls
MOST_NOTED = 10_000
AT_ONCE = 20  # leases ended in one go
SWEEP_S = 2.0  # how late a lease is ended that is over


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat has come to. `ttl` is in seconds."""

    state: str
    heartbeat_at: Millis | None
    extended: bool
    ttl: int


@dataclass(frozen=True, slots=True)
class WorkStats:
    """How an environment's queue stands: `depth` wait, `pending` are given out, not taken yet."""

    depth: int
    pending: int
    oldest_queued_at: Millis | None
    workers_polling: int


class Work:
    """The verbs on work. Scopes: `work:environments`; to look on, those of environments.

    A worker's credential is for its own environment: another's is not there. The secret of a piece
    of work is for that piece alone.
    """

    def __init__(
        self,
        *,
        database: Database,
        records: SessionRecords,
        queue: WorkQueue,
        tokens: WorkTokens,
        bus: Bus,
        clock: Clock,
        lease_time: float,
    ) -> None:
        """`lease_time` is in seconds: what a worker gets that asks for none, and the most."""
        self._database = database
        self._records = records
        self._queue = queue
        self._tokens = tokens
        self._bus = bus
        self._clock = clock
        self._ttl = round(lease_time)
        self._noted: dict[tuple[str, str], Millis] = {}

    # --- for workers --------------------------------------------------------------------------

    async def poll(
        self,
        principal: Principal,
        environment_id: str,
        *,
        block: float = 0.0,
        reclaim_ms: int = RECLAIM_MS,
        worker: str | None = None,
    ) -> tuple[WorkItem, str] | None:
        """The work that has waited longest, with its secret; None where none comes within `block`.

        `block` is in seconds. What a worker was given and has not acknowledged within `reclaim_ms`
        is given out again, with another secret. Raises `NotFound`, and `Invalid` for an environment
        that is not self-hosted.
        """
        principal.require(SCOPE)
        if principal.work_id is not None:
            raise Denied("The secret of one piece of work gives no other.")
        await self._database.read(lambda tx: _self_hosted(tx, principal, environment_id))
        if worker is not None:
            await self._note(environment_id, worker)
        wake = self._bus.subscribe(work_topic(environment_id))
        until = monotonic() + block
        try:
            while True:
                found = await self._give(principal, environment_id, reclaim_ms)
                left = until - monotonic()
                if found is not None or left <= 0:
                    return found
                await wake.wait(left)
                wake.reset()
        finally:
            self._bus.unsubscribe(wake)

    async def _give(
        self, principal: Principal, environment_id: str, reclaim_ms: int
    ) -> tuple[WorkItem, str] | None:
        await self.end_leases(environment_id)
        now = self._clock.now()
        free = and_(
            work.c.environment_id == environment_id,
            work.c.state == "queued",
            or_(work.c.polled_at.is_(None), work.c.polled_at <= now - reclaim_ms),
        )
        first = select(work).where(free).order_by(work.c.queued_at, work.c.id).limit(1)
        # Most polls find nothing: they write nothing.
        if await self._database.read(lambda tx: tx.execute(first).first()) is None:
            return None

        def verb(tx: Transaction) -> tuple[WorkItem, str] | None:
            row = tx.execute(first.with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            tx.execute(update(work).where(work.c.id == row.id).values(polled_at=now))
            token = self._tokens.issue(
                tx,
                principal,
                environment_id=environment_id,
                work_id=row.id,
                session_id=row.session_id,
                expires_at=self._until(now, row.ttl, 2),
            )
            return work_of(row), _payload(token)

        return await self._database.write(verb)

    async def ack(self, principal: Principal, environment_id: str, work_id: str) -> WorkItem:
        """Take work that was given out. Idempotent until its first heartbeat.

        Raises `NotFound`, `Conflict` (`work_not_given`).
        """
        principal.require(SCOPE)
        if principal.work_id is not None:
            raise Denied("Work is acknowledged by who has polled it.")

        def verb(tx: Transaction) -> WorkItem:
            row = _find(tx, principal, environment_id, work_id, lock=True)
            if row.state == "starting" and row.heartbeat_at is None:
                return work_of(row)
            if row.state != "queued" or row.polled_at is None:
                raise Conflict("This work waits for nobody's word.", code="work_not_given")
            now = self._clock.now()
            self._lease(tx, row, now, state="starting", acknowledged_at=now)
            return work_of(_row(tx, work_id))

        return await self._database.write(verb)

    async def heartbeat(
        self,
        principal: Principal,
        environment_id: str,
        work_id: str,
        *,
        expected: str | None = None,
        ttl: int | None = None,
    ) -> Beat:
        """Say that the work goes on. `expected` is the last heartbeat as it was told, or its want.

        Raises `NotFound`; `NotAsExpected` (`heartbeat_precondition_failed`) where another worker
        may have it, with how it stands as `current_state`. Work that stops, or has stopped, is
        said so, whatever is expected. `ttl` is in seconds; the server may give less.
        """
        principal.require(SCOPE)

        def verb(tx: Transaction) -> Beat:
            row = _find(tx, principal, environment_id, work_id, lock=True)
            last = None if row.heartbeat_at is None else iso(row.heartbeat_at)
            if row.state in {"stopping", "stopped"}:
                return Beat(row.state, row.heartbeat_at, extended=False, ttl=row.ttl)
            if row.state == "queued" or expected not in {None, last or NO_HEARTBEAT}:
                raise NotAsExpected(
                    "This is not the last heartbeat: another worker may have the work.",
                    code="heartbeat_precondition_failed",
                    current_state={
                        "state": row.state,
                        "last_heartbeat": last,
                        "lease_extended": False,
                        "ttl_seconds": row.ttl,
                    },
                )
            given = row.ttl if ttl is None else max(1, min(ttl, self._ttl))
            # Never the same twice: it is what the next one is told by.
            now = max(self._clock.now(), (row.heartbeat_at or 0) + 1)
            self._lease(
                tx,
                row,
                now,
                state="active",
                ttl=given,
                heartbeat_at=now,
                started_at=row.started_at or now,
            )
            return Beat("active", now, extended=True, ttl=given)

        return await self._database.write(verb)

    def _lease(self, tx: Transaction, row: Row[Any], now: Millis, **values: Any) -> None:
        ttl = values.get("ttl", row.ttl)
        values["leased_until"] = self._until(now, ttl)
        tx.execute(update(work).where(work.c.id == row.id).values(**values))
        # The worker that comes a little late is told how its work stands, and not that its secret
        # is none.
        self._tokens.extend(tx, row.id, self._until(now, ttl, 2))

    @staticmethod
    def _until(now: Millis, ttl: int, times: int = 1) -> Millis:
        return now + times * ttl * 1000

    async def stop(
        self, principal: Principal, environment_id: str, work_id: str, *, force: bool = False
    ) -> WorkItem:
        """Have work stopped by its worker, or with `force` at once. For workers and operators.

        Calls that a worker may have begun are answered as not known. Where a turn of the session is
        at work there is new work at once. Raises `NotFound`, `Conflict` (`work_stopped`).
        """
        if principal.environment_id is None:
            principal.require("write:environments")

        def verb(tx: Transaction) -> WorkItem:
            found = _find(tx, principal, environment_id, work_id)
            self._records.lock(tx, found.session_id)
            row = _find(tx, principal, environment_id, work_id, lock=True)
            if row.state == "stopped":
                raise Conflict("This work has stopped.", code="work_stopped")
            self._queue.stop(tx, row, force=force)
            return work_of(_row(tx, work_id))

        return await self._database.write(verb)

    # --- for who looks on ---------------------------------------------------------------------

    async def get(self, principal: Principal, environment_id: str, work_id: str) -> WorkItem:
        """One piece of work. Raises `NotFound`."""
        principal.require("read:environments")
        return await self._database.read(
            lambda tx: work_of(_find(tx, principal, environment_id, work_id))
        )

    async def update(
        self,
        principal: Principal,
        environment_id: str,
        work_id: str,
        metadata: Mapping[str, str | None],
    ) -> WorkItem:
        """Patch its metadata. Raises `NotFound`, `Invalid`."""
        principal.require("write:environments")

        def verb(tx: Transaction) -> WorkItem:
            row = _find(tx, principal, environment_id, work_id, lock=True)
            made = patched(row.metadata, metadata)
            tx.execute(update(work).where(work.c.id == work_id).values(metadata=made))
            return work_of(_row(tx, work_id))

        return await self._database.write(verb)

    async def list(
        self, principal: Principal, environment_id: str, *, limit: int, after: str | None = None
    ) -> Page[WorkItem]:
        """The environment's work, newest first, also what has stopped."""
        _look(principal)

        def query(tx: Transaction) -> list[Row[Any]]:
            _self_hosted(tx, principal, environment_id)
            wanted = select(work).where(work.c.environment_id == environment_id)
            if after is not None:
                wanted = wanted.where(work.c.id < check_id(after, "work"))
            return list(tx.execute(wanted.order_by(work.c.id.desc()).limit(limit + 1)).all())

        rows = await self._database.read(query)
        items = [work_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def stats(self, principal: Principal, environment_id: str) -> WorkStats:
        """How the environment's queue stands."""
        _look(principal)

        def query(tx: Transaction) -> WorkStats:
            _self_hosted(tx, principal, environment_id)
            queued = (work.c.environment_id == environment_id, work.c.state == "queued")
            row = tx.execute(
                select(
                    func.count(), func.count(work.c.polled_at), func.min(work.c.queued_at)
                ).where(*queued)
            ).one()
            seen = select(func.count()).where(
                pollers.c.environment_id == environment_id,
                pollers.c.polled_at > self._clock.now() - SEEN_MS,
            )
            total, pending, oldest = tuple(row)
            return WorkStats(total - pending, pending, oldest, tx.execute(seen).scalar_one())

        return await self._database.read(query)

    async def _note(self, environment_id: str, worker: str) -> None:
        """Write down that a worker polls, now and then."""
        name = hashlib.sha256(worker.encode(errors="replace")).hexdigest()
        now, key = self._clock.now(), (environment_id, name)
        if now - self._noted.get(key, 0) < NOTED_MS:
            return
        if len(self._noted) >= MOST_NOTED:
            self._noted.clear()
        self._noted[key] = now
        mark = {"environment_id": environment_id, "worker": name, "polled_at": now}

        def verb(tx: Transaction) -> None:
            over = pollers.c.polled_at < now - 2 * SEEN_MS
            tx.execute(delete(pollers).where(pollers.c.environment_id == environment_id, over))
            tx.execute(
                upsert(pollers)
                .values(**mark)
                .on_conflict_do_update(
                    index_elements=["environment_id", "worker"], set_={"polled_at": now}
                )
            )

        await self._database.write(verb)

    # --- leases -------------------------------------------------------------------------------

    async def run(self) -> None:
        """End the leases that are over, now and then, until cancelled."""
        while True:
            try:
                if ended := await self.end_leases():
                    log.warning("Workers of self-hosted environments were lost.", work=ended)
            except Unavailable:
                pass
            await asyncio.sleep(SWEEP_S)

    async def end_leases(self, environment_id: str | None = None) -> int:
        """Take their work from workers whose leases are over; return of how many. Idempotent."""
        over: list[ColumnElement[bool]] = [
            work.c.leased_until < self._clock.now(),
            work.c.state.in_(HELD),
        ]
        if environment_id is not None:
            over.append(work.c.environment_id == environment_id)
        query = select(work.c.id, work.c.session_id).where(*over).limit(AT_ONCE)
        found = await self._database.read(lambda tx: tx.execute(query).all())

        def verb(tx: Transaction, work_id: str, session_id: str) -> int:
            # One whose session is locked has just been answered, or is being ended by another.
            if self._records.try_lock(tx, session_id) is None:
                return 0
            row = tx.execute(
                select(work).where(work.c.id == work_id, *over).with_for_update()
            ).first()
            if row is None:
                return 0
            self._queue.lapse(tx, row)
            return 1

        return sum(
            [
                await self._database.write(
                    partial(verb, work_id=each.id, session_id=each.session_id)
                )
                for each in found
            ]
        )


def _look(principal: Principal) -> None:
    """Its own workers may look on as well; who serves one piece of work alone may not."""
    if principal.work_id is not None:
        raise Denied("The secret of one piece of work shows no other.")
    if principal.environment_id is None:
        principal.require("read:environments")


def _self_hosted(tx: Transaction, principal: Principal, environment_id: str) -> None:
    """Raise `NotFound` for an environment that is not the caller's, `Invalid` for another kind."""
    if principal.environment_id not in {None, environment_id}:
        raise NotFound("There is no environment with this id.")
    if not find_environment(tx, principal.owner, environment_id).self_hosted:
        raise Invalid("The environment is not self-hosted.", code="not_self_hosted")


def _find(
    tx: Transaction, principal: Principal, environment_id: str, work_id: str, *, lock: bool = False
) -> Row[Any]:
    """The row of a piece of work that the caller may have to do with. Raises `NotFound`."""
    _self_hosted(tx, principal, environment_id)
    check_id(work_id, "work")
    query = select(work).where(work.c.id == work_id, work.c.environment_id == environment_id)
    row = tx.execute(query.with_for_update() if lock else query).first()
    if row is None or principal.work_id not in {None, work_id}:
        raise NotFound("There is no work with this id.")
    return row


def _row(tx: Transaction, work_id: str) -> Row[Any]:
    return tx.execute(select(work).where(work.c.id == work_id)).one()


def _payload(token: str) -> str:
    """A secret in the form that the SDK's worker reads."""
    return base64.urlsafe_b64encode(msgspec.json.encode({"sessions_token": token})).decode()
