"""News over Redis that comes and goes: nobody waits for it, and who has missed something knows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from stationmaster.events import Event, Live
from stationmaster.events.passing import decode, encode
from stationmaster.live import redis as module
from stationmaster.live.bus import Subscription
from stationmaster.live.connection import connected
from stationmaster.live.redis import GAPS, MESSAGE_BYTES, PREFIX, RedisBus
from tests.support.redis import RedisServer, private_redis

NEVER = 3600.0  # seconds between polls: what wakes is not the polling


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with private_redis() as running:
        yield running


class Replica:
    """A server's bus, and what it told of itself."""

    def __init__(self, client: Redis, *, poll: float = NEVER) -> None:
        self.changes: list[bool] = []
        self.lost = 0
        self.bus = RedisBus(
            client,
            encode=msgspec.json.encode,
            decode=msgspec.json.decode,
            timeout=0.5,
            poll=poll,
            on_change=self.changes.append,
            on_lost=self._lose,
        )

    def _lose(self) -> None:
        self.lost += 1

    async def listens(self, topic: str) -> Subscription:
        subscription = self.bus.subscribe(topic)
        await until(lambda: subscription.missed)
        subscription.reset()
        return subscription


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def replicas(url: str, number: int, **options: float) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(number):
            replica = Replica(await stack.enter_async_context(connected(url)), **options)
            running = asyncio.create_task(replica.bus.run())
            stack.push_async_callback(asyncio.wait, [running])
            stack.callback(running.cancel)
            made.append(replica)
        yield made


async def shared(*several: Replica, is_shared: bool = True) -> None:
    await until(lambda: all(each.bus.shared == is_shared for each in several))


async def test_a_new_subscription_is_told_to_look_once_it_is_known(redis_url: str) -> None:
    async with replicas(redis_url, 2) as [here, there]:
        await shared(here, there)
        first = there.bus.subscribe("a")
        assert await first.wait(30), "what was published meanwhile did not come here"
        assert first.missed
        assert first.take() == []
        second = there.bus.subscribe("a")
        assert not await second.wait(0), "Redis knew of the topic already"
        here.bus.publish("a", 1)
        assert await first.wait(30)
        assert await second.wait(30)
        assert first.take() == second.take() == [1]


async def test_redis_is_told_of_topics_that_nobody_listens_to_any_more(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with replicas(redis_url, 1) as [here]:
        subscription = await here.listens("gone")
        await here.listens("stays")
        here.bus.unsubscribe(subscription)
        channel = (PREFIX + b"gone").decode()
        await until(lambda: channel.encode() not in redis_server.command("PUBSUB", "CHANNELS"))
        assert PREFIX + b"stays" in redis_server.command("PUBSUB", "CHANNELS")
        again = await here.listens("gone")
        assert not again.overflowed


async def test_without_redis_those_here_hear_and_the_others_are_told_afterwards(
    server: RedisServer,
) -> None:
    async with replicas(server.url, 2) as [here, there]:
        await shared(here, there)
        near, far = await here.listens("a"), await there.listens("a")
        quiet = await there.listens("quiet")
        server.pause()
        await shared(here, there, is_shared=False)
        here.bus.publish("a", 1)
        assert near.take() == [1]
        server.resume()
        await shared(here, there)
        await until(lambda: far.missed and quiet.missed)
        far.reset()
        here.bus.publish("a", 2)
        assert await far.wait(30)
        assert far.take() == [2]
        assert here.changes == [False, True, False, True]


async def test_a_redis_that_hangs_keeps_nobody_waiting(server: RedisServer) -> None:
    async with replicas(server.url, 2) as [here, there]:
        await shared(here, there)
        near, far = await here.listens("a"), await there.listens("a")
        server.hang()
        try:
            for number in range(100):
                here.bus.publish("a", number)
            assert near.take() == list(range(100))
            await shared(here, there, is_shared=False)
        finally:
            server.wake()
        await shared(here, there)
        assert await far.wait(30)
        far.reset()
        here.bus.publish("a", "again")
        await until(lambda: "again" in far.take())


async def test_who_lost_messages_says_so_to_servers_that_noticed_nothing(redis_url: str) -> None:
    async with replicas(redis_url, 2) as [here, there]:
        await shared(here, there)
        far = await there.listens("a")
        here.bus._breaker.failed()  # as where its own connection was cut
        here.bus.publish("a", 1)
        assert here.lost == 1
        assert await far.wait(30)
        assert far.missed
        assert far.take() == []
        assert there.changes == [False, True]


async def test_what_waits_to_be_sent_is_bounded(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 1000)
    async with replicas(redis_url, 2) as [here, there]:
        await shared(here, there)
        far = await there.listens("a")
        for _ in range(20):  # none is sent before this task waits
            here.bus.publish("a", "x" * 98)
        assert here.lost == 10
        await until(lambda: far.missed)
        assert far.take() == ["x" * 98] * 10


@pytest.mark.parametrize("excess", [0, 1])
async def test_of_a_large_message_others_hear_that_it_is_there(redis_url: str, excess: int) -> None:
    message = "x" * (MESSAGE_BYTES - 2 + excess)  # with its quotes
    async with replicas(redis_url, 2) as [here, there]:
        await shared(here, there)
        near, far = await here.listens("a"), await there.listens("a")
        here.bus.publish("a", message)
        assert near.take() == [message]
        assert await far.wait(30)
        assert far.missed == bool(excess)
        assert far.take() == ([] if excess else [message])


async def test_what_cannot_be_encoded_is_announced_all_the_same(redis_url: str) -> None:
    async with replicas(redis_url, 2) as [here, there]:
        await shared(here, there)
        far = await there.listens("a")
        here.bus.publish("a", object())
        assert await far.wait(30)
        assert far.missed


@pytest.mark.parametrize("rubbish", [b"", b"no space", b"somebody {", b"x \xff\xfe", b"x \x00"])
async def test_rubbish_on_a_channel_is_a_reason_to_look(redis_url: str, rubbish: bytes) -> None:
    async with replicas(redis_url, 1) as [here], connected(redis_url) as stranger:
        await shared(here)
        subscription = await here.listens("a")
        await stranger.publish(PREFIX + b"a", rubbish)
        assert await subscription.wait(30)
        assert subscription.missed
        assert subscription.take() == []
        await stranger.publish(GAPS, rubbish)
        assert await subscription.wait(30)
        assert here.bus.shared


async def test_a_redis_that_is_not_there_at_the_start_is_found_later(server: RedisServer) -> None:
    server.pause()
    async with replicas(server.url, 2, poll=0.01) as [here, there]:
        far = there.bus.subscribe("a")
        here.bus.publish("a", 1)
        assert await far.wait(30), "polling wakes"
        assert far.missed
        server.resume()
        await shared(here, there)
        here.bus.publish("a", 2)
        await until(lambda: 2 in far.take())


def test_events_pieces_and_words_pass_whole_and_the_rest_as_a_wake_up() -> None:
    strange = {"text": "\x00 ü \U0001f600", "n": [1.5, None, 2**53], "deep": {"a": {}}}
    batch = [Event("sesn_1", 1, 5, "agent.message", 1, strange), Event("sesn_1", 2, 6, "x", 2, {})]
    assert decode(encode(batch)) == batch
    assert decode(encode(Live("agent.delta", strange))) == Live("agent.delta", strange)
    assert decode(encode("run.queued")) == "run.queued"
    others: list[Any] = [None, [], 5]
    assert [encode(message) for message in others] == [b""] * 3
    for rubbish in (
        b"",
        b"null",
        b"[]",
        b'["other", 1]',
        b'["events", [[1]]]',
        b'["live"]',
        b'["word"]',
    ):
        with pytest.raises((ValueError, TypeError)):
            decode(rubbish)
