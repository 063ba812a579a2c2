"""The protocol of holds: reserve before a call, settle after it.

Invariant: for every hard budget and period, at every commit, `spent + held <= limit`, as long as
no call costs more than its hold; and `held` is the sum of the amounts of the open holds that name
it. A hold is placed before the call it pays for goes out and removed in the transaction that writes
the call's ledger entry, so a call is billed exactly once, and one whose server died is billed its
whole hold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, insert, select, update

from stationmaster.budgets import ledger as book
from stationmaster.budgets.entry import (
    LASTING,
    CallContext,
    Held,
    LedgerEntry,
    Refused,
    Reserved,
    Usage,
    lost,
)
from stationmaster.budgets.holds import Request, place
from stationmaster.budgets.tables import budgets, holds, ledger
from stationmaster.events import EventLog
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.errors import BudgetExceeded, Unauthenticated, Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction
from stationmaster.storage.till import Till

log = structlog.get_logger(__name__)

MAX_UNSETTLED = 100_000
"""Entries kept in memory while the database is away. Beyond it their holds stay for the takeover
of this server, which bills them whole."""

Entitled = Callable[[Transaction, Sequence[CallContext]], list[bool]]
"""Whether who makes each call may still spend, by what is committed now."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on a subject, and how much of it is gone or held."""

    limit: int
    spent: int
    held: int
    refused_at: Millis | None

    @property
    def remaining(self) -> int:
        """What a new hold may still take."""
        return max(0, self.limit - self.spent - self.held)


class Budgets:
    """The store that enforces, displays and alerts. Implements the gateway's `Meter`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        instance_id: str,
        events: EventLog | None = None,
        entitled: Entitled | None = None,
    ) -> None:
        """`instance_id` names this process: its holds are settled by others if it dies.

        `events` is the book that alerts are written into; without it there are none. `entitled`
        is asked in the transaction of a hold whether who spends still may.
        """
        self._database = database
        self._clock = clock
        self._instance_id = instance_id
        self._events = events
        self._entitled = entitled
        self._reserves = Till(self._reserve, abandoned=self._give_back)
        self._settles = Till(self._settle)
        self._unsettled: dict[str, LedgerEntry] = {}

    def open(
        self, tx: Transaction, owner: Owner, subject_kind: str, subject_id: str, limit: MicroDollars
    ) -> None:
        """Give a subject of the server's own making a hard budget of dollars."""
        tx.execute(
            insert(budgets),
            {
                "id": new_id("bud"),
                "organization_id": owner.organization_id,
                "project_id": owner.project_id,
                "subject": f"{subject_kind}:{subject_id}",
                "subject_kind": subject_kind,
                "subject_id": subject_id,
                "limit": limit,
                "spent": 0,
                "held": 0,
                "created_at": self._clock.now(),
            },
        )

    def resize(
        self, tx: Transaction, subject_kind: str, subject_id: str, limit: MicroDollars
    ) -> None:
        """Change the limit that a subject was opened with. What is spent and held stays."""
        own = (
            budgets.c.subject == f"{subject_kind}:{subject_id}",
            budgets.c.source == "server",
        )
        tx.execute(update(budgets).where(*own).values(limit=limit))

    def get(self, tx: Transaction, subject_kind: str, subject_id: str) -> Budget | None:
        """The budget that a subject was opened with, if it was."""
        row = tx.execute(
            select(budgets).where(
                budgets.c.subject == f"{subject_kind}:{subject_id}", budgets.c.source == "server"
            )
        ).first()
        return row and Budget(row.limit, row.spent, row.held, row.refused_at)

    def require_room(
        self, tx: Transaction, owner: Owner, key_id: str, user_id: str | None = None
    ) -> None:
        """Raise `BudgetExceeded` where a hard budget above a new run has nothing left at all.

        What calls under way hold does not count: they may give it back.
        """
        whom = CallContext("", owner, key_id, None, None, "", "", user_id)
        now = self._clock.now()
        rows = tx.execute(
            select(budgets)
            .where(
                budgets.c.subject.in_(whom.subjects()),
                budgets.c.organization_id == owner.organization_id,
                budgets.c.mode == "hard",
                budgets.c.spent >= budgets.c.limit,
            )
            .order_by(budgets.c.id)
        ).all()
        for row in rows:
            if row.limit and row.period_end is not None and now >= row.period_end:
                continue  # a new period has begun, and nothing is spent in it
            raise BudgetExceeded(
                f"The budget of this {row.subject_kind} is used up.",
                subject_kind=row.subject_kind,
                subject_id=row.subject_id,
                unit=row.unit,
                remaining=0,
                limit=row.limit,
            )

    async def reserve(
        self,
        context: CallContext,
        amount: MicroDollars,
        *,
        tokens: int = 0,
        final: bool = True,
        degraded: bool = False,
        holder: str | None = None,
    ) -> Reserved | Refused:
        """Hold the worst case against every budget that the call counts against, or against none.

        See `gateway.ports.Meter`. A call's id can be used once. Where the caller is cancelled the
        hold is given back. Raises `Unauthenticated` for who may spend no more.
        """
        request = Request(context, amount, tokens, final, degraded, holder)
        try:
            answer = await self._reserves.take(request)
        except Unavailable as error:
            if error.error_code == "commit_unknown":  # the hold may be there: nobody will settle it
                self._keep(self._nothing(context))
            raise
        if answer is None:
            raise Unauthenticated("The credential is not valid any more.", code="invalid_api_key")
        return answer

    async def _reserve(self, requests: Sequence[Request]) -> list[Reserved | Refused | None]:
        """None for a request of who may spend no more."""

        def verb(tx: Transaction) -> list[Reserved | Refused | None]:
            if not requests:
                return []
            good = [True] * len(requests)
            if self._entitled is not None:
                good = self._entitled(tx, [request.context for request in requests])
            wanted = [request for request, ok in zip(requests, good, strict=True) if ok]
            placed = iter(place(tx, wanted, self._instance_id, self._clock.now()) if wanted else ())
            return [next(placed) if ok else None for ok in good]

        return await self._database.write(verb)

    def _give_back(self, request: Request, answer: Reserved | Refused | None) -> None:
        if isinstance(answer, Reserved):
            self._keep(self._nothing(request.context))

    def _nothing(self, context: CallContext) -> LedgerEntry:
        return LedgerEntry(context, self._clock.now(), Usage(), 0, "error", 0)

    async def settle(self, entry: LedgerEntry) -> bool:
        """Turn a hold into a ledger entry. See `gateway.ports.Meter`."""
        try:
            return await self._settles.take(entry)
        except Unavailable:
            self._keep(entry)
            raise

    async def _settle(self, entries: Sequence[LedgerEntry]) -> list[bool]:
        return await self._database.write(lambda tx: book.settle(tx, entries, self._events))

    def _keep(self, entry: LedgerEntry) -> None:
        if len(self._unsettled) < MAX_UNSETTLED:
            self._unsettled[entry.context.call_id] = entry

    async def reconcile(self) -> int:
        """Settle what could not be settled when it was due; return how many. Raises `Unavailable`.

        For a background task, every few seconds.
        """
        kept = list(self._unsettled.values())
        settled = 0
        for entry in kept:
            settled += await self._settles.take(entry)
            self._unsettled.pop(entry.context.call_id, None)
        if settled:
            log.info("Calls were settled late.", calls=settled)
        return settled

    def holders(self, tx: Transaction) -> list[str]:
        """The instances that have placed the open holds, each once."""
        found = tx.execute(select(holds.c.instance_id).distinct()).scalars()
        return [each for each in found if not each.startswith(LASTING)]

    def held(
        self,
        tx: Transaction,
        holder: str,
        *,
        calls: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[Held]:
        """The open holds of an instance or another holder; with `calls` those of these calls."""
        query = select(holds).where(holds.c.instance_id == holder)
        if calls is not None:
            query = query.where(holds.c.call_id.in_(calls))
        rows = tx.execute(query.order_by(holds.c.call_id).limit(limit)).all()
        return [
            Held(
                CallContext(
                    row.call_id,
                    Owner(row.organization_id, row.project_id),
                    row.key_id,
                    row.run_id,
                    row.session_id,
                    row.provider,
                    row.model,
                    row.user_id,
                    tuple(row.tags or ()),
                ),
                row.amount,
                row.tokens,
                row.created_at,
            )
            for row in rows
        ]

    def settle_within(self, tx: Transaction, entries: Sequence[LedgerEntry]) -> list[bool]:
        """As `settle`, in a transaction of the caller's. False where there is no hold any more."""
        return book.settle(tx, entries, self._events)

    def settle_lost(self, tx: Transaction, instance_id: str) -> int:
        """Bill the open holds of an instance that died, each in full; return how many.

        What the provider served of such a call is unknown, but not more than its hold.
        """
        now = self._clock.now()
        return sum(self.settle_within(tx, [lost(held, now) for held in self.held(tx, instance_id)]))

    def run_totals(self, tx: Transaction, run_id: str) -> tuple[Usage, MicroDollars, int]:
        """What a run has used so far by the ledger: tokens, cost, calls."""
        columns = ledger.c
        row = tx.execute(
            select(
                func.coalesce(func.sum(columns.input_tokens), 0),
                func.coalesce(func.sum(columns.output_tokens), 0),
                func.coalesce(func.sum(columns.cache_write_tokens), 0),
                func.coalesce(func.sum(columns.cache_read_tokens), 0),
                func.coalesce(func.sum(columns.cache_write_1h_tokens), 0),
                func.coalesce(func.sum(columns.cost), 0),
                func.count(),
            ).where(columns.run_id == run_id)
        ).one()
        numbers = [int(value) for value in row]  # PostgreSQL sums to a Decimal
        return Usage(*numbers[:5]), numbers[5], numbers[6]

    def holds_of(self, tx: Transaction, instance_id: str) -> int:
        """How many calls of an instance are still held for."""
        query = select(func.count()).select_from(holds).where(holds.c.instance_id == instance_id)
        return int(tx.execute(query).scalar_one())
