"""The budgets that people set: made, listed, changed, deleted.

A budget counts from the moment it is made. Calls that are under way then are not held against it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, delete, func, insert, or_, select, update

from stationmaster.audit import SILENT, Actor, Recorder
from stationmaster.budgets.account import Budget
from stationmaster.budgets.alert import Alerts, stream_of, usual
from stationmaster.budgets.calendar import Period, span, zone_of
from stationmaster.budgets.entry import Mode, Unit
from stationmaster.budgets.tables import budget_periods, budgets
from stationmaster.events import Event, EventLog
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.kernel.ids import check_id, new_id
from stationmaster.kernel.paging import Page, check_limit
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database, Transaction

SubjectKind = Literal["organization", "project", "key", "user", "session", "run", "tag"]

READ = "read:budgets"
WRITE = "admin:budgets"
ABOVE = "admin:organization"  # for what reaches beyond the caller's own project

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,63}")
MAX_TAGS = 4
MAX_LIMIT = 10**15  # a billion dollars; as many tokens
MAX_PER_SUBJECT = 10  # each is locked by each call
MAX_ALERTS = 10

FindOwner = Callable[[Principal, str], Awaitable[Owner]]
"""Whose an object is. Raises `NotFound` where there is none, or it is another organisation's."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a budget is to be. Without `alerts` it gets the usual ones."""

    subject_kind: SubjectKind
    subject_id: str
    unit: Unit
    limit: int
    period: Period = "total"
    mode: Mode = "hard"
    time_zone: str = "UTC"
    alerts: Alerts | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be different; None leaves it."""

    limit: int | None = None
    mode: Mode | None = None
    alerts: Alerts | None = None


@dataclass(frozen=True, slots=True)
class DefinedBudget:
    """A budget, and its account of the present period."""

    id: str
    owner: Owner
    terms: Terms
    alerts: Alerts
    period_start: Millis
    period_end: Millis | None
    balance: Budget
    by_server: bool
    created_at: Millis


class Definitions:
    """The verbs on budgets."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        find_owner: Mapping[SubjectKind, FindOwner],
        *,
        events: EventLog,
        recorder: Recorder = SILENT,
    ) -> None:
        """`find_owner` knows the objects of other capabilities; `events` has the alerts."""
        self._events = events
        self._recorder = recorder
        self._database = database
        self._clock = clock
        self._find_owner = find_owner

    async def create(self, principal: Principal, terms: Terms) -> DefinedBudget:
        """Set a budget. Raises `Invalid`, `NotFound` for the subject, `Conflict` for too many.

        What reaches beyond the caller's project needs the right to manage the organisation.
        """
        principal.require(WRITE)
        check_terms(terms)
        owner = await self._owner(principal, terms)
        actor = Actor.of(principal)
        return await self._database.write(lambda tx: self.create_in(tx, actor, owner, terms))

    def create_in(self, tx: Transaction, actor: Actor, owner: Owner, terms: Terms) -> DefinedBudget:
        """`create` inside a verb that has checked who asks, and for what."""
        made = self._create(tx, owner, terms)
        self._recorder.record(tx, actor, "budget.create", target=made.id, details=_told(terms))
        return made

    def _create(self, tx: Transaction, owner: Owner, terms: Terms) -> DefinedBudget:
        now = self._clock.now()
        subject = subject_of(owner, terms.subject_kind, terms.subject_id)
        same = (budgets.c.subject == subject, budgets.c.organization_id == owner.organization_id)
        present = select(func.count()).select_from(budgets).where(*same)
        if tx.execute(present).scalar_one() >= MAX_PER_SUBJECT:
            raise Conflict(
                f"This {terms.subject_kind} has {MAX_PER_SUBJECT} budgets already.",
                code="too_many_budgets",
            )
        alerts = terms.alerts or usual(terms.mode, terms.unit, terms.limit)
        start, end = span(terms.period, terms.time_zone, now)
        budget_id = new_id("bud")
        tx.execute(
            insert(budgets),
            {
                "id": budget_id,
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "subject": subject,
                "subject_kind": terms.subject_kind,
                "subject_id": terms.subject_id,
                "source": "api",
                "unit": terms.unit,
                "mode": terms.mode,
                "period": terms.period,
                "time_zone": terms.time_zone,
                "limit": terms.limit,
                "period_start": start,
                "period_end": end,
                "spent": 0,
                "held": 0,
                "alerts": alerts.to_json(),
                "alert_at": alerts.next_after(0, terms.limit),
                "created_at": now,
            },
        )
        return self._read(tx, budgets.c.id == budget_id)

    async def list(
        self,
        principal: Principal,
        *,
        limit: int | None = None,
        after: str | None = None,
        subject_kind: str | None = None,
        subject_id: str | None = None,
    ) -> Page[DefinedBudget]:
        """The budgets that people have set, newest first. Raises `Invalid`, `NotFound`."""
        principal.require(READ)
        size = check_limit(limit)
        if subject_kind is not None and subject_kind not in get_args(SubjectKind):
            raise Invalid("There is no such kind of subject.", param="subject_type")
        conditions = [_visible(principal), budgets.c.source == "api"]
        if after is not None:
            conditions.append(budgets.c.id < check_id(after, "bud"))
        if subject_kind is not None:
            conditions.append(budgets.c.subject_kind == subject_kind)
        if subject_id is not None:
            conditions.append(budgets.c.subject_id == subject_id)
        query = select(budgets).where(*conditions).order_by(budgets.c.id.desc()).limit(size + 1)
        rows = await self._database.browse(lambda tx: tx.execute(query).all())
        items = [self._view(row) for row in rows[:size]]
        return Page(items, items[-1].id if len(rows) > size else None)

    async def get(self, principal: Principal, budget_id: str) -> DefinedBudget:
        """One budget, a run's or session's own too. Raises `NotFound`."""
        principal.require(READ)
        mine = _one(principal, budget_id)
        return await self._database.read(lambda tx: self._read(tx, mine))

    async def update(self, principal: Principal, budget_id: str, changes: Changes) -> DefinedBudget:
        """Change a budget, at once for every call from now on.

        A limit below what is spent and held refuses all that comes, and stops nothing under way.
        Raises `NotFound`, `Invalid`, and `Conflict` for a budget of the server's own.
        """
        principal.require(WRITE)
        mine = _one(principal, budget_id)
        _check_changes(changes)
        actor = Actor.of(principal)
        return await self._database.write(
            lambda tx: self.update_in(tx, principal, actor, mine, changes)
        )

    def update_in(
        self,
        tx: Transaction,
        principal: Principal,
        actor: Actor,
        mine: ColumnElement[bool],
        changes: Changes,
    ) -> DefinedBudget:
        """`update` of the budget that `mine` is true of, in a verb that has checked the rest."""
        row = _lock(tx, principal, mine)
        limit = row.limit if changes.limit is None else changes.limit
        alerts = changes.alerts or Alerts.from_json(row.alerts)
        values = {
            "limit": limit,
            "mode": changes.mode or row.mode,
            "alerts": alerts.to_json(),
            "alert_at": _next_alert(row, alerts, limit),
        }
        tx.execute(update(budgets).where(budgets.c.id == row.id).values(**values))
        details = {"limit": limit, "mode": values["mode"]}
        self._recorder.record(tx, actor, "budget.update", target=row.id, details=details)
        return self._read(tx, mine)

    async def delete(self, principal: Principal, budget_id: str) -> DefinedBudget:
        """End a budget: it limits nothing from now on. Raises as `update`."""
        principal.require(WRITE)
        mine = _one(principal, budget_id)
        actor = Actor.of(principal)

        def verb(tx: Transaction) -> DefinedBudget:
            row = _lock(tx, principal, mine)
            gone = self._view(row)
            tx.execute(delete(budget_periods).where(budget_periods.c.budget_id == row.id))
            tx.execute(delete(budgets).where(budgets.c.id == row.id))
            self._recorder.record(tx, actor, "budget.delete", target=row.id)
            return gone

        return await self._database.write(verb)

    async def told(self, principal: Principal, *, after: int, limit: int | None) -> Sequence[Event]:
        """The alerts of the caller's project that follow number `after`, in order."""
        principal.require(READ)
        stream = stream_of(principal.owner.project_id)
        return await self._events.read(stream, after=after, limit=check_limit(limit))

    async def _owner(self, principal: Principal, terms: Terms) -> Owner:
        """Whose the subject is, which must be the caller's organisation's."""
        own, kind, subject_id = principal.owner, terms.subject_kind, terms.subject_id
        if kind == "tag" or (kind, subject_id) == ("project", own.project_id):
            return own
        unknown = NotFound(f"There is no {kind} with this id.", param="subject")
        if kind == "organization":
            owner = own if subject_id == own.organization_id else None
        else:
            try:
                owner = await self._find_owner[kind](principal, subject_id)
            except NotFound:
                raise unknown from None
        if owner is None or owner.organization_id != own.organization_id:
            raise unknown
        if kind in {"organization", "user"}:
            principal.require(ABOVE)
        elif owner.project_id != own.project_id and not principal.may(ABOVE):
            raise unknown
        return owner

    def _read(self, tx: Transaction, condition: ColumnElement[bool]) -> DefinedBudget:
        row = tx.execute(select(budgets).where(condition)).first()
        if row is None:
            raise _unknown()
        return self._view(row)

    def _view(self, row: Any) -> DefinedBudget:
        start, end, balance = row.period_start, row.period_end, _balance(row)
        now = self._clock.now()
        if end is not None and now >= end:  # nobody has spent anything in this period yet
            start, end = span(row.period, row.time_zone, now)
            balance = Budget(row.limit, 0, 0, None)
        alerts = Alerts.from_json(row.alerts)
        return DefinedBudget(
            id=row.id,
            owner=Owner(row.organization_id, row.project_id),
            terms=Terms(
                row.subject_kind,
                row.subject_id,
                row.unit,
                row.limit,
                row.period,
                row.mode,
                row.time_zone,
                alerts,
            ),
            alerts=alerts,
            period_start=start,
            period_end=end,
            balance=balance,
            by_server=row.source == "server",
            created_at=row.created_at,
        )


def subject_of(owner: Owner, kind: str, subject_id: str) -> str:
    """What calls look a budget up by; see `CallContext.subjects`."""
    return f"tag:{owner.project_id}:{subject_id}" if kind == "tag" else f"{kind}:{subject_id}"


def check_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags, each once. Raises `Invalid` for too many, or what is none."""
    if len(tags) > MAX_TAGS or any(TAG.fullmatch(tag) is None for tag in tags):
        raise Invalid(
            f"Tags are up to {MAX_TAGS} words of up to 64 letters, digits and ._:/@-,"
            " separated by commas.",
            param="tags",
        )
    return tuple(dict.fromkeys(tags))


def _balance(row: Any) -> Budget:
    return Budget(row.limit, row.spent, row.held, row.refused_at)


def _visible(principal: Principal) -> ColumnElement[bool]:
    """The project's budgets, and those above it; the organisation's, to who manages that."""
    own = principal.owner
    mine = budgets.c.organization_id == own.organization_id
    if principal.may(ABOVE):
        return mine
    above = budgets.c.subject_kind.in_(("organization", "user"))
    return mine & or_(budgets.c.project_id == own.project_id, above)


def _one(principal: Principal, budget_id: str) -> ColumnElement[bool]:
    try:
        return (budgets.c.id == check_id(budget_id, "bud")) & _visible(principal)
    except NotFound:
        raise _unknown() from None


def _unknown() -> NotFound:
    return NotFound("There is no budget with this id.")


def _lock(tx: Transaction, principal: Principal, condition: ColumnElement[bool]) -> Any:
    row = tx.execute(select(budgets).where(condition).with_for_update()).first()
    if row is None:
        raise _unknown()
    if row.source == "server":
        raise Conflict(
            f"This is the own budget of a {row.subject_kind}; it cannot be changed here.",
            code="budget_not_yours",
        )
    if row.subject_kind in {"organization", "user"}:
        principal.require(ABOVE)
    return row


def _next_alert(row: Any, alerts: Alerts, limit: int) -> int | None:
    """The spending at which the next alert is due under new terms; what was told stays told."""
    before = Alerts.from_json(row.alerts).levels(row.limit)
    told = [what for level, what in before if level <= row.spent]
    due = [level for level, what in alerts.levels(limit) if what not in told or level > row.spent]
    return min(due, default=None)


def check_terms(terms: Terms) -> None:
    """Raise `Invalid` for terms that no budget can have."""
    if terms.subject_kind not in get_args(SubjectKind):
        raise Invalid("There is no such kind of subject.", param="subject")
    if terms.subject_kind == "tag" and TAG.fullmatch(terms.subject_id) is None:
        raise Invalid("This is not a tag.", param="subject")
    if terms.period not in get_args(Period):
        raise Invalid("period must be total, day, week or month.", param="period")
    zone_of(terms.time_zone)
    _check_changes(Changes(terms.limit, terms.mode, terms.alerts))


def _check_changes(changes: Changes) -> None:
    if changes.limit is not None and not 0 <= changes.limit <= MAX_LIMIT:
        raise Invalid(f"A limit must be between 0 and {MAX_LIMIT}.", param="limit")
    if changes.mode is not None and changes.mode not in get_args(Mode):
        raise Invalid("mode must be hard, soft or degrade.", param="mode")
    if changes.alerts is None:
        return
    alerts = changes.alerts
    if len(alerts.percent) + len(alerts.remaining) > MAX_ALERTS:
        raise Invalid(f"There may be {MAX_ALERTS} alerts.", param="alerts")
    if any(not 1 <= each <= 100 for each in alerts.percent):
        raise Invalid("A percentage must be between 1 and 100.", param="alerts")
    if any(not 1 <= each <= MAX_LIMIT for each in alerts.remaining):
        raise Invalid(f"What is left must be between 1 and {MAX_LIMIT}.", param="alerts")


def _told(terms: Terms) -> dict[str, object]:
    """What the audit log says of a new budget."""
    return {
        "subject": f"{terms.subject_kind}:{terms.subject_id or ''}",
        "limit": terms.limit,
        "unit": terms.unit,
        "period": terms.period,
        "mode": terms.mode,
    }
