"""Calls of tools that wait for somebody, inside their callers' transactions.

The session's row is locked by whoever changes one: of two answers the second finds it answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Row, insert, select, update

from stationmaster.events import NewEvent
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Conflict, Invalid
from stationmaster.kernel.ids import new_id
from stationmaster.sessions.approval import Approval, Kind, State
from stationmaster.sessions.session import Session
from stationmaster.sessions.state import CONFIRMATION, IDLE, RUNNING
from stationmaster.sessions.tables import approvals, runs
from stationmaster.storage import Transaction

CUSTOM_RESULT = "user.custom_tool_result"
TOOL_RESULT = "user.tool_result"
EXPIRED = "Nobody answered in time."
DENIED = "This tool call is not permitted."
OVER = "The turn ended before this tool call did."
WORKER_LOST = (
    "The worker that had this call was lost before the result came. Whether it took effect, in"
    " whole or in part, is not known. Look at what it has done before you repeat it."
)
_WAITS_FOR = {
    "confirmation": "a confirmation",
    "custom_tool": "the result of a custom tool",
    "tool": "the result of a tool that a worker runs",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that an agent waits with, for `patience` seconds.

    `tool_use_id` is the agent's own id of it. One that is `forwarded` is run by a worker.
    """

    event_id: str
    tool_use_id: str
    kind: Kind
    name: str
    input: dict[str, Any]
    patience: float
    thread_id: str | None = None
    forwarded: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a call. `state` is what it becomes, `event_id` that of the answer's event."""

    state: State
    message: str | None = None
    input: dict[str, Any] | None = None
    always: bool = False
    content: list[dict[str, Any]] | None = None
    is_error: bool = False

    def to_json(self) -> dict[str, Any]:
        """As kept: what is said, and no more."""
        kept = {"message": self.message, "input": self.input, "content": self.content}
        flags = {"always": self.always, "is_error": self.is_error}
        return {
            **{name: value for name, value in kept.items() if value is not None},
            **{name: value for name, value in flags.items() if value},
        }


def open_calls(
    tx: Transaction,
    session: Session,
    run_id: str,
    asked: Sequence[Asked],
    *,
    epoch: int,
    now: Millis,
) -> None:
    """Write down calls that wait. One that is there already waits under the new epoch."""
    for call in asked:
        again = tx.execute(
            update(approvals)
            .where(approvals.c.event_id == call.event_id)
            .values(epoch=epoch, tool_use_id=call.tool_use_id)
        )
        if again.rowcount:
            continue
        tx.execute(
            insert(approvals),
            {
                "id": new_id("appr"),
                "session_id": session.id,
                "run_id": run_id,
                "organization_id": session.owner.organization_id,
                "project_id": session.owner.project_id,
                "kind": call.kind,
                "event_id": call.event_id,
                "tool_use_id": call.tool_use_id,
                "name": call.name,
                "input": call.input,
                "thread_id": call.thread_id,
                "state": "pending",
                "created_at": now,
                "expires_at": now + round(call.patience * 1000),
                "epoch": epoch,
                "told": False,
                "forwarded": call.forwarded,
            },
        )


def waiting(tx: Transaction, run_id: str, epoch: int) -> list[str]:
    """The ids of the events that a run's agent waits to be answered, in the order it asked.

    Those of one millisecond are in any order.
    """
    return list(
        tx.execute(
            select(approvals.c.event_id)
            .where(
                approvals.c.run_id == run_id,
                approvals.c.epoch == epoch,
                approvals.c.state == "pending",
            )
            .order_by(approvals.c.id)
        ).scalars()
    )


def requires_action(run_id: str, event_ids: Sequence[str]) -> NewEvent:
    """The event that says whom the session waits for."""
    reason = {"type": "requires_action", "event_ids": list(event_ids)}
    return NewEvent(IDLE, {"run_id": run_id, "stop_reason": reason})


def answer(
    tx: Transaction,
    session: Session,
    event_id: str,
    kind: Kind,
    given: Answer,
    *,
    by: str | None,
    now: Millis,
) -> tuple[str, list[NewEvent]]:
    """Decide on a call; return its run's id, and what to append. The session is locked.

    Raises `Invalid` (`unknown_tool_use`, `wrong_answer`) and `Conflict` (`already_answered`).
    `by` is whose word it is; None is the server's own, when the time is over. The result of a tool
    that a worker runs may come late, or again: then there is nothing to append.
    """
    row = tx.execute(
        select(approvals).where(
            approvals.c.event_id == event_id, approvals.c.session_id == session.id
        )
    ).first()
    if row is None:
        raise Invalid(
            "The session has no tool call with this id that waits.", code="unknown_tool_use"
        )
    if row.kind != kind:
        raise Invalid(f"This tool call waits for {_WAITS_FOR[row.kind]}.", code="wrong_answer")
    if row.kind == "tool" and row.state != "pending":
        # Its sender would not know better than to send it once more: a refusal helps nobody.
        return row.run_id, []
    if row.state != "pending" or (by is not None and row.expires_at <= now):
        raise Conflict("This tool call has been answered already.", code="already_answered")
    changes = _decided(row, given, now) | {"decided_by": by}
    tx.execute(update(approvals).where(approvals.c.id == row.id).values(**changes))
    said = _said(row, given)
    # While no worker has the run nobody waits: the agent will ask again.
    if session.state.waiting_for:
        epoch = tx.execute(select(runs.c.epoch).where(runs.c.id == row.run_id)).scalar_one()
        rest = waiting(tx, row.run_id, epoch)
        after = requires_action(row.run_id, rest) if rest else _running(row.run_id)
        return row.run_id, [said, after]
    return row.run_id, [said]


def _decided(row: Row[Any], given: Answer, now: Millis) -> dict[str, Any]:
    """The columns of a call that is decided on."""
    if row.kind == "tool":  # what was said when it was allowed is kept
        answer = {**(row.answer or {}), **given.to_json()}
        return {"state": given.state, "answer": answer, "decided_at": now}
    if not row.forwarded or given.state != "allowed":
        return {"state": given.state, "answer": given.to_json(), "decided_at": now}
    if given.input is not None:
        raise Invalid(
            "The input of a call that a worker runs cannot be changed: the worker has it already.",
            code="unsupported",
            param="input",
        )
    # At once: the worker hears of it as soon as anybody, and may be fast.
    patience = row.expires_at - row.created_at
    return {"kind": "tool", "answer": given.to_json(), "expires_at": now + patience}


def _running(run_id: str) -> NewEvent:
    return NewEvent(RUNNING, {"run_id": run_id})


def _said(row: Row[Any], given: Answer) -> NewEvent:
    data: dict[str, Any] = {
        "id": new_id("sevt"),
        "run_id": row.run_id,
        "approval_id": row.id,
        "name": row.name,
    }
    if row.thread_id is not None:
        data["session_thread_id"] = row.thread_id
    if row.kind != "confirmation":
        custom = row.kind == "custom_tool"
        data |= {
            "custom_tool_use_id" if custom else "tool_use_id": row.event_id,
            "content": given.content or [],
            "is_error": given.is_error,
        }
        return NewEvent(CUSTOM_RESULT if custom else TOOL_RESULT, data)
    allowed = given.state == "allowed"
    data |= {"tool_use_id": row.event_id, "result": "allow" if allowed else "deny"}
    if given.message is not None and not allowed:
        data["deny_message"] = given.message
    if given.input is not None:
        data["input"] = given.input
    if given.always:
        data["always"] = True
    return NewEvent(CONFIRMATION, data)


def find_call(tx: Transaction, event_id: str) -> Row[Any]:
    """A call's row."""
    return tx.execute(select(approvals).where(approvals.c.event_id == event_id)).one()


def tell(tx: Transaction, event_id: str) -> None:
    """The agent is about to be told: from now on the call may have happened."""
    tx.execute(update(approvals).where(approvals.c.event_id == event_id).values(told=True))


def refusal(answer: Mapping[str, Any] | None) -> str:
    """Why a call is denied, as its agent is told. `answer` is None where a rule denies it."""
    return str((answer or {}).get("message") or DENIED)


def failed(words: str) -> Answer:
    """The server's own answer in place of a tool's result."""
    return Answer("answered", content=[{"type": "text", "text": words}], is_error=True)


def cancel_calls(tx: Transaction, run_id: str, now: Millis) -> list[NewEvent]:
    """Nobody waits for a run's calls any more. Return what to append.

    A worker that looks at the session must see that there is nothing to be done.
    """
    pending = (approvals.c.run_id == run_id, approvals.c.state == "pending")
    rows = tx.execute(
        select(approvals).where(*pending, approvals.c.forwarded).order_by(approvals.c.id)
    ).all()
    tx.execute(update(approvals).where(*pending).values(state="cancelled", decided_at=now))
    denied = Answer("denied", message=OVER)
    return [_said(row, denied if row.kind == "confirmation" else failed(OVER)) for row in rows]


def forwarded_calls(tx: Transaction, session_id: str) -> list[str]:
    """The ids of the events of calls that a worker may have begun, oldest first."""
    return list(
        tx.execute(
            select(approvals.c.event_id)
            .where(
                approvals.c.session_id == session_id,
                approvals.c.kind == "tool",
                approvals.c.state == "pending",
            )
            .order_by(approvals.c.id)
        ).scalars()
    )


def unfinished_calls(tx: Transaction, run_id: str) -> list[Row[Any]]:
    """The calls of a run that an earlier attempt asked about, oldest first."""
    return list(
        tx.execute(
            select(approvals).where(approvals.c.run_id == run_id).order_by(approvals.c.id)
        ).all()
    )


def same_call(name: str, input_: dict[str, Any]) -> bytes:
    """Equal for calls that ask for the same."""
    return msgspec.json.encode([name, input_], order="sorted")


def approval_of(row: Row[Any]) -> Approval:
    """As its reader sees it."""
    return Approval(
        id=row.id,
        session_id=row.session_id,
        run_id=row.run_id,
        kind=row.kind,
        event_id=row.event_id,
        name=row.name,
        input=row.input,
        state=row.state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        answer=row.answer,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )
