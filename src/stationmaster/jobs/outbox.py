"""The outbox: work written down in the transaction that makes it necessary, and done afterwards.

    waiting ──claim──▶ running ──done──▶ (deleted)
       ▲                  │
       └──── retry ◀──────┴──▶ parked   after MAX_ATTEMPTS, or at once for `Parked`

An attempt that is cut by a crash counts like one that fails.

A handler runs at least once: it must be idempotent by the job's id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Select, delete, insert, or_, select, update

from stationmaster.jobs.broker import LANES, Broker, Lane
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.text import scrub
from stationmaster.live.bus import Bus, Subscription
from stationmaster.storage import Database, Transaction
from stationmaster.storage.till import Till

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 8
FIRST_DELAY_S = 1.0  # doubled at each retry: the last comes about two minutes after the first
CLAIM_BATCH = 20
POLL_S = 2.0  # how late a scheduled job, or one whose wake-up was lost, may start
TOLD_POLL_S = 5.0  # the same, while a broker tells of jobs
HOLD_S = 0.5  # for a worker without room to keep word of a run from others, who look anyway
GATHER_S = 0.05  # until jobs that were told of already are claimed, many at once
TOPIC = "jobs"
DEADLY = "No attempt at it came to an end: it may be what ends the servers that try."


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work. `attempt` counts from 1."""

    id: str
    kind: str
    payload: dict[str, Any]
    attempt: int


Handler = Callable[[Job], Awaitable[None]]


class Parked(Exception):
    """Raised by a handler: retrying cannot help, keep the job for a person to look at."""


class Outbox:
    """Where verbs put their jobs."""

    def __init__(
        self, bus: Bus, clock: Clock, *, ring: Callable[[str, str], None] | None = None
    ) -> None:
        """`ring` is told of each job, by its id and kind, after the commit; else `bus` is."""
        self._clock = clock
        self._ring = ring or (lambda _job_id, kind: bus.publish(TOPIC, kind))

    def put(
        self, tx: Transaction, kind: str, payload: dict[str, Any], *, delay: float = 0.0
    ) -> str:
        """Write a job down; it becomes due `delay` seconds from now, if `tx` commits."""
        job_id, now = new_id("job"), self._clock.now()
        tx.execute(
            insert(jobs),
            {
                "id": job_id,
                "kind": kind,
                "payload": payload,
                "state": "waiting",
                "run_at": now + round(delay * 1000),
                "attempts": 0,
                "created_at": now,
            },
        )
        if delay <= 0:
            self.tell(tx, job_id, kind)
        return job_id

    def tell(self, tx: Transaction, job_id: str, kind: str) -> None:
        """Say after the commit that a job is due."""
        tx.on_commit(lambda: self._ring(job_id, kind))


class Runner:
    """Does the outbox's jobs in this process: those it is told of, and those it finds."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        handlers: Mapping[str, Handler],
        *,
        instance_id: str,
        heard: Mapping[str, Callable[[], None]] | None = None,
        broker: Broker | None = None,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`heard` is told of kinds of jobs that are doorbells, before one is claimed.

        What they ring for then need not wait for the writes of claiming. A ring may be lost, or
        come for nothing; the job itself is done as every other. A `broker` tells of jobs; `room`
        is when a run could begin here.
        """
        self._database = database
        self._bus = bus
        self._clock = clock
        self._handlers = handlers
        self._instance_id = instance_id
        self._heard = heard or {}
        self._broker = broker
        self._room = room
        self._ends = Till(self._strike_off)
        self._doing: set[str] = set()
        self._cuts = self._healed = 0  # how often jobs were left as they were, and given back

    async def run(self) -> None:
        """Work until cancelled. A job cut by the cancellation is done again by the next runner."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll_on())
            if self._broker is not None:
                for lane in LANES:
                    group.create_task(self._receive_on(self._broker, lane))

    # --- polling ------------------------------------------------------------------------------

    async def _poll_on(self) -> None:
        wake = self._bus.subscribe(TOPIC)
        try:
            while True:
                try:
                    done = await self.drain()
                except Unavailable:
                    done = 0
                    log.warning("The outbox cannot be read; trying again.")
                if not done:
                    await self._idle(wake)
        finally:
            self._bus.unsubscribe(wake)

    @property
    def _told(self) -> bool:
        """Whether the broker tells of jobs now."""
        return self._broker is not None and self._broker.trouble is None

    async def _idle(self, wake: Subscription) -> None:
        """Wait until it is time to look, or somebody says that there is something.

        Where all that was said could be passed on, the jobs can wait a moment.
        """
        loop = asyncio.get_running_loop()
        began, said = loop.time(), set[str]()
        while (left := began + (TOLD_POLL_S if self._told else POLL_S) - loop.time()) > 0:
            await wake.wait(min(left, POLL_S))
            said = set(wake.take())
            wake.reset()
            if said or not self._told:  # that something may have been missed, the broker makes up
                break
        for kind in said & self._heard.keys():
            self._heard[kind]()
        if said and said <= self._heard.keys():
            await asyncio.sleep(GATHER_S)
            wake.reset()

    async def drain(self) -> int:
        """Do what is due now; return how many jobs were tried. Not to be called twice at once."""
        cuts = self._cuts
        claimed: list[Job] = []
        try:
            claimed = await self._database.write(self._claim)
            self._healed = cuts
            self._doing.update(job.id for job in claimed)
            for job in claimed:
                await self._do(job)
        except BaseException:
            self._cuts += 1
            raise
        finally:
            self._doing.difference_update(job.id for job in claimed)
        return len(claimed)

    def _claim(self, tx: Transaction) -> list[Job]:
        if self._cuts != self._healed:  # what was claimed and left would stay claimed for ever
            self.release(tx, self._instance_id, but=self._doing)
        # Each of its attempts took a server with it, or no more would wait.
        deadly = (jobs.c.state == "waiting", jobs.c.attempts >= MAX_ATTEMPTS)
        tx.execute(update(jobs).where(*deadly).values(state="parked", error=DEADLY))
        due = select(jobs).where(jobs.c.run_at <= self._clock.now())
        return self._take(tx, due.order_by(jobs.c.run_at, jobs.c.id).limit(CLAIM_BATCH))

    def _take(self, tx: Transaction, which: Select[Any]) -> list[Job]:
        rows = tx.execute(
            which.where(jobs.c.state == "waiting", jobs.c.kind.in_(self._handlers)).with_for_update(
                skip_locked=True
            )
        ).all()
        if rows:
            tx.execute(
                update(jobs)
                .where(jobs.c.id.in_([row.id for row in rows]))
                .values(
                    state="running",
                    instance_id=self._instance_id,
                    attempts=jobs.c.attempts + 1,
                )
            )
        return [Job(row.id, row.kind, row.payload, row.attempts + 1) for row in rows]

    # --- being told ---------------------------------------------------------------------------

    async def _receive_on(self, broker: Broker, lane: Lane) -> None:
        while True:
            deliveries = await broker.receive(lane)
            if lane == "runs" and self._room is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(HOLD_S):
                        await self._room()
            for kind in {each.ring.kind for each in deliveries} & self._heard.keys():
                self._heard[kind]()
            told = {each.ring.job_id for each in deliveries} - self._doing
            self._doing |= told
            try:
                claimed = await self._claim_told(sorted(told))
                # Only now: who dies before is followed by another who hears the same.
                await broker.acknowledge(deliveries)
                await self._do_all(claimed)
            finally:
                self._doing -= told

    async def _claim_told(self, ids: Sequence[str]) -> list[Job]:
        # A job that was never tried is due, whatever this server's clock says: it was put without
        # a delay, or nobody would have rung for it.
        due = or_(jobs.c.run_at <= self._clock.now(), jobs.c.attempts == 0)
        which = select(jobs).where(jobs.c.id.in_(ids), due, jobs.c.attempts < MAX_ATTEMPTS)
        try:
            return await self._database.write(lambda tx: self._take(tx, which))
        except Unavailable:
            self._cuts += 1
            log.warning("A job cannot be claimed; it will be found again.")
            return []

    async def _do_all(self, claimed: Sequence[Job]) -> None:
        ends = await asyncio.gather(*map(self._do, claimed), return_exceptions=True)
        failed = [end for end in ends if end is not None]
        self._cuts += len(failed)
        for failure in failed:
            if not isinstance(failure, Unavailable):
                raise failure

    # --- doing --------------------------------------------------------------------------------

    async def _do(self, job: Job) -> None:
        try:
            await self._handlers[job.kind](job)
        except Parked as reason:
            await self._park(job, str(reason))
        except Exception as error:
            log.exception("A job failed.", job_id=job.id, kind=job.kind, attempt=job.attempt)
            if job.attempt >= MAX_ATTEMPTS:
                await self._park(job, repr(error))
            else:
                await self._retry(job, repr(error))
        else:
            await self._ends.take(job.id)

    async def _strike_off(self, ids: Sequence[str]) -> list[None]:
        await self._database.write(
            lambda tx: tx.execute(delete(jobs).where(jobs.c.id.in_(ids))) if ids else None
        )
        return [None] * len(ids)

    async def _park(self, job: Job, reason: str) -> None:
        log.error("A job is parked.", job_id=job.id, kind=job.kind, reason=reason)
        await self._put_back(job, state="parked", error=scrub(reason))

    async def _retry(self, job: Job, reason: str) -> None:
        delay = FIRST_DELAY_S * 2 ** (job.attempt - 1)
        await self._put_back(
            job,
            state="waiting",
            error=scrub(reason),
            run_at=self._clock.now() + round(delay * 1000),
        )

    async def _put_back(self, job: Job, **values: Any) -> None:
        await self._database.write(
            lambda tx: tx.execute(
                update(jobs)
                .where(jobs.c.id == job.id, jobs.c.instance_id == self._instance_id)
                .values(instance_id=None, **values)
            )
        )

    @staticmethod
    def release(tx: Transaction, instance_id: str, *, but: Collection[str] = ()) -> int:
        """Give back the jobs that an instance was doing which has stopped; return how many."""
        return int(
            tx.execute(
                update(jobs)
                .where(
                    jobs.c.instance_id == instance_id,
                    jobs.c.state == "running",
                    jobs.c.id.not_in(but),
                )
                .values(state="waiting", instance_id=None)
            ).rowcount
        )
