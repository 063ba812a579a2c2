"""What every broker promises, on the real servers: each message at least once, and a clean end."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiormq
import pytest
import structlog

from stationmaster.jobs.broker import AT_ONCE, Broker, Delivery, Lane, Ring
from stationmaster.jobs.rabbitmq import RabbitMQ
from stationmaster.kernel.errors import Unavailable
from tests.support.brokers import BOUND_S, END_S, Place, until
from tests.support.rabbitmq import RabbitServer


def ring(number: int, lane: Lane = "jobs") -> Ring:
    return Ring(f"job_{number}", "work", lane)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(each.ring.job_id.removeprefix("job_")) for each in deliveries]


async def received(broker: Broker, lane: Lane = "jobs") -> list[Delivery]:
    async with asyncio.timeout(BOUND_S):
        return await broker.receive(lane)


async def nothing(broker: Broker, lane: Lane = "jobs") -> None:
    """Nothing has come by the time that a message sent now has."""
    probe = Ring("job_999999", "probe", lane)
    await broker.publish([probe])
    [only] = await received(broker, lane)
    assert only.ring == probe
    await broker.acknowledge([only])


async def test_what_is_sent_comes_in_order_and_acknowledged_comes_no_more(place: Place) -> None:
    sender, receiver = await place.run(receives=False), await place.run()
    await sender.publish([ring(number) for number in range(50)])
    got: list[Delivery] = []
    while len(got) < 50:
        some = await received(receiver)
        assert len(some) <= AT_ONCE["jobs"]
        got += some
        await receiver.acknowledge(some)
    assert numbers(got) == list(range(50))
    assert got[0].ring == ring(0)
    await nothing(receiver)
    await place.end(receiver)
    await nothing(await place.run(name="b"))


async def test_each_message_goes_to_one_of_many(place: Place) -> None:
    sender, receivers = await place.run(), [await place.run(name=name) for name in "bc"]
    got: list[int] = []

    async def work(receiver: Broker) -> None:
        while True:
            some = await receiver.receive("jobs")
            got.extend(numbers(some))
            await receiver.acknowledge(some)

    await place.end(sender)
    sender = await place.run(receives=False)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(receiver)) for receiver in receivers]
        await sender.publish([ring(number) for number in range(200)])
        await until(lambda: len(got) >= 200)
        for task in tasks:
            task.cancel()
    assert sorted(got) == list(range(200))


async def test_what_a_receiver_takes_to_its_grave_comes_to_another(place: Place) -> None:
    sender, first = await place.run(receives=False), await place.run()
    await sender.publish([ring(1)])
    assert numbers(await received(first)) == [1]
    await place.end(first)
    second = await place.run(name="b")
    got = await received(second)
    assert numbers(got) == [1]
    await second.acknowledge(got)
    await nothing(second)


async def test_of_runs_a_worker_holds_one(place: Place) -> None:
    sender = await place.run(receives=False)
    full, other = await place.run(name="b"), await place.run(name="c")
    await sender.publish([ring(number, "runs") for number in range(2)])
    held = await received(full, "runs")
    got = await received(other, "runs")
    assert sorted(numbers(held) + numbers(got)) == [0, 1]
    # The lanes do not stand in each other's way.
    await sender.publish([ring(7)])
    either = {asyncio.create_task(received(each)) for each in (full, other)}
    done, waiting = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    assert [numbers(task.result()) for task in done] == [[7]]
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"{}",
        b'{"id": 1, "kind": "work", "lane": "jobs"}',
        b'{"id": "", "kind": "work", "lane": "jobs"}',
        b'{"id": "a b", "kind": "work", "lane": "jobs"}',
        b'{"id": "job_1", "kind": "work\\n", "lane": "jobs"}',
        b'{"id": "job_1", "kind": "work", "lane": "other"}',
        b'{"id": "' + b"x" * 65 + b'", "kind": "work", "lane": "jobs"}',
        b"[" * 100_000,
    ],
    ids=range(11),
)
async def test_what_is_not_understood_is_a_dead_letter(place: Place, body: bytes) -> None:
    receiver = await place.run()
    await place.put(body, "jobs")
    await receiver.publish([ring(1)])
    got = await received(receiver)
    assert numbers(got) == [1]
    await receiver.acknowledge(got)
    async with asyncio.timeout(BOUND_S):
        while (found := await place.dead()) is None and body:
            await asyncio.sleep(0.01)
    assert (found or b"") == body


async def test_a_newer_servers_message_is_understood(place: Place) -> None:
    receiver = await place.run()
    await place.put(b'{"id": "job_3", "kind": "work", "lane": "jobs", "more": [1]}', "jobs")
    assert numbers(await received(receiver)) == [3]


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_away_it_says_so_and_comes_back_by_itself(place: Place, how: str) -> None:
    sender, receiver = await place.run(receives=False), await place.run()
    waiting = asyncio.create_task(received(receiver))
    place.down(how)
    with pytest.raises(Unavailable) as raised:
        async with asyncio.timeout(BOUND_S):
            await sender.publish([ring(1)])
    assert raised.value.error_code == "broker_away"
    await until(lambda: sender.trouble is not None and receiver.trouble is not None)
    await place.up(how)
    await until(lambda: sender.trouble is None and receiver.trouble is None)
    await sender.publish([ring(2)])
    got = await waiting
    while 2 not in numbers(got):  # the first may have come in spite of all
        await receiver.acknowledge(got)
        got = await received(receiver)
    await receiver.acknowledge(got)


async def test_what_was_deleted_there_is_made_again(place: Place) -> None:
    broker = await place.run()
    waiting = asyncio.create_task(received(broker))
    await place.delete()
    async with asyncio.timeout(BOUND_S):
        while True:
            try:
                await broker.publish([ring(1)])
            except Unavailable:
                await asyncio.sleep(0.01)
                continue
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            if done:
                break
    assert numbers(await waiting)[0] == 1
    if isinstance(place.server, RabbitServer):
        await place.server.settle()  # for who kills it next


@pytest.mark.parametrize("how", ["connected", "killed", "hung"])
async def test_it_ends_in_every_state(place: Place, how: str) -> None:
    broker = await place.run()
    waiting = asyncio.create_task(broker.receive("jobs"))
    if how != "connected":
        place.down(how)
    publishing = asyncio.create_task(broker.publish([ring(1)]))
    await asyncio.sleep(0)
    await place.end(broker)
    waiting.cancel()
    await asyncio.wait({waiting, publishing}, timeout=END_S)
    assert publishing.done()
    publishing.exception()


@pytest.mark.parametrize("how", ["killed", "hung"])
async def test_it_ends_while_it_tries_to_come_back(place: Place, how: str) -> None:
    broker = await place.run()
    place.down(how)
    await until(lambda: broker.trouble is not None)
    await place.end(broker)


@pytest.mark.parametrize("moment", [0.0, 0.002, 0.01, 0.05])
async def test_it_ends_at_any_moment_of_its_beginning(place: Place, moment: float) -> None:
    broker = place.make()
    place.start(broker)
    await asyncio.sleep(moment)
    await place.end(broker)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def _elsewhere(url: str, **change: Any) -> str:
    parts = urlsplit(url)
    password = change.get("password", parts.password)
    user = change.get("user", parts.username or "")
    netloc = f"{user}:{password}@127.0.0.1:{change.get('port', parts.port)}"
    return parts._replace(netloc=netloc, path=change.get("path", parts.path)).geturl()


Wrong = Callable[[str, int], str]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda url, _silent: _elsewhere(url, port=1), "broker_away"),
        (lambda url, silent: _elsewhere(url, port=silent), "broker_away"),
        (lambda url, _silent: url.replace("127.0.0.1", "no-such-host.invalid"), "broker_away"),
        (lambda url, _silent: _elsewhere(url, password="not-the-secret"), "broker_refused"),
    ],
    ids=["nobody listens", "nobody answers", "no such host", "wrong password"],
)
async def test_what_is_wrong_is_said_without_the_address(
    place: Place, silent: int, wrong: Wrong, code: str
) -> None:
    url = wrong(place.server.url, silent)
    with structlog.testing.capture_logs() as lines:
        broker = place.make(url)
        first = broker.trouble
        place.start(broker)
        await until(lambda: broker.trouble is not first)
        trouble = broker.trouble
        await place.end(broker)
    assert trouble is not None
    assert trouble.error_code == code
    told = f"{trouble.message} {lines}"
    parts = urlsplit(url)
    assert parts.password is not None
    for secret in (parts.password, "127.0.0.1", "invalid", str(parts.port)):
        assert secret not in told
    assert [line["log_level"] for line in lines] == ["warning"]


async def test_a_virtual_host_that_is_not_there(rabbitmq_server: RabbitServer) -> None:
    broker = RabbitMQ(_elsewhere(rabbitmq_server.url, path="/missing"), receives=True)
    first = broker.trouble
    running = asyncio.create_task(broker.run())
    await until(lambda: broker.trouble is not first)
    running.cancel()
    await asyncio.wait({running}, timeout=END_S)
    assert running.done()
    assert broker.trouble is not None
    assert "virtual host" in broker.trouble.message


async def test_a_queue_of_another_form_is_said_and_goes_on_when_it_is_gone(
    rabbitmq_server: RabbitServer, rabbitmq_url: str
) -> None:
    connection = await aiormq.connect(rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_delete("stationmaster.jobs")
    await channel.queue_declare("stationmaster.jobs", durable=True)
    broker = RabbitMQ(rabbitmq_url, receives=True)
    running = asyncio.create_task(broker.run())
    await until(lambda: broker.trouble is not None and broker.trouble.error_code != "broker_away")
    assert broker.trouble is not None
    assert "another form" in broker.trouble.message
    await channel.queue_delete("stationmaster.jobs")
    await until(lambda: broker.trouble is None)
    running.cancel()
    await asyncio.wait({running}, timeout=END_S)
    await connection.close()
    await rabbitmq_server.settle()


async def test_how_much_waits_is_known(place: Place) -> None:
    sender = await place.run(receives=False)
    await sender.publish([ring(number) for number in range(3)])
    await until(lambda: sender.waiting == 3)
