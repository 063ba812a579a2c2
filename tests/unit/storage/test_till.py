"""Many callers, few batches; and nobody pays for another's fault or absence."""

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from stationmaster.kernel.errors import Unavailable
from stationmaster.storage.till import MAX_BATCH, Till


class Work:
    """Doubles numbers; waits at `gate`; fails for -1, and for everything while `away`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.begun.set()
        await self.gate.wait()
        if self.away:
            raise Unavailable
        if -1 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


@pytest.fixture
def work() -> Work:
    return Work()


async def test_all_of_one_turn_are_one_batch(work: Work) -> None:
    till = Till(work)
    assert await asyncio.gather(*(till.take(n) for n in range(10))) == [2 * n for n in range(10)]
    assert work.batches == [list(range(10))]


async def test_a_lone_caller_is_served_at_once_again_and_again(work: Work) -> None:
    till = Till(work)
    for number in range(20):
        assert await till.take(number) == 2 * number
    assert len(work.batches) == 20


async def test_what_comes_meanwhile_goes_together_and_in_order(work: Work) -> None:
    till = Till(work)
    work.gate.clear()
    calls = []
    for number in range(40):
        calls.append(asyncio.ensure_future(till.take(number)))
        await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*calls) == [2 * number for number in range(40)]
    assert len(work.batches) <= 4
    assert [number for batch in work.batches for number in batch] == list(range(40))


async def test_what_comes_before_a_batch_begins_goes_with_it() -> None:
    gate = asyncio.Event()
    batches: list[list[int]] = []

    async def begins_late(items: Sequence[int]) -> list[int]:
        await gate.wait()
        batches.append([*items])
        return [items[at] for at in range(len(items))]

    till = Till(begins_late)
    calls = []
    for number in range(10):
        calls.append(asyncio.ensure_future(till.take(number)))
        await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*calls) == list(range(10))
    assert batches == [list(range(10))]


async def test_a_batch_is_done_in_nobodys_context() -> None:
    whose: ContextVar[str | None] = ContextVar("whose", default=None)
    found: list[str | None] = []

    async def work(items: Sequence[int]) -> list[int]:
        found.append(whose.get())
        return list(items)

    till = Till[int, int](work)
    whose.set("the first caller's")
    assert await till.take(1) == 1
    assert found == [None]


async def test_what_a_thread_draws_is_done_once_and_nothing_is_left() -> None:
    loop, done = asyncio.get_running_loop(), list[int]()
    interval = sys.getswitchinterval()

    def double(items: Sequence[int]) -> list[int]:
        done.extend(items)
        return [2 * item for item in items]

    async def work(items: Sequence[int]) -> list[int]:
        return await loop.run_in_executor(writer, double, items)

    async def caller(first: int) -> None:
        for item in range(first, first + 100):
            assert await till.take(item) == 2 * item

    till = Till(work)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as writer:
            await asyncio.gather(*(caller(100 * number) for number in range(20)))
    finally:
        sys.setswitchinterval(interval)
    assert sorted(done) == list(range(2000))


async def test_where_none_can_begin_all_are_told() -> None:
    async def refuses(_items: Sequence[int]) -> list[int]:
        raise Unavailable

    till = Till(refuses)
    results = await asyncio.gather(*(till.take(n) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3


async def test_a_batch_is_bounded(work: Work) -> None:
    till = Till(work)
    await asyncio.gather(*(till.take(n) for n in range(3 * MAX_BATCH)))
    assert max(map(len, work.batches)) == MAX_BATCH


async def test_one_that_fails_fails_alone(work: Work) -> None:
    till = Till(work)
    results = await asyncio.gather(*(till.take(n) for n in (12, -1, 14)), return_exceptions=True)
    assert results[0] == 24
    assert isinstance(results[1], ValueError)
    assert results[2] == 28


async def test_where_the_database_is_away_all_are_told_and_nothing_is_repeated(work: Work) -> None:
    till = Till(work)
    work.away = True
    results = await asyncio.gather(*(till.take(n) for n in (1, 2, 3)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    assert len(work.batches) == 1
    work.away = False
    assert await till.take(4) == 8


async def test_a_cancelled_caller_takes_nobody_along_and_its_result_is_not_lost(
    work: Work,
) -> None:
    abandoned: list[tuple[int, int]] = []
    till = Till(work, abandoned=lambda item, result: abandoned.append((item, result)))
    work.gate.clear()
    gone, stays = (asyncio.ensure_future(till.take(n)) for n in (1, 2))
    await work.begun.wait()
    gone.cancel()
    await asyncio.sleep(0)
    work.gate.set()
    assert await stays == 4
    assert abandoned == [(1, 2)]
    assert gone.cancelled()


async def test_one_cancelled_before_its_turn_is_dropped(work: Work) -> None:
    till = Till(work, abandoned=lambda item, result: None)
    gone, stays = (asyncio.ensure_future(till.take(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 4
    assert work.batches == [[2]]


async def test_what_must_be_done_is_done_without_its_caller(work: Work) -> None:
    till = Till(work)
    gone, stays = (asyncio.ensure_future(till.take(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 4
    assert work.batches == [[1, 2]]


async def test_one_cancelled_when_its_result_is_on_the_way_is_abandoned(work: Work) -> None:
    abandoned: list[tuple[int, int]] = []
    till = Till(work, abandoned=lambda item, result: abandoned.append((item, result)))
    taking = asyncio.ensure_future(till.take(5))
    waiter = None
    while waiter is None or not waiter.done():  # until the result is set but not yet taken
        await asyncio.sleep(0)
        waiter = getattr(taking, "_fut_waiter", None)
        if taking.done():
            break
    if not taking.done():
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert abandoned == [(5, 10)]
