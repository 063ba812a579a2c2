"""Many callers, few transactions: what has queued meanwhile is done in one.

A hot budget is one row: transactions of one call each would wait for each other's commits there.
Jobs that end together would each wait for a commit of their own.
There is no timer, so a lone caller is not delayed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stationmaster.kernel.errors import StationmasterError

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 2  # one commits while the next is put together
MAX_BATCH = 128  # bounds how long the first waits for the last, and how long rows are locked


class Till(Generic[T, R]):
    """Batches the calls of one function, in their order. For one event loop at a time."""

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        abandoned: Callable[[T, R], None] | None = None,
    ) -> None:
        """`work` does all of a batch or nothing; it gives one result for each item.

        Where a batch fails, each of it is tried alone, so that none fails for another's fault;
        but not where the database is away. What is in hand is done even where its caller is
        cancelled. With `abandoned` it is dropped if it has not begun, and if it has, `abandoned`
        gets its result.
        """
        self._work = work
        self._abandoned = abandoned
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0

    async def take(self, item: T) -> R:
        """Have `item` done; return once that is durable."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) == 1 and self._running < AT_ONCE:
            self._start()
        try:
            return await future
        except asyncio.CancelledError:
            done = future.done() and not future.cancelled() and future.exception() is None
            if done and self._abandoned is not None:  # cancelled on the way to its caller
                self._abandoned(item, future.result())
            raise

    def _start(self) -> None:
        # A task of its own: a caller that is cancelled must not take the others with it. It takes
        # what has queued when it first runs, and so all of this turn of the loop.
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                del self._waiting[:MAX_BATCH]
                if self._waiting and self._running < AT_ONCE:
                    self._start()
                if self._abandoned is not None:
                    batch = [entry for entry in batch if not entry[1].cancelled()]
                if batch:
                    await self._do(batch)
        finally:
            self._running -= 1

    async def _do(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            if len(batch) > 1 and not isinstance(error, StationmasterError):
                for entry in batch:
                    await self._do([entry])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (item, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
            elif self._abandoned is not None:
                self._abandoned(item, result)
