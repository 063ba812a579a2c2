"""What runs beside the requests, by what the server does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from stationmaster.agents.pool import Pool
from stationmaster.batches import BATCH_JOB, Executor
from stationmaster.batches.courier import Courier
from stationmaster.bootstrap import identity, money
from stationmaster.bootstrap.limiting import Limiting
from stationmaster.bootstrap.observing import look_on, measure_queue
from stationmaster.bootstrap.parts import Core
from stationmaster.bootstrap.readiness import Readiness
from stationmaster.bootstrap.roles import Duties
from stationmaster.budgets import Rollups
from stationmaster.http.health import Health
from stationmaster.http.services import Services
from stationmaster.jobs import Job, Lease, Runner
from stationmaster.jobs.inventory import count
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.claims import Claims
from stationmaster.sessions.runs.runs import QUEUED_JOB
from stationmaster.sessions.runs.seats import Seats
from stationmaster.sessions.runs.stranded import sweep_stranded
from stationmaster.sessions.runs.worker import Worker
from stationmaster.sessions.sessions import DELETED_JOB

log = structlog.get_logger(__name__)

SWEEP_S = 3600.0
MEASURE_S = 5.0

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What has something to do beside the requests. `keeper` is for who does periodic work."""

    core: Core
    services: Services
    executor: Executor
    courier: Courier
    claims: Claims
    worker: Worker
    pool: Pool
    seated: Seats
    limits: Limiting
    readiness: Readiness
    keeper: Lease


async def start(
    stack: AsyncExitStack, given: Parts, does: Duties, look: float, also: Mapping[str, Work]
) -> None:
    """Begin all of it, and `also` that; the stack's end ends it.

    Each `look` seconds the parts are looked at.
    """
    await given.core.instances.register()
    stack.push_async_callback(given.claims.resign)
    work = _always(given, look) | dict(also)
    if does.works:
        work |= _of_a_worker(given)
    if does.keeps:
        periodic = _periodic(given)
        work["scheduler"] = lambda: given.keeper.lead(lambda: _together(periodic, given.readiness))
        given.core.metrics.scheduler_leads.set_function(lambda: given.keeper.held)
    for name, each in work.items():
        await stack.enter_async_context(background(name, each, given.readiness))
    stack.push_async_callback(given.worker.interrupt)


def _always(given: Parts, look: float) -> dict[str, Work]:
    core = given.core

    async def measure() -> None:
        while True:
            with contextlib.suppress(Unavailable):
                now = core.clock.now()
                measure_queue(core.metrics, await given.services.runs.waiting(), now)
                there = await count(core.database, now)
                oldest = there.oldest_due
                core.metrics.jobs_there(
                    there.numbers, waited=0.0 if oldest is None else (now - oldest) / 1000
                )
            await asyncio.sleep(MEASURE_S)

    broker, relay = core.dispatching.broker, core.dispatching.relay
    carrying: dict[str, Work] = {}
    if broker is not None and relay is not None:
        carrying = {"broker": broker.run, "relay": relay.run}
    time: dict[str, Work] = {} if core.time is None else {"clock": core.time.run}
    return (
        carrying
        | time
        | {
            "watch": given.worker.watch,
            "news": core.bus.run,
            "rate_limits": given.limits.store.run,
            "signing_keys": lambda: identity.renew(core.signed_in),
            "refusals": core.record.refusals.run,
            "key_last_use": core.last_use.run,
            "reconcile": lambda: money.reconcile(core.budgets),
            "measure": measure,
            "health": lambda: look_on(Health(given.services), core.metrics, look),
        }
    )


def _of_a_worker(given: Parts) -> dict[str, Work]:
    core, worker, pool = given.core, given.worker, given.pool

    async def clear(job: Job) -> None:
        # Its files go next. A process on another server ends there a little later.
        await pool.drop(str(job.payload["session_id"]))
        await given.services.sessions.clear(job)

    handlers = {QUEUED_JOB: worker.ring, DELETED_JOB: clear, BATCH_JOB: given.executor.ring}
    outbox = Runner(
        core.database,
        core.bus,
        core.clock,
        handlers,
        instance_id=core.instances.id,
        heard={QUEUED_JOB: worker.hear},
        broker=core.dispatching.broker,
        room=worker.room,
    )
    return {
        "worker": worker.run,
        "pool": pool.run,
        "seats": given.seated.watch,
        "outbox": outbox.run,
        "batches": given.executor.run,
        "native_batches": given.courier.run,
    }


def _periodic(given: Parts) -> dict[str, Work]:
    """What one server does for all. Each must bear that two do it for a while."""
    core, services = given.core, given.services

    async def sweep() -> None:
        while True:
            if gone := await asyncio.to_thread(core.files.sweep, core.clock.now()):
                log.info("Left-over files were deleted.", directories=gone)
            with contextlib.suppress(Unavailable):
                if gone := await sweep_stranded(core.database, core.files):
                    log.info("Uploads that no task uses were deleted.", directories=gone)
                await core.stored_files.sweep()
                await services.idempotency.sweep()
                await services.responses.sweep()
                await services.calls.sweep()
                await services.batches.sweep()
                await services.spend_requests.sweep()
            await asyncio.sleep(SWEEP_S)

    return {
        "identity": lambda: identity.keep(core.record, core.signed_in, core.clock),
        "key_rotation": core.rotation.run,
        "rollups": Rollups(core.database).run,
        "sweep": sweep,
        "work_leases": services.hosting.work.run,
    }


async def _together(work: Mapping[str, Work], readiness: Readiness) -> None:
    async with AsyncExitStack() as stack:
        for name, each in work.items():
            await stack.enter_async_context(background(name, each, readiness))
        await asyncio.Event().wait()


@asynccontextmanager
async def background(name: str, work: Work, readiness: Readiness) -> AsyncIterator[None]:
    """Run `work`, which never ends by itself, beside the server."""

    async def guarded() -> None:
        try:
            await work()
        except Exception:
            log.critical("A part of the server has stopped.", part=name, exc_info=True)
            readiness.fail(name)

    task = asyncio.create_task(guarded(), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
