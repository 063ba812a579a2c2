"""Calls that a provider makes in a batch of its own: held for now, settled when it has answered.

The rights, the routes, the holds and the prices are those of any call. What differs: a hold lasts
until the batch has ended, whichever server is there then, and tokens cost a share of their price.
Rate limits do not count here, nor is a kept answer told: nobody waits, and the provider has limits
of its own for batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from stationmaster.budgets.entry import Held, LedgerEntry, lost
from stationmaster.calls import CallKeeper
from stationmaster.gateway.admission import Candidate
from stationmaster.gateway.asked import Asked
from stationmaster.gateway.billing import Tariff
from stationmaster.gateway.dispatch import SCOPE, Gateway
from stationmaster.gateway.formats import PARSERS, served_whole
from stationmaster.gateway.ports import CallEnded, CallObserver, CallStarted
from stationmaster.gateway.routing import Target
from stationmaster.gateway.tape import Tape
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid, NotFound, StationmasterError
from stationmaster.kernel.principal import Principal
from stationmaster.providers.base import Operation
from stationmaster.providers.batches import BatchInterface

ClientHeaders = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a call is deferred to: a provider, its name for the model, and what is paid there.

    `prices` is its price list, `share` the part of these prices that is paid in its batches.
    """

    provider: str
    model: str
    prices: str
    share: Decimal


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as its client wrote it."""

    operation: Operation
    raw: bytes
    headers: ClientHeaders = ()


class Deferred:
    """What the gateway does for calls in providers' own batches. Nothing else may make them."""

    def __init__(
        self,
        gateway: Gateway,
        observer: CallObserver,
        clock: Clock,
        keeper: CallKeeper | None = None,
    ) -> None:
        self._gateway = gateway
        self._observer = observer
        self._clock = clock
        self._keeper = keeper

    @property
    def offered(self) -> bool:
        """Whether there is a provider to whose batches calls go."""
        return any(each.native is not None for each in self._gateway.models.upstreams())

    def destination(self, principal: Principal, ask: Ask) -> Destination | None:
        """Where a call goes that is chosen now; None where it is to be made as any other.

        Never raises: what is wrong with a request is told when it is made.
        """
        try:
            principal.require(SCOPE)
            asked = self._asked(principal, ask)
            return _native(self._gateway.targets(asked)[0], asked)
        except StationmasterError:
            return None

    def _asked(self, principal: Principal, ask: Ask, call_id: str | None = None) -> Asked:
        body = PARSERS[ask.operation](ask.raw)
        self._gateway.check_models(principal, body)
        return Asked(principal, body, list(ask.headers), "", call_id)

    async def hold(
        self, principal: Principal, ask: Ask, to: Destination, *, call_id: str, holder: str
    ) -> bytes | None:
        """Place the hold of a call; return the body to send.

        None where the provider does not take it in its batches any more: then nothing is held.
        `holder` is who settles it. Raises as `Gateway.admit` does, but for rate limits.
        """
        principal.require(SCOPE)
        asked = self._asked(principal, ask, call_id)
        try:
            found = self._gateway.targets(asked, to.provider)
        except NotFound:
            return None
        there = [target for target in found if target.model == to.model and _native(target, asked)]
        if not there:
            return None

        def deferred(candidate: Candidate) -> Candidate:
            return msgspec.structs.replace(
                candidate, rates=candidate.rates.scaled(to.share), holder=holder
            )

        upstream = there[0].upstream
        upstream.engage()
        try:
            admitted = await self._gateway.held(self._gateway.models, asked, there[0], deferred)
        finally:
            upstream.disengage()
        return admitted.raw

    def bill(self, held: Held, ask: Ask, to: Destination, answer: bytes) -> LedgerEntry:
        """The entry of a call that was answered. What tells no usage costs its whole hold."""
        now = self._clock.now()
        try:
            body = PARSERS[ask.operation](ask.raw)
            pricing = self._gateway.models.pricing
            rates = pricing.rates(held.context.model, prices=to.prices, speed=body.speed)
        except (Invalid, NotFound):
            return lost(held, now)
        served = served_whole(body, answer)
        if served is None:
            return lost(held, now)
        tariff = Tariff(pricing, to.prices, held.context.model, rates, to.share)
        return LedgerEntry(
            context=held.context,
            at=now,
            usage=served.usage,
            cost=tariff.cost(served, body),
            outcome="complete",
            duration_ms=max(0, now - held.created_at),
        )

    def note(self, entry: LedgerEntry, ask: Ask, answer: bytes | None, status: int | None) -> None:
        """Tell of a call that is settled: the metrics, and where the project keeps its calls.

        Of one without an answer, which was never made, nothing is kept.
        """
        self._observer.observe(CallStarted(entry.context))
        self._observer.observe(
            CallEnded(
                context=entry.context,
                usage=entry.usage,
                cost=entry.cost,
                outcome=entry.outcome,
                status=status,
                stop_reason=None,
                duration_ms=entry.duration_ms,
                first_byte_ms=None,
            )
        )
        keeper = self._keeper
        if keeper is None or answer is None:
            return
        if keeper.wants(entry.context.owner, of_run=False):
            Tape(keeper, ask.operation, ask.raw).end(entry.context, entry, answer)

    @contextmanager
    def interface(self, provider: str) -> Iterator[BatchInterface]:
        """A provider's interface for batches, which stays open meanwhile.

        Raises `NotFound` where the configuration names no such provider any more.
        """
        for upstream in self._gateway.models.upstreams():
            found: BatchInterface | None = getattr(upstream.provider, "batches", None)
            if upstream.name == provider and found is not None:
                upstream.engage()
                try:
                    yield found
                finally:
                    upstream.disengage()
                return
        raise NotFound(f"The configuration names no provider {provider!r} that takes batches.")


def _native(target: Target, asked: Asked) -> Destination | None:
    """Where a call goes if this is its target; None where its provider makes it by itself.

    A request that is in another format, or asks for a speed or tier with a price of its own, is
    none for a batch.
    """
    upstream, body = target.upstream, asked.body
    found: BatchInterface | None = getattr(upstream.provider, "batches", None)
    if upstream.native is None or found is None or body.stream or body.speed is not None:
        return None
    if body.operation not in found.operations & upstream.provider.operations:
        return None
    return Destination(upstream.name, target.model, target.prices, upstream.native)
