"""Without anything that carries news between processes: everybody looks for himself, regularly."""

import asyncio
from collections.abc import Callable

from stationmaster.live.bus import MemoryBus

POLL_S = 1.0
"""How late news of another process comes. Each reader of a stream then reads the log once."""

_SLICES = 10  # of an interval: with thousands of readers not all of them ask at the same moment


class PollingBus(MemoryBus):
    """A bus within one process, whose listeners look for what others have done."""

    def __init__(self, *, interval: float = POLL_S) -> None:
        """`interval` is in seconds."""
        super().__init__()
        self._interval = interval

    async def run(self) -> None:
        """See `Bus.run`."""
        await nudge(self, self._interval)


async def nudge(
    bus: MemoryBus, interval: float, *, needed: Callable[[], bool] = lambda: True
) -> None:
    """Tell all listeners every `interval` seconds that they may have missed something.

    Not while it is not `needed`. Never ends by itself.
    """
    while True:
        topics = bus.topics() if needed() else []
        for part in range(_SLICES):
            for topic in topics[part::_SLICES]:
                bus.miss(topic)
            await asyncio.sleep(interval / _SLICES)
