"""From settings to running parts.

Everything that depends on which database or provider there is is decided here; no other module
asks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from stationmaster.agents.base import Agent
from stationmaster.agents.pool import Pool
from stationmaster.batches import BATCH_JOB, Executor, Traffic
from stationmaster.batches.prompts import PromptPool
from stationmaster.bootstrap import batching, identity, money, parts
from stationmaster.bootstrap.caching import Caching, caching
from stationmaster.bootstrap.conversing import conversing, seats
from stationmaster.bootstrap.limiting import Limiting, limiting
from stationmaster.bootstrap.modelling import Modelling
from stationmaster.bootstrap.observing import CallMetrics, LastRun, RunMetrics, components
from stationmaster.bootstrap.offers import catalogue
from stationmaster.bootstrap.parts import Core
from stationmaster.budgets import Reports, Rollups
from stationmaster.gateway import Gateway, Models
from stationmaster.http.one_job import OneJob
from stationmaster.http.services import Services
from stationmaster.http.sockets.places import Places
from stationmaster.idempotency import IdempotencyKeys
from stationmaster.jobs import Job, Outbox, Runner
from stationmaster.kernel.clock import Clock, SystemClock
from stationmaster.kernel.errors import Unavailable
from stationmaster.providers.base import Provider
from stationmaster.responses import Responses
from stationmaster.sessions.agents import Agents
from stationmaster.sessions.catalogue import Catalogue as Offers
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.runs.claims import Claim, Claims
from stationmaster.sessions.runs.executor import Execution, Surroundings, Timers
from stationmaster.sessions.runs.kit import Kits
from stationmaster.sessions.runs.runs import QUEUED_JOB, Runs
from stationmaster.sessions.runs.seats import Seats
from stationmaster.sessions.runs.worker import Worker
from stationmaster.sessions.sessions import DELETED_JOB
from stationmaster.settings import Settings
from stationmaster.telemetry import Redactor

log = structlog.get_logger(__name__)

SWEEP_S = 3600.0
MEASURE_S = 5.0
SOCKETS_S = 10.0  # for open sockets to be told that the server stops

OFFLINE = (
    "No model provider is configured: the built-in offline script answers. Its answers are not a"
    " language model's. Set ANTHROPIC_API_KEY to use Claude."
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where agents reach the gateway: a unix socket from inside a sandbox, else a URL."""

    socket: Path
    url: str


class Readiness:
    """Whether new work is taken, and if not, why."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()
        self._reason: str | None = None

    def __call__(self) -> str | None:
        """The reason; None where new work is taken."""
        return self._reason

    def end(self, reason: str) -> None:
        """Take no more."""
        self._reason = self._reason or reason

    def fail(self, part: str) -> None:
        """A part that must run has stopped: the server cannot go on."""
        self.end(f"{part}_stopped")
        self.failed.set()


@dataclass(frozen=True, slots=True)
class Application:
    """A server whose parts run, but which listens nowhere yet.

    `sandbox` is the rung that agents get. `new_admin_key` is set at the first start alone: show
    it, it cannot be had again. `warnings` are for the operator's eyes, a sentence each. When
    `readiness.failed` is set, end the process. Set `reread` to have the models read again.
    """

    services: Services
    worker: Worker
    pool: Pool
    executor: Executor
    provider: Provider
    sandbox: str
    readiness: Readiness
    new_admin_key: str | None
    warnings: tuple[str, ...]
    reread: asyncio.Event

    async def drain(self, timeout: float) -> None:
        """Take nothing new, let runs end for `timeout` seconds, interrupt the rest, end streams."""
        self.readiness.end("shutting_down")
        self.services.runs.close_admission("The server is shutting down.")
        self.services.sessions.close_admission("The server is shutting down.")
        await asyncio.gather(self.worker.drain(timeout), self.executor.drain(timeout))
        await self.pool.drain()
        self.services.stopping.set()
        await self.services.sockets.emptied(SOCKETS_S)


@asynccontextmanager
async def running(
    settings: Settings,
    endpoints: Endpoints,
    *,
    redactor: Redactor | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Application]:
    """Open the database, bring it up to date, start the agents and the worker; undo it at the end.

    Raises `Unavailable`, `SchemaError` or `AgentUnavailable` where the server cannot run.
    """
    redactor = redactor or Redactor()
    async with AsyncExitStack() as stack:
        core = await parts.core(stack, settings, clock or SystemClock(), redactor)
        new_admin_key = await _first_keys(core, settings, redactor)
        agent, rung, warnings = await parts.agent(
            stack, settings, redactor, egress_socket=endpoints.socket.with_name("egress.sock")
        )
        if settings.agent != "scripted":
            await identity.note_rung(core.database, core.record, rung)
        provider = await parts.provider(stack, settings)
        modelling = Modelling(settings, core.clock, redactor, provider)
        stack.push_async_callback(modelling.aclose)
        if provider.name == "offline":
            warnings.append(OFFLINE)
        pool = await parts.pool(stack, core, settings, agent)
        claims = _claims(core, settings)
        offers = catalogue(settings, agent)
        one_job = OneJob() if settings.ephemeral else None
        seated = seats(core, pool, offers, _surroundings(settings, endpoints))
        worker = _worker(core, settings, agent=agent, claims=claims, seated=seated, one_job=one_job)
        core.resolver.tag_runs(worker.tags_of)
        limits = limiting(stack, settings, core.clock, core.metrics)
        cached = await caching(stack, core, settings)
        readiness = Readiness()
        traffic = Traffic(CallMetrics(core.metrics, worker))
        services = _services(
            core,
            settings,
            traffic=traffic,
            agent=agent,
            rung=rung,
            provider=provider,
            models=modelling.models,
            worker=worker,
            pool=pool,
            limits=limits,
            cached=cached,
            offers=offers,
            seated=seated,
            readiness=readiness,
            one_job=one_job,
        )
        executor = batching.executor(core, settings, services, traffic)
        await _run(
            stack,
            core,
            services=services,
            executor=executor,
            claims=claims,
            worker=worker,
            pool=pool,
            seated=seated,
            limits=limits,
            readiness=readiness,
        )
        if cached is not None:
            await stack.enter_async_context(_background("cache", cached.run, readiness))
        reread = asyncio.Event()
        watching = partial(modelling.watch, services.gateway, reread)
        await stack.enter_async_context(_background("models", watching, readiness))
        yield Application(
            services=services,
            worker=worker,
            pool=pool,
            executor=executor,
            provider=provider,
            sandbox=rung,
            readiness=readiness,
            new_admin_key=new_admin_key,
            warnings=tuple(warnings),
            reread=reread,
        )


async def _first_keys(core: Core, settings: Settings, redactor: Redactor) -> str | None:
    """See to the keys that the settings name; return an admin key that had to be made."""
    made = await core.keys.bootstrap(
        admin=settings.admin_api_key.get_secret_value() if settings.admin_api_key else None,
        given=[key.get_secret_value() for key in settings.user_keys],
    )
    if made is not None:
        redactor.register(made)
    return made


def _surroundings(settings: Settings, endpoints: Endpoints) -> Surroundings:
    return Surroundings(
        endpoints.socket,
        endpoints.url,
        parts.agent_limits(settings),
        owners_login=parts.owners_login(settings),
    )


def _claims(core: Core, settings: Settings) -> Claims:
    return Claims(
        database=core.database,
        events=core.events,
        records=core.records,
        settlement=core.settlement,
        budgets=core.budgets,
        instances=core.instances,
        clock=core.clock,
        queue_timeout=settings.queue_timeout,
    )


def _worker(
    core: Core,
    settings: Settings,
    *,
    agent: Agent,
    claims: Claims,
    seated: Seats,
    one_job: OneJob | None,
) -> Worker:
    timers = Timers(
        settings.agent_first_event_timeout,
        settings.agent_inactivity_timeout,
        settings.approval_timeout,
    )

    def execution(claim: Claim) -> Execution:
        return Execution(
            claim,
            agent=agent,
            database=core.database,
            events=core.events,
            records=core.records,
            settlement=core.settlement,
            bus=core.bus,
            clock=core.clock,
            files=core.files,
            seats=seated,
            timers=timers,
        )

    measured = RunMetrics(core.metrics)
    return Worker(
        claims=claims,
        instances=core.instances,
        clock=core.clock,
        slots=settings.max_workers,
        waiting=settings.max_unanswered,
        execution=execution,
        observer=measured if one_job is None else LastRun(one_job, measured),
        single=one_job is not None,
    )


def _services(
    core: Core,
    settings: Settings,
    *,
    traffic: Traffic,
    agent: Agent,
    rung: str,
    provider: Provider,
    models: Models,
    worker: Worker,
    pool: Pool,
    limits: Limiting,
    cached: Caching | None,
    offers: Offers,
    seated: Seats,
    readiness: Readiness,
    one_job: OneJob | None,
) -> Services:
    definitions = Agents(database=core.database, clock=core.clock, catalogue=offers)
    runs = _runs(core, settings, agent, Kits(definitions, offers))
    talks = conversing(core, settings, offers, seated)
    defined = money.definitions(core, runs)
    core.metrics.agents_alive.set_function(agent.alive)
    core.metrics.runs_active.set_function(lambda: worker.active)
    core.metrics.runs_unanswered.set_function(lambda: worker.waiting)
    sockets = Places(most=settings.websocket_max_connections)
    core.metrics.sockets_open.set_function(lambda: sockets.open)
    cache = None if cached is None else cached.cache
    gateway = Gateway(
        models=models,
        meter=core.budgets,
        observer=traffic,
        clock=core.clock,
        limiter=limits.limiter,
        cache=cache,
    )
    return Services(
        options=parts.http_options(settings),
        clock=core.clock,
        resolver=core.resolver,
        keys=core.keys,
        rotation=core.rotation,
        directory=core.signed_in.directory,
        clients=core.signed_in.clients,
        runs=runs,
        files=core.files,
        agents=definitions,
        environments=Environments(database=core.database, clock=core.clock),
        sessions=talks.sessions,
        resources=talks.resources,
        approvals=talks.approvals,
        offers=offers,
        stored_files=core.stored_files,
        batches=batching.batches(core, settings),
        idempotency=IdempotencyKeys(core.database, core.clock, core.record.sealer, core.instances),
        responses=Responses(
            core.database,
            core.clock,
            core.record.sealer,
            lifetime=settings.responses_retention,
        ),
        reports=Reports(core.database, core.clock),
        budgets=defined,
        spend_requests=money.requests(core, defined),
        gateway=gateway,
        cache=cache,
        prompts=PromptPool(gateway, workers=settings.batch_workers),
        audit=core.record.audit,
        refusals=core.record.refusals,
        sign_ins=core.signed_in.sign_ins,
        signing_keys=core.signed_in.signing_keys,
        oidc=core.signed_in.oidc,
        tickets=core.signed_in.tickets,
        door=identity.door(settings),
        limiter=limits.limiter,
        failures=limits.failures,
        metrics=core.metrics,
        components=(
            *components(
                max_queue=settings.max_queue,
                database=core.database,
                worker=worker,
                runs=runs,
                agent=agent,
                pool=pool,
                rung=rung,
                provider=provider,
                files=core.files,
            ),
            limits.component,
            *(() if cached is None else (cached.component,)),
        ),
        not_ready_because=readiness,
        sockets=sockets,
        one_job=one_job,
        stopping=asyncio.Event(),
    )


def _runs(core: Core, settings: Settings, agent: Agent, kits: Kits) -> Runs:
    return Runs(
        database=core.database,
        events=core.events,
        records=core.records,
        settlement=core.settlement,
        budgets=core.budgets,
        outbox=Outbox(core.bus, core.clock),
        bus=core.bus,
        clock=core.clock,
        agent=agent,
        files=core.files,
        kits=kits,
        limits=parts.run_limits(settings),
        recorder=core.record.audit,
    )


# --- what runs beside the requests ------------------------------------------------------------


async def _run(
    stack: AsyncExitStack,
    core: Core,
    *,
    services: Services,
    executor: Executor,
    claims: Claims,
    worker: Worker,
    pool: Pool,
    seated: Seats,
    limits: Limiting,
    readiness: Readiness,
) -> None:
    async def sweep() -> None:
        while True:
            if gone := await asyncio.to_thread(core.files.sweep, core.clock.now()):
                log.info("Left-over files were deleted.", directories=gone)
            with contextlib.suppress(Unavailable):
                await core.stored_files.sweep()
                await services.idempotency.sweep()
                await services.responses.sweep()
                await services.batches.sweep()
                await services.spend_requests.sweep()
            await asyncio.sleep(SWEEP_S)

    async def measure() -> None:
        while True:
            with contextlib.suppress(Unavailable):
                core.metrics.runs_queued.set((await services.runs.depth()).queued)
            await asyncio.sleep(MEASURE_S)

    await core.instances.register()
    stack.push_async_callback(claims.resign)

    async def clear(job: Job) -> None:
        # Its files go next. A process on another server ends there a little later.
        await pool.drop(str(job.payload["session_id"]))
        await services.sessions.clear(job)

    handlers = {QUEUED_JOB: worker.ring, DELETED_JOB: clear, BATCH_JOB: executor.ring}
    outbox = Runner(
        core.database,
        core.bus,
        core.clock,
        handlers,
        instance_id=core.instances.id,
        heard={QUEUED_JOB: worker.hear},
    )
    background: dict[str, Callable[[], Awaitable[None]]] = {
        "worker": worker.run,
        "pool": pool.run,
        "seats": seated.watch,
        "watch": worker.watch,
        "outbox": outbox.run,
        "batches": executor.run,
        "rate_limits": limits.store.run,
        "identity": lambda: identity.keep(core.record, core.signed_in, core.clock),
        "refusals": core.record.refusals.run,
        "key_rotation": core.rotation.run,
        "key_last_use": core.last_use.run,
        "rollups": Rollups(core.database).run,
        "reconcile": lambda: money.reconcile(core.budgets),
        "sweep": sweep,
        "measure": measure,
    }
    for name, work in background.items():
        await stack.enter_async_context(_background(name, work, readiness))
    stack.push_async_callback(worker.interrupt)


@asynccontextmanager
async def _background(
    name: str, work: Callable[[], Awaitable[None]], readiness: Readiness
) -> AsyncIterator[None]:
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
