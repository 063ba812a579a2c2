from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.pricing import ModelFacts, Pricing, total
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid, NotFound

AT = 1_790_000_000_000
MODELS = ["claude-haiku-5-5", "claude-sonnet-4-5", "claude-opus-5-5", "claude-haiku-4-5-20251001"]

tokens = st.integers(0, 400_000)
usages = st.builds(
    lambda inp, out, write, read, long: Usage(inp, out, write, read, min(long, write)),
    tokens,
    tokens,
    tokens,
    tokens,
    tokens,
)


@pytest.fixture(scope="module")
def pricing() -> Pricing:
    return Pricing(clock=ManualClock(AT))


@given(usage=usages, model=st.sampled_from(MODELS))
def test_agrees_with_the_price_lists_own_sum(pricing: Pricing, usage: Usage, model: str) -> None:
    theirs = calc_price(
        TheirUsage(
            input_tokens=usage.input_tokens + usage.cache_write_tokens + usage.cache_read_tokens,
            output_tokens=usage.output_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            cache_read_tokens=usage.cache_read_tokens,
        ),
        model,
        provider_id="anthropic",
    )
    assert pricing.rates(model).cost(usage) == theirs.total_price


@given(usage=usages, model=st.sampled_from(MODELS))
def test_the_worst_case_bounds_every_tier(pricing: Pricing, usage: Usage, model: str) -> None:
    rates = pricing.rates(model)
    assert rates.cost(usage) <= rates.worst.dollars(usage)


@given(parts=st.lists(st.decimals(0, 100, places=12), max_size=5))
def test_rounds_up_once_and_never_bills_less(parts: list[Decimal]) -> None:
    exact = sum(parts, Decimal(0)) * 1_000_000
    billed = total(parts)
    assert type(billed) is int
    assert exact <= billed < exact + 1


def test_classes_are_priced_apart(pricing: Pricing) -> None:
    rates = pricing.rates("claude-opus-5-5")
    million = 1_000_000
    assert rates.cost(Usage(input_tokens=million)) == 4
    assert rates.cost(Usage(output_tokens=million)) == 20
    assert rates.cost(Usage(cache_write_tokens=million)) == 5
    assert rates.cost(Usage(cache_write_tokens=million, cache_write_1h_tokens=million)) == 8
    assert rates.cost(Usage(cache_read_tokens=million)) == Decimal("0.2")


def test_a_long_prompt_pays_the_dearer_tier_for_every_token(pricing: Pricing) -> None:
    rates = pricing.rates("claude-haiku-5-5")
    assert rates.cost(Usage(input_tokens=100_000)) == Decimal("0.01")
    assert rates.cost(Usage(input_tokens=100_001)) == Decimal("0.0500005")
    assert rates.cost(Usage(output_tokens=10, cache_read_tokens=200_000)) == Decimal("0.010025")


def test_speed_and_place_cost_more(pricing: Pricing) -> None:
    usage = Usage(input_tokens=1_000_000)
    assert pricing.rates("claude-opus-5-5", speed="fast").cost(usage) == 8
    assert pricing.rates("claude-opus-5-5").cost(usage, inference_geo="us") == Decimal("4.4")


def test_a_price_that_begins_later_waits_for_its_day() -> None:
    clock = ManualClock(1_770_000_000_000)  # 2 February 2026, before the change in March
    pricing = Pricing(clock=clock)
    long_prompt = Usage(input_tokens=300_000)
    before = pricing.rates("claude-opus-4-6").cost(long_prompt)
    clock.advance(60 * 86_400)
    assert pricing.rates("claude-opus-4-6").cost(long_prompt) == before / 2


def test_an_unknown_model_has_no_price(pricing: Pricing) -> None:
    with pytest.raises(NotFound) as caught:
        pricing.rates("gpt-unheard-of")
    assert caught.value.error_code == "unknown_price"


def test_an_override_gives_a_model_its_price() -> None:
    pricing = Pricing(
        clock=ManualClock(AT),
        facts={"house": ModelFacts({"input": 0.1, "output": "0.3", "cache_read": 0})},
    )
    rates = pricing.rates("house")
    assert rates.cost(Usage(input_tokens=1_000_000)) == Decimal("0.1")
    assert rates.cost(Usage(cache_read_tokens=1_000_000)) == 0
    assert rates.cost(Usage(cache_write_tokens=1_000_000)) == Decimal("0.125")


@pytest.mark.parametrize(
    "values",
    [
        {"input": 1},
        {"input": 1, "output": -1},
        {"input": 1, "output": "much"},
        {"input": 1, "output": "NaN"},
        {"input": 1, "output": 1, "outptu": 1},
    ],
)
def test_an_override_that_is_no_price_is_refused(values: dict[str, str | int]) -> None:
    with pytest.raises(Invalid):
        Pricing(clock=ManualClock(AT), facts={"house": ModelFacts(values)})
