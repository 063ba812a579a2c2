"""Passes on after the commit that a job waits: by the broker or, while that is away, the bus."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from stationmaster.jobs.broker import Broker, Lane, Ring
from stationmaster.kernel.errors import Unavailable

CAPACITY = 10_000  # rings that wait to be sent; of more the servers are told by the bus
BATCH = 100  # sent before the confirmations of all are awaited


class Relay:
    """Rings for jobs. `run` must run."""

    def __init__(
        self,
        broker: Broker,
        *,
        otherwise: Callable[[str], None],
        runs: Collection[str],
        on_sent: Callable[[int], None] = lambda number: None,
        on_lost: Callable[[int], None] = lambda number: None,
    ) -> None:
        """`otherwise` says to all servers that a job of a kind waits, as well as that goes.

        `runs` are the kinds whose jobs go in the lane of runs. `on_sent` is told how many messages
        the broker has confirmed, `on_lost` how many it has not: their jobs are found by polling.
        """
        self._broker = broker
        self._otherwise = otherwise
        self._runs = runs
        self._on_sent = on_sent
        self._on_lost = on_lost
        self._queue: deque[Ring] = deque()
        self._news = asyncio.Event()

    def ring(self, job_id: str, kind: str) -> None:
        """A job waits. On the event loop; never blocks, never raises."""
        if self._broker.trouble is not None or len(self._queue) >= CAPACITY:
            self._lose([kind])
            return
        lane: Lane = "runs" if kind in self._runs else "jobs"
        self._queue.append(Ring(job_id, kind, lane))
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled. What then waits is found by polling."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    await self._broker.publish(batch)
                except Unavailable:
                    batch += self._queue
                    self._queue.clear()
                    self._lose([ring.kind for ring in batch])
                else:
                    self._on_sent(len(batch))

    def _lose(self, kinds: Collection[str]) -> None:
        self._on_lost(len(kinds))
        for kind in sorted(set(kinds)):
            self._otherwise(kind)
