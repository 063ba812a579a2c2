"""Racing, waiting for threads, and clients that do not read."""

import asyncio
import threading
from typing import Any

import pytest

from stationmaster.http.downloads import Download, file_pieces, in_thread
from stationmaster.http.streams import BoundedSend, StalledError, race


async def test_the_first_to_end_wins_and_the_others_have_ended() -> None:
    ended = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def soon() -> str:
        await asyncio.sleep(0)
        return "here"

    assert await race(forever(), soon()) == (1, "here")
    assert ended.is_set()


async def test_an_error_of_the_winner_passes_on() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await race(asyncio.Event().wait(), fail())


async def test_a_cancelled_race_leaves_nothing_running() -> None:
    ended: list[int] = []
    begun = asyncio.Event()

    async def forever(number: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.create_task(race(forever(1), forever(2)))
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [1, 2]


async def test_a_client_that_does_not_read_is_given_up() -> None:
    async def send(_: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StalledError):
        await BoundedSend(send, seconds=0.01).piece(b"x")


async def test_a_timeout_of_the_sender_itself_is_not_taken_for_that() -> None:
    async def send(_: Any) -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await BoundedSend(send).piece(b"x")


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    go, begun, done = threading.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait()
        done.set()

    task = asyncio.create_task(in_thread(work))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_a_download_is_closed_however_it_ends(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_000)

    class Client:
        def __init__(self, failing: bool) -> None:
            self.failing = failing
            self.body = b""

        async def receive(self) -> Any:
            return await asyncio.Event().wait()

        async def send(self, message: Any) -> None:
            if self.failing and message.get("body"):
                raise OSError("the client is gone")
            self.body += message.get("body", b"")

    for failing in (False, True):
        file = path.open("rb")
        download = Download(
            file_pieces(file, 700_000),
            close=file.close,
            media_type="application/octet-stream",
            headers={},
            size=700_000,
        )
        client = Client(failing)
        if failing:
            with pytest.raises(OSError, match="gone"):
                await download({}, client.receive, client.send)
        else:
            await download({}, client.receive, client.send)
            assert len(client.body) == 700_000
        assert file.closed
