"""A session's state, and how each event of its stream changes it.

    idle ⇄ running ⇄ rescheduling          idle with `requires_action` is within a turn
      └──────┴─────────┴──▶ terminated     an error that no later turn can mend

`evolve` is the only thing that changes a `SessionState`; the row in the database is what it
returns. So the fold of a session's events equals its row after every verb.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from stationmaster.events import Event
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.money import MicroDollars

Status = Literal["idle", "running", "rescheduling", "terminated"]
STATUSES: tuple[Status, ...] = ("idle", "running", "rescheduling", "terminated")

CREATED = "session.created"
UPDATED = "session.updated"
RESOURCE_ADDED = "session.resource_added"
RESOURCE_REMOVED = "session.resource_removed"
ARCHIVED = "session.archived"
DELETED = "session.deleted"
RUNNING = "session.status_running"
IDLE = "session.status_idle"
RESCHEDULED = "session.status_rescheduled"
TERMINATED = "session.status_terminated"
USAGE = "session.usage"
MESSAGE = "user.message"
CONFIRMATION = "user.tool_confirmation"
RUN_QUEUED = "run.queued"
RUN_ENDED = "run.ended"

END_TURN: dict[str, Any] = {"type": "end_turn"}
_CLASSES = (
    "input_tokens",
    "output_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",  # the part of the class before it that is kept for an hour
    "cache_read_tokens",
)


@dataclass(frozen=True, slots=True)
class SessionState:
    """What is known of a session. `agent` is the API's `session.agent`; a task has none.

    `queue` are the messages whose turn has not come, oldest first: `id`, `seq`, of whom (`key_id`,
    `by_owner`, and `held`: what a profile holds the turn to) and `tags`. `always` are the tools
    that need no confirmation any more, `rules` what else decides on tool calls: see `rules.py`.
    `resources` are the stored files that were copied into the workspace: see `Mounting`.
    `run_id` is the turn at work or waiting for a worker. `budget` and `cost` are in micro-dollars;
    no budget is no limit of its own. `usage` has the four token classes by their ledger names; it
    and `cost` are of the turns that have ended.
    `active_ms` is how long it was running, until it last was: `running_since` is set while it is.
    `history` is the id of the agent's own history and `position` where in it the last turn has
    ended, if that is known.
    """

    id: str
    status: Status = "idle"
    stop_reason: dict[str, Any] | None = None
    title: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    agent: dict[str, Any] | None = None
    budget: MicroDollars | None = None
    queue: tuple[dict[str, Any], ...] = ()
    always: tuple[str, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    resources: tuple[dict[str, Any], ...] = ()
    run_id: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost: MicroDollars = 0
    active_ms: int = 0
    running_since: Millis | None = None
    history: str | None = None
    position: str | None = None
    updated_at: Millis = 0
    archived_at: Millis | None = None
    deleted_at: Millis | None = None

    @property
    def waiting_for(self) -> list[str]:
        """The ids of the events that the session waits to be answered."""
        reason = self.stop_reason or {}
        return list(reason["event_ids"]) if reason.get("type") == "requires_action" else []

    @property
    def usable(self) -> bool:
        """Whether it may have another turn."""
        return self.status != "terminated" and self.archived_at is None and self.deleted_at is None


def _described(session: SessionState, event: Event) -> SessionState:
    known = ("title", "metadata", "agent", "budget", "history", "position")
    made = replace(session, **{name: event.data[name] for name in known if name in event.data})
    return replace(
        made,
        rules=tuple(event.data.get("rules", made.rules)),
        resources=tuple(event.data.get("resources", made.resources)),
    )


def _running(session: SessionState, event: Event) -> SessionState:
    since = session.running_since if session.running_since is not None else event.at
    return replace(session, status="running", stop_reason=None, running_since=since)


def _stopped(session: SessionState, event: Event) -> SessionState:
    status: Status = _STOPS[event.type]
    active = 0 if session.running_since is None else max(0, event.at - session.running_since)
    return replace(
        session,
        status=status,
        stop_reason=event.data.get("stop_reason"),
        running_since=None,
        active_ms=session.active_ms + active,
    )


def _message(session: SessionState, event: Event) -> SessionState:
    if "run_id" in event.data:  # a task's, whose run is there already
        return session
    known = ("key_id", "by_owner", "held", "tags")
    whose = {name: event.data[name] for name in known if name in event.data}
    waiting = {"id": event.data["id"], "seq": event.seq, **whose}
    return replace(session, queue=(*session.queue, waiting))


def _confirmed(session: SessionState, event: Event) -> SessionState:
    tool = event.data["name"]
    if not event.data.get("always") or tool in session.always:
        return session
    return replace(session, always=(*session.always, tool))


def _queued(session: SessionState, event: Event) -> SessionState:
    taken = event.data.get("message_id")
    rest = tuple(each for each in session.queue if each["id"] != taken)
    return replace(session, run_id=event.data["run_id"], queue=rest)


def _seated(session: SessionState, event: Event) -> SessionState:
    position = event.data.get("position", session.position)
    return replace(session, history=event.data["history"], position=position)


def _ended(session: SessionState, event: Event) -> SessionState:
    if event.data["run_id"] != session.run_id:
        return session
    used = {
        name: session.usage.get(name, 0) + event.data["usage"].get(name, 0) for name in _CLASSES
    }
    return replace(
        session,
        run_id=None,
        usage=used,
        cost=session.cost + event.data["cost"],
        position=event.data.get("position"),
    )


def _resource_added(session: SessionState, event: Event) -> SessionState:
    return replace(session, resources=(*session.resources, event.data["resource"]))


def _resource_removed(session: SessionState, event: Event) -> SessionState:
    gone = event.data["resource_id"]
    rest = tuple(each for each in session.resources if each["id"] != gone)
    return replace(session, resources=rest)


def _archived(session: SessionState, event: Event) -> SessionState:
    return replace(session, archived_at=event.at)


def _deleted(session: SessionState, event: Event) -> SessionState:
    return replace(session, deleted_at=event.at)


_STOPS: dict[str, Status] = {IDLE: "idle", RESCHEDULED: "rescheduling", TERMINATED: "terminated"}
_STEPS: dict[str, Callable[[SessionState, Event], SessionState]] = {
    CREATED: _described,
    UPDATED: _described,
    RUNNING: _running,
    IDLE: _stopped,
    RESCHEDULED: _stopped,
    TERMINATED: _stopped,
    MESSAGE: _message,
    CONFIRMATION: _confirmed,
    RUN_QUEUED: _queued,
    "run.seated": _seated,
    RUN_ENDED: _ended,
    RESOURCE_ADDED: _resource_added,
    RESOURCE_REMOVED: _resource_removed,
    ARCHIVED: _archived,
    DELETED: _deleted,
}
CHANGING = frozenset(_STEPS)
"""The kinds of events that may change a session. Whoever appends one holds the session's row."""


def evolve(session: SessionState, event: Event) -> SessionState:
    """Apply one event of the session's stream. Most kinds change nothing."""
    step = _STEPS.get(event.type)
    if step is None:
        return session
    made = step(session, event)
    return session if made == session else replace(made, updated_at=event.at)


def fold(session_id: str, events: Iterable[Event]) -> SessionState:
    """The state of a session by its stream alone."""
    return reduce(evolve, events, SessionState(session_id))
