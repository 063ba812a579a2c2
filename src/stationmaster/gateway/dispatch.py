"""The one way to a model: parse, route, hold, send, settle."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus

import structlog

from stationmaster.access.roles import is_operator
from stationmaster.cache import AnswerCache
from stationmaster.calls import CallKeeper
from stationmaster.gateway.abilities import able
from stationmaster.gateway.admission import Admission, Admitted, Candidate, countable
from stationmaster.gateway.asked import Asked, ClientHeaders, rates_of, translated
from stationmaster.gateway.attempt import Attempt, Services
from stationmaster.gateway.body import CallBody
from stationmaster.gateway.cacheable import Wish, question, wish_of
from stationmaster.gateway.cached import CachedCall
from stationmaster.gateway.call import Following, GatewayCall
from stationmaster.gateway.catalogue import Catalogue
from stationmaster.gateway.counting import (
    ESTIMATED,
    Counted,
    ask_count,
    in_openais_words,
    told,
)
from stationmaster.gateway.formats import PARSERS
from stationmaster.gateway.ports import CallObserver, Meter
from stationmaster.gateway.routing import Models, Target
from stationmaster.gateway.tape import Tape
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Denied, Invalid, NotFound
from stationmaster.kernel.principal import Principal
from stationmaster.limits import Limiter
from stationmaster.limits.grant import NOTHING, UNLIMITED
from stationmaster.providers.base import Operation, ProviderRequest
from stationmaster.providers.headers import to_provider

log = structlog.get_logger(__name__)

SCOPE = "write:messages"
EXPECTED_OUTPUT = 1_000
"""Tokens, for rate limits, where the client names no bound."""

EXPECTED_BYTES_PER_TOKEN = 4
"""For rate limits, which are put right afterwards: English has about as many."""

Deferral = Callable[[Candidate], Candidate]
"""What makes a candidate of a call that is put off."""


class Gateway:
    """Every model call of every caller goes through here.

    The gateway closes no provider: whoever made them does.
    """

    def __init__(
        self,
        *,
        models: Models,
        meter: Meter,
        observer: CallObserver,
        clock: Clock,
        limiter: Limiter | None = None,
        cache: AnswerCache | None = None,
        keeper: CallKeeper | None = None,
    ) -> None:
        self._models = models
        self._keeper = keeper
        self._cache = cache
        self._limiter = limiter
        self._services = Services(models.pricing, meter, observer, clock)
        self._admission = Admission(meter, observer)

    @property
    def models(self) -> Models:
        """What is known of models now."""
        return self._models

    def use(self, models: Models) -> None:
        """From now on, know these. Calls under way go on as they began."""
        self._models = models
        self._services = replace(self._services, pricing=models.pricing)

    @property
    def catalogue(self) -> Catalogue:
        """The names it knows."""
        return self._models.catalogue

    def check_model(self, name: str, principal: Principal | None = None) -> None:
        """Raise `NotFound` where calls to this model would be refused for want of a price.

        And `Denied` where they would be refused to the caller.
        """
        if principal is not None:
            self._check_model(principal, name)
        target = self._models.targets(name)[0]
        self._models.pricing.rates(target.model, prices=target.prices)

    async def admit(
        self,
        principal: Principal,
        raw: bytes,
        headers: ClientHeaders = (),
        query: str = "",
        *,
        operation: Operation = "messages",
        address: str | None = None,
        provider: str | None = None,
        call_id: str | None = None,
    ) -> GatewayCall:
        """Check a request and place its hold; nothing is sent yet.

        `operation` is the format of `raw` and of the answer. `headers` are the client's (only
        those that may pass are used), `query` its query string, `address` where it comes from; with
        `provider` no other is asked. The caller must `aclose` what it gets, whatever happens.
        `call_id` is the call's in the ledger, where the caller has one of its own that never comes
        twice; attempts after the first have it with a number behind.

        Raises `Denied` without the scope `write:messages` or for a model that the caller may not
        use, `Invalid` for a body that cannot be read or put into the words of the model's
        provider, `NotFound` for a model that nobody serves or that has no price (code
        `unknown_price`), `RateLimited` where it comes too fast, `BudgetExceeded` where a budget
        does not cover the worst case, and `Unavailable` where nobody can tell.
        """
        principal.require(SCOPE)
        body = PARSERS[operation](raw)
        self.check_models(principal, body)
        asked = Asked(principal, body, list(headers), query, call_id)
        wish = None if self._cache is None else wish_of(body, asked.given)
        grant = NOTHING
        if self._limiter is not None:
            grant = await self._limiter.admit(
                principal,
                "chat",
                address=address,
                input_tokens=-(-len(raw) // EXPECTED_BYTES_PER_TOKEN),
                output_tokens=EXPECTED_OUTPUT if body.max_tokens is None else body.max_tokens,
            )
        try:
            call = await self._hold(asked, provider, wish)
        except BaseException:
            grant.finish(0, 0)
            raise
        call.grant = grant
        keeper = self._keeper
        if keeper is not None and keeper.wants(principal.owner, of_run=principal.kind == "run"):
            call.tape = Tape(keeper, operation, raw)
        return call

    async def _hold(self, asked: Asked, provider: str | None, wish: Wish | None) -> GatewayCall:
        models = self._models
        found = self.targets(asked, provider)
        engaged = [target.upstream for target in found]
        for upstream in engaged:
            upstream.engage()
        try:
            admitted = await self.held(models, asked, found[0])
            first = self._attempt(asked, found[0], admitted)
            following = self._following(models, asked, found[1:]) if len(found) > 1 else None
            if wish is None or self._cache is None:
                call = GatewayCall(first, following)
            else:
                call = self._cached(self._cache, asked, wish, first, following)
        except BaseException:
            for upstream in engaged:
                upstream.disengage()
            raise
        call.engaged = engaged
        return call

    def targets(self, asked: Asked, provider: str | None = None) -> list[Target]:
        """Whom to ask, in order; with `provider` nobody else.

        Raises `Denied`, `Invalid` and `NotFound` as `admit`.
        """
        models = self._models
        found = models.targets(asked.body.model, sticky=asked.sticky, tags=asked.tags)
        if provider is not None:
            found = _at(provider, found)
        for target in found:
            if getattr(target.upstream.provider, "owner_only", False):
                found = _permitted(asked.principal, found)
                break
        if models.pricing.lacks:
            found = able(found, models.pricing.lacks, asked.body)
        return found

    def _following(self, models: Models, asked: Asked, others: list[Target]) -> Following:
        targets = iter(others)

        async def following() -> Attempt | None:
            for target in targets:
                try:
                    admitted = await self.held(models, asked, target)
                    return self._attempt(asked, target, admitted)
                except (Invalid, NotFound) as error:  # it could not be put so, or has no price
                    log.info("A fallback cannot take this call.", code=error.error_code)
            return None

        return following

    def _cached(
        self,
        cache: AnswerCache,
        asked: Asked,
        wish: Wish,
        first: Attempt,
        following: Following | None,
    ) -> CachedCall:
        told = question(
            asked.body,
            asked.passing,
            asked.query,
            provider=first.context.provider,
            model=first.context.model,
            max_tokens=first.max_tokens,
        )
        place = cache.place(first.context.owner, told)
        clock = self._services.clock
        return CachedCall(first, following, cache=cache, place=place, wish=wish, clock=clock)

    def _attempt(self, asked: Asked, target: Target, admitted: Admitted) -> Attempt:
        chosen = admitted.candidate
        body = chosen.body
        operation = body.operation
        query = asked.query if operation == asked.body.operation else ""
        request = ProviderRequest(
            operation, chosen.context.model, admitted.raw, asked.passing, body.stream, query
        )
        return Attempt(
            upstream=target.upstream,
            request=request,
            admitted=admitted,
            services=self._services,
        )

    def held(
        self, models: Models, asked: Asked, target: Target, deferral: Deferral | None = None
    ) -> Awaitable[Admitted]:
        """Place the hold for one target, or for a cheaper model where a budget wants that.

        `deferral` changes each candidate. Raises as `admit`, some of it at once.
        """

        def cheaper(present: Candidate) -> Candidate | None:
            model = models.catalogue.cheaper(present.context.model)
            if model is None or not self.may_use(asked.principal, model):
                return None
            try:
                found = asked.candidate(models, replace(target, model=model))
            except NotFound:  # it has no price
                return None
            return found if deferral is None else deferral(found)

        first = asked.candidate(models, target)
        return self._admission.admit(first if deferral is None else deferral(first), cheaper)

    async def messages(
        self, principal: Principal, raw: bytes, headers: ClientHeaders = (), query: str = ""
    ) -> GatewayCall:
        """`admit` and `start` in one: the call that is returned has its status and headers.

        Raises what both raise; then nothing is left to close.
        """
        call = await self.admit(principal, raw, headers, query)
        try:
            await call.start()
        except BaseException:
            await call.aclose()
            raise
        return call

    async def count_tokens(
        self,
        principal: Principal,
        raw: bytes,
        headers: ClientHeaders = (),
        query: str = "",
        *,
        operation: Operation = "count_tokens",
        address: str | None = None,
    ) -> Counted:
        """Count the input tokens of a request. Costs nothing, and needs no hold.

        The answer is in the words of `operation`; of `responses` they are OpenAI's.

        Raises `Denied`, `Invalid` and `RateLimited` as `admit`, and `Upstream` where no answer
        came.
        """
        principal.require(SCOPE)
        body = PARSERS[operation](raw)
        self.check_models(principal, body)
        standing = UNLIMITED
        if self._limiter is not None:
            standing = (await self._limiter.admit(principal, "read", address=address)).standing
        target = self._models.targets(body.model)[0]
        provider, model = target.upstream.provider, target.model
        if "count_tokens" not in provider.operations:
            estimate = -(-len(raw) // EXPECTED_BYTES_PER_TOKEN)
            return Counted(HTTPStatus.OK, ESTIMATED, told(operation, estimate), standing)
        if operation == "responses":
            rates = rates_of(self._models.pricing, target, body)
            sent = countable(translated(body, provider, model, rates)[0], model)
        else:
            sent = raw if model == body.model else body.with_model(model)
        target.upstream.engage()
        try:
            counted = await ask_count(provider, model, sent, to_provider(headers), query)
        finally:
            target.upstream.disengage()
        if operation == "responses":
            counted = in_openais_words(counted)
        return replace(counted, standing=standing)

    def may_use(self, principal: Principal, name: str) -> bool:
        """Whether a caller may use a model, by any of the names that stand for it."""
        try:
            self._check_model(principal, name)
        except Denied:
            return False
        return True

    def _check_model(self, principal: Principal, name: str) -> None:
        if principal.models is not None:
            principal.require_model(
                name, *self._models.catalogue.names_of(self._models.catalogue.resolve(name))
            )

    def check_models(self, principal: Principal, body: CallBody) -> None:
        """Raise `Denied` for a model that the caller may not use.

        Also for one that the provider may call on its own behalf.
        """
        if principal.models is None:
            return
        for name in (body.model, *body.other_models):
            self._check_model(principal, name)


def _at(provider: str, targets: list[Target]) -> list[Target]:
    """Those of one provider. Raises `NotFound`."""
    kept = [target for target in targets if target.upstream.name == provider]
    if not kept:
        raise NotFound(
            f"model: The provider {provider} does not serve it.",
            code="unknown_model",
            param="model",
        )
    return kept


def _permitted(principal: Principal, targets: list[Target]) -> list[Target]:
    """Those that the caller may have. Raises `Denied` where a login is for its owner alone."""
    if is_operator(principal):
        return targets
    kept = [each for each in targets if not getattr(each.upstream.provider, "owner_only", False)]
    if not kept:
        raise Denied(
            "This model answers by a login that is its owner's alone.",
            code="owner_only",
            param="model",
        )
    return kept
