"""From settings to running parts.

Everything that depends on which database or provider there is is decided here; no other module
asks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stationmaster.agents.base import Agent
from stationmaster.agents.pool import Pool
from stationmaster.batches import Executor, Traffic
from stationmaster.batches.courier import Courier
from stationmaster.batches.prompts import PromptPool
from stationmaster.bootstrap import background, batching, identity, money, parts
from stationmaster.bootstrap.by_login import by_login
from stationmaster.bootstrap.caching import Caching, caching
from stationmaster.bootstrap.conversing import conversing, seats
from stationmaster.bootstrap.kept_calls import KeptCalls, kept_calls
from stationmaster.bootstrap.limiting import Limiting, limiting
from stationmaster.bootstrap.modelling import Modelling
from stationmaster.bootstrap.observing import (
    CallMetrics,
    LastRun,
    RunMetrics,
    components,
    keeping,
    measure,
)
from stationmaster.bootstrap.offers import catalogue
from stationmaster.bootstrap.parts import Core
from stationmaster.bootstrap.readiness import Readiness
from stationmaster.bootstrap.roles import Duties, duties
from stationmaster.budgets import Reports
from stationmaster.cache import AnswerCache
from stationmaster.calls import CallKeeper
from stationmaster.gateway import Gateway, Models
from stationmaster.gateway.deferred import Deferred
from stationmaster.http.services import Component, Services
from stationmaster.http.sockets.places import Places
from stationmaster.idempotency import IdempotencyKeys
from stationmaster.jobs import Lease
from stationmaster.kernel.clock import Clock, SystemClock
from stationmaster.providers.base import Provider
from stationmaster.responses import Responses
from stationmaster.sessions.agents import Agents
from stationmaster.sessions.catalogue import Catalogue as Offers
from stationmaster.sessions.runs.claims import Claim, Claims
from stationmaster.sessions.runs.executor import Execution, Surroundings, Timers
from stationmaster.sessions.runs.kit import Kits
from stationmaster.sessions.runs.runs import Runs
from stationmaster.sessions.runs.seats import Seats
from stationmaster.sessions.runs.worker import Worker
from stationmaster.settings import Settings
from stationmaster.telemetry import Redactor

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


@dataclass(frozen=True, slots=True)
class Application:
    """A server whose parts run, but which listens nowhere yet.

    `sandbox` is the rung that agents get. `new_admin_key` is set at the first start alone: show
    it, it cannot be had again. `warnings` are for the operator's eyes, a sentence each. When
    `readiness.failed` is set, end the process. Set `reread` to have the models read again.
    """

    services: Services
    does: Duties
    worker: Worker
    pool: Pool
    executor: Executor
    courier: Courier
    provider: Provider
    sandbox: str
    readiness: Readiness
    new_admin_key: str | None
    warnings: tuple[str, ...]
    reread: asyncio.Event

    async def drain(self, timeout: float) -> None:
        """Take nothing new, let runs end for `timeout` seconds, interrupt the rest, end streams.

        One that runs nothing itself takes on what comes for as long as it can be reached.
        """
        self.readiness.end("shutting_down")
        if self.does.works:
            self.services.runs.close_admission("The server is shutting down.")
            self.services.sessions.close_admission("The server is shutting down.")
            await asyncio.gather(
                self.worker.drain(timeout),
                self.executor.drain(timeout),
                self.courier.drain(timeout),
            )
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
    prepare: Callable[[Application], None] = lambda _application: None,
) -> AsyncIterator[Application]:
    """Open the database, bring it up to date, start the agents and the worker; undo it at the end.

    `prepare` is for what takes long and blocks: after it there is a lease to be renewed in time.
    Raises `Unavailable`, `SchemaError` or `AgentUnavailable` where the server cannot run.
    """
    redactor, does = redactor or Redactor(), duties(settings)
    async with AsyncExitStack() as stack:
        core = await parts.core(stack, settings, clock or SystemClock(), redactor)
        new_admin_key = await _first_keys(core, settings, redactor) if does.serves else None
        egress = endpoints.socket.with_name("egress.sock")
        agent, rung, warnings = await _agent(stack, core, settings, redactor, egress=egress)
        provider = await parts.provider(stack, settings)
        login = by_login(settings, agent)
        modelling = Modelling(settings, core.clock, redactor, provider, login)
        stack.push_async_callback(modelling.aclose)
        if provider.name == "offline":
            warnings.append(OFFLINE)
        pool = await parts.pool(stack, core, settings, agent, works=does.works)
        claims = _claims(core, settings)
        offers = catalogue(settings, agent)
        seated = seats(core, pool, offers, _surroundings(settings, endpoints))
        worker = _worker(core, settings, agent=agent, claims=claims, seated=seated)
        core.resolver.tag_runs(worker.tags_of)
        measure(core.metrics, agent, worker, core.time)
        limits = limiting(stack, settings, core.clock, core.metrics, core.news.redis)
        cached, kept = await caching(core, settings), await kept_calls(core, redactor)
        readiness, keeper = Readiness(), _keeper(core, settings)
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
            kept=kept,
            offers=offers,
            seated=seated,
            readiness=readiness,
            also=_besides(core, limits, modelling.component(), cached, keeping(keeper, does)),
        )
        executor = batching.executor(core, settings, services, traffic)
        deferred = _deferred(core, services.gateway, traffic, kept)
        courier = batching.courier(core, settings, services, deferred)
        at_work = executor, courier, claims, worker, pool, seated
        beside = background.Parts(core, services, *at_work, limits, readiness, keeper)
        reread = asyncio.Event()
        also = _also(core, services.gateway, modelling, reread, kept=kept, cached=cached)
        application = Application(
            services=services,
            does=does,
            worker=worker,
            pool=pool,
            executor=executor,
            courier=courier,
            provider=provider,
            sandbox=rung,
            readiness=readiness,
            new_admin_key=new_admin_key,
            warnings=tuple(warnings),
            reread=reread,
        )
        prepare(application)
        await background.start(stack, beside, does, settings.health_check_interval, also)
        yield application


async def _agent(
    stack: AsyncExitStack,
    core: Core,
    settings: Settings,
    redactor: Redactor,
    *,
    egress: Path,
) -> tuple[Agent, str, list[str]]:
    """The agent, the rung it gets, which goes on record, and what to warn of."""
    works = duties(settings).works
    agent, rung, warnings = await parts.agent(
        stack, settings, redactor, egress_socket=egress, works=works
    )
    if works and settings.agent != "scripted":
        await identity.note_rung(core.database, core.record, rung)
    return agent, rung, warnings


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


def _besides(
    core: Core,
    limits: Limiting,
    models: Component,
    cached: Caching | None,
    keeps: tuple[Component, ...],
) -> tuple[Component, ...]:
    """What `/health` names beside the parts that every server has."""
    kept = () if cached is None else (cached.component,)
    time = () if core.time is None else (core.time.component,)
    news, jobs = core.news.components, core.dispatching.components
    return (limits.component, models, *news, *jobs, *keeps, *time, *kept)


def _also(
    core: Core,
    gateway: Gateway,
    modelling: Modelling,
    reread: asyncio.Event,
    *,
    kept: KeptCalls,
    cached: Caching | None,
) -> dict[str, background.Work]:
    """What the gateway needs done beside the requests."""
    work: dict[str, background.Work] = {
        "models": partial(modelling.watch, gateway, reread),
        "upstreams": partial(modelling.tell, gateway, core.metrics),
        "kept_calls": kept.writer.run,
    }
    if cached is not None:
        work["cache"] = cached.run
    return work


def _keeper(core: Core, settings: Settings) -> Lease:
    """Who has it does the periodic work of all servers on the database."""
    return Lease(
        core.database,
        core.clock,
        "scheduler",
        holder=core.instances.id,
        length=settings.lease_time,
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
        ageing=settings.priority_ageing,
    )


def _worker(
    core: Core,
    settings: Settings,
    *,
    agent: Agent,
    claims: Claims,
    seated: Seats,
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

    measured, one_job = RunMetrics(core.metrics), core.one_job
    return Worker(
        claims=claims,
        instances=core.instances,
        clock=core.clock,
        slots=settings.max_workers if duties(settings).works else 0,
        waiting=settings.max_unanswered,
        execution=execution,
        observer=measured if one_job is None else LastRun(one_job, measured),
        one_job=one_job,
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
    kept: KeptCalls,
    offers: Offers,
    seated: Seats,
    readiness: Readiness,
    also: tuple[Component, ...],
) -> Services:
    definitions = Agents(database=core.database, clock=core.clock, catalogue=offers)
    runs = _runs(core, settings, agent, Kits(definitions, offers))
    talks = conversing(core, settings, offers, seated)
    defined = money.definitions(core, runs)
    cache = None if cached is None else cached.cache
    gateway = _gateway(core, models, traffic, limits, cache=cache, keeper=kept.writer)
    return Services(
        options=parts.http_options(settings),
        clock=core.clock,
        resolver=core.resolver,
        keys=core.keys,
        rotation=core.rotation,
        directory=core.signed_in.directory,
        clients=core.signed_in.clients,
        runs=runs,
        jobs=core.inventory,
        files=core.files,
        agents=definitions,
        hosting=talks.hosting,
        sessions=talks.sessions,
        resources=talks.resources,
        approvals=talks.approvals,
        offers=offers,
        stored_files=core.stored_files,
        batches=batching.batches(core, settings, _deferred(core, gateway, traffic, kept)),
        idempotency=IdempotencyKeys(core.database, core.clock, core.record.sealer, core.instances),
        responses=_responses(core, settings),
        reports=Reports(core.database, core.clock),
        budgets=defined,
        spend_requests=money.requests(core, defined),
        gateway=gateway,
        cache=cache,
        calls=kept.calls,
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
        components=components(
            max_queue=settings.max_queue,
            database=core.database,
            worker=worker,
            runs=runs,
            agent=agent,
            pool=pool,
            rung=rung,
            provider=provider,
            files=core.files,
            also=also,
        ),
        not_ready_because=readiness,
        sockets=_places(core, settings),
        one_job=core.one_job,
    )


def _deferred(core: Core, gateway: Gateway, traffic: Traffic, kept: KeptCalls) -> Deferred:
    return Deferred(gateway, traffic, core.clock, kept.writer)


def _places(core: Core, settings: Settings) -> Places:
    sockets = Places(most=settings.websocket_max_connections)
    core.metrics.sockets_open.set_function(lambda: sockets.open)
    return sockets


def _responses(core: Core, settings: Settings) -> Responses:
    return Responses(
        core.database,
        core.clock,
        core.record.sealer,
        lifetime=settings.responses_retention,
        recorder=core.record.audit,
    )


def _gateway(
    core: Core,
    models: Models,
    traffic: Traffic,
    limits: Limiting,
    *,
    cache: AnswerCache | None,
    keeper: CallKeeper,
) -> Gateway:
    return Gateway(
        models=models,
        meter=core.budgets,
        observer=traffic,
        clock=core.clock,
        limiter=limits.limiter,
        cache=cache,
        keeper=keeper,
    )


def _runs(core: Core, settings: Settings, agent: Agent, kits: Kits) -> Runs:
    return Runs(
        database=core.database,
        events=core.events,
        records=core.records,
        settlement=core.settlement,
        budgets=core.budgets,
        outbox=core.dispatching.outbox,
        bus=core.bus,
        clock=core.clock,
        agent=agent,
        files=core.files,
        kits=kits,
        limits=parts.run_limits(settings),
        recorder=core.record.audit,
    )
