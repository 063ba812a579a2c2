"""Answers that take time: ending with the work, with the client, or with the server."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from stationmaster.http.wire.exchange import Message, Receive, Send

SEND_SECONDS = 30.0  # for one piece to leave; a client that takes longer is not reading


class StalledError(Exception):
    """The client has stopped reading."""


async def race(*works: Coroutine[Any, Any, Any]) -> tuple[int, Any]:
    """Run all until one is done; return its place and result, or raise its error.

    The others are cancelled and have ended when this returns, also where the caller is cancelled.
    Of several that are done at once the first wins.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        place = next(index for index, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return place, tasks[place].result()


async def gone(receive: Receive) -> None:
    """Return when the client has gone. The request's body, if any, must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class BoundedSend:
    """Sends, but waits no longer than `seconds` for a client that does not read."""

    def __init__(self, send: Send, *, seconds: float = SEND_SECONDS) -> None:
        self._send = send
        self._seconds = seconds

    async def __call__(self, message: Message) -> None:
        """Send one message. Raises `StalledError`; nothing of the message is sent then."""
        patience = asyncio.timeout(self._seconds)
        try:
            async with patience:
                await self._send(message)
        except TimeoutError:
            if not patience.expired():
                raise
            raise StalledError from None

    async def piece(self, body: bytes, *, last: bool = False) -> None:
        """Send a piece of the body."""
        await self({"type": "http.response.body", "body": body, "more_body": not last})
