"""Retries, fallbacks and patience, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from stationmaster.gateway import (
    Care,
    Gateway,
    Models,
    Pricing,
    Route,
    Target,
    UpstreamOf,
)
from stationmaster.gateway.upstreams import RETRY_RESERVE, asked_for
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Unavailable, Upstream
from stationmaster.kernel.principal import Principal
from stationmaster.providers.anthropic import AnthropicProvider
from stationmaster.providers.upstream import Timeouts
from tests.support.gateways import AT, OPUS, asking, read
from tests.support.memory_meter import MemoryMeter, Notebook
from tests.support.wire_upstream import Reply, Text, WireUpstream

ANSWER = Reply((Text("Hello."),))


class Failing:
    """An upstream that first gives the `failures`, in order, and answers from then on."""

    def __init__(self) -> None:
        self.failures: list[Reply] = []
        self.answer = ANSWER
        self.upstream = WireUpstream(self._reply)

    def _reply(self, _: Any) -> Reply:
        return self.failures.pop(0) if self.failures else self.answer

    @property
    def calls(self) -> int:
        return len(self.upstream.message_calls)


def failure(status: int, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=names)


@pytest.fixture
async def first() -> AsyncIterator[Failing]:
    made = Failing()
    async with made.upstream:
        yield made


@pytest.fixture
async def second() -> AsyncIterator[Failing]:
    made = Failing()
    async with made.upstream:
        yield made


class Bench:
    def __init__(self, *upstreams: Failing, care: Care, total: float = 60) -> None:
        self.meter = MemoryMeter()
        clock = ManualClock(AT)
        self.upstreams = [
            UpstreamOf(
                AnthropicProvider(
                    base_url=each.upstream.url,
                    api_key="sk",
                    name=f"p{n}",
                    timeouts=Timeouts(total=total if n == 0 else 60),
                ),
                care,
            )
            for n, each in enumerate(upstreams)
        ]
        route = Route(tuple(Target(each, OPUS) for each in self.upstreams))
        self.gateway = Gateway(
            models=Models(Pricing(clock=clock), None, routes={OPUS: route}),
            meter=self.meter,
            observer=Notebook(),
            clock=clock,
        )

    async def ask(self, key: Principal, **members: object) -> tuple[int, bytes]:
        call = await self.gateway.messages(key, asking(**members))  # type: ignore[arg-type]
        return call.status, await read(call)

    def check(self) -> None:
        """Nothing is held, and nobody is inside."""
        assert self.meter.holds == {}
        assert [each.active for each in self.upstreams] == [0] * len(self.upstreams)


async def test_what_may_succeed_later_is_sent_again_and_billed_once(
    key: Principal, first: Failing
) -> None:
    bench = Bench(first, care=Care(retries=2))
    first.failures = [failure(529, retry_after_ms="1"), failure(500, retry_after_ms="1")]
    status, body = await bench.ask(key)
    assert (status, b"Hello." in body) == (200, True)
    assert first.calls == 3
    assert len(bench.meter.entries) == 1
    bench.check()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (400, {}),
        (529, {"x_should_retry": "false"}),
        (429, {"retry_after": "3600"}),
    ],
    ids=["the client's fault", "told not to", "too long a wait"],
)
async def test_what_would_not_help_is_not_tried(
    key: Principal, first: Failing, status: int, headers: dict[str, str]
) -> None:
    bench = Bench(first, care=Care(retries=5))
    first.failures = [failure(status, **headers)]
    answered, _ = await bench.ask(key)
    assert answered == status
    assert first.calls == 1
    assert bench.meter.spent == 0
    bench.check()


async def test_an_outage_is_not_made_worse(key: Principal, first: Failing) -> None:
    bench = Bench(first, care=Care(retries=10))
    calls = 20
    first.failures = [failure(503, retry_after_ms="0")] * 1_000
    for _ in range(calls):
        await bench.ask(key)
    retries = first.calls - calls
    assert 0 < retries <= RETRY_RESERVE + calls * 0.1
    bench.check()


async def test_another_provider_answers_where_the_first_does_not(
    key: Principal, first: Failing, second: Failing
) -> None:
    bench = Bench(first, second, care=Care())
    first.failures = [failure(503)]
    status, body = await bench.ask(key, stream=True)
    assert (status, b"Hello." in body) == (200, True)
    assert [entry.context.provider for entry in bench.meter.entries.values()] == ["p0", "p1"]
    assert [entry.cost > 0 for entry in bench.meter.entries.values()] == [False, True]
    bench.check()


async def test_where_all_fail_the_last_answer_is_told(
    key: Principal, first: Failing, second: Failing
) -> None:
    bench = Bench(first, second, care=Care())
    first.failures, second.failures = [failure(503)], [failure(529)]
    status, _ = await bench.ask(key)
    assert status == 529
    assert bench.meter.spent == 0
    bench.check()


async def test_a_provider_that_cannot_be_reached_is_left_alone(
    key: Principal, first: Failing
) -> None:
    first.upstream.url = "http://127.0.0.1:1"  # nobody listens there
    bench = Bench(first, care=Care(threshold=2, recovery=60))
    with pytest.raises(Upstream):
        await bench.ask(key)
    with pytest.raises(Unavailable) as caught:
        await bench.ask(key)
    assert caught.value.error_code == "upstream_open"
    assert 0 < caught.value.retry_after <= 60
    bench.check()


async def test_only_so_many_are_inside_and_only_so_many_wait(
    key: Principal, first: Failing
) -> None:
    gate = asyncio.Event()
    first.answer = replace(ANSWER, hold=gate)
    bench = Bench(first, care=Care(max_concurrent=2, max_waiting=1))
    inside = [asyncio.create_task(bench.ask(key)) for _ in range(3)]
    while bench.upstreams[0].waiting < 1 or first.calls < 2:
        await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await bench.ask(key)
    assert caught.value.error_code == "upstream_busy"
    assert first.calls == 2
    gate.set()
    assert [status for status, _ in await asyncio.gather(*inside)] == [200] * 3
    bench.check()


async def test_who_waited_is_not_sent_where_it_failed_meanwhile(
    key: Principal, first: Failing
) -> None:
    gate = asyncio.Event()
    first.failures = [replace(failure(503), hold=gate)]
    bench = Bench(first, care=Care(max_concurrent=1, threshold=1, recovery=60))
    inside = asyncio.create_task(bench.ask(key))
    while first.calls < 1:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(bench.ask(key)) for _ in range(3)]
    while bench.upstreams[0].waiting < 3:
        await asyncio.sleep(0)
    gate.set()
    assert (await inside)[0] == 503
    for found in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(found, Unavailable)
        assert found.error_code == "upstream_open"
    assert first.calls == 1
    bench.check()


async def test_a_slow_one_is_paid_for_and_another_asked(
    key: Principal, first: Failing, second: Failing
) -> None:
    first.answer = replace(ANSWER, hold=asyncio.Event())
    bench = Bench(first, second, care=Care(), total=0.2)
    assert (await bench.ask(key, max_tokens=100))[0] == 200
    slow, answered = bench.meter.entries.values()
    assert (slow.outcome, answered.outcome) == ("unknown", "complete")
    assert slow.usage.output_tokens == 100
    assert slow.usage.input_tokens > 0
    bench.check()


async def test_a_client_that_leaves_during_a_pause_pays_nothing(
    key: Principal, first: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(first, care=Care(retries=2))
    first.failures = [failure(529, retry_after="15")]
    pausing = asyncio.Event()

    async def paused(_: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("stationmaster.gateway.upstreams.asyncio.sleep", paused)
    call = asyncio.create_task(bench.ask(key))
    await pausing.wait()
    call.cancel()
    await asyncio.wait({call})
    assert bench.meter.spent == 0
    bench.check()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        ((("retry-after", "2"),), 2.0),
        ((("retry-after", "1.5"),), 1.5),
        ((("retry-after", "9"), ("retry-after-ms", "250")), 0.25),
        ((("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),), 0.0),
        ((("retry-after", "soon"),), None),
        ((("retry-after", "-1"),), None),
    ],
    ids=["none", "whole", "fraction", "ms", "date", "word", "negative"],
)
def test_the_wait_that_a_provider_asks_for(
    headers: tuple[tuple[str, str], ...], seconds: float | None
) -> None:
    assert asked_for(headers) == seconds
