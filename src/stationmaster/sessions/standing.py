"""How a session must stand for what is wanted of it."""

from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.sessions.session import Session


def may_look(principal: Principal) -> None:
    """Raise `Denied` for who may see no session. A worker sees those it serves: see `served`."""
    if principal.environment_id is None:
        principal.require("read:sessions")


def served(principal: Principal, session: Session) -> Session:
    """The session. Raises `NotFound` where it is none of the worker's that asks."""
    if principal.environment_id is not None and (
        session.environment_id != principal.environment_id
        or principal.session_id not in {None, session.id}
    ):
        raise NotFound("There is no session with this id.")
    return session


def no_task(session: Session) -> Session:
    """The session, if it is not a task's. Raises `NotFound`: those have an API of their own."""
    if session.kind != "session":
        raise NotFound("There is no session with this id.")
    return session


def check_usable(session: Session) -> None:
    """Raise `Conflict` where it is archived or terminated."""
    if session.state.archived_at is not None:
        raise Conflict("The session is archived.", code="session_archived")
    if session.state.status == "terminated":
        raise Conflict("The session is terminated.", code="session_terminated")


def check_idle(session: Session) -> None:
    """Raise `Conflict` while a turn is at work, or waits for a worker."""
    if session.state.run_id is not None:
        raise busy()


def busy() -> Conflict:
    """The refusal of what cannot be done during a turn."""
    return Conflict("A turn of the session is at work.", code="session_busy")
