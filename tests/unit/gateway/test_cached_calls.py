"""Calls that the cache may answer, through a real gateway and over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from stationmaster.cache import AnswerCache, MemoryTier
from stationmaster.gateway import Gateway, GatewayCall, Models, Pricing, Route, Target, UpstreamOf
from stationmaster.gateway.cacheable import MAX_READ
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import BudgetExceeded, Denied, Invalid, StationmasterError
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.providers.anthropic import AnthropicProvider, Timeouts
from stationmaster.storage.sealing import Sealer
from tests.support.gateways import AT, OPUS, asking, read
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.wire_upstream import Reply, Script, Text, Usage, WireUpstream, fixed

SERVED = Usage(100, 10)
ANSWER = Reply((Text("one two three four five six"),), SERVED)
ANSWERING = fixed(ANSWER)
STEADY: dict[str, Any] = {"temperature": 0}
TTL_S = 60.0
TOOL = {"name": "look", "input_schema": {"type": "object"}}
MB = 1024**2


@dataclass
class Bench:
    gateway: Gateway
    cache: AnswerCache
    meter: MemoryMeter
    notebook: Notebook
    clock: ManualClock
    upstream: WireUpstream

    async def ask(
        self, key: Principal, raw: bytes, *headers: tuple[str, str], query: str = ""
    ) -> tuple[str | None, bytes]:
        """What the cache did, and the answer."""
        call = await self.gateway.messages(key, raw, headers, query)
        body = await read(call)
        assert self.meter.holds == {}
        return call.cache, body

    async def waiting(self, calls: int) -> None:
        """Until so many calls have their hold: they ask, or wait for one that asks."""
        async with asyncio.timeout(10):
            while len(self.meter.holds) < calls:
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def bench(
    script: Script = ANSWERING, *, memory: int = MB, first_byte: float = 10
) -> AsyncIterator[Bench]:
    clock = ManualClock(AT)
    sealer = Sealer([b"a key of tests"])
    cache = AnswerCache(
        secret=b"s", sealer=sealer, clock=clock, ttl=TTL_S, memory=MemoryTier(memory, clock)
    )
    async with WireUpstream(script) as upstream:
        provider = AnthropicProvider(
            base_url=upstream.url, api_key="sk-up", timeouts=Timeouts(first_byte=first_byte)
        )
        meter, notebook = MemoryMeter(), Notebook()
        gateway = Gateway(
            models=Models(Pricing(clock=clock), UpstreamOf(provider)),
            meter=meter,
            observer=notebook,
            clock=clock,
            cache=cache,
        )
        try:
            yield Bench(gateway, cache, meter, notebook, clock, upstream)
        finally:
            await provider.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_question_is_paid_for_once(key: Principal, stream: bool) -> None:
    async with bench() as at:
        first = await at.ask(key, asking(stream=stream, **STEADY))
        cost = at.meter.spent
        second = await at.ask(key, asking(stream=stream, **STEADY))
        assert (first[0], second[0]) == ("miss", "hit")
        assert first[1] == second[1]
        assert b"end_turn" in second[1]
        assert len(at.upstream.calls) == 1
        assert at.meter.spent == cost > 0
    # A hit is a line of its own, that costs nothing.
    assert [entry.outcome for entry in at.meter.entries.values()] == ["complete", "cached"]
    assert at.meter.last.usage.total == 0
    assert at.notebook.kinds == ["CallStarted", "CallEnded"] * 2
    assert at.notebook.ended.outcome == "cached"


async def test_a_hit_tells_its_age_and_the_answers_type_alone(key: Principal) -> None:
    headers = {"request-id": "req_upstream", "anthropic-ratelimit-requests-remaining": "3"}
    async with bench(fixed(replace(ANSWER, headers=headers))) as at:
        await at.ask(key, asking(**STEADY))
        at.clock.advance(7.5)
        call = await at.gateway.messages(key, asking(**STEADY))
        await call.aclose()
    assert call.status == 200
    assert call.body is not None
    assert [name for name, _ in call.headers] == ["content-type", "age"]
    assert dict(call.headers)["age"] == "7"


async def test_an_answer_is_kept_for_its_time_and_no_longer(key: Principal) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY))
        at.clock.advance(TTL_S - 0.001)
        assert (await at.ask(key, asking(**STEADY)))[0] == "hit"
        at.clock.advance(0.001)
        assert (await at.ask(key, asking(**STEADY)))[0] == "miss"
        assert len(at.upstream.calls) == 2


CHANGES: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Say goodbye."}],
    "tools": [TOOL],
    "max_tokens": 999,
    "stream": True,
    "top_k": 3,
    "stop_sequences": ["x"],
    "metadata": {"user_id": "somebody else"},
    "temperature": 0.5,
    "unknown": 1,
}
ON = ("x-stationmaster-cache", "on")


@pytest.mark.parametrize("name", CHANGES)
async def test_another_question_is_asked(key: Principal, name: str) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY), ON)
        other = json.loads(asking(**STEADY)) | {name: CHANGES[name]}
        assert (await at.ask(key, json.dumps(other).encode(), ON))[0] == "miss"
        assert len(at.upstream.calls) == 2
        assert (await at.ask(key, asking(**STEADY), ON))[0] == "hit"


@pytest.mark.parametrize(
    ("header", "query"),
    [
        (("anthropic-beta", "context-1m-2025-08-07"), ""),
        (("anthropic-version", "2026-10-21"), ""),
        (("user-agent", "same"), "beta=true"),
    ],
)
async def test_betas_and_versions_are_part_of_the_question(
    key: Principal, header: tuple[str, str], query: str
) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY))
        assert (await at.ask(key, asking(**STEADY), header, query=query))[0] == "miss"
        assert (await at.ask(key, asking(**STEADY), ("user-agent", "another")))[0] == "hit"


async def test_how_the_body_is_written_is_not_part_of_the_question(key: Principal) -> None:
    async with bench() as at:
        await at.ask(key, asking(system="é", **STEADY))
        members = json.loads(asking(system="é", **STEADY))
        turned = json.dumps(dict(reversed(members.items())), indent=3, ensure_ascii=False)
        assert (await at.ask(key, turned.encode()))[0] == "hit"


@pytest.mark.parametrize("twice", [False, True])
async def test_a_body_that_reads_in_two_ways_is_no_other_bodys_question(
    key: Principal, twice: bool
) -> None:
    """Else somebody could have the answer to his own words kept for another's question."""
    good = b'{"role":"user","content":"good"}'
    bad = b'{"role":"user","content":"evil","content":"good"}'
    raw = b'{"model":"%s","max_tokens":9,"temperature":0,"messages":[%s]}'
    async with bench() as at:
        poison = raw % (OPUS.encode(), bad)
        await at.ask(key, poison)
        if twice:
            assert (await at.ask(key, poison))[0] == "hit"
        assert (await at.ask(key, raw % (OPUS.encode(), good)))[0] == "miss"


async def test_numbers_that_only_look_alike_are_different(key: Principal) -> None:
    async with bench() as at:
        for number in (b"9007199254740993", b"9007199254740992", b"0.1", b"0.10000000000000001"):
            raw = asking(**STEADY)[:-1] + b', "seed": ' + number + b"}"
            assert (await at.ask(key, raw))[0] == "miss"


@pytest.mark.parametrize(
    "other",
    [
        {"owner": Owner("org_1", "proj_2")},
        {"owner": Owner("org_2", "proj_1")},
        {"owner": Owner("org_1proj_1", "")},
    ],
)
async def test_nobody_gets_another_tenants_answer(key: Principal, other: dict[str, Any]) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY))
        assert (await at.ask(replace(key, **other), asking(**STEADY)))[0] == "miss"
        assert (await at.ask(replace(key, id="k2", key_id="k2"), asking(**STEADY)))[0] == "hit"
        assert (await at.cache.stats(key.owner)).hits == 1
        assert (await at.cache.stats(other["owner"])).hits == 0


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1},
        {"temperature": 0, "tools": [TOOL]},
        {"temperature": 0, "mcp_servers": [{"type": "url", "url": "https://a.example"}]},
        {"temperature": "0"},
        {"temperature": None},
    ],
)
async def test_sampled_and_tool_using_calls_are_left_alone_unless_asked(
    key: Principal, members: dict[str, Any]
) -> None:
    async with bench() as at:
        for _ in range(2):
            assert (await at.ask(key, asking(**members)))[0] is None
        assert (await at.cache.stats()).misses == 0
        assert (await at.ask(key, asking(**members), ON))[0] == "miss"
        assert (await at.ask(key, asking(**members), ON))[0] == "hit"
        assert (await at.ask(key, asking(**members)))[0] is None


async def test_a_call_with_an_empty_list_of_tools_uses_none(key: Principal) -> None:
    async with bench() as at:
        await at.ask(key, asking(tools=[], **STEADY))
        assert (await at.ask(key, asking(tools=[], **STEADY)))[0] == "hit"


@pytest.mark.parametrize(
    ("header", "second", "third"),
    [
        (("cache-control", "no-store"), None, "hit"),
        (("x-stationmaster-cache", "off"), None, "hit"),
        (("cache-control", "No-Cache"), "miss", "hit"),
        (("cache-control", "max-age=0"), "miss", "hit"),
        (("cache-control", "max-age=5"), "miss", "hit"),
        (("cache-control", "max-age=30"), "hit", "hit"),
    ],
)
async def test_a_caller_says_what_it_wants_of_the_cache(
    key: Principal, header: tuple[str, str], second: str | None, third: str
) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY))
        at.clock.advance(10)
        assert (await at.ask(key, asking(**STEADY), header))[0] == second
        call = await at.gateway.messages(key, asking(**STEADY))
        await call.aclose()
        assert call.cache == third
        # What was asked anew took the place of what was kept.
        assert dict(call.headers)["age"] == ("0" if second == "miss" else "10")


async def test_no_store_keeps_nothing(key: Principal) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY), ("cache-control", "no-store"))
        assert (await at.ask(key, asking(**STEADY)))[0] == "miss"


async def test_a_wrong_word_in_our_header_is_refused_by_name(key: Principal) -> None:
    async with bench() as at:
        with pytest.raises(Invalid, match="x-stationmaster-cache"):
            await at.gateway.admit(key, asking(), [("x-stationmaster-cache", "maybe")])
        assert at.meter.asked == []


@pytest.mark.parametrize("status", [400, 429, 500, 529])
@pytest.mark.parametrize("stream", [False, True])
async def test_no_error_is_kept(key: Principal, status: int, stream: bool) -> None:
    replies = [Reply(status=status), ANSWER]
    async with bench(lambda _: replies.pop(0)) as at:
        raw = asking(stream=stream, **STEADY)
        assert (await at.ask(key, raw))[0] == "miss"
        found, body = await at.ask(key, raw)
        assert found == "miss"
        assert b"end_turn" in body


async def test_no_answer_is_kept_that_broke_off(key: Principal) -> None:
    replies = [replace(ANSWER, cut_after=4), ANSWER]
    async with bench(lambda _: replies.pop(0)) as at:
        raw = asking(stream=True, **STEADY)
        call = await at.gateway.messages(key, raw)
        with pytest.raises(StationmasterError):
            await read(call)
        assert (await at.ask(key, raw))[0] == "miss"
        assert (await at.ask(key, raw))[0] == "hit"


async def test_no_answer_is_kept_that_its_client_did_not_wait_for(key: Principal) -> None:
    async with bench() as at:
        raw = asking(stream=True, **STEADY)
        call = await at.gateway.messages(key, raw)
        chunks = call.chunks()
        await anext(chunks)
        await chunks.aclose()
        await call.aclose()
        assert (await at.ask(key, raw))[0] == "miss"


async def test_an_answer_that_is_too_large_passes_and_is_not_kept(key: Principal) -> None:
    long = replace(ANSWER, blocks=(Text("x" * 5000),))
    async with bench(fixed(long), memory=20_000) as at:
        for stream in (False, True):
            for _ in range(2):
                found, body = await at.ask(key, asking(stream=stream, **STEADY))
                assert found == "miss"
                assert body.count(b"x") >= 5000


async def test_what_is_kept_stays_within_its_bound(key: Principal) -> None:
    async with bench(memory=20_000) as at:
        for number in range(60):
            await at.ask(key, asking(f"Say {number}.", **STEADY))
            assert (await at.cache.stats()).sizes["memory"].bytes <= 20_000
        assert (await at.ask(key, asking("Say 59.", **STEADY)))[0] == "hit"
        assert (await at.ask(key, asking("Say 0.", **STEADY)))[0] == "miss"


async def test_who_may_not_call_gets_no_kept_answer(key: Principal) -> None:
    async with bench() as at:
        await at.ask(key, asking(**STEADY))
        with pytest.raises(Denied):
            await at.gateway.messages(replace(key, scopes=frozenset()), asking(**STEADY))
        other = replace(key, models=frozenset({"claude-haiku-*"}))
        with pytest.raises(Denied):
            await at.gateway.messages(other, asking(**STEADY))
        at.meter.limit = at.meter.spent
        with pytest.raises(BudgetExceeded):
            await at.gateway.messages(key, asking(**STEADY))
        assert [call.path for call in at.upstream.calls].count("/v1/messages") == 1


# --- one asks, the others wait -----------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_of_those_who_ask_the_same_one_is_billed(key: Principal, stream: bool) -> None:
    gate = asyncio.Event()
    async with bench(fixed(replace(ANSWER, hold=gate))) as at:
        raw = asking(stream=stream, **STEADY)
        asked = [asyncio.create_task(at.gateway.admit(key, raw)) for _ in range(16)]
        calls = [await each for each in asked]
        found = [asyncio.create_task(_started_and_read(call)) for call in calls]
        await at.waiting(16)
        gate.set()
        bodies = await asyncio.gather(*found)
        assert len(set(bodies)) == 1
        assert len(at.upstream.calls) == 1
    outcomes = [entry.outcome for entry in at.meter.entries.values()]
    assert sorted(outcomes) == ["cached"] * 15 + ["complete"]
    assert sum(entry.cost > 0 for entry in at.meter.entries.values()) == 1


async def _started_and_read(call: GatewayCall) -> bytes:
    try:
        await call.start()
        return b"".join([chunk async for chunk in call.chunks()])
    finally:
        await call.aclose()


async def test_the_first_ones_failure_lets_the_next_try(key: Principal) -> None:
    gate = asyncio.Event()
    replies = [Reply(status=500, hold=gate), ANSWER]
    async with bench(lambda _: replies.pop(0)) as at:
        calls = [await at.gateway.admit(key, asking(**STEADY)) for _ in range(5)]
        found = [asyncio.create_task(_started_and_read(call)) for call in calls]
        await at.waiting(5)
        gate.set()
        await asyncio.gather(*found)
        assert sorted(call.status for call in calls) == [200] * 4 + [500]
        assert len(at.upstream.calls) == 2


async def test_when_the_first_one_goes_the_next_asks(key: Principal) -> None:
    gate = asyncio.Event()
    replies = [replace(ANSWER, hold=gate), ANSWER]
    async with bench(lambda _: replies.pop(0)) as at:
        calls = [await at.gateway.admit(key, asking(**STEADY)) for _ in range(3)]
        found = [asyncio.create_task(_started_and_read(call)) for call in calls]
        await at.waiting(3)
        async with asyncio.timeout(10):
            while not at.upstream.calls:
                await asyncio.sleep(0.01)
        found[0].cancel()
        await asyncio.gather(found[1], found[2])
        assert at.upstream.calls[0].disconnected or not at.upstream.calls[0].completed
        assert len(at.upstream.calls) == 2
        assert [call.cache for call in calls[1:]].count("hit") == 1
    assert at.meter.holds == {}


async def test_who_leaves_while_waiting_cancels_nobody(key: Principal) -> None:
    gate = asyncio.Event()
    async with bench(fixed(replace(ANSWER, hold=gate))) as at:
        calls = [await at.gateway.admit(key, asking(**STEADY)) for _ in range(3)]
        found = [asyncio.create_task(_started_and_read(call)) for call in calls]
        await at.waiting(3)
        found[1].cancel()
        await asyncio.gather(found[1], return_exceptions=True)
        assert len(at.meter.holds) == 2
        gate.set()
        bodies = await asyncio.gather(found[0], found[2])
        assert bodies[0] == bodies[1]
        assert len(at.upstream.calls) == 1
    assert at.meter.holds == {}


async def test_a_callers_own_id_is_the_calls_in_the_ledger(key: Principal) -> None:
    async with WireUpstream(fixed(Reply(status=503))) as down, bench() as at:
        failing = AnthropicProvider(base_url=down.url, api_key="k", timeouts=Timeouts())
        present = at.gateway.models
        assert present.default is not None
        targets = (Target(UpstreamOf(failing), OPUS), Target(present.default, OPUS))
        at.gateway.use(replace(present, routes={OPUS: Route(targets)}))
        try:
            call = await at.gateway.admit(key, asking(), call_id="batch_1:7:1")
            await call.start()
            await call.aclose()
        finally:
            await failing.aclose()
    outcomes = {name: entry.outcome for name, entry in at.meter.entries.items()}
    assert outcomes == {"batch_1:7:1": "error", "batch_1:7:1.2": "complete"}


async def test_a_long_body_counts_as_it_is_written(key: Principal) -> None:
    long = "x" * (MAX_READ + 1)
    async with bench() as at:
        for state in ("miss", "hit"):
            assert (await at.ask(key, asking(long, **STEADY)))[0] == state
        spaced = asking(long, **STEADY).replace(b'"model":', b'"model" :')
        assert (await at.ask(key, spaced))[0] == "miss"


async def test_a_fallbacks_answer_is_not_kept_for_the_first_one(key: Principal) -> None:
    async with WireUpstream(fixed(Reply(status=503))) as down, bench() as at:
        failing = AnthropicProvider(base_url=down.url, api_key="k", timeouts=Timeouts())
        present = at.gateway.models
        assert present.default is not None
        targets = (Target(UpstreamOf(failing), OPUS), Target(present.default, OPUS))
        at.gateway.use(replace(present, routes={OPUS: Route(targets)}))
        try:
            for _ in range(2):
                found, body = await at.ask(key, asking(**STEADY))
                assert found == "miss"
                assert b"end_turn" in body
        finally:
            await failing.aclose()
