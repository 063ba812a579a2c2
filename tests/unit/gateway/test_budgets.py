"""Calls against real budgets: tokens, cheaper models, tags, and names that are spelled oddly."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from stationmaster.budgets import Budgets, Definitions, Terms
from stationmaster.budgets.definition import SubjectKind
from stationmaster.budgets.proof import prove
from stationmaster.budgets.tables import holds, ledger
from stationmaster.events import EventLog
from stationmaster.gateway import Catalogue, Gateway, Models, Pricing, UpstreamOf
from stationmaster.gateway.admission import HIDDEN_TOKENS, input_bound
from stationmaster.gateway.messages_body import parse_messages
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import BudgetExceeded, Invalid
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.storage import Database
from tests.support.gateways import AT, asking, read
from tests.support.memory_meter import Notebook
from tests.support.wire_upstream import Usage, WireUpstream, fixed, text
from tests.unit.budgets.support import rows

ADMIN = Principal("key", "key_0", Owner("org_1", "proj_1"), "key_0", frozenset({"*"}))
HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


@pytest.fixture
async def upstream() -> AsyncIterator[WireUpstream]:
    async with WireUpstream(fixed(text("hello", Usage(100, 10)))) as running:
        yield running


@pytest.fixture
def definitions(database: Database) -> Definitions:
    clock = ManualClock(AT)

    async def mine(principal: Principal, _: str) -> Owner:
        return principal.owner

    kinds: tuple[SubjectKind, ...] = ("key", "run")
    log = EventLog(database, MemoryBus(), clock)
    return Definitions(database, clock, dict.fromkeys(kinds, mine), events=log)


@pytest.fixture
async def gateway(upstream: WireUpstream, database: Database) -> AsyncIterator[Gateway]:
    clock = ManualClock(AT)
    provider = AnthropicProvider(base_url=upstream.url, api_key="sk")
    yield Gateway(
        models=Models(Pricing(clock=clock), UpstreamOf(provider)),
        meter=Budgets(database, clock, instance_id="ins_a"),
        observer=Notebook(),
        clock=clock,
    )
    await provider.aclose()


async def limit(definitions: Definitions, limit: int, **terms: Any) -> None:
    kind = terms.pop("kind", "project")
    subject_id = terms.pop("subject_id", "proj_1")
    unit = terms.pop("unit", "usd")
    await definitions.create(ADMIN, Terms(kind, subject_id, unit, limit, **terms))


async def asked(gateway: Gateway, who: Principal, raw: bytes, upstream: WireUpstream) -> Any:
    """The body that reached the provider."""
    await read(await gateway.messages(who, raw))
    return upstream.message_calls[-1].body


async def test_tokens_are_held_for_and_settled(
    gateway: Gateway, database: Database, definitions: Definitions, key: Principal
) -> None:
    raw = asking()
    await limit(definitions, len(raw) + HIDDEN_TOKENS + 1000, unit="tokens")
    call = await gateway.admit(key, raw)
    (hold,) = await rows(database, holds)
    assert hold.tokens == len(raw) + HIDDEN_TOKENS + 1000
    with pytest.raises(Exception, match="held by calls under way"):
        await gateway.admit(key, raw)
    await call.start()
    await read(call)
    (budget,) = (await definitions.list(ADMIN)).items
    assert (budget.balance.spent, budget.balance.held) == (110, 0)


async def test_a_run_is_lowered_to_what_its_tokens_allow(
    gateway: Gateway, upstream: WireUpstream, definitions: Definitions, run: Principal
) -> None:
    await limit(definitions, 20_000, unit="tokens")
    body = await asked(gateway, run, asking(max_tokens=100_000), upstream)
    assert 9_000 < body["max_tokens"] < 20_000


async def test_a_run_is_lowered_to_the_tightest_of_its_budgets_in_both_units(
    gateway: Gateway, upstream: WireUpstream, definitions: Definitions, run: Principal
) -> None:
    await limit(definitions, 150_000)
    await limit(definitions, 6_000, unit="tokens")
    body = await asked(gateway, run, asking(max_tokens=100_000), upstream)
    assert 5_000 < body["max_tokens"] < 6_000


async def test_tokens_that_do_not_suffice_are_named(
    gateway: Gateway, upstream: WireUpstream, definitions: Definitions, key: Principal
) -> None:
    await limit(definitions, 1000, unit="tokens")
    with pytest.raises(BudgetExceeded, match="1000 tokens of 1000 tokens is left") as refused:
        await gateway.admit(key, asking())
    assert refused.value.details["unit"] == "tokens"
    assert upstream.message_calls == []


@pytest.mark.parametrize(
    ("limit_usd", "model"), [(200_000, OPUS), (20_000, SONNET), (9_000, HAIKU), (0, HAIKU)]
)
async def test_the_dearest_model_that_the_budget_covers_answers(
    *,
    gateway: Gateway,
    upstream: WireUpstream,
    database: Database,
    definitions: Definitions,
    key: Principal,
    limit_usd: int,
    model: str,
) -> None:
    await limit(definitions, limit_usd, mode="degrade")
    body = await asked(gateway, key, asking(), upstream)
    assert body["model"] == model
    (line,) = await rows(database, ledger)
    assert line.model == model
    assert line.cost == _cost(model)
    assert (await prove(database)).differences == ()


def _cost(model: str) -> int:
    from stationmaster.budgets.entry import Usage as Tokens
    from stationmaster.kernel.money import to_micros

    return to_micros(Pricing(clock=ManualClock(AT)).rates(model).cost(Tokens(100, 10)))


async def test_a_hard_budget_above_still_refuses_the_cheapest(
    gateway: Gateway, upstream: WireUpstream, definitions: Definitions, key: Principal
) -> None:
    await limit(definitions, 0, mode="degrade")
    await limit(definitions, 100, kind="organization", subject_id="org_1")
    with pytest.raises(BudgetExceeded, match="organization"):
        await gateway.admit(key, asking())
    assert upstream.message_calls == []


async def test_a_model_that_the_key_may_not_use_is_not_fallen_back_to(
    gateway: Gateway, upstream: WireUpstream, definitions: Definitions, key: Principal
) -> None:
    await limit(definitions, 0, mode="degrade")
    only = replace(key, models=frozenset({OPUS}))
    assert (await asked(gateway, only, asking(), upstream))["model"] == OPUS


def test_the_next_cheaper_model() -> None:
    catalogue = Catalogue()
    assert catalogue.cheaper("claude-opus-4-1") == SONNET
    assert catalogue.cheaper(SONNET) == HAIKU
    assert catalogue.cheaper(HAIKU) is None
    assert catalogue.cheaper("gpt-9") is None
    assert Catalogue({}).cheaper(OPUS) is None


async def test_tags_are_kept_and_an_agent_cannot_choose_its_own(
    gateway: Gateway,
    upstream: WireUpstream,
    database: Database,
    key: Principal,
    run: Principal,
) -> None:
    headers = [("x-stationmaster-tags", "red, blue,red"), ("x-other", "1")]
    for who in (key, run):
        await read(await gateway.messages(who, asking(), headers))
    assert [row.tags for row in await rows(database, ledger)] == [["red", "blue"], None]
    assert all("x-stationmaster-tags" not in call.headers for call in upstream.calls)
    with pytest.raises(Invalid):
        await gateway.admit(key, asking(), [("x-stationmaster-tags", "a b")])


# --- names that are spelled oddly ---------------------------------------------------------------

WINDOW = 1_000_000


def spelled(text: str, *, escape: str) -> bytes:
    """A body with a document that lies elsewhere, some of its letters as escapes."""
    raw = json.dumps(
        {
            "model": OPUS,
            "max_tokens": 1,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "url", "url": "https://example.org/a"},
                        }
                    ],
                }
            ],
        }
    )
    assert text in raw
    return raw.replace(text, escape).encode()


@pytest.mark.parametrize(
    ("text", "escape"),
    [
        ('"type": "url"', '"type": "u\\u0072l"'),
        ('"type": "url"', '"ty\\u0070e": "url"'),
        ('"type": "url"', '"\\u0074\\u0079\\u0070\\u0065": "\\u0075\\u0072\\u006c"'),
        ('"type": "url"', '"\\u0074\\u0079\\u0070\\u0065": "\\u0075\\u0072\\u006C"'),
        ('"type": "url", "url"', '"type": "b", "media_type": "application\\/pdf", "url"'),
        ('"type": "url", "url"', '"type": "b", "media_type": "application\\u002fpdf", "url"'),
        ('"type": "url", "url"', '"type": "b", "media_type": "applic\\u0061tion/pdf", "url"'),
    ],
)
def test_an_escape_does_not_hide_what_lies_elsewhere(text: str, escape: str) -> None:
    body = parse_messages(spelled(text, escape=escape))
    assert input_bound(body, WINDOW) == WINDOW


@pytest.mark.parametrize(
    "prompt", ["Grüße, 世界 😀", "a\x1b[31m red", "<b>&amp;</b>", 'the word "url" and "file"']
)
def test_escapes_of_plain_text_hold_no_more(prompt: str) -> None:
    raw = asking(prompt)
    assert input_bound(parse_messages(raw), WINDOW) == len(raw) + HIDDEN_TOKENS
