"""Which sessions, and which of their turns, somebody means."""

from typing import Any

from sqlalchemy import Select, select

from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.record import from_row as run_from_row
from stationmaster.sessions.session import Session, SessionFilter
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Transaction


def of_owner(owner: Owner, wanted: SessionFilter) -> Select[Any]:
    """The sessions of an owner that are wanted, tasks and deleted ones never."""
    query = select(sessions).where(
        sessions.c.organization_id == owner.organization_id,
        sessions.c.project_id == owner.project_id,
        sessions.c.kind == "session",
        sessions.c.deleted_at.is_(None),
    )
    if wanted.only_archived:
        query = query.where(sessions.c.archived_at.is_not(None))
    elif not wanted.include_archived:
        query = query.where(sessions.c.archived_at.is_(None))
    for name in ("agent_id", "agent_version", "model"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(sessions.c[name] == value)
    if wanted.statuses:
        query = query.where(sessions.c.status.in_(wanted.statuses))
    if wanted.created_from is not None:
        query = query.where(sessions.c.created_at >= wanted.created_from)
    if wanted.created_to is not None:
        query = query.where(sessions.c.created_at <= wanted.created_to)
    return query


def past_turn(tx: Transaction, session: Session, run_id: str | None) -> Run:
    """A turn that has ended, by default the last. Raises `NotFound` and `Conflict`."""
    query = select(runs).where(runs.c.session_id == session.id).order_by(runs.c.id.desc()).limit(1)
    if run_id is not None:
        query = query.where(runs.c.id == check_id(run_id, "run"))
    row = tx.execute(query).first()
    if row is None:
        if run_id is not None:
            raise NotFound("The session has no turn with this id.")
        raise Conflict("The session has had no turn yet.", code="turn_not_kept")
    return run_from_row(row)
