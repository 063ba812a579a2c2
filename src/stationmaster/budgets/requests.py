"""Requests of users for a higher spend limit.

    pending ──approve──▶ approved   the limit is set in the same transaction
       └─────deny──────▶ denied

A user has one pending request for a period at most. Each step is an event in the organisation's
stream `spend_requests:ORGANIZATION`, written in the step's own transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, delete, select, update

# Its ON CONFLICT is SQLite's too.
from sqlalchemy.dialects.postgresql import insert as upsert

from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.budgets.calendar import Period
from stationmaster.budgets.definition import (
    ABOVE,
    READ,
    WRITE,
    Changes,
    DefinedBudget,
    Definitions,
    Terms,
    check_terms,
)
from stationmaster.budgets.tables import budgets, spend_requests
from stationmaster.events import EventLog, NewEvent
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.paging import Page
from stationmaster.kernel.principal import Principal
from stationmaster.storage import Database, Transaction

Status = Literal["pending", "approved", "denied"]
STATUSES = ("pending", "approved", "denied")
PREFIX = "slir"
KEPT_MS = 90 * 86_400_000  # of one that is resolved; the audit log has its own time


@dataclass(frozen=True, slots=True)
class SpendRequest:
    """What a user asks for. `resolved_by` is a user, a service account or a key."""

    id: str
    user_id: str
    period: Period
    status: Status
    created_at: Millis
    resolved_at: Millis | None
    resolved_by: str | None


class SpendRequests:
    """The verbs on requests. All but `ask` are for who manages the organisation and its budgets."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        definitions: Definitions,
        *,
        events: EventLog,
        recorder: Recorder = SILENT,
    ) -> None:
        """`events` is the book that each step is written into."""
        self._database = database
        self._clock = clock
        self._definitions = definitions
        self._events = events
        self._recorder = recorder

    async def ask(self, principal: Principal, period: Period) -> SpendRequest:
        """Ask for more in each `period`; the pending request where there is one already.

        Raises `Invalid` for a credential that no user is behind.
        """
        if principal.user_id is None or principal.kind == "run":
            raise Invalid("Only a user's own credential asks for a limit.", code="not_a_user")
        user_id, actor = principal.user_id, Actor.of(principal)
        pending = select(spend_requests).where(
            spend_requests.c.user_id == user_id,
            spend_requests.c.period == period,
            spend_requests.c.status == "pending",
        )
        values = {
            "id": new_id(PREFIX),
            "organization_id": principal.owner.organization_id,
            "user_id": user_id,
            "period": period,
            "status": "pending",
            "created_at": self._clock.now(),
        }

        def verb(tx: Transaction) -> SpendRequest:
            put = upsert(spend_requests).values(**values).on_conflict_do_nothing()
            tx.execute(put)
            row = tx.execute(pending).first()
            if row is None:  # the one that was in the way has been resolved just now
                raise Conflict("The request before was resolved just now.", code="request_resolved")
            if row.id == values["id"]:
                self._recorder.record(tx, actor, "spend_request.create", target=row.id)
                self._tell(tx, principal, _of(row))
            return _of(row)

        return await self._database.write(verb)

    async def list(
        self,
        principal: Principal,
        *,
        limit: int,
        after: str | None = None,
        user_ids: Sequence[str] | None = None,
        statuses: Sequence[str] | None = None,
    ) -> Page[SpendRequest]:
        """The organisation's requests, newest first. Raises `Invalid`."""
        _require(principal, READ)
        if unknown := set(statuses or ()) - set(STATUSES):
            raise Invalid(
                f"There is no status {min(unknown)[:16]!r}; there are {', '.join(STATUSES)}.",
                param="status",
            )
        query = select(spend_requests).where(_mine(principal))
        if after is not None:
            query = query.where(spend_requests.c.id < check_id(after, PREFIX))
        if user_ids is not None:
            query = query.where(spend_requests.c.user_id.in_(user_ids))
        if statuses is not None:
            query = query.where(spend_requests.c.status.in_(statuses))
        query = query.order_by(spend_requests.c.id.desc()).limit(limit + 1)
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [_of(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def get(self, principal: Principal, request_id: str) -> SpendRequest:
        """One request. Raises `NotFound`, also for another organisation's."""
        _require(principal, READ)
        check_id(request_id, PREFIX)
        query = select(spend_requests).where(spend_requests.c.id == request_id, _mine(principal))
        row = await self._database.read(lambda tx: tx.execute(query).first())
        if row is None:
            raise _unknown()
        return _of(row)

    async def approve(
        self,
        principal: Principal,
        request_id: str,
        amount: MicroDollars,
        *,
        period: Period | None = None,
    ) -> tuple[SpendRequest, DefinedBudget]:
        """Set the user's limit of `period`, that of the request where none is given.

        Raises `NotFound`, `Invalid` for a request that is resolved, and `Conflict` where the user
        has too many budgets.
        """
        _require(principal, READ, WRITE)
        check_terms(Terms("user", "", "usd", amount))
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> tuple[SpendRequest, DefinedBudget]:
            found = _lock(tx, principal, request_id)
            if found.status != "pending":
                raise _resolved(found)
            terms = Terms("user", found.user_id, "usd", amount, period=period or found.period)
            budget = self._set(tx, principal, actor, terms)
            done = self._resolve(tx, principal, actor, found, "approved")
            self._tell(tx, principal, done, budget)
            return done, budget

        return await self._database.write(verb)

    async def deny(self, principal: Principal, request_id: str) -> SpendRequest:
        """Refuse. Idempotent. Raises `NotFound`, and `Invalid` for one that was approved."""
        _require(principal, READ, WRITE)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> SpendRequest:
            found = _lock(tx, principal, request_id)
            if found.status == "approved":
                raise _resolved(found)
            if found.status == "denied":
                return found
            done = self._resolve(tx, principal, actor, found, "denied")
            self._tell(tx, principal, done)
            return done

        return await self._database.write(verb)

    def _set(
        self, tx: Transaction, principal: Principal, actor: Actor, terms: Terms
    ) -> DefinedBudget:
        same = (
            budgets.c.organization_id == principal.owner.organization_id,
            budgets.c.source == "api",
            budgets.c.subject_kind == terms.subject_kind,
            budgets.c.subject_id == terms.subject_id,
            budgets.c.unit == terms.unit,
            budgets.c.mode == terms.mode,
            budgets.c.period == terms.period,
        )
        query = select(budgets.c.id).where(*same).order_by(budgets.c.id)
        # All of them: what is granted must not be refused by another of the same kind.
        changed = [
            self._definitions.update_in(
                tx, principal, actor, budgets.c.id == budget_id, Changes(limit=terms.limit)
            )
            for budget_id in tx.execute(query).scalars().all()
        ]
        if changed:
            return changed[-1]
        return self._definitions.create_in(tx, actor, principal.owner, terms)

    def _resolve(
        self,
        tx: Transaction,
        principal: Principal,
        actor: Actor,
        found: SpendRequest,
        status: Status,
    ) -> SpendRequest:
        tx.execute(
            update(spend_requests)
            .where(spend_requests.c.id == found.id)
            .values(status=status, resolved_at=self._clock.now(), resolved_by=principal.actor_id)
        )
        action = "spend_request.approve" if status == "approved" else "spend_request.deny"
        self._recorder.record(tx, actor, action, target=found.id)
        return _lock(tx, principal, found.id)

    def _tell(
        self,
        tx: Transaction,
        principal: Principal,
        found: SpendRequest,
        budget: DefinedBudget | None = None,
    ) -> None:
        stream = stream_of(principal.owner.organization_id)
        self._events.ensure(tx, stream, "spend_requests", principal.owner)
        data: dict[str, Any] = {
            "request_id": found.id,
            "user_id": found.user_id,
            "period": found.period,
            "status": found.status,
            "resolved_by": found.resolved_by,
        }
        if budget is not None:
            granted = budget.terms
            data |= {"budget": {"id": budget.id, "limit": granted.limit, "period": granted.period}}
        what = "created" if found.status == "pending" else found.status
        self._events.append(tx, stream, [NewEvent(f"spend_request.{what}", data)])

    async def sweep(self) -> int:
        """Delete what was resolved long ago; return how many. Raises `Unavailable`."""
        old = delete(spend_requests).where(
            spend_requests.c.resolved_at < self._clock.now() - KEPT_MS
        )
        return await self._database.write(lambda tx: int(tx.execute(old).rowcount))


def stream_of(organization_id: str) -> str:
    """The stream of an organisation's requests."""
    return f"spend_requests:{organization_id}"


def _require(principal: Principal, *scopes: str) -> None:
    for scope in (ABOVE, *scopes):
        principal.require(scope)


def _mine(principal: Principal) -> Any:
    return spend_requests.c.organization_id == principal.owner.organization_id


def _lock(tx: Transaction, principal: Principal, request_id: str) -> SpendRequest:
    check_id(request_id, PREFIX)
    query = select(spend_requests).where(spend_requests.c.id == request_id, _mine(principal))
    row = tx.execute(query.with_for_update()).first()
    if row is None:
        raise _unknown()
    return _of(row)


def _unknown() -> NotFound:
    return NotFound("There is no spend limit increase request with this id.")


def _resolved(found: SpendRequest) -> Invalid:
    return Invalid(f"The request was {found.status} already.", code="request_resolved")


def _of(row: Row[Any]) -> SpendRequest:
    return SpendRequest(
        row.id,
        row.user_id,
        row.period,
        row.status,
        row.created_at,
        row.resolved_at,
        row.resolved_by,
    )
