"""A meter without a database: one optional budget for everything, holds and entries in memory."""

from dataclasses import dataclass, field

from stationmaster.budgets.entry import CallContext, LedgerEntry, Refused, Reserved, Usage
from stationmaster.gateway.ports import CallEnded, CallRefused, CallStarted
from stationmaster.kernel.errors import Unavailable


@dataclass(slots=True)
class MemoryMeter:
    """Refuses what `limit` (micro-dollars) does not cover; None is no limit.

    `asked` keeps every reservation that was tried: (amount, final). `away` makes the store fail.
    """

    limit: int | None = None
    away: bool = False
    holds: dict[str, int] = field(default_factory=dict)
    entries: dict[str, LedgerEntry] = field(default_factory=dict)
    asked: list[tuple[int, bool]] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)

    @property
    def spent(self) -> int:
        """Micro-dollars in the ledger."""
        return sum(entry.cost for entry in self.entries.values())

    @property
    def usage(self) -> Usage:
        """Tokens in the ledger."""
        return sum((entry.usage for entry in self.entries.values()), Usage())

    @property
    def last(self) -> LedgerEntry:
        """The entry made last."""
        return list(self.entries.values())[-1]

    async def reserve(
        self,
        context: CallContext,
        amount: int,
        *,
        tokens: int = 0,
        final: bool = True,
        degraded: bool = False,
        holder: str | None = None,
    ) -> Reserved | Refused:
        """See `Meter.reserve`."""
        if self.away:
            raise Unavailable
        self.asked.append((amount, final))
        if self.limit is not None:
            remaining = self.limit - self.spent - sum(self.holds.values())
            if amount > remaining:
                refused = Refused(
                    max(0, remaining),
                    sum(self.holds.values()),
                    self.limit,
                    "run",
                    context.run_id or "",
                )
                if final:
                    self.refusals.append(refused)
                return refused
        self.holds[context.call_id] = amount
        return Reserved(amount)

    async def settle(self, entry: LedgerEntry) -> bool:
        """See `Meter.settle`."""
        if self.away:
            raise Unavailable
        if entry.context.call_id in self.entries:
            return False
        del self.holds[entry.context.call_id]
        self.entries[entry.context.call_id] = entry
        return True


@dataclass(slots=True)
class Notebook:
    """An observer that keeps what it is told, in order."""

    events: list[CallStarted | CallEnded | CallRefused] = field(default_factory=list)

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """Take note."""
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        """The names of the events' types."""
        return [type(event).__name__ for event in self.events]

    @property
    def ended(self) -> CallEnded:
        """The last call's end."""
        return [event for event in self.events if isinstance(event, CallEnded)][-1]
