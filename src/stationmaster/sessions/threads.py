"""Threads: sub-agents at work, each with a stream of its own. Inside callers' transactions."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Conflict, NotFound
from stationmaster.sessions.session import Session, Thread
from stationmaster.sessions.state import END_TURN
from stationmaster.sessions.tables import threads
from stationmaster.storage import Transaction


@dataclass(frozen=True, slots=True)
class Opened:
    """A thread that begins. `tool_use_id` is the agent's own id of the call that gave it work."""

    id: str
    agent_name: str
    tool_use_id: str


def primary_id(session_id: str) -> str:
    """The id of a session's own thread."""
    return "sthr_" + session_id.partition("_")[2]


def created(run_id: str, thread: Opened) -> list[NewEvent]:
    """What the session's stream says of a thread that begins."""
    named = {"session_thread_id": thread.id, "agent_name": thread.agent_name, "run_id": run_id}
    return [
        NewEvent("session.thread_created", named),
        NewEvent("session.thread_status_running", named),
    ]


def open_thread(
    tx: Transaction, events: EventLog, session: Session, run_id: str, thread: Opened, *, now: Millis
) -> None:
    """Make the thread's row and its stream."""
    events.create(tx, thread.id, "thread", session.owner)
    tx.execute(
        insert(threads),
        {
            "id": thread.id,
            "session_id": session.id,
            "run_id": run_id,
            "agent_name": thread.agent_name,
            "tool_use_id": thread.tool_use_id,
            "status": "running",
            "created_at": now,
            "updated_at": now,
        },
    )


def close_thread(tx: Transaction, thread_id: str, now: Millis) -> None:
    """The sub-agent has given its answer."""
    tx.execute(
        update(threads).where(threads.c.id == thread_id).values(status="idle", updated_at=now)
    )


def archive_thread(tx: Transaction, thread: Thread, now: Millis) -> None:
    """Take a sub-agent's thread out of use. Raises `Conflict` while it is at work. Idempotent."""
    if thread.status == "running":
        raise Conflict("The thread is at work.", code="session_busy")
    if thread.archived_at is None:
        tx.execute(
            update(threads).where(threads.c.id == thread.id).values(archived_at=now, updated_at=now)
        )


def ended(run_id: str, thread_id: str, agent_name: str) -> NewEvent:
    """What the session's stream says of a thread that has done its work."""
    return NewEvent(
        "session.thread_status_idle",
        {
            "session_thread_id": thread_id,
            "agent_name": agent_name,
            "run_id": run_id,
            "stop_reason": END_TURN,
        },
    )


def end_threads(tx: Transaction, run_id: str, now: Millis) -> list[NewEvent]:
    """End what a run leaves running; return what to append."""
    rows = tx.execute(
        select(threads)
        .where(threads.c.run_id == run_id, threads.c.status == "running")
        .order_by(threads.c.id)
    ).all()
    for row in rows:
        close_thread(tx, row.id, now)
    return [ended(run_id, row.id, row.agent_name) for row in rows]


def threads_of(tx: Transaction, session: Session) -> list[Thread]:
    """The session's own thread, then those of its sub-agents, oldest first."""
    rows = tx.execute(
        select(threads).where(threads.c.session_id == session.id).order_by(threads.c.id)
    ).all()
    agent = session.state.agent or {}
    first = Thread(
        id=primary_id(session.id),
        session_id=session.id,
        parent_id=None,
        agent_name=agent.get("name", ""),
        agent=_without_others(agent),
        status=session.state.status,
        created_at=session.created_at,
        updated_at=session.state.updated_at,
        stream_id=session.id,
        archived_at=session.state.archived_at,
    )
    return [
        first,
        *(
            Thread(
                id=row.id,
                session_id=session.id,
                parent_id=first.id,
                agent_name=row.agent_name,
                agent=_named(agent, row.agent_name),
                status=row.status,
                created_at=row.created_at,
                updated_at=row.updated_at,
                stream_id=row.id,
                archived_at=row.archived_at,
            )
            for row in rows
        ),
    ]


def find_thread(tx: Transaction, session: Session, thread_id: str) -> Thread:
    """One of them. Raises `NotFound`."""
    for thread in threads_of(tx, session):
        if thread.id == thread_id:
            return thread
    raise NotFound("There is no thread with this id.")


def _named(agent: dict[str, Any], name: str) -> dict[str, Any]:
    others = (agent.get("multiagent") or {}).get("agents", [])
    found = next((each for each in others if each["name"] == name), None)
    # A sub-agent of the agent's own kind has no definition but its parent's.
    return found or {**_without_others(agent), "name": name}


def _without_others(agent: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in agent.items() if name != "multiagent"}
