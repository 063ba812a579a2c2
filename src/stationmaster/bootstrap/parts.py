"""The parts of a server, each made from the settings that concern it."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from stationmaster.access import Keys, LastUse, Resolver, Rotation, RunTokens
from stationmaster.access.entitlement import Spender, still_good
from stationmaster.access.secret import Hasher
from stationmaster.agents.base import Agent, AgentUnavailable, Limits
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import PoolLimits
from stationmaster.bootstrap.dispatching import Dispatching, dispatching
from stationmaster.bootstrap.identity import OnRecord, SignedIn, on_record, signed_in
from stationmaster.bootstrap.limiting import shares
from stationmaster.bootstrap.news import News, news
from stationmaster.bootstrap.operators import inventory
from stationmaster.bootstrap.pooling import DatabaseTokens, SessionPlaces
from stationmaster.bootstrap.timekeeping import DatabaseTime, timekeeping
from stationmaster.budgets import Budgets, CallContext
from stationmaster.budgets.account import Entitled
from stationmaster.events import EventLog
from stationmaster.files import Depot, Files
from stationmaster.http.services import HttpOptions
from stationmaster.jobs import Instances
from stationmaster.jobs.inventory import Inventory
from stationmaster.kernel.clock import Clock
from stationmaster.live.bus import Bus
from stationmaster.migrations import migrate
from stationmaster.providers.base import Provider
from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.options import RunLimits
from stationmaster.sessions.runs.record import Records
from stationmaster.sessions.runs.settlement import Settlement
from stationmaster.sessions.runs.turns import Turns
from stationmaster.sessions.runs.workspace import UploadLimits, Workspaces
from stationmaster.settings import Settings, load_secret_key
from stationmaster.storage import (
    Database,
    ServerOptions,
    Transaction,
    beside,
    open_database,
    survey,
)
from stationmaster.telemetry import Metrics, Redactor
from stationmaster.transcripts import Transcripts

if TYPE_CHECKING:
    from stationmaster.agents.claude_code import ClaudeCodeAgent, OwnLogin

log = structlog.get_logger(__name__)

ELSEWHERE = "elsewhere"
"""The rung of agents that this server does not run."""

SUBSCRIPTION = (
    "Tasks started with an admin key use your Claude subscription: Anthropic's terms do not allow"
    " serving others with it, and what these tasks use is outside the spend ceiling."
)


@dataclass(frozen=True, slots=True)
class Core:
    """What everything stands on: the database, and the capabilities that keep tables in it."""

    database: Database
    news: News
    dispatching: Dispatching
    inventory: Inventory
    clock: Clock
    time: DatabaseTime | None
    secret: str = field(repr=False)
    record: OnRecord
    signed_in: SignedIn
    metrics: Metrics
    instances: Instances
    keys: Keys
    rotation: Rotation
    last_use: LastUse
    resolver: Resolver
    tokens: RunTokens
    events: EventLog
    budgets: Budgets
    records: Records
    turns: Turns
    settlement: Settlement
    files: RunFiles
    transcripts: Transcripts
    stored_files: Files
    one_job: OneJob | None

    @property
    def bus(self) -> Bus:
        """Where news passes."""
        return self.news.bus


async def core(stack: AsyncExitStack, settings: Settings, clock: Clock, redactor: Redactor) -> Core:
    """Open the database, up to date, and go by its time. Raises `Unavailable` and `SchemaError`.

    `clock` is this machine's.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = (settings.secret_key or load_secret_key(settings.data_dir)).get_secret_value()
    redactor.register(secret)
    hasher, metrics = Hasher(secret.encode()), Metrics()

    database = await _database(stack, settings, metrics)
    clock, time = await timekeeping(database, clock, settings.lease_time)
    told = news(stack, settings, metrics)
    record = await on_record(database, settings, secret, clock)
    instances = Instances(database, clock, lease=settings.lease_time)
    dispatch = dispatching(
        stack, settings, metrics, bus=told.bus, clock=clock, instance_id=instances.id
    )
    last_use = LastUse(database, clock)
    resolver = Resolver(database, hasher, clock, last_use=last_use)
    tokens = RunTokens(hasher, clock, forget=resolver.forget, instance_id=instances.id)
    events = _book(database, told.bus, clock, metrics)
    budgets = Budgets(
        database, clock, instance_id=instances.id, events=events, entitled=_entitled(clock)
    )
    records, one_job = _records(settings, events, instances)
    turns = Turns(records, budgets, dispatch.outbox, run_limits(settings))
    keys = Keys(
        database,
        hasher,
        clock,
        resolver,
        recorder=record.audit,
        rotate_after_days=settings.key_rotation_days or None,
    )
    return Core(
        database=database,
        news=told,
        dispatching=dispatch,
        inventory=inventory(database, clock, record, redactor, outbox=dispatch.outbox),
        clock=clock,
        time=time,
        secret=secret,
        record=record,
        signed_in=await signed_in(
            stack,
            settings,
            database,
            hasher=hasher,
            clock=clock,
            resolver=resolver,
            record=record,
            instances=instances,
        ),
        metrics=metrics,
        instances=instances,
        keys=keys,
        rotation=Rotation(
            database=database,
            keys=keys,
            hasher=hasher,
            clock=clock,
            resolver=resolver,
            events=events,
            recorder=record.audit,
            overlap_days=settings.key_rotation_overlap_days,
        ),
        last_use=last_use,
        resolver=resolver,
        tokens=tokens,
        events=events,
        budgets=budgets,
        records=records,
        turns=turns,
        settlement=Settlement(records, budgets, tokens, turns, clock),
        files=_files(settings),
        transcripts=Transcripts(database, clock, max_size=settings.transcript_max_size),
        stored_files=_stored_files(settings, database, clock),
        one_job=one_job,
    )


def _records(
    settings: Settings, events: EventLog, instances: Instances
) -> tuple[Records, OneJob | None]:
    one_job = OneJob() if settings.ephemeral else None

    def reserved() -> str | None:
        return instances.id if one_job is not None and one_job.reserving else None

    return Records(events, reserved=reserved), one_job


def _stored_files(settings: Settings, database: Database, clock: Clock) -> Files:
    return Files(
        database,
        clock,
        Depot(settings.files_dir),
        max_size=settings.file_max_size,
        quota=settings.files_quota,
    )


def _book(database: Database, bus: Bus, clock: Clock, metrics: Metrics) -> EventLog:
    return EventLog(
        database,
        bus,
        clock,
        on_append=metrics.events_appended.inc,
        on_drop=metrics.slow_readers_dropped.inc,
    )


def _entitled(clock: Clock) -> Entitled:
    def entitled(tx: Transaction, contexts: Sequence[CallContext]) -> list[bool]:
        spenders = [Spender(context.key_id, context.run_id) for context in contexts]
        return still_good(tx, spenders, clock.now())

    return entitled


async def _database(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Database:
    url = settings.database_url.get_secret_value()
    found = await survey(url)
    await migrate(url)
    options = ServerOptions(
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        recycle=settings.database_pool_recycle,
        pre_ping=settings.database_pool_pre_ping,
        statement_timeout=settings.database_statement_timeout,
        echo=settings.database_echo,
        pooled=found is not None and found.pooled,
    )
    database = open_database(
        url,
        synchronous=settings.sqlite_synchronous,
        on_batch=metrics.db_write_batch_size.observe,
        **options,
    )
    if settings.database_replica_url is not None:
        # It may be away now, and whether a pooler is before it cannot be asked then.
        options["pooled"] = True
        standby = open_database(settings.database_replica_url.get_secret_value(), **options)
        database = beside(database, standby, staleness=settings.database_replica_staleness)
    stack.push_async_callback(database.close)
    return database


async def agent(
    stack: AsyncExitStack,
    settings: Settings,
    redactor: Redactor,
    *,
    egress_socket: Path,
    works: bool,
) -> tuple[Agent, str, list[str]]:
    """The agent, the rung it gets, and what the operator should know of that.

    `egress_socket` is where a subscription login's agents will find their way out. One that does
    not work is there to be asked what it could do.
    """
    if settings.agent == "scripted":
        from stationmaster.agents.scripted import ScriptedAgent

        scripted = ScriptedAgent()
        stack.push_async_callback(scripted.aclose)
        return scripted, "none", ["AGENT is scripted: tasks play a fixed script."]
    from stationmaster.agents.claude_code import ClaudeCodeAgent

    if not works:
        return ClaudeCodeAgent(state_dir=settings.data_dir), ELSEWHERE, []
    claude = ClaudeCodeAgent(
        state_dir=settings.data_dir,
        sandbox=settings.sandbox,
        readonly_paths=settings.sandbox_readonly,
        agent_uid_base=settings.agent_uid_base,
        own_login=await _own_login(stack, settings, redactor, egress_socket),
    )
    stack.push_async_callback(claude.aclose)
    if reaped := await claude.reap():
        log.warning("Agents of an earlier server were ended.", agents=reaped)
    rung, warnings = await _probe(claude)
    if settings.subscription_login is not None:
        if rung != "bubblewrap":
            raise AgentUnavailable(
                "A subscription login is used in the full sandbox alone: without it nothing would"
                " limit where its agents connect to. Install bubblewrap, or use an API key.",
                code="agent_login_unconfined",
            )
        warnings.append(SUBSCRIPTION)
    return claude, rung, warnings


async def pool(
    stack: AsyncExitStack, core: Core, settings: Settings, agent: Agent, *, works: bool
) -> Pool:
    """The agents' processes, those of earlier servers cleared away; none where none may work."""
    places = SessionPlaces(Workspaces(settings.workspace_dir), settings.data_dir)
    if works and (gone := await asyncio.to_thread(places.sweep)):
        log.info("Directories of agents that served nobody were deleted.", slots=gone)
    made = Pool(
        agent,
        DatabaseTokens(core.database, core.tokens),
        places,
        PoolLimits(
            size=settings.agent_pool_size if works else 0,
            kinds=settings.agent_pool_kinds,
            idle=settings.agent_pool_idle_time,
            unused=settings.agent_pool_unused_time,
            memory=settings.agent_pool_memory,
        ),
        on_take=lambda source: core.metrics.pool_takes.labels(source).inc(),
    )
    stack.push_async_callback(made.aclose)
    metrics = core.metrics
    metrics.pool_warm.set_function(lambda: made.stats().warm)
    metrics.pool_idle.set_function(lambda: made.stats().idle)
    metrics.pool_busy.set_function(lambda: made.stats().busy)
    metrics.pool_memory.set_function(lambda: made.stats().memory)
    return made


def owners_login(settings: Settings) -> bool:
    """Whether the owner's own runs use a subscription login."""
    return settings.subscription_login is not None and settings.agent == "claude_code"


async def _own_login(
    stack: AsyncExitStack, settings: Settings, redactor: Redactor, socket: Path
) -> "OwnLogin | None":
    if settings.subscription_login is None:
        return None
    from stationmaster.agents.claude_code import EgressProxy, OwnLogin, SubscriptionLogin

    kept = await asyncio.to_thread(
        SubscriptionLogin,
        settings.subscription_login.get_secret_value(),
        settings.data_dir / "subscription",
        learned=redactor.register,
    )
    await stack.enter_async_context(EgressProxy(socket))
    return OwnLogin(kept, socket)


async def _probe(claude: "ClaudeCodeAgent") -> tuple[str, list[str]]:
    found = await claude.probe()
    if found.rung == "bubblewrap":
        return found.rung, []
    return found.rung, [
        f"Agents are not fully sandboxed (rung {found.rung!r}): {found.reason} An agent may then"
        " read what this server's user can read. Install bubblewrap, or set SANDBOX=require to"
        " refuse to run without it."
    ]


async def provider(stack: AsyncExitStack, settings: Settings) -> Provider:
    """Who answers model calls."""
    chosen: Provider
    if settings.provider == "offline":
        from stationmaster.providers.offline import OfflineProvider

        chosen = OfflineProvider(delay=settings.offline_delay)
    else:
        from stationmaster.providers.anthropic import AnthropicProvider, Timeouts

        key = settings.anthropic_api_key
        chosen = AnthropicProvider(
            base_url=settings.anthropic_base_url,
            api_key=key.get_secret_value() if key else "",
            timeouts=Timeouts(
                connect=settings.connect_timeout,
                first_byte=settings.first_byte_timeout,
                inactivity=settings.inactivity_timeout,
                total=settings.api_timeout,
            ),
        )
    stack.push_async_callback(chosen.aclose)
    return chosen


def _files(settings: Settings) -> RunFiles:
    limit = settings.max_upload_size
    return RunFiles(
        Workspaces(settings.workspace_dir),
        settings.data_dir,
        UploadLimits(total_bytes=limit, file_bytes=limit),
    )


def agent_limits(settings: Settings) -> Limits:
    """What one agent may use."""
    return Limits(
        memory_bytes=settings.agent_memory,
        processes=settings.agent_processes,
        file_bytes=settings.agent_file_size,
        cpu_seconds=settings.agent_cpu_time,
        disk_bytes=settings.workspace_quota,
    )


def http_options(settings: Settings) -> HttpOptions:
    """What concerns HTTP."""
    return HttpOptions(
        api_key_enabled=settings.api_key_enabled,
        keyless_anywhere=settings.api_key_disabled_anywhere,
        keepalive=settings.keepalive_interval,
        max_request_size=settings.max_request_size,
        max_upload_size=settings.max_upload_size,
        metrics_enabled=settings.metrics_enabled,
        default_model=settings.default_model,
        cost_threshold=settings.cost_threshold,
        max_file_size=settings.file_max_size,
    )


def run_limits(settings: Settings) -> RunLimits:
    """What one run may ask for."""
    return RunLimits(
        default_model=settings.default_model,
        default_timeout=settings.task_timeout,
        max_timeout=settings.task_max_timeout,
        default_cost=settings.task_max_cost,
        max_cost=settings.task_cost_limit,
        max_queue=settings.max_queue,
        shares=shares(settings),
    )
