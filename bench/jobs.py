"""A job's way to its handler over a real RabbitMQ, against bare Taskiq over the same one.

Ours is more than a message: a row that is committed in PostgreSQL (fsync on) before anybody hears
of it, claimed by SQL, and deleted when it is done. Taskiq sends the job itself to a quorum queue.
The time is from the caller's wish to the handler's first line; sender and worker share a process.
Needs PostgreSQL's programs and RabbitMQ.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import quantiles

import structlog
from taskiq.receiver import Receiver
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

from bench.command import Plan, run
from bench.figure import Figure
from bench.programs import MissingProgramError
from bench.rounds import interleaved_async, middle
from stationmaster.jobs import Job, Outbox, Relay, Runner
from stationmaster.jobs.rabbitmq import RabbitMQ
from stationmaster.kernel.clock import SystemClock
from stationmaster.live.bus import MemoryBus
from stationmaster.migrations import migrate
from stationmaster.storage import open_database
from tests.support.postgres import find_programs, private_server
from tests.support.rabbitmq import find_program, private_rabbitmq

AT_ONCE = 40
Send = Callable[[int], Awaitable[None]]


@dataclass
class Meter:
    """Sends by `send`, and sees when each has come."""

    send: Send
    came: dict[int, float] = field(default_factory=dict)
    _next: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, number: int) -> None:
        self.came.setdefault(number, time.perf_counter())
        self._news.set()

    async def latencies(self, times: int) -> list[float]:
        """Milliseconds from the wish to the handler, one after the other."""
        found = []
        for _ in range(times):
            number, began = self._take(1)[0], time.perf_counter()
            await self.send(number)
            await self._all([number])
            found.append(1000 * (self.came[number] - began))
        return found

    async def rate(self, times: int) -> float:
        """Jobs a second, sent by many at once, until the last has come."""
        numbers, began = self._take(times), time.perf_counter()
        waiting = iter(numbers)

        async def send_on() -> None:
            for number in waiting:
                await self.send(number)

        await asyncio.gather(*(send_on() for _ in range(AT_ONCE)))
        await self._all(numbers)
        return times / (max(self.came[number] for number in numbers) - began)

    def _take(self, times: int) -> list[int]:
        first, self._next = self._next, self._next + times
        return list(range(first, self._next))

    async def _all(self, numbers: list[int]) -> None:
        async with asyncio.timeout(120):
            while any(number not in self.came for number in numbers):
                self._news.clear()
                await self._news.wait()


def measure(plan: Plan) -> list[Figure]:
    """Latency and throughput."""
    programs = find_programs()
    if programs is None or find_program() is None:
        name = "postgresql" if programs is None else "rabbitmq-server"
        raise MissingProgramError(f"{name} is missing; scripts/install-test-services installs it")
    import uvloop

    # Told on stdout otherwise, between the figures.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        private_server(programs, durable=True) as postgres,
        private_rabbitmq() as rabbitmq,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(plan, postgres.url(postgres.create()), rabbitmq.url))


async def _measure(plan: Plan, database_url: str, rabbitmq_url: str) -> list[Figure]:
    await migrate(database_url)
    async with _ours(database_url, rabbitmq_url) as ours, _taskiq(rabbitmq_url) as taskiq:
        meters = {"jobs": ours, "Taskiq": taskiq}
        for meter in meters.values():  # connections, statements, pages of the cache
            await meter.latencies(20)
        times = 100 if plan.quick else 500
        what = "latency"
        slow = await interleaved_async(
            {name: partial(each.latencies, times) for name, each in meters.items()},
            plan.rounds, plan.progress, what,
        )  # fmt: skip
        rates = await interleaved_async(
            {name: partial(each.rate, 4 * times) for name, each in meters.items()},
            plan.rounds, plan.progress, "throughput",
        )  # fmt: skip
    figures = [
        Figure(
            f"from the wish to the handler, p{percent}",
            middle(slow["jobs"], partial(_percentile, percent)),
            middle(slow["Taskiq"], partial(_percentile, percent)),
            "Taskiq",
            "ms",
        )
        for percent in (50, 99)
    ]
    found = (middle(rates["jobs"], float), middle(rates["Taskiq"], float))
    return [*figures, Figure(f"dispatched, {AT_ONCE} senders", *found, "Taskiq", "/s")]


def _percentile(percent: int, values: list[float]) -> float:
    return quantiles(values, n=100)[percent - 1]


@asynccontextmanager
async def _ours(database_url: str, rabbitmq_url: str) -> AsyncIterator[Meter]:
    database, bus, clock = (
        open_database(database_url, pool_size=AT_ONCE),
        MemoryBus(),
        SystemClock(),
    )
    sender, receiver = (RabbitMQ(rabbitmq_url, receives=receives) for receives in (False, True))
    relay = Relay(sender, otherwise=lambda _kind: None, runs=())
    outbox = Outbox(bus, clock, ring=relay.ring)

    async def send(number: int) -> None:
        await database.write(lambda tx: outbox.put(tx, "work", {"number": number}))

    meter = Meter(send)

    async def work(job: Job) -> None:
        meter.see(job.payload["number"])

    runner = Runner(database, bus, clock, {"work": work}, instance_id="bench", broker=receiver)
    tasks = [asyncio.create_task(each.run()) for each in (sender, receiver, relay, runner)]
    try:
        async with asyncio.timeout(60):
            while sender.trouble is not None or receiver.trouble is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield meter
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()


@asynccontextmanager
async def _taskiq(rabbitmq_url: str) -> AsyncIterator[Meter]:
    queue = Queue(name="bench", type=QueueType.QUORUM, durable=True)
    broker = AioPikaBroker(rabbitmq_url, qos=20, task_queues=[queue])
    meter = Meter(_nowhere)

    @broker.task(task_name="work")
    async def work(number: int) -> None:
        meter.see(number)

    async def send(number: int) -> None:
        await work.kiq(number)

    meter.send = send
    broker.is_worker_process = True
    await broker.startup()
    over = asyncio.Event()
    listening = asyncio.create_task(Receiver(broker, run_startup=False).listen(over))
    try:
        yield meter
    finally:
        over.set()
        listening.cancel()
        await asyncio.wait({listening}, timeout=5)
        await asyncio.wait({asyncio.create_task(broker.shutdown())}, timeout=5)


async def _nowhere(_number: int) -> None:
    raise RuntimeError("Nothing to send by yet.")


if __name__ == "__main__":
    sys.exit(run("jobs", __doc__ or "", measure))
