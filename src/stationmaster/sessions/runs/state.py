"""A run's state, and how each event changes it.

    queued ──run.started──▶ running ──run.ended──▶ completed | failed | cancelled | timed_out
       │ ◀────run.requeued─────┘                             | cost_exceeded | interrupted
       └────────────────run.ended──────────────▶

`evolve` is the only thing that changes a `RunState`; the row in the database is what it returns.
So the fold of a run's events equals its row after every verb.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from stationmaster.events import Event
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.money import MicroDollars

State = Literal[
    "queued",
    "running",
    "completed",
    "failed",
    "cancelled",
    "timed_out",
    "cost_exceeded",
    "interrupted",
]
UNFINISHED: frozenset[State] = frozenset({"queued", "running"})

QUEUED = "run.queued"
STARTED = "run.started"
REQUEUED = "run.requeued"
SEATED = "run.seated"
RESUMED = "run.resumed"
AGENT_READY = "run.agent_ready"
CANCEL_REQUESTED = "run.cancel_requested"
INTERRUPT_REQUESTED = "run.interrupt_requested"
ARTIFACTS = "run.artifacts"
ENDED = "run.ended"


class ImpossibleTransition(AssertionError):
    """An event that cannot follow: a fault of ours, never of a caller."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What is known of a run. `usage` has the four token classes by their ledger names.

    Where the agent used a login of its own, which no ledger meters, `usage["reported"]` is what it
    says itself: the same classes, and `cost` in micro-dollars.

    `agent` says which agent served it, how it was confined and by which login; `error` has `code`,
    `message` and, where there is one, `stderr_tail`; `artifacts` has `items` and `truncated`.

    `message_id` is the message that it is the turn of, in a session. `lost` counts the workers that
    were lost with it. `structured` is its output after a schema. `history` is the id of the agent's
    own history, and `position` where in it the run ended.
    """

    id: str
    session_id: str
    state: State
    epoch: int
    queued_at: Millis
    started_at: Millis | None = None
    ended_at: Millis | None = None
    cancel_requested: bool = False
    agent: dict[str, Any] | None = None
    turns: int = 0
    result: str | None = None
    error: dict[str, Any] | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    cost: MicroDollars = 0
    model_calls: int = 0
    artifacts: dict[str, Any] = field(default_factory=lambda: {"items": [], "truncated": False})
    message_id: str | None = None
    lost: int = 0
    interrupt_requested: bool = False
    structured: Any = None
    history: str | None = None
    position: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has ended. It never leaves this state."""
        return self.state not in UNFINISHED


def evolve(run: RunState | None, event: Event) -> RunState | None:
    """Apply one event of the run's session. Events of other runs and other kinds change nothing."""
    data = event.data
    if event.type == QUEUED and run is None:
        return RunState(
            data["run_id"],
            event.stream_id,
            "queued",
            0,
            event.at,
            message_id=data.get("message_id"),
        )
    if run is None or data.get("run_id") != run.id:
        return run
    if run.finished and event.type.startswith("run."):
        raise ImpossibleTransition(f"{event.type} after {run.state}")
    step = _STEPS.get(event.type)
    return run if step is None else step(run, event)


def _started(run: RunState, event: Event) -> RunState:
    if run.state != "queued":
        raise ImpossibleTransition(f"run.started while {run.state}")
    first = event.at if run.started_at is None else run.started_at
    return replace(run, state="running", epoch=event.data["epoch"], started_at=first)


def _requeued(run: RunState, event: Event) -> RunState:
    if run.state != "running":
        raise ImpossibleTransition(f"run.requeued while {run.state}")
    return replace(run, state="queued", lost=event.data["lost"])


def _artifacts(run: RunState, event: Event) -> RunState:
    data = event.data
    return replace(run, artifacts={"items": data["items"], "truncated": data["truncated"]})


def _ended(run: RunState, event: Event) -> RunState:
    data = event.data
    return replace(
        run,
        state=data["state"],
        ended_at=event.at,
        result=data.get("result"),
        error=data.get("error"),
        turns=data.get("turns", 0),
        usage=data["usage"],
        cost=data["cost"],
        model_calls=data["model_calls"],
        structured=data.get("structured"),
        position=data.get("position"),
    )


_STEPS: dict[str, Callable[[RunState, Event], RunState]] = {
    STARTED: _started,
    REQUEUED: _requeued,
    SEATED: lambda run, event: replace(run, history=event.data["history"]),
    AGENT_READY: lambda run, event: replace(run, agent=event.data["agent"]),
    CANCEL_REQUESTED: lambda run, _event: replace(run, cancel_requested=True),
    INTERRUPT_REQUESTED: lambda run, _event: replace(run, interrupt_requested=True),
    ARTIFACTS: _artifacts,
    ENDED: _ended,
}


def fold(run_id: str, events: list[Event]) -> RunState | None:
    """The state of a run by its session's events alone."""

    def step(run: RunState | None, event: Event) -> RunState | None:
        if run is None and event.data.get("run_id") != run_id:
            return None
        return evolve(run, event)

    return reduce(step, events, None)
