"""What the gateway needs of the rest of the server, and what it tells it."""

from typing import Protocol

import msgspec

from stationmaster.budgets.entry import (
    CallContext,
    LedgerEntry,
    Outcome,
    Refused,
    Reserved,
    Usage,
)
from stationmaster.kernel.money import MicroDollars


class Meter(Protocol):
    """Holds and the ledger. `stationmaster.budgets.Budgets` is the real one."""

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
        """Hold `amount`, or `tokens`, against every budget the call counts against, or none.

        A refusal with the mode `degrade` asks for a cheaper model; with `degraded` there is none,
        and such a budget lets the call pass. `holder` is who will settle it, where that is not this
        server: it has `budgets.entry.LASTING` before it.

        A refusal with `final` is written down, so that a run can tell why it was stopped, unless
        it is `passing`; a refusal without is only an answer (the caller will try with less).
        Raises `Unavailable` where the store is away: without a hold nothing may be spent; and
        `Unauthenticated` for a credential that was good when the call began and is not any more.
        """
        ...

    async def settle(self, entry: LedgerEntry) -> bool:
        """Turn the hold into a ledger entry. Idempotent by call id; False where already settled.

        Completes even where the caller is cancelled.
        """
        ...


class CallStarted(msgspec.Struct, frozen=True):
    """A model call has been dispatched."""

    context: CallContext


class CallEnded(msgspec.Struct, frozen=True):
    """A model call has been settled. `stop_reason` and `status` are the provider's, if it said."""

    context: CallContext
    usage: Usage
    cost: MicroDollars
    outcome: Outcome
    status: int | None
    stop_reason: str | None
    duration_ms: int
    first_byte_ms: int | None


class CallRefused(msgspec.Struct, frozen=True):
    """A model call was refused for cost before it was made."""

    context: CallContext
    refusal: Refused


class CallObserver(Protocol):
    """Told of each call, in order, on the event loop. Must not block or raise."""

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """Take note of one event."""
        ...
