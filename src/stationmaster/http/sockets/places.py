"""How many sockets may be open. How many of one key is a rate limit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from stationmaster.kernel.errors import Exhausted


class Places:
    """Counts open sockets of this process, `most` at the same time."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def open(self) -> int:
        """Sockets that are open now, whoever they belong to."""
        return self._open

    async def emptied(self, timeout: float) -> None:
        """Wait until no socket is open, for `timeout` seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._empty.wait()

    @contextmanager
    def any(self) -> Iterator[None]:
        """A place for a socket. Raises `Exhausted`."""
        if self._open >= self._most:
            raise Exhausted("Too many sockets are open.", code="too_many_sockets")
        self._open += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._empty.set()
