"""A session's events by every transport, cut wherever it can be: one cursor, no gap, no repeat."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.http.managed import TOOLSET, Talk, said, talk, text
from tests.http.streams import Frame, frames
from tests.support.sdk import sdk
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import Json, Reply, Text, Thought, Tool, WireUpstream, steps

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

WAIT_S = 120.0
TURNS = 2  # in the test that cuts while they are at work
KILLED_AFTER = (4, 13)  # events of a reader's

work = steps(
    Reply((Thought("To work."), Text("I will."), Tool("Bash", {"command": "echo one >> a"}))),
    Reply((Tool("Bash", {"command": "cat a"}),)),
    Reply((Text("It is done."),)),
)


@asynccontextmanager
async def working(directory: Path) -> AsyncIterator[tuple[ServerProcess, Talk]]:
    """A server with the real agent, and a session on it."""
    async with WireUpstream(work) as upstream:
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
            "AGENT_POOL_SIZE": "0",
        }
        async with ServerProcess(directory, env) as server, sdk(server.url, ADMIN_KEY) as client:
            yield server, await talk(client, TOOLSET)


async def page(server: ServerProcess, session_id: str, **query: Any) -> tuple[list[str], Any]:
    """The ids of a page's events, and the cursor behind it."""
    answer = await server.client.get(f"/v1/sessions/{session_id}/events", params=query)
    body: Json = answer.raise_for_status().json()
    return [event["id"] for event in body["data"]], body["next_page"]


async def pages(
    server: ServerProcess, session_id: str, **query: Any
) -> list[tuple[list[str], Any]]:
    """Every page, from the cursor in the query on."""
    found = [await page(server, session_id, **query)]
    while (cursor := found[-1][1]) is not None:
        found.append(await page(server, session_id, **{**query, "page": cursor}))
    return found


async def rest(server: ServerProcess, session_id: str, after: int | str) -> AsyncIterator[Frame]:
    """What a stream brings behind a number: events that are kept, as long as it is read."""
    headers = {"last-event-id": str(after)}
    path = f"/v1/sessions/{session_id}/events/stream"
    async with server.client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for frame in frames(answer):
            if frame is not None and frame.id is not None:
                yield frame


async def up_to(
    server: ServerProcess, session_id: str, after: int | str, last: str
) -> list[tuple[int | None, str]]:
    """The numbers and ids of a stream behind a number, up to the event `last`."""
    found = []
    async with asyncio.timeout(WAIT_S):
        async for frame in rest(server, session_id, after):
            found.append((frame.id, str(frame.data["id"])))
            if frame.data["id"] == last:
                break
    return found


# --- while it is at work ----------------------------------------------------------------------


@pytest.mark.slow
async def test_readers_cut_at_every_event_see_the_same_while_the_server_is_killed(
    scratch: Path,
) -> None:
    async with working(scratch) as (server, session):
        await session.send(*(text(f"Do it, for the {turn}th time.") for turn in range(TURNS)))
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as readers:
            streamed = readers.create_task(_cut_at_each(server, session.id))
            one = readers.create_task(_polled(server, session.id, 1))
            three = readers.create_task(_polled(server, session.id, 3))
            socket = readers.create_task(_by_socket(server, session.id))
        seen, numbers = streamed.result()
        assert numbers == sorted(set(numbers))
        assert [kind for kind, _ in seen].count("session.status_rescheduled") == len(KILLED_AFTER)
        kept = [event.id for event in await session.events()]
        assert [event_id for _, event_id in seen] == kept
        assert one.result() == three.result() == kept
        assert socket.result() == list(zip(numbers, kept, strict=True))
        assert said(await session.events()).count("It is done.") >= TURNS
        assert await server.stop() == 0


async def _cut_at_each(
    server: ServerProcess, session_id: str
) -> tuple[list[tuple[str, str]], list[int]]:
    """Follow by a connection for each event; kill the server after some of them."""
    seen: list[tuple[str, str]] = []
    numbers = [0]
    idle = 0
    while idle < TURNS:
        frame = await _next(server, session_id, numbers[-1])
        if frame is None:
            await asyncio.sleep(0.05)
            continue
        assert frame.id is not None
        seen.append((frame.type, str(frame.data["id"])))
        numbers.append(frame.id)
        idle += frame.type == "session.status_idle"
        if len(seen) in KILLED_AFTER:
            await server.kill()
            await server.start()
    return seen, numbers[1:]


async def _next(server: ServerProcess, session_id: str, after: int) -> Frame | None:
    """The first event behind a number; None where the server goes before it comes."""
    with suppress(httpx.TransportError):
        async for frame in rest(server, session_id, after):
            return frame
    return None


async def _by_socket(server: ServerProcess, session_id: str) -> list[tuple[int, str]]:
    """Follow over a WebSocket for each event: their numbers and ids."""
    seen: list[tuple[int, str]] = []
    idle = 0
    while idle < TURNS:
        frame = await _next_on_socket(server, session_id, seen[-1][0] if seen else 0)
        if frame is None:
            await asyncio.sleep(0.05)
            continue
        seen.append((frame["seq"], frame["event"]["id"]))
        idle += frame["event"]["type"] == "session.status_idle"
    return seen


async def _next_on_socket(server: ServerProcess, session_id: str, after: int) -> Json | None:
    """The first event behind a number; None where the server goes before it comes."""
    wish = {"type": "follow", "session_id": session_id, "after": after}
    key = {"x-api-key": ADMIN_KEY}
    with suppress(OSError, WebSocketException):
        async with connect(
            f"{server.url.replace('http', 'ws')}/v1/stream", additional_headers=key
        ) as ws:
            await ws.send(json.dumps(wish))
            async for said in ws:
                frame: Json = json.loads(said)
                if frame["type"] == "session_event":
                    return frame
    return None


async def _polled(server: ServerProcess, session_id: str, limit: int) -> list[str]:
    """Ask for the page behind the last full one again and again, until every turn has ended.

    The last page has no cursor behind it: asked for again it begins with the same and goes on.
    """
    seen: list[str] = []
    before: list[str] = []  # what is known of the page that is asked for
    query: dict[str, Any] = {"limit": limit}
    ended = 0
    while ended < TURNS:
        try:
            answer = await server.client.get(f"/v1/sessions/{session_id}/events", params=query)
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        body: Json = answer.raise_for_status().json()
        ids = [event["id"] for event in body["data"]]
        assert ids[: len(before)] == before
        for event in body["data"][len(before) :]:
            seen.append(event["id"])
            ended += event["type"] == "session.status_idle"
        before = ids
        if body["next_page"] is not None:
            query["page"], before = body["next_page"], []
        else:
            await asyncio.sleep(0.02)
    return seen


# --- afterwards ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_one_cursor_serves_streams_and_pages_of_every_size(scratch: Path) -> None:
    async with working(scratch) as (server, session):
        await session.say(text("Do it."))
        kept = [event.id for event in await session.events()]
        whole = await up_to(server, session.id, 0, kept[-1])
        assert [event_id for _, event_id in whole] == kept

        for place, (number, _) in enumerate(whole[:-1]):
            assert number is not None
            assert await up_to(server, session.id, number, kept[-1]) == whole[place + 1 :]
            # The number of a stream's event is the cursor of the page behind it.
            ids, _ = await page(server, session.id, page=str(number))
            assert ids == kept[place + 1 :]
            ids, _ = await page(server, session.id, page=str(number), order="desc")
            assert ids == kept[:place][::-1]

        for limit in range(1, len(kept) + 2):
            forwards = await pages(server, session.id, limit=limit)
            assert [each for ids, _ in forwards for each in ids] == kept
            backwards = await pages(server, session.id, limit=limit, order="desc")
            assert [each for ids, _ in backwards for each in ids] == kept[::-1]
            known = 0
            for ids, cursor in forwards[:-1]:
                assert len(ids) == limit
                known += limit
                # And a page's cursor is where a stream goes on, unless nothing is left.
                if known < len(kept) and limit % 4 == 1:
                    found = await up_to(server, session.id, cursor, kept[-1])
                    assert [event_id for _, event_id in found] == kept[known:]
        assert await server.stop() == 0
