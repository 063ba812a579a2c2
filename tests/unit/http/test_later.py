"""Apps that are made when they are first asked for something."""

import asyncio
import threading
from typing import Any

import pytest

from stationmaster.http.later import Later
from stationmaster.http.wire.exchange import App, Receive, Scope, Send


async def nothing(_message: Any = None) -> Any:
    return None


async def test_it_is_made_once_for_all_who_come_first() -> None:
    made, asked, going, on = [], [], threading.Event(), threading.Event()

    def make() -> App:
        made.append(threading.current_thread())
        going.set()
        on.wait(30)

        async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
            asked.append(scope["path"])

        return app

    later = Later(make)
    assert not made
    first = [asyncio.create_task(later({"path": str(n)}, nothing, nothing)) for n in range(5)]
    await asyncio.to_thread(going.wait, 30)
    assert not asked
    on.set()
    await asyncio.gather(*first)
    await later({"path": "5"}, nothing, nothing)
    assert sorted(asked) == list("012345")
    assert len(made) == 1
    assert made[0] is not threading.current_thread()


async def test_what_fails_is_tried_again_by_the_next() -> None:
    tries = []

    def make() -> App:
        tries.append(1)
        if len(tries) == 1:
            raise LookupError

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            pass

        return app

    later = Later(make)
    with pytest.raises(LookupError):
        await later({}, nothing, nothing)
    await later({}, nothing, nothing)
    await later({}, nothing, nothing)
    assert len(tries) == 2
