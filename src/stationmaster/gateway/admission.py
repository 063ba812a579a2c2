"""The worst that a call can cost, and the hold that is placed for it.

First a bound of the input that costs nothing to know: no token is shorter than a byte. Where a
budget does not cover that, the provider is asked for the exact count. Where it still does not,
a run's `max_tokens` is lowered to what the budget pays for; and where a budget wants it so, a
cheaper model is tried.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal

import msgspec

from stationmaster.budgets.entry import CallContext, Refused, Reserved, Unit
from stationmaster.gateway.body import CallBody
from stationmaster.gateway.formats import Reply
from stationmaster.gateway.members import unspelled
from stationmaster.gateway.ports import CallObserver, CallRefused, Meter
from stationmaster.gateway.pricing import (
    ANTHROPIC,
    PER_TOKENS,
    US_ONLY,
    US_ONLY_FACTOR,
    Price,
    Rates,
)
from stationmaster.kernel.errors import BudgetExceeded, Exhausted
from stationmaster.kernel.money import MicroDollars, to_dollars, to_micros
from stationmaster.providers.base import Provider

MIN_OUTPUT_TOKENS = 1_024
"""A run's `max_tokens` is not lowered further: an answer cut shorter does more harm than none."""

COMFORTABLE_OUTPUT_TOKENS = 16_384
"""Room for nearly every answer. Below it the exact count of the input is worth asking for."""

HELD_RETRY_S = 1.0
"""When to try again where calls under way hold what is left of a budget."""

HIDDEN_TOKENS = 4_096
"""What a provider adds to a prompt at most: the system prompts that come with tools."""

UNBOUNDED_SEARCHES = 10
"""Web searches held for where a request allows them without a bound."""

# What a request can name without carrying it, or carry compressed: its bytes bound nothing.
_ELSEWHERE = re.compile(rb'"type"[ \t\r\n]*:[ \t\r\n]*"(?:url|file)"')
_ELSEWHERE_MEMBERS = frozenset({"mcp_servers", "container", "thread"})

_NO_DOLLARS = Decimal(0)

_PDF = (b"application/pdf", rb"application\/pdf")

CountTokens = Callable[["Candidate"], Awaitable[int | None]]
"""Asks the provider for the exact count of input tokens; None where it does not say."""


class Candidate(msgspec.Struct, frozen=True):
    """A model that may answer a call: where, at which prices, and who counts its tokens.

    `body` is the request in a format that the provider takes, `prices` its price list; `reply`
    turns the answer into what the client expects, None where it is that already. `holder` is who
    settles its hold, where that is not this server.
    """

    context: CallContext
    provider: Provider
    rates: Rates
    count_tokens: CountTokens
    body: CallBody
    prices: str = ANTHROPIC
    reply: Reply | None = None
    holder: str | None = None


Cheaper = Callable[[Candidate], Candidate | None]
"""The next cheaper model for the same call; None where there is none."""


class Admitted(msgspec.Struct, frozen=True):
    """A hold is placed. `raw` is the body to send, `input_tokens` exact where it was asked for.

    `candidate` is who answers: the model that was asked for, or a cheaper one.
    """

    candidate: Candidate
    raw: bytes
    max_tokens: int
    held: MicroDollars
    held_tokens: int
    input_tokens: int | None


class Admission:
    """Places holds."""

    def __init__(self, meter: Meter, observer: CallObserver) -> None:
        self._meter = meter
        self._observer = observer

    async def admit(self, candidate: Candidate, cheaper: Cheaper) -> Admitted:
        """Hold the worst case. Raises `BudgetExceeded` where a budget does not cover it.

        Where a budget that degrades does not, the call goes to the next cheaper model that it
        covers; the cheapest is used in any case.

        Raises `Exhausted` with code `budget_held` where it will, as soon as calls under way have
        given back what they hold, and `Unavailable` where the meter's store is away.
        """
        degraded = False
        while True:
            worst = WorstCase(candidate.body, candidate.rates)
            bound = input_bound(candidate.body, candidate.rates.context_window)
            plan = worst.plan(bound, worst.output_tokens)
            answer = await self._reserve(candidate, plan, degraded, final=False)
            if not isinstance(answer, Refused):
                return _admitted(candidate, worst, plan, None)
            admitted = await self._for_less(
                candidate, worst, plan, answer, bound=bound, degraded=degraded
            )
            if admitted is not None:
                return admitted
            following = cheaper(candidate)
            candidate, degraded = following or candidate, following is None

    async def _for_less(
        self,
        candidate: Candidate,
        worst: "WorstCase",
        plan: "_Plan",
        refusal: Refused,
        *,
        bound: int,
        degraded: bool,
    ) -> Admitted | None:
        """Admit to a model whose worst case was refused. None where a budget asks for a cheaper."""
        refusals = _Refusals(candidate.context.run_id is not None)
        if refusals.lowers(refusal):
            plan = worst.lowered(refusals.seen, bound)
            if plan.max_tokens >= COMFORTABLE_OUTPUT_TOKENS:
                answer = await self._reserve(candidate, plan, degraded, final=False)
                if not isinstance(answer, Refused):
                    return _admitted(candidate, worst, plan, None)
                refusal = answer
        counted = await candidate.count_tokens(candidate)
        if counted is not None:
            bound = min(bound, with_margin(counted))
        plan = worst.plan(bound, worst.output_tokens)
        if refusals.lowers(refusal) and any(map(plan.passes, refusals.seen)):
            plan = worst.lowered(refusals.seen, bound)
        answer = await self._reserve(candidate, plan, degraded, final=True)
        if not isinstance(answer, Refused):
            return _admitted(candidate, worst, plan, counted)
        refusal = answer
        if refusal.mode == "degrade":
            return None
        if refusal.passing(plan.of(refusal.unit)):
            raise Exhausted(
                f"The budget of this {refusal.subject_kind} is held by calls under way.",
                code="budget_held",
                retry_after=HELD_RETRY_S,
            )
        self._observer.observe(CallRefused(candidate.context, refusal))
        raise _exceeded(refusal, plan.of(refusal.unit))

    def _reserve(
        self, candidate: Candidate, plan: "_Plan", degraded: bool, *, final: bool
    ) -> Awaitable[Reserved | Refused]:
        return self._meter.reserve(
            candidate.context,
            plan.amount,
            tokens=plan.tokens,
            final=final,
            degraded=degraded,
            holder=candidate.holder,
        )


class _Plan(msgspec.Struct, frozen=True):
    max_tokens: int
    amount: MicroDollars
    tokens: int

    def of(self, unit: Unit) -> int:
        """The worst case in a budget's unit."""
        return self.amount if unit == "usd" else self.tokens

    def passes(self, refusal: Refused) -> bool:
        """Whether it asks for more than the budget that refused has left."""
        return self.of(refusal.unit) > refusal.remaining


class _Refusals:
    """The budgets that a call was refused for so far: a run's must be lowered to all of them."""

    def __init__(self, of_run: bool) -> None:
        self._of_run = of_run
        self.seen: list[Refused] = []

    def lowers(self, refusal: Refused) -> bool:
        """Note a refusal; tell whether to ask for less because of it."""
        if self._of_run and refusal.mode == "hard":
            self.seen.append(refusal)
        return bool(self.seen)


def _admitted(
    candidate: Candidate, worst: "WorstCase", plan: _Plan, counted: int | None
) -> Admitted:
    body, raw = candidate.body, candidate.body.raw
    changes: dict[str, bytes] = {}
    if body.model != candidate.context.model:
        changes["model"] = msgspec.json.encode(candidate.context.model)
    if plan.max_tokens != worst.output_tokens:
        changes[body.limit] = b"%d" % (plan.max_tokens // body.choices)
    if changes:
        raw = body.spliced(changes)
    return Admitted(candidate, raw, plan.max_tokens, plan.amount, plan.tokens, counted)


class WorstCase:
    """Prices a request as if everything that can be dear were."""

    __slots__ = ("_floor", "_input", "_output", "_searches", "output_tokens")

    def __init__(self, body: CallBody, rates: Rates) -> None:
        price = rates.worst
        if body.inference_geo == US_ONLY:
            price = price.scaled(US_ONLY_FACTOR)
        searches = UNBOUNDED_SEARCHES if body.web_searches is None else body.web_searches
        bound = rates.max_output if body.max_tokens is None else body.max_tokens
        self.output_tokens = bound * body.choices
        self._floor = max(MIN_OUTPUT_TOKENS, body.thinking_budget + 1) * body.choices
        self._output = price.output
        self._input = dearest_input(body, rates=price)
        self._searches = rates.search * searches if searches else _NO_DOLLARS

    def cost(self, input_tokens: int, output_tokens: int) -> MicroDollars:
        """The hold for so many tokens."""
        tokens = self._input * input_tokens + self._output * output_tokens
        return to_micros(tokens / PER_TOKENS + self._searches)

    def plan(self, input_tokens: int, output_tokens: int) -> _Plan:
        """What to ask for so many tokens."""
        amount = self.cost(input_tokens, output_tokens)
        return _Plan(output_tokens, amount, input_tokens + output_tokens)

    def lowered(self, refusals: Iterable[Refused], input_tokens: int) -> _Plan:
        """What to ask for when the whole does not fit.

        An agent makes several calls at once: one takes no more than half of what is left, but for
        an answer of comfortable length, which may take all of it.
        """
        tokens = self.output_tokens
        for refusal in refusals:
            left, unit = refusal.remaining, refusal.unit
            most = self.affordable(left, input_tokens, unit)
            half = self.affordable(left // 2, input_tokens, unit)
            tokens = min(tokens, max(half, min(most, COMFORTABLE_OUTPUT_TOKENS)))
        return self.plan(input_tokens, tokens)

    def affordable(self, remaining: int, input_tokens: int, unit: Unit = "usd") -> int:
        """The most output tokens that `remaining` pays for, but not under the floor.

        Never more than the request asks for. The floor leaves room above the thinking budget,
        which the provider wants to be under `max_tokens`.
        """
        if unit == "tokens":
            paid = remaining - input_tokens
        elif self._output > 0:
            left = remaining - self.cost(input_tokens, 0)
            paid = int(Decimal(left) / self._output)
        else:
            paid = self.output_tokens
        return min(self.output_tokens, max(self._floor, paid))


def input_bound(body: CallBody, context_window: int) -> int:
    """Tokens that the input of this body cannot exceed; nothing longer is served in one go."""
    elsewhere = body.elsewhere
    if elsewhere is None:
        elsewhere = not _ELSEWHERE_MEMBERS.isdisjoint(body.members) or _refers(body)
    return context_window if elsewhere else min(len(body.raw) + HIDDEN_TOKENS, context_window)


def _refers(body: CallBody) -> bool:
    raw = unspelled(body.raw) if body.escaped else body.raw
    # A long prompt is searched for plain words in a hundredth of the time of the pattern, and for
    # a long one in half the time of a short one. All that is looked for here is in a source.
    if b'"source"' not in raw:
        return False
    if any(name in raw for name in _PDF):
        return True
    return (b'"url"' in raw or b'"file"' in raw) and _ELSEWHERE.search(raw) is not None


def with_margin(counted: int) -> int:
    """Anthropic calls its count an estimate: two in a hundred more, and a little."""
    return counted + counted // 50 + 64


def dearest_input(body: CallBody, *, rates: Price) -> Decimal:
    """The price of the dearest input class that the request can make use of."""
    if body.operation not in {"messages", "count_tokens"}:
        return max(rates.input, rates.cache_read)  # the others charge nothing for keeping
    # An escape can spell any name: then nothing is excluded.
    if body.escaped or body.long_lived:
        return max(rates.input, rates.cache_write, rates.cache_write_1h)
    return max(rates.input, rates.cache_write) if body.cached else rates.input


def _exceeded(refusal: Refused, needed: int) -> BudgetExceeded:
    show = _dollars if refusal.unit == "usd" else _tokens
    return BudgetExceeded(
        f"The budget of this {refusal.subject_kind} does not cover the call: up to"
        f" {show(needed)} is needed, {show(refusal.remaining)} of {show(refusal.limit)} is left.",
        subject_kind=refusal.subject_kind,
        subject_id=refusal.subject_id,
        unit=refusal.unit,
        remaining=refusal.remaining,
        limit=refusal.limit,
        needed=needed,
    )


def _dollars(amount: int) -> str:
    return f"${to_dollars(amount):.6f}"


def _tokens(amount: int) -> str:
    return f"{amount} tokens"


def countable(body: CallBody, model: str) -> bytes:
    """A token count's body from a call's: the members that count, each byte as it came."""
    parts = [b'"model":' + msgspec.json.encode(model)]
    parts += [
        msgspec.json.encode(name) + b":" + bytes(value)
        for name, value in body.members.items()
        if name in _COUNTED
    ]
    return b"{" + b",".join(parts) + b"}"


_COUNTED = frozenset(
    {
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "mcp_servers",
        "context_management",
        "output_config",
        "cache_control",
    }
)
"""What the token count accepts; it refuses the rest of a call's members."""
