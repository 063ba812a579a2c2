"""What is told of a running server: metrics of runs and calls, and the parts of `/health`."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from stationmaster.agents.base import Agent
from stationmaster.agents.pool import Pool
from stationmaster.bootstrap.roles import Duties
from stationmaster.bootstrap.timekeeping import DatabaseTime
from stationmaster.gateway.ports import CallEnded, CallObserver, CallRefused, CallStarted
from stationmaster.http.health import Health
from stationmaster.http.services import Component
from stationmaster.jobs import Lease
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Unavailable
from stationmaster.providers.base import Provider
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.queue import Waiting
from stationmaster.sessions.runs.runs import Runs
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.sessions.runs.worker import Worker
from stationmaster.storage import Database
from stationmaster.telemetry import Metrics

log = structlog.get_logger(__name__)

LOW_DISK_BYTES = 512 * 1024**2  # below it new files may soon fail


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Counts the ends of runs. The worker's `RunObserver`."""

    metrics: Metrics

    def began(self, claim: Claim) -> None:
        """See `RunObserver`."""

    def ended(self, claim: Claim, ending: Ending | None, seconds: float) -> None:
        """See `RunObserver`."""
        outcome = ending.state if ending is not None else "abandoned"
        self.metrics.run_ended(outcome=outcome, seconds=seconds)


@dataclass(frozen=True, slots=True)
class LastRun:
    """Tells a server of one job that its run has ended. The worker's `RunObserver`."""

    job: OneJob
    then: RunMetrics

    def began(self, claim: Claim) -> None:
        """See `RunObserver`."""
        self.then.began(claim)

    def ended(self, claim: Claim, ending: Ending | None, seconds: float) -> None:
        """See `RunObserver`."""
        self.then.ended(claim, ending, seconds)
        self.job.end(completed=ending is not None and ending.state == "completed")


@dataclass(frozen=True, slots=True)
class CallMetrics:
    """Counts model calls, and passes on those of runs. The gateway's `CallObserver`."""

    metrics: Metrics
    runs: CallObserver

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """See `CallObserver`."""
        if isinstance(event, CallEnded):
            usage, first = event.usage, event.first_byte_ms
            self.metrics.model_call(
                provider=event.context.provider,
                model=event.context.model,
                outcome=event.outcome,
                tokens={
                    "input": usage.input_tokens,
                    "output": usage.output_tokens,
                    "cache_write": usage.cache_write_tokens,
                    "cache_read": usage.cache_read_tokens,
                },
                cost_micros=event.cost,
                first_byte_seconds=None if first is None else first / 1000,
            )
        elif isinstance(event, CallRefused):
            self.metrics.call_refused(event.refusal.subject_kind)
        if event.context.run_id is not None:
            self.runs.observe(event)


def components(
    *,
    max_queue: int,
    database: Database,
    worker: Worker,
    runs: Runs,
    agent: Agent,
    pool: Pool,
    rung: str,
    provider: Provider,
    files: RunFiles,
    also: tuple[Component, ...] = (),
) -> tuple[Component, ...]:
    """The parts that `/health` names, `also` last. `rung` is how agents are confined."""

    async def check_database() -> Mapping[str, Any]:
        await database.check()
        return {"kind": database.dialect}

    async def check_pool() -> Mapping[str, Any]:
        depth = await runs.depth()
        return {
            "active_workers": worker.active,
            "max_workers": worker.slots,
            "unanswered": worker.waiting,
            "queued_tasks": depth.queued,
            "max_queue": max_queue,
        }

    async def check_agents() -> Mapping[str, Any]:
        now = pool.stats()
        return {
            "agent": agent.name,
            "alive": await asyncio.to_thread(agent.alive),
            "warm": now.warm,
            "idle": now.idle,
            "busy": now.busy,
            "waiting_memory_bytes": now.memory,
            "sandbox": rung,
        }

    async def check_provider() -> Mapping[str, Any]:
        await provider.check()
        return {"name": provider.name}

    async def check_disk() -> Mapping[str, Any]:
        free = await asyncio.to_thread(files.free_bytes)
        if free < LOW_DISK_BYTES:
            raise Unavailable("The disk of the workspaces is nearly full.", code="disk_low")
        return {"free_bytes": free}

    return (
        Component("database", check_database, critical=True),
        Component("worker_pool", check_pool, critical=False),
        Component("agents", check_agents, critical=False),
        Component("provider", check_provider, critical=False),
        Component("disk", check_disk, critical=False),
        *also,
    )


def measure(metrics: Metrics, agent: Agent, worker: Worker, time: DatabaseTime | None) -> None:
    """Let the metrics ask how much is at work, and how far this machine's clock is off."""
    if time is not None:
        metrics.clock_offset.set_function(time.offset)
    metrics.agents_alive.set_function(agent.alive)
    metrics.runs_active.set_function(lambda: worker.active)
    metrics.runs_unanswered.set_function(lambda: worker.waiting)


def measure_queue(metrics: Metrics, waiting: Mapping[str, Waiting], now: Millis) -> None:
    """Tell what waits for workers."""
    metrics.runs_queued.set(sum(each.queued for each in waiting.values()))
    for priority, each in waiting.items():
        metrics.queue_runs.labels(priority).set(each.queued)
        metrics.queue_oldest.labels(priority).set(each.seconds(now))


def keeping(keeper: Lease, does: Duties) -> tuple[Component, ...]:
    """Whether this server does the periodic work of all, where it might."""
    if not does.keeps:
        return ()

    async def check() -> Mapping[str, Any]:
        return {"leads": keeper.held}

    return (Component("scheduler", check, critical=False),)


async def look_on(health: Health, metrics: Metrics, interval: float) -> None:
    """Look at every part each `interval` seconds, and say where one comes or goes. Never ends."""
    were: dict[str, str] = {}
    while True:
        for finding in await health.findings():
            name, status = finding.component.name, finding.status
            metrics.component_up.labels(name).set(status != "down")
            if status != were.get(name, "ok"):
                say = log.warning if status in {"down", "degraded"} else log.info
                reason = finding.message or finding.details.get("warning")
                log_line = {"part": name, "status": status, "code": finding.code, "reason": reason}
                say("A part of the server changed.", **log_line)
            were[name] = status
        await asyncio.sleep(interval)
