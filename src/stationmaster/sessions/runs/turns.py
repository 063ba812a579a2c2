"""Beginning a session's next turn: a run for the oldest message that waits."""

from typing import Any

from stationmaster.budgets import Budgets
from stationmaster.events import NewEvent
from stationmaster.jobs import Outbox
from stationmaster.kernel.ids import new_id
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.options import RunLimits, RunPlan, held_turn
from stationmaster.sessions.runs.record import Records, Run
from stationmaster.sessions.session import Session
from stationmaster.sessions.state import RUNNING
from stationmaster.storage import Transaction

QUEUED_JOB = "run.queued"  # the doorbell: a worker that hears it claims the next run by SQL


class Turns:
    """Makes runs of messages. A session has one at a time, whatever the code above this does."""

    def __init__(
        self, records: Records, budgets: Budgets, outbox: Outbox, limits: RunLimits
    ) -> None:
        self._records = records
        self._budgets = budgets
        self._outbox = outbox
        self._limits = limits

    def begin(self, tx: Transaction, session_id: str) -> Run | None:
        """Begin the turn of the oldest queued message, unless a turn is at work or none waits.

        The session's row is locked. Its last turn may have ended in this very transaction: so no
        crash comes between the end of one turn and the beginning of the next.
        """
        session = self._records.sessions.get(tx, session_id)
        state = session.state
        if state.run_id is not None or not state.queue or not state.usable:
            return None
        message, run_id = state.queue[0], new_id("run")
        plan = self._plan(session, message)
        self._budgets.open(tx, session.owner, "run", run_id, plan.max_cost)
        self._outbox.put(tx, QUEUED_JOB, {"run_id": run_id})
        queued = {"run_id": run_id, "session_id": session_id, "message_id": message["id"]}
        return self._records.add(
            tx,
            session.owner,
            message["key_id"],
            plan,
            [NewEvent(states.QUEUED, queued), NewEvent(RUNNING, {"run_id": run_id})],
        )

    def _plan(self, session: Session, message: dict[str, Any]) -> RunPlan:
        """What is bound to this turn alone: the rest is read from the session when it begins."""
        agent = session.state.agent or {}
        limits, bounds, priority = held_turn(self._limits, message.get("held"))
        return RunPlan(
            prompt="",
            system_prompt=None,
            model=agent["model"]["id"],
            tools=(),
            max_turns=None,
            max_cost=limits.max_cost,
            timeout=limits.max_timeout,
            permission_mode="bypassPermissions",
            working_directory=None,
            metadata={},
            by_owner=message["by_owner"],
            message_seq=message["seq"],
            bounds=bounds,
            priority=priority,
            tags=tuple(message.get("tags", ())),
        )
