"""Whether a server that owes an answer still lives.

A server that is stopped, or cut off without a word, lets every question run into its timeout:
half a minute each, on every connection of the pool. So where one is owed for longer than usual, it
is asked something simple on a connection of its own. If not even that is answered, what comes next
is refused at once, until it answers again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

PATIENCE_S = 2.0  # a longer silence is suspicious
EVERY_S = 0.5


class Pulse:
    """Notes what is asked and answered. `alive` turns false while the server does not answer."""

    def __init__(self, ask: Callable[[float], Awaitable[None]]) -> None:
        """`ask` puts a simple question with a timeout in seconds, and raises where none comes."""
        self.alive = True
        self._ask = ask
        self._owed: dict[object, float] = {}
        self._heard = 0.0
        self._watch: asyncio.Task[None] | None = None

    def asked(self, question: object) -> None:
        """Something is asked."""
        self._owed[question] = asyncio.get_running_loop().time()
        if self._watch is None:
            self._watch = asyncio.create_task(self._run(), name="database-pulse")

    def over(self, question: object, *, answered: bool) -> None:
        """It is over. `answered`: the server said something, be it no."""
        self._owed.pop(question, None)
        if answered:
            self._heard = asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """Watch no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _run(self) -> None:
        # Ends when nothing is owed, so that a database at rest costs nothing.
        while self._owed or not self.alive:
            await asyncio.sleep(EVERY_S)
            now = asyncio.get_running_loop().time()
            longest = now - min(self._owed.values(), default=now)
            silent = now - self._heard
            if not self.alive or (longest > PATIENCE_S and silent > PATIENCE_S):
                await self._feel()
        self._watch = None

    async def _feel(self) -> None:
        try:
            await self._ask(PATIENCE_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, there was no answer
            if self.alive:
                log.error("The database does not answer.", error=type(error).__name__)
            self.alive = False
            return
        if not self.alive:
            log.info("The database answers again.")
        self.alive = True
        self._heard = asyncio.get_running_loop().time()
