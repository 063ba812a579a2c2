"""What a call costs: exact decimal sums over the token classes, rounded up once.

Prices come from the genai-prices package (data inside the wheel; nothing is fetched), and may be
overridden by configuration. A model without a price is refused: what cannot be billed cannot be
held for either.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import TYPE_CHECKING

from stationmaster.budgets.entry import Usage
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.money import MicroDollars, to_micros

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, Provider, TieredPrices

PER_TOKENS = Decimal(1_000_000)
ANTHROPIC = "anthropic"
"""The price list asked where nothing else is said; each other vendor has its own."""

# Ratios to the base price of input, used where a price list leaves a class out. They are
# Anthropic's own for every model so far, and the dearest where its models differ.
_WRITE_RATIO = Decimal("1.25")
_WRITE_1H_RATIO = Decimal(2)
_READ_RATIO = Decimal("0.1")
_SEARCH_PER_THOUSAND = Decimal(10)

US_ONLY = "us"
US_ONLY_FACTOR = Decimal("1.1")
"""Anthropic's surcharge on every token class where `inference_geo` is `us`."""

DEFAULT_CONTEXT_WINDOW = 1_000_000
"""Tokens; an upper bound for models whose window the price list does not tell."""

DEFAULT_MAX_OUTPUT = 128_000
"""Tokens that a model writes at most where nobody says; none of today's writes more in one go."""

FREE = "free"
"""The price list of what costs nothing: models on one's own machines."""

_TIERS = frozenset({"fast", "priority", "flex"})
"""What a request may ask for that changes its price: Anthropic's `speed`, OpenAI's tier."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for a million tokens, in each class."""

    input: Decimal
    output: Decimal
    cache_write: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal

    @classmethod
    def of(cls, values: Mapping[str, Decimal]) -> "Price":
        """Make one of at least `input` and `output`; the cache classes follow from input."""
        base = values["input"]
        return cls(
            input=base,
            output=values["output"],
            cache_write=values.get("cache_write", base * _WRITE_RATIO),
            cache_write_1h=values.get("cache_write_1h", base * _WRITE_1H_RATIO),
            cache_read=values.get("cache_read", base * _READ_RATIO),
        )

    def scaled(self, factor: Decimal) -> "Price":
        """Every class times `factor`."""
        return Price(*(getattr(self, name) * factor for name in Price.__slots__))

    def dollars(self, usage: Usage) -> Decimal:
        """The exact sum for `usage`."""
        found: Decimal = self.input * usage.input_tokens + self.output * usage.output_tokens
        if usage.cache_write_tokens or usage.cache_write_1h_tokens:
            short_lived = usage.cache_write_tokens - usage.cache_write_1h_tokens
            found += self.cache_write * short_lived
            found += self.cache_write_1h * usage.cache_write_1h_tokens
        if usage.cache_read_tokens:
            found += self.cache_read * usage.cache_read_tokens
        return found / PER_TOKENS


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices of one model. `tiers` are (start, price), ascending, the first from 0.

    A prompt longer than a tier's start (all input classes together) pays that tier's price for
    every token of the call.
    """

    tiers: tuple[tuple[int, Price], ...]
    worst: Price
    search: Decimal = _SEARCH_PER_THOUSAND / 1000
    context_window: int = DEFAULT_CONTEXT_WINDOW
    max_output: int = DEFAULT_MAX_OUTPUT

    def cost(self, usage: Usage, *, inference_geo: str | None = None) -> Decimal:
        """Exact dollars for `usage` in one request."""
        price = self.tiers[0][1]
        if len(self.tiers) > 1:
            prompt = usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens
            for start, dearer in self.tiers[1:]:
                if prompt > start:
                    price = dearer
        dollars = price.dollars(usage)
        return dollars * US_ONLY_FACTOR if inference_geo == US_ONLY else dollars

    def scaled(self, factor: Decimal) -> "Rates":
        """Every token times `factor`; searches cost what they cost."""
        tiers = tuple((start, price.scaled(factor)) for start, price in self.tiers)
        return replace(self, tiers=tiers, worst=self.worst.scaled(factor))

    def or_dearer(self, others: Iterable["Rates"]) -> "Rates":
        """Rates whose worst case bounds those of every other too. Only for holds."""
        every = [self.worst, *(other.worst for other in others)]
        return replace(self, worst=_dearest(every))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an operator says of a model. None: as the price list has it.

    `price` is in dollars for a million tokens: `input` and `output`, and optionally `cache_write`,
    `cache_write_1h` and `cache_read`. `lacks` are the abilities that it does not have.
    """

    price: Mapping[str, Decimal | str | int | float] | None = None
    context_window: int | None = None
    max_output: int | None = None
    lacks: frozenset[str] = frozenset()


class Pricing:
    """Prices by model, as of the clock's day.

    `facts` are what the operator says of models, by their exact names.
    """

    def __init__(self, *, clock: Clock, facts: Mapping[str, ModelFacts] | None = None) -> None:
        """Raises `Invalid` for a price that is none."""
        self._clock = clock
        self._facts = dict(facts or {})
        self._given = {
            model: _flat(_check_price(model, known.price))
            for model, known in self._facts.items()
            if known.price is not None
        }
        self._lacks = {model: known.lacks for model, known in self._facts.items() if known.lacks}
        self._windows: dict[tuple[str, str], int | None] = {}
        self._cache: dict[tuple[str, str, str | None], Rates] = {}
        self._cached_on: int | None = None  # days since 1970, in UTC

    def rates(self, model: str, *, prices: str = ANTHROPIC, speed: str | None = None) -> Rates:
        """What a model costs by a vendor's price list.

        `speed` is what the request asks for: `fast`, `priority` and `flex` cost more or less
        where they exist.

        Raises `NotFound` with code `unknown_price` where nobody knows what the model costs.
        """
        now = self._clock.now()
        today = now // _DAY_MS
        if today != self._cached_on:
            self._cache.clear()
            self._cached_on = today
        key = (prices, model, speed if speed in _TIERS else None)
        rates = self._cache.get(key)
        if rates is None:
            rates = self._look_up(*key, datetime.fromtimestamp(now / 1000, UTC))
            if len(self._cache) < _CACHE_BOUND:
                self._cache[key] = rates
        return rates

    @property
    def lacks(self) -> Mapping[str, frozenset[str]]:
        """By model, the abilities that an operator says it does not have."""
        return self._lacks

    def context_window(self, model: str, *, prices: str = ANTHROPIC) -> int | None:
        """Tokens, as the operator or the vendor's price list has it; None where neither says."""
        known = self._facts.get(model)
        if known is not None and known.context_window:
            return known.context_window
        if (prices, model) not in self._windows:
            if len(self._windows) >= _CACHE_BOUND:
                self._windows.clear()
            vendor = None if prices == FREE else _vendor(prices)
            found = vendor.find_model(model) if vendor is not None else None
            self._windows[prices, model] = found.context_window if found is not None else None
        return self._windows[prices, model]

    def max_output(self, model: str) -> int | None:
        """Tokens, as the operator has it; None where he does not say."""
        known = self._facts.get(model)
        return known.max_output if known is not None else None

    def _look_up(self, prices: str, model: str, speed: str | None, at: datetime) -> Rates:
        rates = self._given.get(model) or _listed(prices, model, speed, at)
        if (known := self._facts.get(model)) is not None:
            rates = replace(
                rates,
                context_window=known.context_window or rates.context_window,
                max_output=known.max_output or rates.max_output,
            )
        return rates


def _listed(prices: str, model: str, speed: str | None, at: datetime) -> Rates:
    if prices == FREE:
        return _flat(Price.of({"input": Decimal(0), "output": Decimal(0)}))
    vendor = _vendor(prices)
    found = vendor.find_model(model) if vendor is not None else None
    if found is None:
        raise NotFound(
            f"model: {model} has no known price; name one that has, or configure its price.",
            code="unknown_price",
            param="model",
        )
    listed = found.get_prices(at, {"speed": speed, "service_tier": speed} if speed else None)
    window = found.context_window or DEFAULT_CONTEXT_WINDOW
    return _tiered(listed, window, derived=prices == ANTHROPIC)


@cache
def _vendor(name: str) -> "Provider | None":
    # With its data it takes a tenth of a second and 10 MB, and some servers never ask for a price.
    from genai_prices.data_snapshot import get_snapshot

    return next((entry for entry in get_snapshot().providers if entry.id == name), None)


_DAY_MS = 86_400_000
_CACHE_BOUND = 1_000
"""Model names come from requests, and prefixes match: without a bound, anyone could fill memory."""

_CLASSES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "cache_read": "cache_read_mtok",
}


def total(parts: Iterable[Decimal]) -> MicroDollars:
    """Add exact dollars and round up once."""
    return to_micros(sum(parts, Decimal(0)))


def _tiered(prices: "ModelPrice", context_window: int, *, derived: bool) -> Rates:
    """`derived`: what the list leaves out follows from the input price, by Anthropic's ratios.

    Elsewhere what goes into a cache or comes from one costs as much as any input, where no other
    price is told; and what has no price for output, such as embeddings, writes none.
    """
    from genai_prices.types import TieredPrices

    values: dict[str, Decimal | TieredPrices] = {}
    starts = {0}
    for name, theirs in _CLASSES.items():
        value = getattr(prices, theirs, None)
        if isinstance(value, TieredPrices):
            starts |= {tier.start for tier in value.tiers}
        if value is not None:
            values[name] = value
    if not derived:
        rest = {name: values["input"] for name in _CLASSES if name not in {"input", "output"}}
        values = {**rest, "output": Decimal(0), **values}
    tiers = tuple((start, Price.of(_at(values, start))) for start in sorted(starts))
    searches = getattr(prices, "web_searches_kcount", None)
    per_thousand = searches if isinstance(searches, Decimal) else _SEARCH_PER_THOUSAND
    return Rates(
        tiers=tiers,
        worst=_dearest([price for _, price in tiers]),
        search=per_thousand / 1000,
        context_window=context_window,
    )


def _at(values: "Mapping[str, Decimal | TieredPrices]", start: int) -> dict[str, Decimal]:
    """Each class's price in the tier that begins at `start`."""
    found: dict[str, Decimal] = {}
    for name, value in values.items():
        if isinstance(value, Decimal):
            found[name] = value
        else:
            reached = [tier.price for tier in value.tiers if tier.start <= start]
            found[name] = reached[-1] if reached else value.base
    return found


def _flat(price: Price) -> Rates:
    return Rates(tiers=((0, price),), worst=price)


def _dearest(prices: list[Price]) -> Price:
    return Price(*(max(getattr(price, name) for price in prices) for name in Price.__slots__))


def _check_price(model: str, values: Mapping[str, Decimal | str | int | float]) -> Price:
    known = set(_CLASSES)
    if not {"input", "output"} <= set(values) <= known:
        raise Invalid(f"The price of {model} needs input and output, and may have {known}.")
    amounts: dict[str, Decimal] = {}
    for name, value in values.items():
        try:
            # A float is read as it is written: 0.1 is a tenth, not the binary number next to it.
            amounts[name] = Decimal(str(value))
        except InvalidOperation:
            raise Invalid(f"The price of {model}: {name} must be a number.") from None
        if not amounts[name].is_finite() or amounts[name] < 0:
            raise Invalid(f"The price of {model}: {name} must be zero or more.")
    return Price.of(amounts)
