"""The verbs on runs, for whoever calls the server."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace
from sqlalchemy import insert, select

from stationmaster.access.roles import is_operator
from stationmaster.agents.base import Agent
from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.budgets import Budgets
from stationmaster.events import Event, EventLog, Live, NewEvent, Overflow
from stationmaster.jobs import Outbox
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid, Unavailable
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.live.bus import Bus
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.bounds import check_concurrency
from stationmaster.sessions.runs.files import Place, RunFiles, Upload
from stationmaster.sessions.runs.kit import Kits
from stationmaster.sessions.runs.options import RunLimits, RunOptions, RunPlan, plan
from stationmaster.sessions.runs.priority import priority_of
from stationmaster.sessions.runs.queue import (
    QueueDepth,
    Waiting,
    check_room,
    depth,
    queue_full,
    waiting,
)
from stationmaster.sessions.runs.record import Records, Run, from_row, place_of
from stationmaster.sessions.runs.settlement import Ending, Settlement
from stationmaster.sessions.runs.state import State
from stationmaster.sessions.runs.turns import QUEUED_JOB
from stationmaster.sessions.tables import runs, sessions
from stationmaster.sessions.topics import control_topic
from stationmaster.storage import Database, Transaction

__all__ = ["QUEUED_JOB", "QueueDepth", "Runs", "control_topic"]


class Runs:
    """Start, watch and cancel runs."""

    def __init__(
        self,
        *,
        database: Database,
        events: EventLog,
        records: Records,
        settlement: Settlement,
        budgets: Budgets,
        outbox: Outbox,
        bus: Bus,
        clock: Clock,
        agent: Agent,
        files: RunFiles,
        kits: Kits,
        limits: RunLimits,
        recorder: Recorder = SILENT,
    ) -> None:
        self._database = database
        self._events = events
        self._records = records
        self._settlement = settlement
        self._budgets = budgets
        self._outbox = outbox
        self._bus = bus
        self._clock = clock
        self._agent = agent
        self._files = files
        self._kits = kits
        self._limits = limits
        self._recorder = recorder
        self._closed_because: str | None = None
        self._entering: set[asyncio.Task[Run]] = set()

    def close_admission(self, reason: str) -> None:
        """Refuse new runs from now on."""
        self._closed_because = reason

    async def start(
        self,
        principal: Principal,
        options: RunOptions,
        upload: Upload | None = None,
    ) -> Run:
        """Begin a session with one run, queued.

        The workspace is made first, with the uploaded files in it, and removed again if the run
        is refused after all.

        Raises `Invalid`, `Denied`, `TooLarge`, `NotFound` for a sub-agent, skill or tool server
        that is not there, or `Unavailable` where the queue is full or the server is stopping.
        """
        principal.require("write:tasks")
        if self._closed_because is not None:
            raise Unavailable(self._closed_because, code="shutting_down")
        priority = priority_of(options.priority, principal.profile, principal)
        checked = plan(
            options,
            self._limits,
            self._agent,
            by_owner=is_operator(principal),
            profile=principal.profile,
        )
        kit = await self._kits.find(principal, options, checked.tools)
        checked = replace(checked, kit=kit, priority=priority)
        if (await self.depth()).queued >= self._limits.max_queue:  # before any disk is used
            raise queue_full()
        # A caller that goes away must leave neither files without a run nor a run without files.
        entering = asyncio.ensure_future(self._enter(principal, options, checked, upload))
        self._entering.add(entering)
        entering.add_done_callback(self._entered)
        return await asyncio.shield(entering)

    async def require_room(self, principal: Principal) -> None:
        """Raise `BudgetExceeded` where a new turn of the caller's could not make a single call."""
        await self._database.read(
            lambda tx: self._budgets.require_room(
                tx, principal.owner, principal.key_id, principal.user_id
            )
        )

    def _entered(self, entering: "asyncio.Task[Run]") -> None:
        self._entering.discard(entering)
        if not entering.cancelled():
            entering.exception()  # where the caller is gone nobody else asks for it

    async def _enter(
        self, principal: Principal, options: RunOptions, checked: RunPlan, upload: Upload | None
    ) -> Run:
        session_id, run_id = new_id("sesn"), new_id("run")
        prepare = self._files.preparation(principal.owner, options, upload or Upload())
        place = await asyncio.to_thread(prepare, session_id, run_id)

        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Run:
            check_room(tx, self._limits.max_queue)
            check_concurrency(tx, principal, self._limits.shares)
            self._budgets.require_room(tx, principal.owner, principal.key_id, principal.user_id)
            tx.execute(
                insert(sessions),
                {
                    "id": session_id,
                    "organization_id": principal.owner.organization_id,
                    "project_id": principal.owner.project_id,
                    "key_id": principal.key_id,
                    "workspace": str(place.workspace),
                    "scope": str(place.scope),
                    "directory": str(place.directory),
                    "created_at": self._clock.now(),
                    "metadata": {},
                    "queue": (),
                    "always": (),
                    "rules": (),
                    "usage": {},
                },
            )
            self._events.create(tx, session_id, "session", principal.owner)
            self._budgets.open(tx, principal.owner, "run", run_id, checked.max_cost)
            self._outbox.put(tx, QUEUED_JOB, {"run_id": run_id})
            content = [{"type": "text", "text": checked.prompt}]
            run = self._records.add(
                tx,
                principal.owner,
                principal.key_id,
                checked,
                [
                    NewEvent(states.QUEUED, {"run_id": run_id, "session_id": session_id}),
                    NewEvent("user.message", {"run_id": run_id, "content": content}),
                ],
            )
            self._recorder.record(tx, actor, "task.start", target=run_id)
            return run

        try:
            return await self._database.write(verb)
        except Exception as error:
            # Where the outcome is unknown the run may be there, and need its files.
            if getattr(error, "error_code", None) != "commit_unknown":
                await asyncio.to_thread(self._files.discard, place)
            raise

    async def get(self, principal: Principal, run_id: str) -> Run:
        """One run. Raises `NotFound`, also for another owner's."""
        principal.require("read:tasks")
        check_id(run_id, "run")
        return await self._database.read(lambda tx: self._records.get(tx, run_id, principal))

    async def place(self, principal: Principal, run_id: str) -> tuple[Run, Place]:
        """A run and where its files are."""
        run = await self.get(principal, run_id)
        return run, await self._database.read(lambda tx: place_of(tx, run.session_id))

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        state: str | None = None,
    ) -> Page[Run]:
        """The project's runs, newest first."""
        principal.require("read:tasks")
        query = (
            select(runs)
            .where(
                runs.c.organization_id == principal.owner.organization_id,
                runs.c.project_id == principal.owner.project_id,
                runs.c.message_id.is_(None),  # the turns of sessions are not tasks
            )
            .order_by(runs.c.id.desc())
            .limit(limit + 1)
        )
        if after is not None:
            query = query.where(runs.c.id < check_id(after, "run"))
        if state is not None:
            if state not in State.__args__:  # type: ignore[attr-defined]
                raise Invalid(f"There is no status {state[:32]!r}.", param="status")
            query = query.where(runs.c.state == state)
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [from_row(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def cancel(self, principal: Principal, run_id: str) -> Run:
        """Ask a run to stop. A queued one ends at once; one that has ended stays as it is."""
        principal.require("write:tasks")
        check_id(run_id, "run")
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> Run:
            run = self._records.lock(tx, run_id, principal)
            if run.state.finished or run.state.cancel_requested:
                return run
            run = self._records.apply(
                tx, run, [NewEvent(states.CANCEL_REQUESTED, {"run_id": run_id})]
            )
            if run.state.state == "queued":
                run = self._settlement.end(tx, run, Ending("cancelled"))
                self._recorder.record(tx, actor, "task.cancel", target=run_id)
                return run
            self._recorder.record(tx, actor, "task.cancel", target=run_id)
            tx.on_commit(lambda: self._bus.publish(control_topic(run_id), "cancel"))
            return run

        return await self._database.write(verb)

    async def depth(self) -> QueueDepth:
        """How many runs wait and work."""
        return await self._database.read(depth)

    async def waiting(self) -> dict[str, Waiting]:
        """What waits, by priority."""
        return await self._database.read(waiting)

    async def events(
        self, principal: Principal, run_id: str, *, after: int, limit: int
    ) -> Sequence[Event]:
        """A page of the events of the run's session that follow number `after`."""
        run = await self.get(principal, run_id)
        if after > await self._events.head(run.session_id):
            raise Invalid(
                "The cursor is beyond the end of the stream.",
                code="cursor_out_of_range",
                param="after",
            )
        return await self._events.read(run.session_id, after=after, limit=limit)

    async def follow(
        self, principal: Principal, run_id: str, *, after: int, idle: float
    ) -> AsyncGenerator[Event | Live | Overflow | None, None]:
        """Follow a run from event `after` to its end. See `EventLog.follow`."""
        run = await self.get(principal, run_id)
        if run.state.finished and after >= await self._events.head(run.session_id):
            # Nothing can follow; but a cursor beyond the end is still wrong.
            await self.events(principal, run_id, after=after, limit=1)
            return
        # Left to the garbage collector, the inner iterator would keep listening for a while.
        async with aclosing(self._events.follow(run.session_id, after=after, idle=idle)) as items:
            async for item in items:
                yield item
                if isinstance(item, Event) and _ends(item, run_id):
                    return

    async def wait(self, principal: Principal, run_id: str) -> Run:
        """Return the run once it has ended."""
        run = await self.get(principal, run_id)
        after = 0
        while not run.state.finished:
            async with aclosing(self.follow(principal, run_id, after=after, idle=5.0)) as items:
                async for item in items:
                    if isinstance(item, Event):
                        after = item.seq
            run = await self.get(principal, run_id)
        return run


def _ends(event: Event, run_id: str) -> bool:
    return event.type == states.ENDED and event.data["run_id"] == run_id
