"""Many callers, few transactions: what has queued meanwhile is done in one.

A hot budget is one row: transactions of one call each would wait for each other's commits there.
Jobs that end together would each wait for a commit of their own.
There is no timer, so a lone caller is not delayed. Nor is a batch closed before it is begun: what
comes while it waits for its turn still goes with it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from typing import Generic, TypeVar, overload

from stationmaster.kernel.errors import StationmasterError

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 2  # one commits while the next gathers
MAX_BATCH = 128  # bounds how long the first waits for the last, and how long rows are locked

_Entry = tuple[T, asyncio.Future[R]]


class _Batch(Sequence[T], Generic[T, R]):
    """The items of a batch: those that wait when it is first looked at, on whichever thread."""

    def __init__(self, waiting: deque[_Entry[T, R]], *, even_cancelled: bool) -> None:
        self._waiting = waiting
        self._even_cancelled = even_cancelled
        self._entries: list[_Entry[T, R]] = []
        self._items: list[T] = []
        self.closed = False

    def entries(self) -> list[_Entry[T, R]]:
        """The items, each with the future of who waits for it."""
        if not self.closed:
            # First of all: whoever finds it open has put his own in time.
            self.closed = True
            while len(self._entries) < MAX_BATCH:
                try:
                    entry = self._waiting.popleft()
                except IndexError:  # not looked at before: another thread may take of it, too
                    break
                if self._even_cancelled or not entry[1].cancelled():
                    self._entries.append(entry)
            self._items = [item for item, _ in self._entries]
        return self._entries

    def _drawn(self) -> list[T]:
        self.entries()
        return self._items

    def __len__(self) -> int:
        return len(self._drawn())

    def __iter__(self) -> Iterator[T]:
        return iter(self._drawn())

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        return self._drawn()[at]


class Till(Generic[T, R]):
    """Batches the calls of one function, in their order. For one event loop at a time."""

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        abandoned: Callable[[T, R], None] | None = None,
    ) -> None:
        """`work` does all of a batch or nothing; it gives one result for each item.

        It should not look at the batch before it can begin: what comes until then is in it. So it
        may also be empty.

        Where a batch fails, each of it is tried alone, so that none fails for another's fault;
        but not where the database is away. What is in hand is done even where its caller is
        cancelled. With `abandoned` it is dropped if it has not begun, and if it has, `abandoned`
        gets its result.
        """
        self._work = work
        self._abandoned = abandoned
        self._waiting: deque[_Entry[T, R]] = deque()
        self._gathering: _Batch[T, R] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0

    async def take(self, item: T) -> R:
        """Have `item` done; return once that is durable."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        gathering = self._gathering
        if self._running < AT_ONCE and (gathering is None or gathering.closed):
            self._start()
        try:
            return await future
        except asyncio.CancelledError:
            done = future.done() and not future.cancelled() and future.exception() is None
            if done and self._abandoned is not None:  # cancelled on the way to its caller
                self._abandoned(item, future.result())
            raise

    def _start(self) -> None:
        # A task of its own: a caller that is cancelled must not take the others with it. In no
        # caller's context: what accompanies one's writes is not for the others'.
        self._running += 1
        task = asyncio.get_running_loop().create_task(self._run(self._gather()), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _gather(self) -> _Batch[T, R]:
        self._gathering = _Batch(self._waiting, even_cancelled=self._abandoned is None)
        return self._gathering

    async def _run(self, batch: _Batch[T, R]) -> None:
        try:
            await self._do(batch)
            while self._waiting and (self._gathering is None or self._gathering.closed):
                await self._do(self._gather())
        finally:
            self._running -= 1

    async def _do(self, batch: _Batch[T, R]) -> None:
        try:
            results = await self._work(batch)
        except Exception as error:  # noqa: BLE001 - every caller of the batch gets it
            entries = batch.entries()
            if len(entries) > 1 and not isinstance(error, StationmasterError):
                for entry in entries:
                    alone = deque((entry,))
                    await self._do(_Batch(alone, even_cancelled=True))
                return
            for _, future in entries:
                if not future.done():
                    future.set_exception(error)
            return
        for (item, future), result in zip(batch.entries(), results, strict=True):
            if not future.done():
                future.set_result(result)
            elif self._abandoned is not None:
                self._abandoned(item, result)
