"""A session's row and its events, always changed together."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, select, update

from stationmaster.events import Event, EventLog, NewEvent
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.session import Session
from stationmaster.sessions.state import CHANGING, SessionState, evolve
from stationmaster.sessions.tables import sessions
from stationmaster.storage import Transaction

_FOLDED = tuple(each.name for each in fields(SessionState) if each.name != "id")


class SessionRecords:
    """Loads sessions and applies events to them."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    def append(
        self,
        tx: Transaction,
        session_id: str,
        new: Sequence[NewEvent],
        *,
        epoch: int | None = None,
    ) -> list[Event]:
        """Append events and update the row with what they make of it.

        Events that may change the session need its row locked in this transaction: see `lock`.
        With `epoch`, raises `Fenced` if another worker has taken over.
        """
        events = self._events.append(tx, session_id, new, epoch=epoch)
        if CHANGING.isdisjoint(event.type for event in events):
            return events
        row = tx.execute(select(sessions).where(sessions.c.id == session_id)).one()
        before = after = state_of(row)
        for event in events:
            after = evolve(after, event)
        if after != before:
            changed = {
                name: value
                for name in _FOLDED
                if (value := getattr(after, name)) != getattr(before, name)
            }
            tx.execute(update(sessions).where(sessions.c.id == session_id).values(**changed))
        return events

    def lock(self, tx: Transaction, session_id: str, owner: Owner | None = None) -> Session:
        """Read a session to change it. Its row is locked before any other of it, by everybody.

        With an owner, another's is `NotFound`, and so is a deleted one.
        """
        query = select(sessions).where(sessions.c.id == session_id).with_for_update()
        return _found(tx.execute(query).first(), owner)

    def try_lock(self, tx: Transaction, session_id: str) -> Session | None:
        """The same, but None where another transaction holds it."""
        query = (
            select(sessions).where(sessions.c.id == session_id).with_for_update(skip_locked=True)
        )
        row = tx.execute(query).first()
        return None if row is None else from_row(row)

    def get(self, tx: Transaction, session_id: str, owner: Owner | None = None) -> Session:
        """Read a session. With an owner, another's is `NotFound`, and so is a deleted one."""
        row = tx.execute(select(sessions).where(sessions.c.id == session_id)).first()
        return _found(row, owner)


def _found(row: Row[Any] | None, owner: Owner | None) -> Session:
    if row is None or (
        owner is not None
        and (
            row.deleted_at is not None
            or (row.organization_id, row.project_id) != (owner.organization_id, owner.project_id)
        )
    ):
        raise NotFound("There is no session with this id.")
    return from_row(row)


def state_of(row: Row[Any]) -> SessionState:
    """A session's state from its row."""
    values = {name: getattr(row, name) for name in _FOLDED}
    for name in ("queue", "always", "rules", "resources"):
        values[name] = tuple(values[name])
    return SessionState(row.id, **values)


def from_row(row: Row[Any]) -> Session:
    """A session from its row."""
    return Session(
        state=state_of(row),
        owner=Owner(row.organization_id, row.project_id),
        key_id=row.key_id,
        kind=row.kind,
        agent_id=row.agent_id,
        agent_version=row.agent_version,
        environment_id=row.environment_id,
        on_crash=row.on_crash,
        created_at=row.created_at,
        forked_from=row.forked_from,
        directory=row.directory,
        self_hosted=row.self_hosted,
    )
