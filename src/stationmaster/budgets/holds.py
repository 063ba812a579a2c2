"""Placing holds: a batch of calls against all their budgets, in one transaction.

Every budget that any of the batch counts against is locked, in the order of the ids, which is the
same for everybody: no two batches can deadlock. Each call is then decided for itself, in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import bindparam, insert, select, update

from stationmaster.budgets.alert import Alerts
from stationmaster.budgets.calendar import Period, span
from stationmaster.budgets.entry import CallContext, Charge, Mode, Refused, Reserved, Unit
from stationmaster.budgets.tables import budget_periods, budgets, holds
from stationmaster.kernel.clock import Millis
from stationmaster.kernel.money import MicroDollars
from stationmaster.storage import Prepared, Transaction, among, given, spread, spread_out
from stationmaster.storage.prepared import Row

_LOCK = Prepared(
    select(
        budgets.c.id,
        budgets.c.organization_id,
        budgets.c.subject,
        budgets.c.subject_kind,
        budgets.c.subject_id,
        budgets.c.unit,
        budgets.c.mode,
        budgets.c.limit,
        budgets.c.spent,
        budgets.c.held,
        budgets.c.period,
        budgets.c.time_zone,
        budgets.c.period_start,
        budgets.c.period_end,
    )
    .where(among(budgets.c.subject, "subjects"))
    .order_by(budgets.c.id)
    .with_for_update()
)
_RAISE = Prepared(
    update(budgets)
    .where(budgets.c.id == bindparam("of"))
    .values(held=budgets.c.held + bindparam("more"))
)
_REFUSE = Prepared(
    update(budgets).where(budgets.c.id == bindparam("of")).values(refused_at=bindparam("now"))
)
_INSERT = Prepared(insert(holds))
# Both in one, where they cost a trip each while everybody waits for the budget's row.
_raise = given("raises", {"of": str, "more": int})
_holds = spread(holds.columns)
_RAISE_AND_INSERT = Prepared(
    insert(holds)
    .from_select(holds.columns.keys(), select(_holds))
    .add_cte(
        update(budgets)
        .where(budgets.c.id == _raise.c.of)
        .values(held=budgets.c.held + _raise.c.more)
        .cte("raised")
    )
)


class Request(msgspec.Struct, frozen=True):
    """What a call asks for. Without `final` a refusal is not written down.

    `degraded` says that no cheaper model is left: budgets that only ask for one let it pass.
    `holder` is who will settle it, where that is not this server.
    """

    context: CallContext
    amount: MicroDollars
    tokens: int
    final: bool
    degraded: bool
    holder: str | None = None


@dataclass(slots=True)
class Account:
    """A budget in its present period, locked."""

    id: str
    organization_id: str
    subject: str
    subject_kind: str
    subject_id: str
    unit: Unit
    mode: Mode
    limit: int
    spent: int
    held: int
    period: Period
    time_zone: str
    start: Millis
    end: Millis | None
    raised: int = 0

    def short_of(self, request: Request) -> bool:
        """Whether it does not cover the worst case."""
        return self.needed(request) > self.limit - self.spent - self.held

    def needed(self, request: Request) -> int:
        """The worst case in its unit."""
        return request.amount if self.unit == "usd" else request.tokens

    def refusal(self) -> Refused:
        """Why it refuses."""
        left = self.limit - self.spent
        return Refused(
            remaining=max(0, left - self.held),
            held=max(0, min(self.held, left)),
            limit=self.limit,
            subject_kind=self.subject_kind,
            subject_id=self.subject_id,
            unit=self.unit,
            mode=self.mode,
        )


def place(
    tx: Transaction, requests: Sequence[Request], instance_id: str, now: Millis
) -> list[Reserved | Refused]:
    """Hold each request against every budget that it counts against, or against none."""
    wanted = [request.context.subjects() for request in requests]
    accounts = _lock(tx, wanted, now)
    answers: list[Reserved | Refused] = []
    placed: list[tuple[Request, list[Account]]] = []
    refused: set[str] = set()
    for request, subjects in zip(requests, wanted, strict=True):
        mine = [
            account
            for subject in subjects
            if subject in accounts
            for account in accounts[subject]
            if account.organization_id == request.context.owner.organization_id
        ]
        tightest = _tightest(mine, request) if mine else None
        if tightest is None:
            for account in mine:
                needed = account.needed(request)
                account.held += needed
                account.raised += needed
            placed.append((request, mine))
            answers.append(Reserved(request.amount))
            continue
        refusal = tightest.refusal()
        if request.final and not refusal.passing(tightest.needed(request)):
            refused.add(tightest.id)
        answers.append(refusal)
    _write(tx, placed, accounts, instance_id, now)
    if refused:
        tx.run_many(_REFUSE, [{"of": budget_id, "now": now} for budget_id in sorted(refused)])
    return answers


def _tightest(accounts: Sequence[Account], request: Request) -> Account | None:
    """The account to refuse for; None where all cover it.

    One that waiting does not help comes first, and one that refuses before one that degrades.
    """
    short = [
        account
        for account in accounts
        if account.mode != "soft"
        and not (account.mode == "degrade" and request.degraded)
        and account.short_of(request)
    ]
    if not short:
        return None

    def order(account: Account) -> tuple[bool, bool, int]:
        refusal = account.refusal()
        return (
            account.mode == "degrade",
            refusal.passing(account.needed(request)),
            (account.limit - account.spent - account.held),
        )

    return min(short, key=order)


def _write(
    tx: Transaction,
    placed: Sequence[tuple[Request, list[Account]]],
    accounts: dict[str, list[Account]],
    instance_id: str,
    now: Millis,
) -> None:
    raised = sorted(
        (account.id, account.raised)
        for found in accounts.values()
        for account in found
        if account.raised
    )
    lines = [_line(request, mine, instance_id, now) for request, mine in placed]
    if lines and tx.dialect == "postgresql":
        tx.run(_RAISE_AND_INSERT, {"raises": raised, **spread_out(holds.columns, lines)})
        return
    if raised:
        tx.run_many(_RAISE, [{"of": budget_id, "more": more} for budget_id, more in raised])
    if lines:
        tx.insert(_INSERT, lines)


def _line(request: Request, accounts: Sequence[Account], instance_id: str, now: Millis) -> Row:
    """In the order of the table's columns."""
    context = request.context
    charges: list[Charge] = [(account.id, account.start, account.unit) for account in accounts]
    return (
        context.call_id,
        *context.columns(),
        request.amount,
        request.tokens,
        charges,
        request.holder or instance_id,
        now,
    )


def _lock(
    tx: Transaction, wanted: Sequence[Sequence[str]], now: Millis
) -> dict[str, list[Account]]:
    subjects = sorted({subject for each in wanted for subject in each})
    found: dict[str, list[Account]] = {}
    for row in tx.run(_LOCK, {"subjects": subjects}):
        account = Account(*row)
        if account.end is not None and now >= account.end:
            turn_over(tx, account, now)
        found.setdefault(account.subject, []).append(account)
    return found


def turn_over(tx: Transaction, account: Account, now: Millis) -> None:
    """Put the period that is over aside and begin the one that `now` is in; the row is locked.

    Only ever forwards: a server whose clock is behind goes on with the period that has begun.
    """
    tx.execute(
        insert(budget_periods),
        {
            "budget_id": account.id,
            "period_start": account.start,
            "spent": account.spent,
            "held": account.held,
        },
    )
    alerts = tx.execute(select(budgets.c.alerts).where(budgets.c.id == account.id)).scalar()
    account.start, account.end = span(account.period, account.time_zone, now)
    account.spent = account.held = 0
    tx.execute(
        update(budgets)
        .where(budgets.c.id == account.id)
        .values(
            period_start=account.start,
            period_end=account.end,
            spent=0,
            held=0,
            refused_at=None,
            alert_at=Alerts.from_json(alerts).next_after(0, account.limit),
        )
    )
