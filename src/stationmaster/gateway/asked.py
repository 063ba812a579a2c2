"""What a client asks for, and how it is put to each provider."""

from collections.abc import Iterable, Sequence

from stationmaster.budgets.definition import check_tags
from stationmaster.budgets.entry import CallContext
from stationmaster.gateway.admission import Candidate, countable
from stationmaster.gateway.body import CallBody
from stationmaster.gateway.counting import exact_count
from stationmaster.gateway.formats import BOUND, PARSERS, Reply, asking_for_usage, bounded_by
from stationmaster.gateway.openai_body import parse_chat
from stationmaster.gateway.openai_usage import UsageFilter
from stationmaster.gateway.pricing import Pricing, Rates
from stationmaster.gateway.routing import Models, Target
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Principal
from stationmaster.providers.base import Operation, Provider
from stationmaster.providers.headers import to_provider

TAGS_HEADER = "x-stationmaster-tags"

SESSION_HEADER = "x-stationmaster-session"
"""Calls that name the same session stay with one provider, where there are several."""

TRANSLATED: tuple[Operation, ...] = ("messages", "chat")
"""The formats into which a request is put that its provider does not take, best first."""
_TRANSLATABLE = frozenset({"messages", "chat", "responses"})

DEFAULT_ANSWER = 32_000
"""Tokens: for a provider that wants a bound where the client names none."""

ClientHeaders = Iterable[tuple[str, str]]


class Asked:
    """What a client asks for, and how it is put to each provider."""

    def __init__(
        self,
        principal: Principal,
        body: CallBody,
        headers: list[tuple[str, str]],
        query: str,
        call_id: str | None = None,
    ) -> None:
        self.principal = principal
        self.body = body
        self.given = dict(headers)
        self.query = query
        self._call_id = call_id
        self._asked = 0
        self.tags: tuple[str, ...] = ()
        if principal.kind == "run":
            self.tags = principal.tags
        elif TAGS_HEADER in self.given:
            self.tags = _tags(headers)
        self.sticky = principal.session_id
        if not self.sticky and SESSION_HEADER in self.given:
            self.sticky = next(value for name, value in headers if name == SESSION_HEADER)
        self.passing = to_provider(headers)

    def _next_call_id(self) -> str:
        if self._call_id is None:
            return new_id("call")
        self._asked += 1
        return self._call_id if self._asked == 1 else f"{self._call_id}.{self._asked}"

    def candidate(self, models: Models, target: Target) -> Candidate:
        """The call as one target would get it. Raises `Invalid` and `NotFound`."""
        principal, provider, model = self.principal, target.upstream.provider, target.model
        context = CallContext(
            self._next_call_id(),
            principal.owner,
            principal.key_id,
            principal.run_id,
            principal.session_id,
            target.upstream.name,
            model,
            principal.user_id,
            self.tags,
        )
        rates = rates_of(models.pricing, target, self.body)
        body, reply = as_taken(self.body, provider, model, rates)
        return Candidate(context, provider, rates, self._count, body, target.prices, reply)

    async def _count(self, candidate: Candidate) -> int | None:
        body, provider, model = candidate.body, candidate.provider, candidate.context.model
        if body.operation != "messages" or "count_tokens" not in provider.operations:
            return None
        return await exact_count(provider, model, countable(body, model), self.passing, self.query)


def rates_of(pricing: Pricing, target: Target, body: CallBody) -> Rates:
    """The prices of a call at one target. Raises `NotFound` where there is none."""
    rates = pricing.rates(target.model, prices=target.prices, speed=body.speed)
    if body.other_models:
        others = (pricing.rates(name, prices=target.prices) for name in body.other_models)
        rates = rates.or_dearer(others)
    return rates


def as_taken(
    body: CallBody, provider: Provider, model: str, rates: Rates
) -> tuple[CallBody, Reply | None]:
    """The request in a format that the provider takes, and what its answer must go through."""
    reply: Reply | None = None
    if body.operation == "chat":
        field = getattr(provider, "max_tokens_field", None)
        if field is not None:
            body = bounded_by(body, field)
    if body.operation not in provider.operations:
        body, reply = translated(body, provider, model, rates)
    if body.operation == "chat" and body.stream and not body.usage_asked_for:
        body = parse_chat(asking_for_usage(body))
        reply = reply or UsageFilter()
    return body, reply


def translated(
    body: CallBody, provider: Provider, model: str, rates: Rates
) -> tuple[CallBody, Reply]:
    """The request in another format that the provider takes, and what puts the answer back.

    Raises `Invalid` where there is none.
    """
    # Only some clients, and some servers, ever need it.
    from stationmaster.gateway.translation import translate

    for operation in TRANSLATED:
        if operation in provider.operations and body.operation in _TRANSLATABLE:
            made = translate(
                body.operation,
                operation,
                body.raw,
                model=model,
                default_max_tokens=min(rates.max_output, DEFAULT_ANSWER),
                max_tokens_field=getattr(provider, "max_tokens_field", None) or BOUND,
            )
            return PARSERS[operation](made.body), made
    raise Invalid(
        f"model: {body.model} does not take requests of this kind ({body.operation}).",
        param="model",
    )


def _tags(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The caller's own words for what a call is for."""
    words = [value for name, value in headers if name == TAGS_HEADER]
    return check_tags(tuple(word.strip() for word in ",".join(words).split(",")))
