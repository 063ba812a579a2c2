from collections.abc import AsyncIterator
from typing import Any

import pytest

from stationmaster.gateway import Gateway
from stationmaster.gateway.admission import (
    COMFORTABLE_OUTPUT_TOKENS,
    HIDDEN_TOKENS,
    countable,
)
from stationmaster.gateway.messages_body import parse_messages
from stationmaster.gateway.ports import CallRefused
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Denied,
    Exhausted,
    NotFound,
    Unavailable,
)
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.providers.anthropic import AnthropicProvider
from tests.support.gateways import OPUS, asking, gateway_over, read
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.wire_upstream import WireUpstream, fixed, text

# claude-opus-5-5: $4 a million tokens of input, $20 of output; 4 and 20 micro-dollars each.
INPUT, OUTPUT = 4, 20


@pytest.fixture
async def upstream() -> AsyncIterator[WireUpstream]:
    async with WireUpstream(fixed(text("hello"))) as running:
        yield running


@pytest.fixture
async def gateway(
    upstream: WireUpstream, meter: MemoryMeter, notebook: Notebook
) -> AsyncIterator[Gateway]:
    provider = AnthropicProvider(base_url=upstream.url, api_key="sk")
    yield gateway_over(provider, meter, notebook)
    await provider.aclose()


def worst(raw: bytes, max_tokens: int = 1000, rate: int = INPUT) -> int:
    return (len(raw) + HIDDEN_TOKENS) * rate + max_tokens * OUTPUT


def counted(raw: bytes) -> int:
    """What the scripted upstream counts: a quarter of the bytes it is sent."""
    return len(countable(parse_messages(raw), OPUS)) // 4


async def test_the_first_hold_is_bounded_by_the_bytes_and_asks_nobody(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, key: Principal
) -> None:
    raw = asking()
    call = await gateway.admit(key, raw)
    assert meter.asked == [(worst(raw), False)]
    assert list(meter.holds.values()) == [worst(raw)]
    assert upstream.calls == []
    await call.aclose()
    assert meter.holds == {}
    assert meter.spent == 0


@pytest.mark.parametrize(
    ("members", "rate"),
    [
        ({}, 4),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, 5),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, 8),
        ({"metadata": {"user_id": "\u00e9"}}, 8),
    ],
)
async def test_the_dearest_class_of_input_that_the_request_can_use_is_held(
    gateway: Gateway, meter: MemoryMeter, key: Principal, members: dict[str, Any], rate: int
) -> None:
    raw = asking(**members)
    await (await gateway.admit(key, raw)).aclose()
    assert meter.asked == [(worst(raw, rate=rate), False)]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"media_type": "application/pdf", "data": "eA=="}},
    ],
)
async def test_what_is_not_in_the_bytes_is_held_for_up_to_the_context_window(
    gateway: Gateway, meter: MemoryMeter, key: Principal, block: dict[str, Any]
) -> None:
    raw = asking(messages=[{"role": "user", "content": [block]}])
    await (await gateway.admit(key, raw)).aclose()
    assert meter.asked == [(1_000_000 * INPUT + 1000 * OUTPUT, False)]


async def test_web_searches_and_place_are_held_for(
    gateway: Gateway, meter: MemoryMeter, key: Principal
) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    raw = asking(tools=[tool], inference_geo="us")
    await (await gateway.admit(key, raw)).aclose()
    assert meter.asked == [(-(-worst(raw) * 11 // 10) + 2 * 10_000, False)]


async def test_a_model_that_may_answer_instead_is_held_for_if_dearer(
    gateway: Gateway, meter: MemoryMeter, key: Principal
) -> None:
    raw = asking(model="claude-haiku-5-5", fallbacks=[{"model": "claude-opus-4-1"}])
    await (await gateway.admit(key, raw)).aclose()
    held = (len(raw) + HIDDEN_TOKENS) * 15 + 1000 * 75
    assert meter.asked == [(held, False)]


async def test_where_the_bound_does_not_fit_the_exact_count_is_asked_for(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, key: Principal
) -> None:
    raw = asking("word " * 2000)
    exact = counted(raw)
    meter.limit = (exact + exact // 50 + 64) * INPUT + 1000 * OUTPUT
    call = await gateway.messages(key, raw)
    await read(call)
    assert meter.asked == [(worst(raw), False), (meter.limit, True)]
    assert [sent.path for sent in upstream.calls] == ["/v1/messages/count_tokens", "/v1/messages"]
    assert "max_tokens" not in upstream.calls[0].body
    assert upstream.calls[1].raw == raw


async def test_a_key_is_refused_and_its_max_tokens_left_alone(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, notebook: Notebook, key: Principal
) -> None:
    meter.limit = 20_000
    with pytest.raises(BudgetExceeded) as caught:
        await gateway.admit(key, asking(max_tokens=100_000))
    assert caught.value.error_code == "budget_exceeded"
    assert caught.value.retry_after is None
    assert [final for _, final in meter.asked] == [False, True]
    assert [type(event) for event in notebook.events] == [CallRefused]
    assert upstream.message_calls == []
    assert meter.holds == {}


async def test_a_run_gets_as_much_output_as_its_budget_pays_for(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, run: Principal
) -> None:
    meter.limit = 100_000
    raw = asking(max_tokens=128_000)
    call = await gateway.messages(run, raw)
    assert sum(meter.holds.values()) == 0
    await read(call)
    sent = upstream.message_calls[0]
    lowered = sent.body["max_tokens"]
    assert 1024 < lowered < 100_000 // OUTPUT
    assert sent.raw == raw.replace(b"128000", b"%d" % lowered)
    amount, final = meter.asked[-1]
    assert final
    assert meter.limit - OUTPUT < amount <= meter.limit


@pytest.mark.parametrize(
    ("max_tokens", "thinking", "floor"),
    [(128_000, 0, 1024), (128_000, 5000, 5001), (500, 0, 500)],
)
async def test_a_run_is_refused_under_the_floor(
    *,
    gateway: Gateway,
    upstream: WireUpstream,
    meter: MemoryMeter,
    run: Principal,
    max_tokens: int,
    thinking: int,
    floor: int,
) -> None:
    raw = asking(
        max_tokens=max_tokens, thinking={"type": "enabled", "budget_tokens": thinking or 1}
    )
    exact = counted(raw)
    needed = (exact + exact // 50 + 64) * INPUT + floor * OUTPUT
    meter.limit = needed - 1
    with pytest.raises(BudgetExceeded):
        await gateway.admit(run, raw)
    assert meter.asked[-1] == (needed, True)
    assert len(meter.refusals) == 1
    meter.limit = needed
    call = await gateway.messages(run, raw)
    await read(call)
    assert upstream.message_calls[0].body["max_tokens"] == floor


async def test_an_alias_changes_the_model_and_no_other_byte(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, key: Principal
) -> None:
    raw = asking(model="haiku", unknown={"b": 1e2, "a": "\u00e9"})
    await read(await gateway.messages(key, raw))
    assert upstream.calls[0].raw == raw.replace(b'"haiku"', b'"claude-haiku-5-5"')
    assert meter.last.context.model == "claude-haiku-5-5"


async def test_without_the_scope_nothing_is_even_read(gateway: Gateway, meter: MemoryMeter) -> None:
    owner = Owner("org_1", "proj_1")
    nobody = Principal("key", "key_2", owner, "key_2", frozenset({"read:messages"}))
    for ask in (gateway.admit, gateway.count_tokens):
        with pytest.raises(Denied):
            await ask(nobody, b"not json")
    assert meter.asked == []


async def test_without_a_price_or_a_store_nothing_is_sent(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, key: Principal
) -> None:
    with pytest.raises(NotFound):
        await gateway.admit(key, asking(model="unheard-of"))
    with pytest.raises(NotFound):
        await gateway.admit(key, asking(fallbacks=[{"model": "unheard-of"}]))
    meter.away = True
    with pytest.raises(Unavailable):
        await gateway.admit(key, asking())
    assert upstream.calls == []


async def test_an_agents_call_takes_no_more_than_half_of_what_is_left(
    gateway: Gateway, upstream: WireUpstream, meter: MemoryMeter, run: Principal
) -> None:
    raw = asking(max_tokens=128_000)
    meter.limit = 1_000_000
    calls = [await gateway.admit(run, raw) for _ in range(2)]
    first, second = meter.holds.values()
    assert 0 <= meter.limit // 2 - first < OUTPUT
    assert second == worst(raw, COMFORTABLE_OUTPUT_TOKENS)  # more than half, but room to answer
    assert upstream.calls == []  # with so much room nobody needs to count
    for call in calls:
        await call.aclose()


async def test_a_budget_that_others_hold_is_worth_waiting_for(
    gateway: Gateway, meter: MemoryMeter, notebook: Notebook, run: Principal
) -> None:
    raw = asking(max_tokens=16_000)
    meter.limit = 500_000
    first = await gateway.admit(run, raw)
    meter.limit = sum(meter.holds.values())
    with pytest.raises(Exhausted) as refused:
        await gateway.admit(run, raw)
    assert refused.value.error_code == "budget_held"
    assert refused.value.retry_after == 1.0
    assert not isinstance(refused.value, BudgetExceeded)
    assert [event for event in notebook.events if isinstance(event, CallRefused)] == []
    await first.aclose()
    await (await gateway.admit(run, raw)).aclose()
