"""What every bus promises."""

import asyncio
from collections.abc import Callable

import pytest

from stationmaster.live.bus import Bus, MemoryBus

BUSES: dict[str, Callable[[], Bus]] = {"memory": MemoryBus}


@pytest.fixture(params=BUSES)
def bus(request: pytest.FixtureRequest) -> Bus:
    return BUSES[request.param]()


async def test_messages_come_in_order_to_every_listener_of_the_topic(bus: Bus) -> None:
    first, second, other = bus.subscribe("a"), bus.subscribe("a"), bus.subscribe("b")
    for number in range(10):
        bus.publish("a", number)
    assert await first.wait(30)
    assert await second.wait(30)
    assert first.take() == second.take() == list(range(10))
    assert other.take() == []


async def test_what_was_published_before_the_subscription_is_not_received(bus: Bus) -> None:
    bus.publish("a", 1)
    subscription = bus.subscribe("a")
    bus.publish("a", 2)
    assert await subscription.wait(30)
    assert subscription.take() == [2]


async def test_publishing_to_nobody_is_fine(bus: Bus) -> None:
    bus.publish("nobody", 1)


async def test_a_listener_that_has_left_gets_nothing(bus: Bus) -> None:
    subscription, stays = bus.subscribe("a"), bus.subscribe("a")
    bus.unsubscribe(subscription)
    bus.unsubscribe(subscription)  # idempotent
    bus.publish("a", 1)
    assert await stays.wait(30)
    assert subscription.take() == []
    assert stays.take() == [1]


async def test_waiting_ends_after_the_timeout(bus: Bus) -> None:
    subscription = bus.subscribe("a")
    assert not await subscription.wait(0)
    bus.publish("a", 1)
    assert await subscription.wait(30)
    subscription.take()
    assert not await subscription.wait(0), "what was taken still wakes"


async def test_a_message_wakes_who_waits(bus: Bus) -> None:
    subscription = bus.subscribe("a")
    waiting = asyncio.create_task(subscription.wait(30))
    await asyncio.sleep(0)
    bus.publish("a", 1)
    assert await waiting


async def test_too_many_messages_overflow_and_drop_all(bus: Bus) -> None:
    slow, quick = bus.subscribe("a", capacity=3), bus.subscribe("a", capacity=10)
    for number in range(4):
        bus.publish("a", number)
    assert await slow.wait(30)
    assert [slow.overflowed, quick.overflowed] == [True, False]
    assert slow.take() == []
    assert await slow.wait(0), "an overflow must be noticed by whoever waits next"
    assert await quick.wait(30)
    assert quick.take() == [0, 1, 2, 3]
    slow.reset()
    assert [slow.overflowed, quick.overflowed] == [False, False]
    assert not await slow.wait(0)
    bus.publish("a", 5)
    assert await slow.wait(30)
    assert slow.take() == [5]


async def test_capacity_messages_do_not_overflow(bus: Bus) -> None:
    subscription = bus.subscribe("a", capacity=3)
    for number in range(3):
        bus.publish("a", number)
    assert await subscription.wait(30)
    assert not subscription.overflowed
    assert subscription.take() == [0, 1, 2]


def test_a_memory_bus_forgets_topics_without_listeners() -> None:
    bus = MemoryBus()
    subscriptions = [bus.subscribe(f"topic {number}") for number in range(10)]
    assert bus.listeners("topic 3") == 1
    for subscription in subscriptions:
        bus.unsubscribe(subscription)
    assert bus.listeners("topic 3") == 0
    assert not bus._topics
