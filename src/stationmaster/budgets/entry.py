"""What one model call used and cost: the ledger's line."""

from typing import Literal

import msgspec

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.money import MicroDollars
from stationmaster.kernel.principal import Owner

Unit = Literal["usd", "tokens"]
"""What a budget counts: micro-dollars, or the tokens of the four classes together."""

Mode = Literal["hard", "soft", "degrade"]
"""What a budget does where it does not cover a call: refuse it, nothing but tell, or have a
cheaper model answer."""

Charge = tuple[str, Millis, Unit]
"""An account that a call counts against: a budget's id, the start of its period, its unit."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens in four classes, priced apart. `input_tokens` excludes both cache classes.

    `cache_write_1h_tokens` are the part of `cache_write_tokens` with the longer, dearer lifetime.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_1h_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
        )

    @property
    def total(self) -> int:
        """All four classes."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_write_tokens
            + self.cache_read_tokens
        )


Outcome = Literal["complete", "partial", "error", "unknown", "cached"]
"""How a call ended. `complete`: the provider said so. `partial`: cut off, billed for what came.
`error`: the provider refused, nothing billed. `unknown`: what was served cannot be known, billed
from above: the server died, or an answer that is not streamed did not come in time.
`cached`: nobody was asked, a kept answer was told again; nothing billed."""


class CallContext(msgspec.Struct, frozen=True):
    """Whom a call is for. `call_id` (prefix `call`) names the hold and the ledger entry alike.

    `user_id` is the person behind it, where there is one; `tags` are the caller's own words.
    """

    call_id: str
    owner: Owner
    key_id: str
    run_id: str | None
    session_id: str | None
    provider: str
    model: str
    user_id: str | None = None
    tags: tuple[str, ...] = ()

    def subjects(self) -> list[str]:
        """All that the call counts against, as budgets name them."""
        named = (
            ("organization", self.owner.organization_id),
            ("project", self.owner.project_id),
            ("key", self.key_id),
            ("user", self.user_id),
            ("session", self.session_id),
            ("run", self.run_id),
        )
        found = [f"{kind}:{of}" for kind, of in named if of]
        return found + [f"tag:{self.owner.project_id}:{tag}" for tag in self.tags]

    def columns(self) -> tuple[object, ...]:
        """All but the id, in the order of the columns from `organization_id` to `model`."""
        return (
            self.owner.organization_id,
            self.owner.project_id,
            self.key_id,
            self.user_id,
            self.run_id,
            self.session_id,
            list(self.tags) or None,
            self.provider,
            self.model,
        )


class LedgerEntry(msgspec.Struct, frozen=True):
    """One settled call. `lost_tokens` are the held ones of a call whose usage is unknown."""

    context: CallContext
    at: Millis
    usage: Usage
    cost: MicroDollars
    outcome: Outcome
    duration_ms: int
    lost_tokens: int = 0

    @property
    def tokens(self) -> int:
        """What budgets of tokens are charged."""
        return self.usage.total + self.lost_tokens


LASTING = "bsub_"
"""Who places a hold settles it, and for a server that died the others do. A holder with this prefix
is no server: it is a submission of a batch, outlives them all, and is settled when it has ended."""


class Held(msgspec.Struct, frozen=True):
    """An open hold."""

    context: CallContext
    amount: MicroDollars
    tokens: int
    created_at: Millis


class Reserved(msgspec.Struct, frozen=True):
    """A hold is placed: the call may go out."""

    amount: MicroDollars


class Refused(msgspec.Struct, frozen=True):
    """A budget does not cover the worst case. `remaining` is what the tightest one still has.

    `held` is the part of it that other calls hold now: they may give much of it back. All in
    `unit`. With the mode `degrade`, a cheaper model is all that it asks for.
    """

    remaining: int
    held: int
    limit: int
    subject_kind: str
    subject_id: str
    unit: Unit = "usd"
    mode: Mode = "hard"

    def passing(self, amount: int) -> bool:
        """Whether `amount` would fit once the calls under way have given back all they hold."""
        return amount <= self.remaining + self.held


def lost(held: Held, now: Millis) -> LedgerEntry:
    """The entry of a call of which nobody knows what it has used: its whole hold."""
    return LedgerEntry(
        context=held.context,
        at=now,
        usage=Usage(),
        cost=held.amount,
        outcome="unknown",
        duration_ms=max(0, now - held.created_at),
        lost_tokens=held.tokens,
    )


def unspent(held: Held, now: Millis) -> LedgerEntry:
    """The entry of a call that was not made, or not billed."""
    return LedgerEntry(held.context, now, Usage(), 0, "error", max(0, now - held.created_at))
