"""A model call and the rate limits: counted once, put right, and its place given back."""

import asyncio
from typing import Any

import pytest

from stationmaster.budgets.entry import Refused, Reserved
from stationmaster.gateway import Gateway, Models, Pricing, UpstreamOf
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import BudgetExceeded, Invalid, Upstream
from stationmaster.kernel.principal import Principal
from stationmaster.limits import Limiter, MemoryStore, Policy, Rate, RateLimited
from stationmaster.providers.anthropic import AnthropicProvider, Timeouts
from stationmaster.providers.base import Provider
from stationmaster.providers.offline import OfflineProvider
from tests.support.gateways import AT, asking, read
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.raw_upstream import RawUpstream, writes
from tests.support.wire_upstream import Reply, Text, Usage, WireUpstream, fixed

POLICY = Policy(
    classes={"chat": Rate(100), "read": Rate(2)},
    input_tokens=Rate(10_000),
    output_tokens=Rate(10_000),
    calls=1,
)
ANSWER = Reply((Text("one two three"),), Usage(700, 50, 200, 300))


class StuckMeter(MemoryMeter):
    """Says when it was asked, and answers nothing, while `stuck` is there."""

    stuck: asyncio.Event | None = None

    async def reserve(self, *args: Any, **kwargs: Any) -> Reserved | Refused:
        if self.stuck is not None:
            self.stuck.set()
            await asyncio.Event().wait()
        return await super().reserve(*args, **kwargs)


class Bench:
    def __init__(self, provider: Provider, policy: Policy = POLICY) -> None:
        self.clock = ManualClock(AT)
        self.store = MemoryStore(self.clock)
        self.meter = StuckMeter()
        self.gateway = Gateway(
            models=Models(Pricing(clock=self.clock), UpstreamOf(provider)),
            meter=self.meter,
            observer=Notebook(),
            clock=self.clock,
            limiter=Limiter(policy, self.store),
        )

    async def left(self, key: Principal) -> list[int | None]:
        """What is left now, found out by a call that is given up again."""
        call = await self.gateway.admit(key, asking("", max_tokens=1))
        await call.aclose()
        return [None if quota is None else quota.remaining for quota in call.grant.standing]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_used_takes_the_place_of_what_was_expected(
    key: Principal, stream: bool
) -> None:
    async with WireUpstream(fixed(ANSWER)) as upstream:
        provider = AnthropicProvider(
            base_url=upstream.url, api_key="sk-upstream", timeouts=Timeouts()
        )
        bench = Bench(provider)
        before = await bench.left(key)
        raw = asking("x" * 4_000, max_tokens=8_000, stream=stream)
        call = await bench.gateway.messages(key, raw)
        expected = [None if quota is None else quota.remaining for quota in call.grant.standing]
        await read(call)
        after = await bench.left(key)
        await provider.aclose()
    assert before[1:] != [None, None]
    assert expected[1] == 10_000 - -(-len(raw) // 4)
    assert expected[2] == 2_000
    own = -(-len(asking("", max_tokens=1)) // 4)
    # New input and what is written to the cache count; what is read from it does not.
    assert after[1] == 10_000 - own - (700 + 200)
    assert after[2] == 10_000 - 1 - 50
    assert bench.store.places == 0


async def test_a_second_call_waits_for_the_place_of_the_first(key: Principal) -> None:
    bench = Bench(OfflineProvider(delay=0))
    call = await bench.gateway.messages(key, asking(stream=True))
    with pytest.raises(RateLimited) as refusal:
        await bench.gateway.admit(key, asking())
    assert refusal.value.retry_after
    assert len(bench.meter.asked) == 1, "it is refused before anything is held"
    await read(call)
    await (await bench.gateway.admit(key, asking())).aclose()


async def test_no_ending_of_a_call_keeps_a_place(key: Principal) -> None:
    bench = Bench(OfflineProvider(delay=0))

    async def admitted_and_dropped() -> None:
        await (await bench.gateway.admit(key, asking())).aclose()

    async def cut_in_the_middle() -> None:
        call = await bench.gateway.messages(key, asking(stream=True))
        async for _ in call.chunks():
            break
        await call.aclose()

    async def cancelled_while_holding() -> None:
        bench.meter.stuck = asyncio.Event()
        holding = asyncio.create_task(bench.gateway.admit(key, asking()))
        await bench.meter.stuck.wait()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        bench.meter.stuck = None

    async def refused_for_cost() -> None:
        bench.meter.limit = 0
        with pytest.raises(BudgetExceeded):
            await bench.gateway.admit(key, asking())
        bench.meter.limit = None

    async def not_readable() -> None:
        with pytest.raises(Invalid):
            await bench.gateway.admit(key, b"{")

    for ending in (
        admitted_and_dropped,
        cut_in_the_middle,
        cancelled_while_holding,
        refused_for_cost,
        not_readable,
    ):
        await ending()
        assert bench.store.places == 0, ending.__name__
        assert (await bench.left(key))[2] is not None


async def test_an_upstream_that_fails_gives_back_tokens_and_place(key: Principal) -> None:
    async with RawUpstream(writes(b"nonsense\r\n\r\n")) as upstream:
        provider = AnthropicProvider(
            base_url=upstream.url, api_key="sk-upstream", timeouts=Timeouts()
        )
        bench = Bench(provider)
        with pytest.raises(Upstream):
            await bench.gateway.messages(key, asking(max_tokens=9_000))
        left = await bench.left(key)
        await provider.aclose()
    assert left[2] == 9_999


async def test_a_run_shares_the_limits_of_its_key(key: Principal, run: Principal) -> None:
    bench = Bench(OfflineProvider(delay=0))
    call = await bench.gateway.messages(key, asking(stream=True))
    with pytest.raises(RateLimited):
        await bench.gateway.admit(run, asking())
    await read(call)
    await (await bench.gateway.admit(run, asking())).aclose()


async def test_counting_tokens_counts_as_reading(key: Principal) -> None:
    bench = Bench(OfflineProvider(delay=0))
    for left in (1, 0):
        counted = await bench.gateway.count_tokens(key, asking())
        assert counted.status == 200
        assert counted.standing[0] is not None
        assert counted.standing[0].remaining == left
    with pytest.raises(RateLimited):
        await bench.gateway.count_tokens(key, asking())
