"""A run's row and its events, always changed together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, insert, select, update

from stationmaster.events import Event, EventLog, NewEvent
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.runs.files import Place
from stationmaster.sessions.runs.options import RunPlan
from stationmaster.sessions.runs.priority import LEVELS
from stationmaster.sessions.runs.state import RunState, evolve
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Transaction


@dataclass(frozen=True, slots=True)
class Run:
    """A run: what was asked, by whom, and what became of it."""

    owner: Owner
    key_id: str
    plan: RunPlan
    state: RunState
    instance_id: str | None = None
    """Who is or was at work on it; of a queued one, for whom it is reserved."""

    @property
    def id(self) -> str:
        """Its id, `run_…`."""
        return self.state.id

    @property
    def session_id(self) -> str:
        """The id of its session, and of its stream."""
        return self.state.session_id


class Records:
    """Loads runs and applies events to them, and to their sessions."""

    def __init__(
        self, events: EventLog, *, reserved: Callable[[], str | None] = lambda: None
    ) -> None:
        """`reserved` is asked at each new run which instance is to carry it out; None: any."""
        self._reserved = reserved
        self.sessions = SessionRecords(events)

    def add(
        self, tx: Transaction, owner: Owner, key_id: str, plan: RunPlan, new: Sequence[NewEvent]
    ) -> Run:
        """Insert a run; the first of `new` that names it must be its `run.queued`.

        The session's row is new or locked.
        """
        session_id = new[0].data["session_id"]
        state = _apply(None, self.sessions.append(tx, session_id, new))
        run = Run(owner, key_id, plan, state, self._reserved())
        tx.execute(
            insert(runs),
            {
                "id": run.id,
                "session_id": run.session_id,
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "key_id": key_id,
                "options": plan.to_json(),
                "message_id": state.message_id,
                "priority": LEVELS[plan.priority],
                "instance_id": run.instance_id,
                **_columns(state),
            },
        )
        return run

    def apply(
        self, tx: Transaction, run: Run, new: Sequence[NewEvent], *, epoch: int | None = None
    ) -> Run:
        """Append events and update the rows with what they make of them.

        `run` must come from `lock` in this transaction: others add events to it too, and an older
        copy would undo them. With `epoch`, raises `Fenced` if another worker has taken it over.
        """
        before = run.state
        state = _apply(before, self.sessions.append(tx, run.session_id, new, epoch=epoch))
        if state != before:
            tx.execute(update(runs).where(runs.c.id == run.id).values(**_columns(state)))
        return Run(run.owner, run.key_id, run.plan, state, run.instance_id)

    def lock(self, tx: Transaction, run_id: str, principal: Principal | None = None) -> Run:
        """Read a run to change it. With a principal, another owner's is `NotFound`.

        The session's row is locked first, as everybody does: two verbs cannot deadlock.
        """
        query = select(runs).where(runs.c.id == run_id)
        found = _found(tx.execute(_owned(query, principal)).first())
        self.sessions.lock(tx, found.session_id)
        return _found(tx.execute(query.with_for_update()).first())

    def get(self, tx: Transaction, run_id: str, principal: Principal | None = None) -> Run:
        """Read a run. With a principal, another owner's is `NotFound`."""
        query = select(runs).where(runs.c.id == run_id)
        return _found(tx.execute(_owned(query, principal)).first())


def _owned(query: Any, principal: Principal | None) -> Any:
    if principal is None:
        return query
    return query.where(
        runs.c.organization_id == principal.owner.organization_id,
        runs.c.project_id == principal.owner.project_id,
    )


def _found(row: Row[Any] | None) -> Run:
    if row is None:
        raise NotFound("There is no task with this id.")
    return from_row(row)


def _apply(state: RunState | None, events: Sequence[Event]) -> RunState:
    for event in events:
        state = evolve(state, event)
    if state is None:
        raise AssertionError("the first event of a run is run.queued")
    return state


def _columns(state: RunState) -> dict[str, Any]:
    return {
        "state": state.state,
        "epoch": state.epoch,
        "queued_at": state.queued_at,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "cancel_requested": state.cancel_requested,
        "agent": state.agent,
        "turns": state.turns,
        "result": state.result,
        "error": state.error,
        "usage": state.usage,
        "cost": state.cost,
        "model_calls": state.model_calls,
        "artifacts": state.artifacts,
        "lost": state.lost,
        "interrupt_requested": state.interrupt_requested,
        "structured": state.structured,
        "history": state.history,
        "position": state.position,
    }


def place_of(tx: Transaction, session_id: str) -> Place:
    """Where a session's files are."""
    row = tx.execute(
        select(sessions.c.workspace, sessions.c.scope, sessions.c.directory).where(
            sessions.c.id == session_id
        )
    ).one()
    return Place(Path(row.workspace), Path(row.scope), Path(row.directory))


def from_row(row: Row[Any]) -> Run:
    """A run from its row."""
    return Run(
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.key_id,
        plan=RunPlan.from_json(row.options),
        state=RunState(
            id=row.id,
            session_id=row.session_id,
            state=row.state,
            epoch=row.epoch,
            queued_at=row.queued_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            cancel_requested=bool(row.cancel_requested),
            agent=row.agent,
            turns=row.turns,
            result=row.result,
            error=row.error,
            usage=row.usage,
            cost=row.cost,
            model_calls=row.model_calls,
            artifacts=row.artifacts,
            message_id=row.message_id,
            lost=row.lost,
            interrupt_requested=bool(row.interrupt_requested),
            structured=row.structured,
            history=row.history,
            position=row.position,
        ),
        instance_id=row.instance_id,
    )
