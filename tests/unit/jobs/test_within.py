"""Waiting with a bound: what fails when nobody asks any more says so to nobody."""

import asyncio
import gc
from typing import Any

from stationmaster.jobs.broker import within


async def test_work_that_fails_as_its_caller_is_cancelled() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: complaints.append(told))
    away = asyncio.Event()

    async def work() -> None:
        await away.wait()
        raise ConnectionError

    caller = asyncio.create_task(within(60, work(), give_up=lambda: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    away.set()
    await asyncio.sleep(0)  # the work has failed; its caller has not been told
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    del caller
    gc.collect()
    assert complaints == []
