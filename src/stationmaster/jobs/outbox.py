"""The outbox: work written down in the transaction that makes it necessary, and done afterwards.

    waiting ──claim──▶ running ──done──▶ (deleted)
       ▲                  │
       └──── retry ◀──────┴──▶ parked   after MAX_ATTEMPTS, or at once for `Parked`

An attempt that is cut by a crash counts like one that fails.

A handler runs at least once: it must be idempotent by the job's id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, update

from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.text import scrub
from stationmaster.live.bus import Bus, Subscription
from stationmaster.storage import Database, Transaction

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 8
FIRST_DELAY_S = 1.0  # doubled at each retry: the last comes about two minutes after the first
CLAIM_BATCH = 20
POLL_S = 2.0  # how late a scheduled job, or one whose wake-up was lost, may start
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

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock

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
        tx.on_commit(lambda: self._bus.publish(TOPIC, kind))
        return job_id


class Runner:
    """Drains the outbox in this process."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        handlers: Mapping[str, Handler],
        *,
        instance_id: str,
        heard: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        """`heard` is told of kinds of jobs that are doorbells, before one is claimed.

        What they ring for then need not wait for the writes of claiming. A ring may be lost, or
        come for nothing; the job itself is done as every other.
        """
        self._database = database
        self._bus = bus
        self._clock = clock
        self._handlers = handlers
        self._instance_id = instance_id
        self._heard = heard or {}
        self._interrupted = False

    async def run(self) -> None:
        """Work until cancelled. A job cut by the cancellation is done again by the next runner."""
        wake = self._bus.subscribe(TOPIC)
        try:
            while True:
                try:
                    done = await self.drain()
                except Unavailable:
                    done = 0
                    log.warning("The outbox cannot be read; trying again.")
                if not done:
                    await wake.wait(POLL_S)
                    await self._listen(wake)
        finally:
            self._bus.unsubscribe(wake)

    async def _listen(self, wake: Subscription) -> None:
        """Take what was said; where all of it could be passed on, the jobs can wait a moment."""
        said = set(wake.take())
        for kind in said & self._heard.keys():
            self._heard[kind]()
        if said and said <= self._heard.keys():
            await asyncio.sleep(GATHER_S)
        wake.reset()

    async def drain(self) -> int:
        """Do what is due now; return how many jobs were tried. Not to be called twice at once."""
        claimed = await self._database.write(self._claim)
        self._interrupted = True
        for job in claimed:
            await self._do(job)
        self._interrupted = False
        return len(claimed)

    def _claim(self, tx: Transaction) -> list[Job]:
        if self._interrupted:  # what the last round claimed and left would stay claimed for ever
            self.release(tx, self._instance_id)
        # Each of its attempts took a server with it, or no more would wait.
        deadly = (jobs.c.state == "waiting", jobs.c.attempts >= MAX_ATTEMPTS)
        tx.execute(update(jobs).where(*deadly).values(state="parked", error=DEADLY))
        rows = tx.execute(
            select(jobs)
            .where(
                jobs.c.state == "waiting",
                jobs.c.run_at <= self._clock.now(),
                jobs.c.kind.in_(self._handlers),
            )
            .order_by(jobs.c.run_at, jobs.c.id)
            .limit(CLAIM_BATCH)
            .with_for_update(skip_locked=True)
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
            await self._database.write(
                lambda tx: tx.execute(delete(jobs).where(jobs.c.id == job.id))
            )

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
    def release(tx: Transaction, instance_id: str) -> int:
        """Give back the jobs that an instance was doing which has stopped; return how many."""
        return int(
            tx.execute(
                update(jobs)
                .where(jobs.c.instance_id == instance_id, jobs.c.state == "running")
                .values(state="waiting", instance_id=None)
            ).rowcount
        )
