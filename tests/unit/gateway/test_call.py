"""Every ending of a call over real sockets: settled once, billed for what came, upstream closed."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from stationmaster.budgets.entry import Usage as Tokens
from stationmaster.gateway import Gateway, GatewayCall
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Upstream, UpstreamTimeout
from stationmaster.kernel.principal import Principal
from stationmaster.providers.anthropic import AnthropicProvider, Timeouts
from tests.support.gateways import AT, asking, gateway_over, read
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.raw_upstream import HEAD, STREAM_HEAD, RawUpstream, chunk, event, writes
from tests.support.wire_upstream import Call, Reply, Text, Usage, WireUpstream, fixed, text

SERVED = Usage(1000, 50, 200, 300)
COST = 1000 * 4 + 50 * 20 + 200 * 5 + 300 // 5
"""Micro-dollars of `SERVED` with claude-opus-5-5: $4, $20, $5 and $0.20 a million."""

ANSWER = Reply((Text("one two three four five six"),), SERVED)

START = json.dumps({"type": "message_start", "message": {"usage": {"input_tokens": 100}}})


class Bench:
    """A gateway in front of an upstream, with its books."""

    def __init__(self, url: str, **timeouts: float) -> None:
        self.provider = AnthropicProvider(
            base_url=url, api_key="sk-upstream", timeouts=Timeouts(**timeouts)
        )
        self.meter = MemoryMeter()
        self.notebook = Notebook()
        self.gateway: Gateway = gateway_over(self.provider, self.meter, self.notebook)

    def check_settled_once(self, outcome: str) -> None:
        assert self.meter.holds == {}
        assert len(self.meter.entries) == 1
        assert self.meter.last.outcome == outcome
        assert self.notebook.kinds == ["CallStarted", "CallEnded"]
        assert self.notebook.ended.outcome == outcome
        assert self.notebook.ended.cost == self.meter.spent


@asynccontextmanager
async def bench(url: str, **timeouts: float) -> AsyncIterator[Bench]:
    made = Bench(url, **timeouts)
    try:
        yield made
    finally:
        await made.provider.aclose()


async def collect(call: GatewayCall, into: bytearray) -> None:
    async for part in call.chunks():
        into += part


async def gone(call: Call) -> None:
    async with asyncio.timeout(10):
        await call.done.wait()
    assert call.disconnected


@pytest.mark.parametrize("stream", [True, False])
async def test_a_complete_call_is_billed_what_the_provider_says(
    key: Principal, stream: bool
) -> None:
    async with WireUpstream(fixed(ANSWER)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=stream))
        body = await read(call)
        assert call.status == 200
        assert b"end_turn" in body
    at.check_settled_once("complete")
    assert at.meter.usage == Tokens(1000, 50, 200, 300, 0)
    assert at.meter.spent == COST
    assert at.notebook.ended.status == 200
    assert at.notebook.ended.stop_reason == "end_turn"
    assert at.notebook.ended.first_byte_ms is not None


async def test_whoever_sees_the_end_finds_it_in_the_ledger(key: Principal) -> None:
    async with WireUpstream(fixed(ANSWER)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        async for part in call.chunks():
            assert (b"message_stop" in part) == bool(at.meter.entries)
        await call.aclose()


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 503, 529])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_status_passes_on_unchanged_and_costs_nothing(
    key: Principal, status: int, stream: bool
) -> None:
    reply = Reply(status=status, message="no", headers={"retry-after": "7"})
    async with WireUpstream(fixed(reply)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=stream))
        body = json.loads(await read(call))
    assert call.status == status
    assert dict(call.headers)["retry-after"] == "7"
    assert body["error"]["message"] == "no"
    assert len(upstream.calls) == 1
    at.check_settled_once("error")
    assert at.meter.spent == 0
    assert at.notebook.ended.status == status


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_a_refusal_of_our_own_key_is_not_passed_on_as_the_clients(
    key: Principal, status: int
) -> None:
    async with WireUpstream(fixed(Reply(status=status))) as upstream, bench(upstream.url) as at:
        with pytest.raises(Upstream) as caught:
            await at.gateway.messages(key, asking())
    assert caught.value.error_code == "upstream_credentials"
    at.check_settled_once("error")


async def test_nobody_listening_is_tried_twice_and_costs_nothing(key: Principal) -> None:
    async with RawUpstream(writes(b"")) as upstream:
        url = upstream.url
    async with bench(url) as at:
        with pytest.raises(Upstream) as caught:
            await at.gateway.messages(key, asking())
    assert caught.value.error_code == "upstream_unreachable"
    at.check_settled_once("error")


async def test_a_broken_head_is_not_tried_again(key: Principal) -> None:
    async with RawUpstream(writes(b"")) as upstream, bench(upstream.url) as at:
        with pytest.raises(Upstream):
            await at.gateway.messages(key, asking())
    assert len(upstream.requests) == 1
    at.check_settled_once("error")
    assert at.meter.spent == 0


async def test_an_upstream_that_stays_silent_costs_nothing(key: Principal) -> None:
    reply = Reply(hold=asyncio.Event())
    async with (
        WireUpstream(fixed(reply)) as upstream,
        bench(upstream.url, first_byte=0.05) as at,
    ):
        with pytest.raises(UpstreamTimeout):
            await at.gateway.messages(key, asking(stream=True))
        (call,) = await upstream.wait_for_calls(1)
        await gone(call)
    at.check_settled_once("error")
    assert at.meter.spent == 0


@pytest.mark.parametrize("reply", [Reply((Text("words " * 20),), SERVED, cut_after=6)])
async def test_a_stream_that_dies_is_billed_for_what_came(key: Principal, reply: Reply) -> None:
    async with WireUpstream(fixed(reply)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        came = bytearray()
        with pytest.raises(Upstream):
            await collect(call, came)
        await call.aclose()
    at.check_settled_once("partial")
    used = at.meter.usage
    pieces = came.count(b"text_delta")
    assert b"message_stop" not in came
    assert (used.input_tokens, used.cache_write_tokens, used.cache_read_tokens) == (1000, 200, 300)
    assert pieces <= used.output_tokens <= 100
    assert used.output_tokens >= upstream.served.output_tokens


async def test_a_stream_that_falls_silent_times_out_and_is_billed_for_what_came(
    key: Principal,
) -> None:
    reply = Reply((Text("words " * 20),), SERVED, hang_after=6)
    async with (
        WireUpstream(fixed(reply)) as upstream,
        bench(upstream.url, inactivity=0.1) as at,
    ):
        call = await at.gateway.messages(key, asking(stream=True))
        with pytest.raises(UpstreamTimeout):
            await read(call)
        await gone(upstream.calls[0])
    at.check_settled_once("partial")
    assert at.meter.usage.input_tokens == 1000


@pytest.mark.parametrize(
    ("raw", "outcome", "input_tokens"),
    [
        (STREAM_HEAD + chunk(b"<html>") + chunk(b""), "error", 0),
        (STREAM_HEAD + chunk(event("message_start", START)) + chunk(b""), "partial", 100),
        (STREAM_HEAD + chunk(event("message_start", START)) + chunk(b"{[" * 99), "partial", 100),
    ],
    ids=["no events", "clean end too early", "garbage"],
)
async def test_a_stream_without_its_end_is_an_error_however_it_stops(
    key: Principal, raw: bytes, outcome: str, input_tokens: int
) -> None:
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        with pytest.raises(Upstream):
            await read(call)
    at.check_settled_once(outcome)
    assert at.meter.usage.input_tokens == input_tokens


async def test_garbage_in_the_framing_of_a_stream_is_an_error(key: Principal) -> None:
    started = asyncio.Event()

    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(event("message_start", START)))
        await started.wait()
        writer.write(b"zz\r\nnot a chunk")

    async with RawUpstream(behaviour) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        chunks = call.chunks()
        assert b"message_start" in await anext(chunks)
        started.set()
        with pytest.raises(Upstream):
            await anext(chunks)
        await call.aclose()
    at.check_settled_once("partial")
    assert at.meter.usage.input_tokens == 100


async def test_an_error_inside_a_stream_passes_on_and_ends_the_call(key: Principal) -> None:
    error = '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'
    frames = event("message_start", START) + event("error", error)
    raw = STREAM_HEAD + chunk(frames) + chunk(b"")
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        assert await read(call) == frames
    at.check_settled_once("partial")


@pytest.mark.parametrize(
    "raw",
    [
        HEAD % b"application/json" + b"content-length: 500\r\n\r\n" + b'{"usage": ',
        HEAD % b"text/html" + b"content-length: 6\r\n\r\n<html>",
    ],
    ids=["shorter than its length", "not a message"],
)
async def test_an_unstreamed_answer_that_is_none_is_an_error(key: Principal, raw: bytes) -> None:
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        with pytest.raises(Upstream):
            await at.gateway.messages(key, asking())
    assert at.meter.holds == {}
    assert len(at.meter.entries) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unstreamed_answer_that_breaks_off_is_billed_at_its_full_length(
    key: Principal, *, stream: bool
) -> None:
    raw = HEAD % b"application/json" + b"content-length: 500\r\n\r\n" + b'{"usage": '
    sent = asking(stream=stream)
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        with pytest.raises(Upstream):
            await at.gateway.messages(key, sent)
    at.check_settled_once("partial")
    assert at.meter.usage == Tokens(-(-len(sent) // 2), 1000)


async def test_json_without_usage_is_billed_from_above(key: Principal) -> None:
    raw = HEAD % b"application/json" + b"content-length: 2\r\n\r\n{}"
    sent = asking()
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        assert await read(await at.gateway.messages(key, sent)) == b"{}"
    at.check_settled_once("partial")
    assert at.meter.usage == Tokens(-(-len(sent) // 2), 1)


async def _closed(call: GatewayCall) -> None:
    chunks = call.chunks()
    await anext(chunks)
    await chunks.aclose()
    await call.aclose()


async def _cancelled(call: GatewayCall) -> None:
    begun = asyncio.Event()

    async def reading() -> None:
        try:
            async for _ in call.chunks():
                begun.set()
        finally:
            await call.aclose()

    task = asyncio.create_task(reading())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [_closed, _cancelled])
async def test_a_client_that_leaves_closes_the_upstream_and_pays_for_what_came(
    key: Principal, leave: Callable[[GatewayCall], Awaitable[None]]
) -> None:
    reply = Reply((Text("words " * 20),), SERVED, hang_after=6)
    async with WireUpstream(fixed(reply)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        await leave(call)
        await call.aclose()
        await gone(upstream.calls[0])
    at.check_settled_once("partial")
    assert at.meter.usage.input_tokens == 1000


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_answer_pays_for_its_prompt(
    key: Principal, stream: bool
) -> None:
    raw = asking(stream=stream)
    async with (
        WireUpstream(fixed(Reply(hold=asyncio.Event()))) as upstream,
        bench(upstream.url) as at,
    ):
        sending = asyncio.create_task(at.gateway.messages(key, raw))
        (call,) = await upstream.wait_for_calls(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await gone(call)
    at.check_settled_once("partial")
    assert at.meter.usage.input_tokens == -(-len(raw) // 2)
    # An answer that is not streamed may be whole at the provider's by now, however long it is.
    assert at.meter.usage.output_tokens == (0 if stream else 1000)


async def test_a_store_that_is_away_at_the_end_leaves_the_hold_and_the_answer_whole(
    key: Principal,
) -> None:
    async with WireUpstream(fixed(ANSWER)) as upstream, bench(upstream.url) as at:
        call = await at.gateway.messages(key, asking(stream=True))
        at.meter.away = True
        body = await read(call)
    assert b"message_stop" in body
    assert len(at.meter.holds) == 1
    assert at.meter.entries == {}


@pytest.mark.parametrize("jump", [-86_400 * 400, 86_400 * 400], ids=["back", "ahead"])
async def test_a_clock_that_jumps_ends_no_call_and_bills_it_the_same(
    key: Principal, jump: float
) -> None:
    clock = ManualClock(AT)
    hold = asyncio.Event()
    async with (
        WireUpstream(fixed(replace(ANSWER, hold=hold))) as upstream,
        bench(upstream.url, first_byte=30, inactivity=30, total=60) as at,
    ):
        gateway = gateway_over(at.provider, at.meter, at.notebook, clock=clock)
        starting = asyncio.create_task(gateway.messages(key, asking(stream=True)))
        await upstream.wait_for_calls(1)
        clock.advance(jump)
        hold.set()
        call = await starting
        clock.advance(-jump / 2)
        assert b"message_stop" in await read(call)
        at.check_settled_once("complete")
        assert at.meter.spent == COST
        assert at.notebook.ended.duration_ms >= 0


async def test_many_calls_at_once_add_up_to_what_was_served(key: Principal) -> None:
    async with WireUpstream(fixed(ANSWER)) as upstream, bench(upstream.url) as at:

        async def one(number: int) -> None:
            await read(await at.gateway.messages(key, asking(stream=number % 2 == 0)))

        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(one(number))
        served = upstream.served
    assert at.meter.usage.input_tokens == served.input_tokens
    assert at.meter.usage.output_tokens == served.output_tokens
    assert at.meter.spent == 30 * COST


async def test_a_token_count_costs_nothing_and_is_not_observed(key: Principal) -> None:
    async with WireUpstream(fixed(text("x"))) as upstream, bench(upstream.url) as at:
        raw = b'{"model": "opus", "messages": []}'
        counted = await at.gateway.count_tokens(key, raw, (), "beta=true")
        assert upstream.calls[0].raw == raw.replace(b"opus", b"claude-opus-5-5")
        assert upstream.calls[0].query == "beta=true"
    assert counted.status == 200
    assert json.loads(counted.body)["input_tokens"] > 0
    assert at.meter.asked == []
    assert at.notebook.events == []


async def test_a_token_count_hides_a_refusal_of_our_own_key(key: Principal) -> None:
    raw = b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"
    async with RawUpstream(writes(raw)) as upstream, bench(upstream.url) as at:
        with pytest.raises(Upstream) as caught:
            await at.gateway.count_tokens(key, asking())
    assert caught.value.error_code == "upstream_credentials"
