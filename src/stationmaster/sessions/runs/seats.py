"""Where a run's agent sits: its process, its files, its token and its history, for a turn."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select, update

from stationmaster.access import RunTokens
from stationmaster.agents import base as agents
from stationmaster.agents.pool import Pool
from stationmaster.agents.slots import Seat
from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.errors import Unavailable
from stationmaster.kernel.money import to_dollars
from stationmaster.sessions.catalogue import Catalogue
from stationmaster.sessions.forwarding import kit_of, names_of
from stationmaster.sessions.mounts import told_of
from stationmaster.sessions.offers import servers_of, skills_of
from stationmaster.sessions.rules import Rules
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.bounds import is_readonly, within
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.files import Place, RunFiles
from stationmaster.sessions.runs.record import Records
from stationmaster.sessions.session import Session
from stationmaster.sessions.tables import sessions
from stationmaster.storage import Database, Transaction
from stationmaster.transcripts import SessionSink, Transcripts

WATCH_S = 5.0  # how late a process ends whose session another server has ended
MOST_REMEMBERED = 10_000  # sessions whose last turn was here


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every run's agent is told beyond its own options.

    With `owners_login` the agents of the owner's runs use a login of their own.
    """

    gateway_socket: Path
    gateway_url: str
    limits: agents.Limits
    owners_login: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a turn wants of its agent besides what its session says.

    `resume` is the history to go on with, and `position` where in it the turn begins, if the
    session does not know.
    """

    output_schema: dict[str, Any] | None = None
    gated: bool = False
    resume: str | None = None
    position: str | None = None


@dataclass(slots=True)
class _Known:
    """A session that this server has had a turn of. `epoch` is that turn's."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    epoch: int = 0
    users: int = 0


class Seats:
    """Gives runs their agents. One for each server."""

    def __init__(
        self,
        *,
        pool: Pool,
        database: Database,
        events: EventLog,
        records: Records,
        tokens: RunTokens,
        files: RunFiles,
        transcripts: Transcripts,
        catalogue: Catalogue,
        surroundings: Surroundings,
    ) -> None:
        self._pool = pool
        self._database = database
        self._events = events
        self._records = records
        self._tokens = tokens
        self._files = files
        self._transcripts = transcripts
        self._catalogue = catalogue
        self._surroundings = surroundings
        self._known: dict[str, _Known] = {}

    def own_login(self, claim: Claim) -> bool:
        """Whether the run's agent uses the owner's login."""
        return self._surroundings.owners_login and claim.run.plan.by_owner

    def sink(self, session: Session) -> SessionSink:
        """The session's histories. What is written is refused once another server has it."""
        known = self._known.setdefault(session.id, _Known())

        def guard(tx: Transaction) -> None:
            self._events.check(tx, session.id, known.epoch)

        return SessionSink(self._transcripts, session.owner, session.id, guard)

    async def take(self, claim: Claim, wanted: Wanted) -> Seat:
        """A process with the rights of the run, in the session's files. End each with `leave`.

        Raises what `Pool.take` does, `Fenced`, and what moving a task's files does; then nothing
        is left to be ended.
        """
        session = claim.session
        known = self._known.setdefault(session.id, _Known())
        known.users += 1
        # The turn before may just be giving its process back.
        await known.lock.acquire()
        try:
            if claim.epoch != known.epoch + 1:
                # Another server has had the session meanwhile: what waits here is behind.
                await self._pool.drop(session.id)
            known.epoch = claim.epoch
            return await self._seat(claim, wanted)
        except BaseException:
            self._let_go(session.id, known)
            raise

    async def _seat(self, claim: Claim, wanted: Wanted) -> Seat:
        session_id, fresh = claim.session.id, _is_fresh(claim)
        seat = await self._pool.take(session_id, await self._spec(claim, wanted), fresh=fresh)
        place, written = place_with(claim, seat), False
        try:
            await self._database.write(
                lambda tx: self._write_down(tx, claim, seat, wanted.position)
            )
            written = True
            if claim.place is not None and claim.place != place:
                # The book has their new place first: a write that fails leaves them where it says.
                await asyncio.to_thread(self._files.move, claim.place, place)
        except BaseException as error:
            # A write whose caller is cancelled goes on, and one that lost its connection may
            # have been done: then the session has these directories.
            unsure = isinstance(error, asyncio.CancelledError) or (
                getattr(error, "error_code", None) == "commit_unknown"
            )
            await self._pool.drop(session_id, discard=fresh and not (written or unsure))
            raise
        return seat

    async def leave(self, claim: Claim, seat: Seat, *, keep: bool) -> None:
        """The turn is over. With `keep` its process waits for the next one, else it is ended.

        One whose processor time is bounded is ended in any case: that bound is of one turn.
        """
        known, bounds = self._known[claim.session.id], claim.run.plan.bounds
        try:
            if keep and (bounds is None or bounds.cpu_seconds is None):
                await self._pool.keep(claim.session.id, seat)
            else:
                await self._pool.drop(claim.session.id)
        finally:
            self._let_go(claim.session.id, known)

    def _let_go(self, session_id: str, known: _Known) -> None:
        known.lock.release()
        known.users -= 1
        if not known.users and len(self._known) > MOST_REMEMBERED:
            del self._known[session_id]

    def _write_down(self, tx: Transaction, claim: Claim, seat: Seat, position: str | None) -> None:
        """Give the process the run's rights, and the session what the process brings along."""
        run = self._records.lock(tx, claim.run.id)
        self._events.check(tx, run.session_id, claim.epoch)
        self._tokens.bind(
            tx,
            seat.token_id,
            owner=run.owner,
            key_id=run.key_id,
            run_id=run.id,
            session_id=run.session_id,
        )
        if place_with(claim, seat) != claim.place:
            workspace = str(seat.workspace)
            tx.execute(
                update(sessions)
                .where(sessions.c.id == run.session_id)
                .values(workspace=workspace, scope=workspace, directory=workspace)
            )
        if claim.session.kind != "session":
            return
        history = {
            "run_id": run.id,
            "history": seat.live.agent_session_id,
            "source": seat.source,
            **({} if position is None else {"position": position}),
        }
        self._records.apply(tx, run, [NewEvent(states.SEATED, history)], epoch=claim.epoch)

    # --- the launch ---------------------------------------------------------------------------

    def expect(self, session: Session) -> None:
        """The session will soon have its first turn: its agent may be launched meanwhile."""
        if not session.directory:
            self._pool.expect(self._of_session(session, wanted_of(session)))

    async def let_go(self, session_id: str) -> None:
        """The session has no more turns: its process need not wait here."""
        await self._pool.drop(session_id)

    async def watch(self) -> None:
        """End the processes of sessions that were ended by another server, until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.let_go_ended()
            await asyncio.sleep(WATCH_S)

    async def let_go_ended(self) -> None:
        """Once: let go of what waits here for sessions that have no more turns."""
        waiting = self._pool.idle()
        if not waiting:
            return
        query = select(sessions.c.id).where(
            sessions.c.id.in_(waiting),
            or_(
                sessions.c.archived_at.is_not(None),
                sessions.c.deleted_at.is_not(None),
                sessions.c.status == "terminated",
            ),
        )
        for session_id in await self._database.read(lambda tx: tx.execute(query).scalars().all()):
            await self.let_go(session_id)

    async def _spec(self, claim: Claim, wanted: Wanted) -> agents.LaunchSpec:
        if claim.session.kind == "task":
            return await self._of_task(claim, wanted)
        bounds = claim.run.plan.bounds
        spec = self._of_session(claim.session, wanted)
        spec = replace(spec, limits=within(spec.limits, bounds), readonly=is_readonly(bounds))
        if self.own_login(claim):
            dollars = to_dollars(claim.run.plan.max_cost)
            spec = replace(spec, own_login=True, max_cost_usd=dollars)
        if claim.place is None:
            return spec
        # A slot's directories have one name, which is not the session's.
        home = await asyncio.to_thread(self._files.home, claim.place.workspace.name)
        return replace(spec, workspace=claim.place.workspace, home=home)

    async def _of_task(self, claim: Claim, wanted: Wanted) -> agents.LaunchSpec:
        plan, place, around = claim.run.plan, claim.place, self._surroundings
        assert place is not None, "a task has its workspace from the start"
        own_login, home = self.own_login(claim), Path("/")
        if not _is_fresh(claim):
            home = await asyncio.to_thread(self._files.home, claim.session.id)
        return agents.LaunchSpec(
            session_id=claim.session.id,
            workspace=place.workspace,
            directory=place.directory,
            owned=None if place.scope == place.workspace else place.scope,
            home=home,
            gateway_socket=around.gateway_socket,
            gateway_url=around.gateway_url,
            token="",
            model=plan.model,
            system_prompt=plan.system_prompt,
            tools=plan.tools,
            permission_mode=plan.permission_mode,
            max_turns=plan.max_turns,
            limits=within(around.limits, plan.bounds),
            readonly=is_readonly(plan.bounds),
            own_login=own_login,
            # The gateway is not asked there, and cannot refuse.
            max_cost_usd=to_dollars(plan.max_cost) if own_login else None,
            sub_agents=plan.kit.sub_agents,
            mcp_servers=self._catalogue.servers_named(plan.kit.mcp_servers),
            skills=self._catalogue.skills_named(plan.kit.skills),
            output_schema=wanted.output_schema,
        )

    def _of_session(self, session: Session, wanted: Wanted) -> agents.LaunchSpec:
        """What the session says. Where it has no place yet, its agent brings one along."""
        agent, around, nowhere = session.state.agent or {}, self._surroundings, Path("/")
        tools, custom = kit_of(session, agent, self._catalogue.tools)
        return agents.LaunchSpec(
            session_id=session.id,
            workspace=nowhere,
            home=nowhere,
            gateway_socket=around.gateway_socket,
            gateway_url=around.gateway_url,
            token="",
            model=agent["model"]["id"],
            system_prompt=told_of(agent["system"], session.state.resources),
            tools=tools,
            limits=around.limits,
            custom_tools=custom,
            sub_agents=_sub_agents(session, agent, self._catalogue),
            mcp_servers=servers_of(agent, self._catalogue),
            skills=skills_of(agent, self._catalogue),
            output_schema=wanted.output_schema,
            gated=wanted.gated,
            resume=wanted.resume,
            transcripts=self.sink(session),
        )


def _is_fresh(claim: Claim) -> bool:
    """Whether the agent may work in directories that it brings along.

    A task's own workspace has nothing in it but what was sent along, and that can be moved.
    """
    place = claim.place
    return place is None or (claim.session.kind == "task" and place.plain)


def place_with(claim: Claim, seat: Seat) -> Place:
    """Where a run's files are once its agent sits."""
    if claim.place is not None and not _is_fresh(claim):
        return claim.place
    return Place(seat.workspace, seat.workspace, seat.workspace)


def wanted_of(session: Session, output_schema: dict[str, Any] | None = None) -> Wanted:
    """What a session's next turn wants, if nothing has gone wrong before."""
    # A turn that may go on elsewhere asks before each call: it is in the book first.
    gated = session.resumes or rules_of(session).gated
    return Wanted(output_schema, gated, resume=session.state.history)


def rules_of(session: Session) -> Rules:
    """What decides on the tool calls of a session's agent."""
    state = session.state
    return Rules(state.agent or {}, state.rules, state.always)


def _sub_agents(
    session: Session, agent: dict[str, Any], catalogue: Catalogue
) -> tuple[agents.SubAgent, ...]:
    return tuple(
        agents.SubAgent(
            name=each["name"],
            description=each["description"] or each["name"],
            prompt=each["system"] or each["name"],
            tools=names_of(session, each, catalogue.tools),
            model=each["model"]["id"],
        )
        for each in (agent["multiagent"] or {}).get("agents", [])
    )
