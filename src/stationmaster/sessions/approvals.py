"""The verbs on approvals: calls of tools that wait for somebody."""

from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import Row, select

from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.ids import check_id
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import Bus
from stationmaster.sessions.approval import Approval, State
from stationmaster.sessions.calls import Answer, answer, approval_of
from stationmaster.sessions.checks import bounded, small_json
from stationmaster.sessions.record import SessionRecords
from stationmaster.sessions.tables import approvals
from stationmaster.sessions.topics import control_topic
from stationmaster.storage import Database, Transaction

__all__ = ["Approval", "Approvals", "Decision"]

MAX_MESSAGE_BYTES = 10_000
MAX_INPUT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decides on a call: see `ToolConfirmation`."""

    allow: bool
    message: str | None = None
    input: dict[str, Any] | None = None
    always: bool = False


class Approvals:
    """The verbs on approvals. Scopes: `read:approvals` and `write:approvals`.

    A session's own inputs (`Sessions.send`) answer them too; whoever is first decides.
    """

    def __init__(
        self, *, database: Database, sessions: SessionRecords, bus: Bus, clock: Clock
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._bus = bus
        self._clock = clock

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        session_id: str | None = None,
        state: str | None = None,
    ) -> Page[Approval]:
        """The project's approvals, newest first."""
        principal.require("read:approvals")
        query = _owned(principal.owner)
        if after is not None:
            query = query.where(approvals.c.id < check_id(after, "appr"))
        if session_id is not None:
            query = query.where(approvals.c.session_id == check_id(session_id, "sesn"))
        if state is not None:
            if state not in get_args(State):
                raise Invalid(f"There is no state {state[:32]!r}.", param="state")
            query = query.where(approvals.c.state == state)
        query = query.order_by(approvals.c.id.desc()).limit(limit + 1)
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        items = [approval_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def get(self, principal: Principal, approval_id: str) -> Approval:
        """One approval. Raises `NotFound`."""
        principal.require("read:approvals")
        return await self._database.read(
            lambda tx: approval_of(_find(tx, principal.owner, approval_id))
        )

    async def decide(self, principal: Principal, approval_id: str, decision: Decision) -> Approval:
        """Allow or deny a call that waits.

        Raises `Conflict` (`already_answered`), and `Invalid` where it waits for the result of a
        custom tool.
        """
        principal.require("write:approvals")
        given = to_answer(decision.allow, decision.message, decision.input, always=decision.always)

        def verb(tx: Transaction) -> Approval:
            found = _find(tx, principal.owner, approval_id)
            session = self._sessions.lock(tx, found.session_id, principal.owner)
            run_id, new = answer(
                tx,
                session,
                found.event_id,
                "confirmation",
                given,
                by=principal.key_id,
                now=self._clock.now(),
            )
            self._sessions.append(tx, session.id, new)
            tx.on_commit(lambda: self._bus.publish(control_topic(run_id), "answer"))
            return approval_of(_find(tx, principal.owner, approval_id))

        return await self._database.write(verb)


def to_answer(
    allow: bool, message: str | None, input_: dict[str, Any] | None, *, always: bool
) -> Answer:
    """A decision, checked. Raises `Invalid` and `TooLarge` with `param`."""
    if message is not None:
        bounded(message, MAX_MESSAGE_BYTES, "deny_message")
        if allow:
            raise Invalid("deny_message is for a denial.", param="deny_message")
    if not allow and (input_ is not None or always):
        raise Invalid("A denial changes no input and is for one call.", param="result")
    if input_ is not None:
        small_json(input_, MAX_INPUT_BYTES, "input")
    return Answer("allowed" if allow else "denied", message, input_, always)


def _owned(owner: Owner) -> Any:
    return select(approvals).where(
        approvals.c.organization_id == owner.organization_id,
        approvals.c.project_id == owner.project_id,
    )


def _find(tx: Transaction, owner: Owner, approval_id: str) -> Row[Any]:
    check_id(approval_id, "appr")
    row = tx.execute(_owned(owner).where(approvals.c.id == approval_id)).first()
    if row is None:
        raise NotFound("There is no approval with this id.")
    return row
