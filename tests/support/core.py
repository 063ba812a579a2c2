"""The core of a server on one database: every verb on runs, wired as in the real one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from stationmaster.access import Keys, Resolver, RunTokens, WorkTokens
from stationmaster.access.secret import Hasher
from stationmaster.access.tables import run_tokens
from stationmaster.agents.base import Agent, Limits
from stationmaster.agents.pool import Pool
from stationmaster.agents.scripted import ScriptedAgent
from stationmaster.agents.slots import PoolLimits
from stationmaster.bootstrap.pooling import DatabaseTokens, SessionPlaces
from stationmaster.budgets import Budgets, CallContext
from stationmaster.events import Event, EventLog
from stationmaster.events.pages import page
from stationmaster.files import Depot, Files
from stationmaster.jobs import Instances, Outbox
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.sessions.agents import Agents
from stationmaster.sessions.approvals import Approvals
from stationmaster.sessions.birth import Births
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.environment_keys import EnvironmentKeys
from stationmaster.sessions.environments import Environments
from stationmaster.sessions.mounts import Mounts
from stationmaster.sessions.resources import Resources
from stationmaster.sessions.runs.claims import Claim, Claims
from stationmaster.sessions.runs.executor import Execution, Surroundings, Timers
from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.kit import Kits
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.options import RunLimits, RunOptions
from stationmaster.sessions.runs.record import Records, Run
from stationmaster.sessions.runs.runs import Runs
from stationmaster.sessions.runs.seats import Seats
from stationmaster.sessions.runs.settlement import Ending, Settlement
from stationmaster.sessions.runs.state import fold
from stationmaster.sessions.runs.turns import Turns
from stationmaster.sessions.runs.worker import Worker
from stationmaster.sessions.runs.workspace import UploadLimits, Workspaces
from stationmaster.sessions.sending import Sending
from stationmaster.sessions.sessions import Sessions
from stationmaster.sessions.work import Work
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.storage import Database, Transaction
from stationmaster.transcripts import Transcripts

OWNER = Owner("org_default", "proj_default")
LEASE = 30.0
WORK_LEASE = 60.0
QUEUE_TIMEOUT = 600.0
AGEING = 60.0
LIMITS = RunLimits(
    default_model="scripted-model",
    default_timeout=300.0,
    max_timeout=3600.0,
    default_cost=1_000_000,
    max_cost=10_000_000,
    max_queue=20,
)
TIMERS = Timers(first_event=60.0, inactivity=60.0)


def principal(name: str = "a", owner: Owner = OWNER) -> Principal:
    """A caller with every right of a user."""
    scopes = frozenset({"read:*", "write:*"})
    return Principal("key", f"key_{name}", owner, f"key_{name}", scopes)


ALICE = principal("alice")


@dataclass
class Seen:
    """A `RunObserver` that keeps what it is told."""

    began_runs: list[str] = field(default_factory=list)
    ended_runs: list[tuple[str, Ending | None]] = field(default_factory=list)
    at_work: int = 0
    most: int = 0

    def began(self, claim: Claim) -> None:
        """See `RunObserver`."""
        self.began_runs.append(claim.run.id)
        self.at_work += 1
        self.most = max(self.most, self.at_work)

    def ended(self, claim: Claim, ending: Ending | None, seconds: float) -> None:
        """See `RunObserver`."""
        assert seconds >= 0
        self.ended_runs.append((claim.run.id, ending))
        self.at_work -= 1


class Core:
    """One server. `beside` makes another on the same database, as a second process would."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        clock: ManualClock | None = None,
        bus: MemoryBus | None = None,
        agent: Agent | None = None,
        limits: RunLimits = LIMITS,
        one_job: OneJob | None = None,
    ) -> None:
        self.database = database
        self.directory = directory
        self.clock = clock or ManualClock()
        self.bus = bus or MemoryBus()
        self.agent = agent or ScriptedAgent()
        self.limits = limits
        hasher = Hasher(b"a pepper for the tests")
        self.events = EventLog(database, self.bus, self.clock)
        self.outbox = Outbox(self.bus, self.clock)
        self.instances = Instances(database, self.clock, lease=LEASE)
        self.budgets = Budgets(database, self.clock, instance_id=self.instances.id)
        self.resolver = Resolver(database, hasher, self.clock)
        self.keys = Keys(database, hasher, self.clock, self.resolver)
        self.tokens = RunTokens(hasher, self.clock, forget=self.resolver.forget)
        self.one_job = one_job
        self.records = Records(
            self.events,
            reserved=lambda: self.instances.id if one_job and one_job.reserving else None,
        )
        self.turns = Turns(self.records, self.budgets, self.outbox, limits)
        self.settlement = Settlement(
            self.records, self.budgets, self.tokens, self.turns, self.clock
        )
        self.files = RunFiles(
            Workspaces(directory / "workspaces"), directory / "state", UploadLimits()
        )
        self.claims = Claims(
            database=database,
            events=self.events,
            records=self.records,
            settlement=self.settlement,
            budgets=self.budgets,
            instances=self.instances,
            clock=self.clock,
            queue_timeout=QUEUE_TIMEOUT,
            ageing=AGEING,
        )
        self.offers = Catalogue(tools=self.agent.known_tools)
        self.agents = Agents(database=database, clock=self.clock, catalogue=self.offers)
        self.runs = Runs(
            database=database,
            events=self.events,
            records=self.records,
            settlement=self.settlement,
            budgets=self.budgets,
            outbox=self.outbox,
            bus=self.bus,
            clock=self.clock,
            agent=self.agent,
            files=self.files,
            kits=Kits(self.agents, self.offers),
            limits=limits,
        )
        self.transcripts = Transcripts(database, self.clock, max_size=2**24)
        # Nothing is launched ahead: a session's own process is all that is kept.
        self.pool = Pool(
            self.agent,
            DatabaseTokens(database, self.tokens),
            SessionPlaces(Workspaces(directory / "workspaces"), directory / "state"),
            PoolLimits(size=0),
        )
        self.seats = self.seating(
            Surroundings(Path("/nonexistent.sock"), "http://127.0.0.1:1", Limits())
        )
        self.environments = Environments(database=database, clock=self.clock)
        self.environment_keys = EnvironmentKeys(
            environments=self.environments, keys=self.keys, clock=self.clock
        )
        work_tokens = WorkTokens(hasher, self.clock, forget=self.resolver.forget)
        queue = WorkQueue(
            records=self.records.sessions,
            tokens=work_tokens,
            bus=self.bus,
            clock=self.clock,
            lease_time=WORK_LEASE,
        )
        self.work = Work(
            database=database,
            records=self.records.sessions,
            queue=queue,
            tokens=work_tokens,
            bus=self.bus,
            clock=self.clock,
            lease_time=WORK_LEASE,
        )
        sending = Sending(
            records=self.records,
            settlement=self.settlement,
            turns=self.turns,
            bus=self.bus,
            clock=self.clock,
            max_queue=limits.max_queue,
            shares=limits.shares,
            work=queue,
        )
        self.stored_files = Files(
            database, self.clock, Depot(directory / "files"), max_size=2**20, quota=2**24
        )
        mounts = Mounts(self.stored_files, self.clock, quota=2**20)
        self.sessions = Sessions(
            database=database,
            events=self.events,
            records=self.records.sessions,
            births=Births(
                records=self.records.sessions,
                events=self.events,
                budgets=self.budgets,
                clock=self.clock,
                work=queue,
            ),
            sending=sending,
            work=queue,
            budgets=self.budgets,
            outbox=self.outbox,
            clock=self.clock,
            catalogue=self.offers,
            files=self.files,
            mounts=mounts,
            transcripts=self.transcripts,
            seating=self.seats,
        )
        self.resources = Resources(
            database=database, records=self.records.sessions, files=self.files, mounts=mounts
        )
        self.approvals = Approvals(
            database=database,
            sessions=self.records.sessions,
            bus=self.bus,
            clock=self.clock,
        )

    def seating(self, surroundings: Surroundings) -> Seats:
        """Where agents sit that are told of these surroundings."""
        return Seats(
            pool=self.pool,
            database=self.database,
            events=self.events,
            records=self.records,
            tokens=self.tokens,
            files=self.files,
            transcripts=self.transcripts,
            catalogue=self.offers,
            surroundings=surroundings,
        )

    def beside(self, database: Database | None = None, **changes: Any) -> "Core":
        """Another server on the same database, clock and files, with a bus of its own."""
        kept: dict[str, Any] = {"clock": self.clock, "agent": self.agent, "limits": self.limits}
        return Core(database or self.database, self.directory, **(kept | changes))

    # --- short ways ---------------------------------------------------------------------------

    async def start(self, prompt: str = "Do it.", *, by: Principal = ALICE, **options: Any) -> Run:
        """Start a run."""
        return await self.runs.start(by, RunOptions(prompt=prompt, **options))

    async def get(self, run_id: str) -> Run:
        """A run as its row says."""
        return await self.database.read(lambda tx: self.records.get(tx, run_id))

    async def book(self, run: Run) -> list[Event]:
        """All events of a run's session."""
        return await self.events.read(run.session_id, limit=100_000)

    async def types(self, run: Run) -> list[str]:
        """The types of all events of a run's session."""
        return [event.type for event in await self.book(run)]

    async def checked(self, run: Run) -> Run:
        """The run, after checking that its row is what its events say and that it ended once."""
        live = select(run_tokens.c.id).where(
            run_tokens.c.run_id == run.id, run_tokens.c.revoked_at.is_(None)
        )
        book, now, tokens = await self.database.read(
            lambda tx: (
                page(tx, run.session_id, 0, 100_000),
                self.records.get(tx, run.id),
                tx.execute(live).all(),
            )
        )
        assert fold(run.id, book) == now.state
        assert [event.seq for event in book] == list(range(1, len(book) + 1))
        ends = [event for event in book if event.type == "run.ended"]
        assert len(ends) == now.state.finished
        # It is bound when an agent is seated, which is after the claim.
        assert len(tokens) <= (now.state.state == "running"), "a token lives on"
        return now

    def context(self, run: Run) -> CallContext:
        """Of a model call of a run."""
        return CallContext(
            new_id("call"), run.owner, run.key_id, run.id, run.session_id, "offline", "model"
        )

    async def seat(self, claim: Claim) -> str:
        """Give a token the rights of a claimed run, as a seat does; its secret."""

        def verb(tx: Transaction) -> str:
            token_id, secret = self.tokens.issue(tx)
            self.tokens.bind(
                tx,
                token_id,
                owner=claim.run.owner,
                key_id=claim.run.key_id,
                run_id=claim.run.id,
                session_id=claim.run.session_id,
            )
            return secret

        return await self.database.write(verb)

    def execution(
        self,
        claim: Claim,
        *,
        timers: Timers = TIMERS,
        database: Database | None = None,
        seats: Seats | None = None,
    ) -> Execution:
        """Of a claimed run."""
        return Execution(
            claim,
            agent=self.agent,
            database=database or self.database,
            events=self.events,
            records=self.records,
            settlement=self.settlement,
            bus=self.bus,
            clock=self.clock,
            files=self.files,
            seats=seats or self.seats,
            timers=timers,
        )

    def worker(
        self,
        slots: int,
        seen: Seen | None = None,
        *,
        waiting: int = 0,
        execution: Callable[[Claim], Execution] | None = None,
    ) -> Worker:
        """A worker that is not running yet."""
        return Worker(
            claims=self.claims,
            instances=self.instances,
            clock=self.clock,
            slots=slots,
            waiting=waiting,
            execution=execution or self.execution,
            observer=seen or Seen(),
            one_job=self.one_job,
        )

    @asynccontextmanager
    async def working(self, worker: Worker) -> AsyncIterator[Worker]:
        """Run a worker meanwhile; at the end it is interrupted."""
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            await worker.interrupt()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def limited(**changes: Any) -> RunLimits:
    """The usual limits but for `changes`."""
    return replace(LIMITS, **changes)
