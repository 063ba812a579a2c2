"""Reading server-sent events as a client does, and not reading them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.http.conftest import ADMIN, House


@dataclass(frozen=True)
class Frame:
    """One event as it was sent."""

    type: str
    id: int | None
    data: Any


async def frames(answer: httpx.Response) -> AsyncIterator[Frame | None]:
    """The frames of a stream; None for a comment."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line.startswith(":"):
            yield None
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            number = fields.get("id")
            yield Frame(
                fields["event"], int(number) if number else None, json.loads(fields["data"])
            )
            fields = {}


@asynccontextmanager
async def following(
    house: House, task_id: str, *, after: int | None = None, last: int | None = None
) -> AsyncIterator[AsyncIterator[Frame | None]]:
    """Follow a task's events; `after` goes into the query, `last` into the header."""
    headers = {} if last is None else {"last-event-id": str(last)}
    params = {} if after is None else {"after": after}
    path = f"/v1/tasks/{task_id}/events"
    async with house.client.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield frames(answer)


async def all_events(house: House, task_id: str, **where: Any) -> list[Frame]:
    """Every numbered event until the stream ends."""
    async with following(house, task_id, **where) as found:
        return [frame async for frame in found if frame is not None and frame.id is not None]


@asynccontextmanager
async def raw_reader(house: House, task_id: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that has asked for events, and reads only what it is made to."""
    url = httpx.URL(house.url)
    # A small window: what is not read fills it soon, and the server has to wait.
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    writer.write(
        f"GET /v1/tasks/{task_id}/events HTTP/1.1\r\nHost: {url.host}\r\n"
        f"Authorization: Bearer {ADMIN}\r\n\r\n".encode()
    )
    try:
        yield reader
    finally:
        writer.transport.abort()
