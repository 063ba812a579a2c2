"""The verbs on sessions, for whoever calls the server."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, get_args

from sqlalchemy import func, select

from stationmaster.budgets import Budgets
from stationmaster.events import Event, EventLog, Live, NewEvent, Overflow
from stationmaster.jobs import Job, Outbox
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.sessions import state as states
from stationmaster.sessions.birth import NO_LIMIT, Births, Born, check_budget, check_title
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.checks import patched, refuse_unknown
from stationmaster.sessions.forwarding import check_place
from stationmaster.sessions.inputs import Input, UserMessage
from stationmaster.sessions.mounts import Mounting, Mounts
from stationmaster.sessions.reading import Reading
from stationmaster.sessions.record import SessionRecords, from_row
from stationmaster.sessions.rules import session_rules
from stationmaster.sessions.runs.files import Place, RunFiles, Upload
from stationmaster.sessions.runs.record import place_of
from stationmaster.sessions.seating import Seating
from stationmaster.sessions.selection import of_owner, past_turn
from stationmaster.sessions.sending import Sending, check_inputs, check_sender
from stationmaster.sessions.session import (
    CrashPolicy,
    Session,
    SessionEvent,
    SessionFilter,
    SessionPatch,
    SessionRequest,
    Thread,
)
from stationmaster.sessions.snapshot import overridden, resolve
from stationmaster.sessions.standing import (
    busy,
    check_idle,
    check_usable,
    may_look,
    no_task,
    served,
)
from stationmaster.sessions.tables import sessions
from stationmaster.sessions.threads import archive_thread, find_thread, primary_id, threads_of
from stationmaster.sessions.work_queue import WorkQueue
from stationmaster.storage import Database, Transaction
from stationmaster.transcripts import HistoryKey, Transcripts

DELETED_JOB = "session.deleted"
PAGE = 500  # events of a deleted session that a reader may still have before it


class Sessions:
    """Make, speak to, watch and end sessions. Scopes: `read:sessions` and `write:sessions`.

    Tasks are not among them: those have an API of their own.
    """

    def __init__(
        self,
        *,
        database: Database,
        events: EventLog,
        records: SessionRecords,
        births: Births,
        sending: Sending,
        work: WorkQueue,
        budgets: Budgets,
        outbox: Outbox,
        clock: Clock,
        catalogue: Catalogue,
        files: RunFiles,
        mounts: Mounts,
        transcripts: Transcripts,
        seating: Seating | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._records = records
        self._births = births
        self._sending = sending
        self._work = work
        self._budgets = budgets
        self._outbox = outbox
        self._clock = clock
        self._catalogue = catalogue
        self._files = files
        self._mounts = mounts
        self._transcripts = transcripts
        self._seating = seating
        self._reading = Reading(database, events)
        self._closed_because: str | None = None

    def close_admission(self, reason: str) -> None:
        """Refuse new sessions and what is sent to them from now on."""
        self._closed_because = reason

    async def create(
        self,
        principal: Principal,
        request: SessionRequest,
        first: Sequence[Input] = (),
        upload: Upload | None = None,
    ) -> Session:
        """Make a session, idle, and send it `first` in the same transaction.

        `upload` are files for its workspace.

        Raises `Invalid` with `param`, `NotFound` for the environment, the agent or a file,
        `Conflict` where one of them is archived, `Unavailable` where the server is stopping.
        """
        principal.require("write:sessions")
        self._check_open()
        inputs = check_inputs(first, "initial_events") if first else []
        if not all(isinstance(each, UserMessage) for each in inputs):
            raise Invalid("initial_events takes messages alone.", param="initial_events")
        if request.on_crash not in get_args(CrashPolicy):
            raise Invalid("on_crash must be resume or interrupt.", param="on_crash")
        session_id = new_id("sesn")
        born = Born(
            id=session_id,
            owner=principal.owner,
            key_id=principal.key_id,
            agent={},
            environment_id=request.environment_id,
            title=check_title(request.title),
            metadata=patched({}, request.metadata),
            budget=check_budget(request.budget),
            on_crash=request.on_crash,
        )
        async with self._mounts.opened(principal, request.resources, at="resources") as mounting:
            # With files to begin with there is a place from the start; others get theirs with an
            # agent.
            place = await self._prepare(principal, session_id, upload, mounting)
        born = replace(born, resources=mounting.resources)

        def verb(tx: Transaction) -> Session:
            agent = resolve(tx, principal, self._catalogue, request.agent)
            elsewhere = check_place(tx, principal, request, agent)
            rules = session_rules(request.rules, principal.profile, self._catalogue.tools)
            whole = replace(born, agent=agent, rules=rules, place=place, self_hosted=elsewhere)
            self._births.bear(tx, whole)
            if inputs:
                self._sending.take(tx, principal, session_id, inputs)
            return self._records.get(tx, session_id)

        session = await self._placed(verb, place)
        if self._seating is not None and principal.profile is None:
            # What a profile leaves of a turn is known with its message.
            self._seating.expect(session)
        return session

    async def get(self, principal: Principal, session_id: str) -> Session:
        """One session. Raises `NotFound`."""
        may_look(principal)
        check_id(session_id, "sesn")
        return await self._database.read(lambda tx: self._get(tx, principal, session_id))

    async def list(
        self,
        principal: Principal,
        wanted: SessionFilter,
        *,
        limit: int,
        after: str | None = None,
        offset: int = 0,
    ) -> Page[Session]:
        """The project's sessions, tasks not among them. `after` is a session's id."""
        principal.require("read:sessions")
        query = of_owner(principal.owner, wanted)
        descending = wanted.order == "desc"
        if after is not None:
            check_id(after, "sesn")
            query = query.where(sessions.c.id < after if descending else sessions.c.id > after)
        order = sessions.c.id.desc() if descending else sessions.c.id
        query = query.order_by(order).limit(limit + 1).offset(offset)
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [from_row(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def count(self, principal: Principal, wanted: SessionFilter) -> int:
        """How many `list` would give in all."""
        principal.require("read:sessions")
        query = select(func.count()).select_from(of_owner(principal.owner, wanted).subquery())
        return await self._database.browse(lambda tx: int(tx.execute(query).scalar_one()))

    async def update(self, principal: Principal, session_id: str, patch: SessionPatch) -> Session:
        """Change a session. Raises `Conflict` where it is archived or terminated.

        The agent can only be changed while the session is idle (`Conflict`, `session_busy`).
        """
        principal.require("write:sessions")
        check_id(session_id, "sesn")
        refuse_unknown(patch.fields, {"title", "metadata", "budget", "agent"})

        def verb(tx: Transaction) -> Session:
            session = self._lock(tx, principal, session_id)
            check_usable(session)
            data: dict[str, Any] = {}
            if "title" in patch.fields:
                data["title"] = check_title(patch.fields["title"])
            if "metadata" in patch.fields:
                data["metadata"] = patched(session.state.metadata, patch.fields["metadata"])
            if "budget" in patch.fields:
                data["budget"] = check_budget(patch.fields["budget"])
                limit = NO_LIMIT if data["budget"] is None else data["budget"]
                self._budgets.resize(tx, "session", session_id, limit)
            if patch.fields.get("agent") is not None:
                check_idle(session)
                data["agent"] = overridden(
                    session.state.agent or {}, self._catalogue, principal, patch.fields["agent"]
                )
            changed = {
                name: value for name, value in data.items() if value != getattr(session.state, name)
            }
            if changed:
                self._records.append(tx, session_id, [NewEvent(states.UPDATED, changed)])
            return self._records.get(tx, session_id)

        return await self._database.write(verb)

    async def archive(self, principal: Principal, session_id: str) -> Session:
        """Take a session out of use; it can still be read. Idempotent.

        Raises `Conflict` (`session_busy`) while a turn is at work: interrupt it first.
        """
        principal.require("write:sessions")
        check_id(session_id, "sesn")

        def verb(tx: Transaction) -> Session:
            session = self._lock(tx, principal, session_id)
            if session.state.archived_at is None:
                check_idle(session)
                self._records.append(tx, session_id, [NewEvent(states.ARCHIVED)])
                self._work.end(tx, session_id)
            return self._records.get(tx, session_id)

        session = await self._database.write(verb)
        await self._let_go(session_id)
        return session

    async def delete(self, principal: Principal, session_id: str) -> None:
        """Delete a session with its events, files and history; its ledger stays.

        Raises `Conflict` (`session_busy`) while a turn is at work.
        """
        principal.require("write:sessions")
        check_id(session_id, "sesn")

        def verb(tx: Transaction) -> None:
            session = self._lock(tx, principal, session_id)
            check_idle(session)
            self._records.append(tx, session_id, [NewEvent(states.DELETED)])
            self._work.end(tx, session_id)
            self._outbox.put(tx, DELETED_JOB, {"session_id": session_id})

        await self._database.write(verb)
        await self._let_go(session_id)

    async def clear(self, job: Job) -> None:
        """Remove what a deleted session leaves. The handler of `session.deleted` jobs."""
        session_id = str(job.payload["session_id"])
        session, place = await self._database.read(
            lambda tx: (self._records.get(tx, session_id), place_of(tx, session_id))
        )
        if session.directory:
            await asyncio.to_thread(self._files.clear, place)

        def verb(tx: Transaction) -> None:
            for thread in threads_of(tx, session):
                self._events.erase(tx, thread.stream_id)
            self._transcripts.delete_session(tx, session.owner, session_id)

        await self._database.write(verb)

    async def send(
        self, principal: Principal, session_id: str, inputs: Sequence[Input]
    ) -> Sequence[SessionEvent]:
        """Append what a client sends, all or nothing; return the events, numbered, in order.

        A message starts a turn, or waits for those before it (`processed_at` is then None).
        Raises `Conflict`: `session_archived`, `session_terminated`, `already_answered`; `Invalid`:
        `unknown_tool_use` and what is wrong with a content block (`param` names it); `Unavailable`
        where the queue is full.
        """
        check_sender(principal, inputs)
        check_id(session_id, "sesn")
        checked = check_inputs(inputs)
        if any(isinstance(each, UserMessage) for each in checked):
            self._check_open()

        def verb(tx: Transaction) -> list[Event]:
            self._lock(tx, principal, session_id)
            return self._sending.take(tx, principal, session_id, checked)

        return await self._reading.seen(await self._database.write(verb))

    async def fork(
        self, principal: Principal, session_id: str, *, run_id: str | None = None
    ) -> Session:
        """Make a session that goes on from the end of a past turn, by default the last.

        It has the same agent and environment, a copy of the files as they are now, and a book of
        its own. Raises `Conflict` where the turn has not ended, or the session is busy.
        """
        principal.require("write:sessions")
        self._check_open()
        source = await self.get(principal, session_id)
        check_idle(source)
        run = await self._database.read(lambda tx: past_turn(tx, source, run_id))
        if run.state.history is None or run.state.position is None:
            raise Conflict("The history of this turn is not kept.", code="turn_not_kept")
        key = HistoryKey(session_id, run.state.history)
        copy = await self._transcripts.copy(source.owner, key, up_to=run.state.position)
        fork_id = new_id("sesn")
        place = await asyncio.to_thread(self._files.copy, await self._place(session_id), fork_id)
        born = Born(
            id=fork_id,
            owner=source.owner,
            key_id=principal.key_id,
            agent=source.state.agent or {},
            environment_id=source.environment_id,
            title=source.state.title,
            metadata=source.state.metadata,
            budget=source.state.budget,
            on_crash=source.on_crash,
            rules=source.state.rules,
            resources=source.state.resources,
            place=place,
            self_hosted=source.self_hosted,
            forked_from={"session_id": session_id, "run_id": run.id},
            history=copy.history_id,
            position=next(
                (each["uuid"] for each in reversed(copy.entries) if "uuid" in each), None
            ),
        )

        def verb(tx: Transaction) -> Session:
            now = self._lock(tx, principal, session_id)
            if now.state.run_id is not None or now.state.history != source.state.history:
                raise busy()  # its files were changed while they were copied
            if now.state.position != source.state.position:
                raise busy()
            self._transcripts.put(tx, source.owner, fork_id, copy)
            return self._births.bear(tx, born)

        return await self._placed(verb, place)

    async def events(
        self,
        principal: Principal,
        session_id: str,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int,
        thread_id: str | None = None,
    ) -> Sequence[SessionEvent]:
        """A page of the events that follow number `after`, of the session or of one thread.

        With `before`, the last ones that precede that number. Fewer than `limit` where they are
        large; the end is where none comes. Raises `Invalid` (`cursor_out_of_range`) beyond it.
        """
        stream_id = await self._stream(principal, session_id, thread_id)
        return await self._reading.page(stream_id, after=after, before=before, limit=limit)

    async def head(
        self, principal: Principal, session_id: str, *, thread_id: str | None = None
    ) -> int:
        """The number of the last event: the cursor of what comes next."""
        return await self._events.head(await self._stream(principal, session_id, thread_id))

    async def follow(
        self,
        principal: Principal,
        session_id: str,
        *,
        after: int,
        idle: float,
        thread_id: str | None = None,
    ) -> AsyncGenerator[SessionEvent | Live | Overflow | None, None]:
        """Follow from event `after` on, past the ends of turns, until the session is deleted.

        See `EventLog.follow`. A queued message comes twice: when it is sent, and with its
        `processed_at` when its turn begins. `Live` news are `agent.delta` with `kind`, `text` and
        `event_id`, the id that the whole message will have.
        """
        try:
            stream_id = await self._stream(principal, session_id, thread_id)
        except NotFound:
            if not await self._is_deleted(principal, session_id):
                raise
            for left in await self._reading.page(session_id, after=after, limit=PAGE):
                yield left
            return
        items = self._reading.follow(stream_id, after=after, idle=idle)
        async with aclosing(items):
            async for item in items:
                yield item

    async def threads(self, principal: Principal, session_id: str) -> Sequence[Thread]:
        """The session's own thread, then those of its sub-agents, oldest first."""
        session = await self.get(principal, session_id)
        return await self._database.read(lambda tx: threads_of(tx, session))

    async def archive_thread(self, principal: Principal, session_id: str, thread_id: str) -> Thread:
        """Archive the thread of a sub-agent that has done its work; it can still be read.

        Idempotent. Raises `NotFound`; `Conflict` while it is at work; `Invalid` for the session's
        own thread, which is archived with the session.
        """
        principal.require("write:sessions")
        check_id(session_id, "sesn")

        def verb(tx: Transaction) -> Thread:
            session = self._lock(tx, principal, session_id)
            thread = find_thread(tx, session, thread_id)
            if thread.parent_id is None:
                raise Invalid(
                    "This is the session's own thread: archive the session.",
                    code="unsupported",
                    param="thread_id",
                )
            archive_thread(tx, thread, self._clock.now())
            return find_thread(tx, session, thread_id)

        return await self._database.write(verb)

    # --- within -------------------------------------------------------------------------------

    def _get(self, tx: Transaction, principal: Principal, session_id: str) -> Session:
        return served(principal, no_task(self._records.get(tx, session_id, principal.owner)))

    def _lock(self, tx: Transaction, principal: Principal, session_id: str) -> Session:
        return served(principal, no_task(self._records.lock(tx, session_id, principal.owner)))

    async def _let_go(self, session_id: str) -> None:
        if self._seating is not None:
            await self._seating.let_go(session_id)

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise Unavailable(self._closed_because, code="shutting_down")

    async def _is_deleted(self, principal: Principal, session_id: str) -> bool:
        """Whether it is gone, to one who has been reading it until now."""
        may_look(principal)
        check_id(session_id, "sesn")
        found = await self._database.read(lambda tx: self._records.get(tx, session_id))
        served(principal, found)
        return found.owner == principal.owner and found.state.deleted_at is not None

    async def _stream(self, principal: Principal, session_id: str, thread_id: str | None) -> str:
        """The stream of a session, or of one of its threads. Raises `NotFound`."""
        session = await self.get(principal, session_id)
        if thread_id is None or thread_id == primary_id(session_id):
            return session_id
        found = await self._database.read(lambda tx: find_thread(tx, session, thread_id))
        return found.stream_id

    async def _place(self, session_id: str) -> Place:
        return await self._database.read(lambda tx: place_of(tx, session_id))

    async def _prepare(
        self, principal: Principal, session_id: str, upload: Upload | None, mounting: Mounting
    ) -> Place | None:
        if upload is None and not mounting.files:
            return None
        quota = self._mounts.quota(principal)

        def prepare() -> Place:
            place = self._files.prepare(session_id, upload or Upload())
            try:
                if mounting.files:
                    self._files.bring(place, mounting.files, mounting.size, quota)
            except BaseException:
                self._files.discard(place)
                raise
            return place

        return await asyncio.to_thread(prepare)

    async def _placed(self, verb: Callable[[Transaction], Session], place: Place | None) -> Session:
        """Write, and remove the files again where that is refused."""
        try:
            return await self._database.write(verb)
        except Exception as error:
            # Where the outcome is unknown the session may be there, and need its files.
            if place is not None and getattr(error, "error_code", None) != "commit_unknown":
                await asyncio.to_thread(self._files.discard, place)
            raise
