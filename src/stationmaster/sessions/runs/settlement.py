"""Ending a run: once, with everything that goes with it in the same transaction.

Or giving it back to the queue, where a worker is lost with it and its session's policy is to go on.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import update

from stationmaster.access import RunTokens
from stationmaster.budgets import Budgets, Usage
from stationmaster.events import NewEvent
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.text import scrub
from stationmaster.sessions import state as sessions
from stationmaster.sessions.calls import cancel_calls
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.record import Records, Run, place_of
from stationmaster.sessions.runs.state import State
from stationmaster.sessions.runs.stranded import SLOT
from stationmaster.sessions.runs.turns import Turns
from stationmaster.sessions.session import Session
from stationmaster.sessions.tables import runs
from stationmaster.sessions.threads import end_threads
from stationmaster.storage import Transaction

MAX_LOST = 3  # workers lost with one run until it is given up: it may be what kills them


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends. `artifacts` is None where they could not be listed.

    `reported` is what an agent with a login of its own says that it used: the four token classes
    by their ledger names, and `cost` in micro-dollars. `structured` is the output after a schema,
    `position` where in its history the agent ended. `terminal` says that no later turn of the
    session can succeed either.
    """

    state: State
    result: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    stderr_tail: str = ""
    turns: int = 0
    artifacts: dict[str, Any] | None = field(default=None)
    reported: dict[str, int] | None = None
    structured: Any = None
    position: str | None = None
    terminal: bool = False

    @property
    def error(self) -> dict[str, Any] | None:
        """The error as it stands in the event, if there is one."""
        if self.error_code is None:
            return None
        error = {"code": self.error_code, "message": self.error_message or ""}
        return error | {"stderr_tail": self.stderr_tail} if self.stderr_tail else error


class Settlement:
    """The one way a run ends, and the one way it goes back to the queue."""

    def __init__(
        self,
        records: Records,
        budgets: Budgets,
        tokens: RunTokens,
        turns: Turns,
        clock: Clock,
    ) -> None:
        self._records = records
        self._budgets = budgets
        self._tokens = tokens
        self._turns = turns
        self._clock = clock

    def has_begun(self, tx: Transaction, task: Run) -> bool:
        """Whether an agent may have acted for a running task, or was about to have its files.

        One whose process has ended has no token any more: the rest tells of it.
        """
        in_slot = place_of(tx, task.session_id).workspace.name.startswith(SLOT)
        known = in_slot or task.state.agent is not None
        calls = self._budgets.run_totals(tx, task.id)[2]
        return known or calls > 0 or self._tokens.is_bound(tx, task.id)

    def end(self, tx: Transaction, run: Run, ending: Ending, *, epoch: int | None = None) -> Run:
        """Append the end, take the run's token its rights, and begin the session's next turn.

        `run` comes from `Records.lock`. A run that has ended already is returned as it is.
        """
        if run.state.finished:
            return run
        session = self._records.sessions.get(tx, run.session_id)
        self._tokens.unbind_run(tx, run.id)
        totals = self._budgets.run_totals(tx, run.id)
        new = []
        if ending.artifacts is not None:
            artifacts = scrub(ending.artifacts)
            new.append(NewEvent(states.ARTIFACTS, {"run_id": run.id, **artifacts}))
        error = scrub(ending.error)
        if error is not None:
            new.append(NewEvent("session.error", {"run_id": run.id, "error": error}))
        if session.kind == "session":
            now = self._clock.now()
            new.extend(cancel_calls(tx, run.id, now))
            new.extend(end_threads(tx, run.id, now))
            new.append(_session_usage(session, run, totals))
        new.append(_stop(run, ending))
        new.append(_ended(run, ending, totals, error))
        run = self._records.apply(tx, run, new, epoch=epoch)
        self._turns.begin(tx, run.session_id)
        return run

    def requeue(
        self, tx: Transaction, run: Run, *, reason: str, lost: bool, epoch: int | None = None
    ) -> Run:
        """Give a running run back, for another worker to go on with. `run` comes from `lock`.

        With `lost`, its worker died; after `MAX_LOST` of these the run fails instead.
        """
        if run.state.state != "running":
            return run
        count = run.state.lost + lost
        if count >= MAX_LOST:
            ending = Ending(
                "failed",
                error_code="run_lost_repeatedly",
                error_message=f"The servers that ran this turn died, {count} times.",
            )
            return self.end(tx, run, ending, epoch=epoch)
        self._tokens.unbind_run(tx, run.id)
        tx.execute(update(runs).where(runs.c.id == run.id).values(instance_id=None))
        return self._records.apply(
            tx,
            replace(run, instance_id=None),
            [
                NewEvent(states.REQUEUED, {"run_id": run.id, "reason": reason, "lost": count}),
                NewEvent(sessions.RESCHEDULED, {"run_id": run.id}),
            ],
            epoch=epoch,
        )


_Totals = tuple[Usage, MicroDollars, int]


def _stop(run: Run, ending: Ending) -> NewEvent:
    if ending.terminal:
        return NewEvent(sessions.TERMINATED, {"run_id": run.id})
    reason = "end_turn"
    if ending.state == "cost_exceeded" and run.state.message_id is not None:
        reason = "budget_reached"
    elif ending.error_code == "run_lost_repeatedly":
        reason = "retries_exhausted"
    return NewEvent(sessions.IDLE, {"run_id": run.id, "stop_reason": {"type": reason}})


def _ended(run: Run, ending: Ending, totals: _Totals, error: Any) -> NewEvent:
    usage, cost, calls = totals
    extra: dict[str, Any] = {}
    if ending.structured is not None:
        extra["structured"] = scrub(ending.structured)
    if ending.position is not None:
        extra["position"] = ending.position
    return NewEvent(
        states.ENDED,
        {
            "run_id": run.id,
            "state": ending.state,
            "result": scrub(ending.result),
            "error": error,
            "turns": ending.turns,
            "usage": {
                **_classes(usage),
                **({"reported": ending.reported} if ending.reported else {}),
            },
            "cost": cost,
            "model_calls": calls,
            **extra,
        },
    )


def _session_usage(session: Session, run: Run, totals: _Totals) -> NewEvent:
    """The session's usage with this run's, as the API tells it."""
    usage, cost, _ = totals
    so_far = session.state.usage
    return NewEvent(
        sessions.USAGE,
        {
            "run_id": run.id,
            "usage": {name: so_far.get(name, 0) + value for name, value in _classes(usage).items()},
            "cost": session.state.cost + cost,
        },
    )


def _classes(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
    }
