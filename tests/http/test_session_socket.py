"""A session followed over `/v1/stream`: the same events and numbers as by every other transport."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from stationmaster.agents.scripted import Say, UseTool, WaitFor
from tests.http.conftest import ADMIN, House
from tests.http.managed import TOOLSET, talk, text
from tests.http.test_managed_sessions import numbers
from tests.http.test_stream_socket import Talk, talking
from tests.support.sdk import sdk

IDLE = "session.status_idle"


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def heard(talk: Talk, *, until: str) -> list[dict[str, Any]]:
    """The session's events up to one with this id or of this type; its pieces with them."""
    found = []
    while True:
        frame = await talk.hear()
        found.append(frame)
        event = frame.get("event", {})
        if until in {event.get("id"), event.get("type")}:
            return found


def numbered(frames: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(each["seq"], each["event"]["id"]) for each in frames if "event" in each]


async def test_a_turn_comes_as_it_happens(client: anthropic.AsyncAnthropic, house: House) -> None:
    house.agent.script = (Say("One two."), UseTool("Bash", {"command": "ls"}), Say("Three."))
    session = await talk(client, TOOLSET)
    async with talking(house) as socket:
        await socket.say(type="follow", id="mine", session_id=session.id)
        first = await socket.hear()
        assert (first["type"], first["session_id"]) == ("following", session.id)
        await session.send(text("Go."))
        whole = await heard(socket, until=IDLE)
    assert {each["id"] for each in [first, *whole]} == {"mine"}
    kept = [event.id for event in await session.events()]
    assert [event_id for _, event_id in numbered(whole)] == kept
    by_id = {each["event"]["id"]: each["event"] for each in whole if "event" in each}
    pieces = [each for each in whole if each["type"] == "token"]
    assert "".join(each["content"] for each in pieces) == "One two.Three."
    for piece in pieces:
        assert piece["content"] in by_id[piece["event_id"]]["content"][0]["text"]


async def test_cut_at_every_number_it_goes_on_with_the_streams_cursor(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Say("One."), UseTool("Bash", {"command": "ls"}), Say("Two."))
    session = await talk(client, TOOLSET)
    await session.say(text("Go."))
    last = (await session.events())[-1].id
    streamed = await numbers(house, session.id, 0, last)
    for place, after in enumerate([0, *(number for number, _ in streamed[:-1])]):
        async with talking(house) as socket:
            await socket.say(type="follow", session_id=session.id, after=after)
            assert (await socket.hear())["seq"] == after
            assert numbered(await heard(socket, until=last)) == streamed[place:]


async def test_a_socket_that_is_cut_while_the_agent_works_misses_nothing(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    go_on = asyncio.Event()
    house.agent.script = (Say("One."), WaitFor(go_on), Say("Two."))
    session = await talk(client)
    async with talking(house) as socket:
        await socket.say(type="follow", session_id=session.id)
        await socket.hear()
        await session.send(text("Go."))
        before = numbered(await heard(socket, until="agent.message"))
    go_on.set()
    async with talking(house) as socket:
        await socket.say(type="follow", session_id=session.id, after=before[-1][0])
        await socket.hear()
        after = numbered(await heard(socket, until=IDLE))
    assert [each for _, each in before + after] == [each.id for each in await session.events()]


async def test_a_message_that_waited_is_told_again_and_is_no_cursor(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    go_on = asyncio.Event()
    house.agent.script = (Say("One."), WaitFor(go_on), Say("Two."))
    session = await talk(client)
    path = f"/v1/sessions/{session.id}/events/stream"
    async with (
        talking(house) as socket,
        asyncio.timeout(30),
        house.client.stream("GET", path) as streamed,
    ):
        await socket.say(type="follow", session_id=session.id)
        await socket.hear()
        await session.send(text("Go."))
        await heard(socket, until="agent.message")
        await session.send(text("And again."))
        waited = (await heard(socket, until="user.message"))[-1]
        go_on.set()
        whole = await heard(socket, until=IDLE) + await heard(socket, until=IDLE)
        ids: list[str] = []
        lines = streamed.aiter_lines()
        while ids.count(IDLE) < 2:
            line = await anext(lines)
            if line.startswith(("id: ", f"event: {IDLE}")):
                ids.append(line.removeprefix("id: ").removeprefix("event: "))
    again = [each for each in whole if each.get("event", {}).get("id") == waited["event"]["id"]]
    assert waited["event"]["processed_at"] is None
    [second] = again
    assert second["event"]["processed_at"] is not None
    assert "seq" not in second
    on_socket = [each["seq"] for each in whole if "seq" in each]
    assert on_socket == sorted(set(on_socket))
    on_stream = [int(each) for each in ids if each != IDLE]
    assert on_stream == sorted(set(on_stream))


async def test_it_ends_with_the_session_and_the_socket_lives(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    session = await talk(client)
    async with talking(house) as socket:
        await socket.say(type="follow", id="a", session_id=session.id)
        await socket.hear()
        await client.beta.sessions.delete(session.id)
        await heard(socket, until="session.deleted")
        await socket.say(type="ping", id="a")  # nothing is under way by this id
        assert await socket.hear() == {"type": "pong", "id": "a"}
        await socket.say(type="follow", session_id=session.id)
        assert (await socket.hear())["code"] == "not_found"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"after": 10**6}, "cursor_out_of_range"),
        ({"after": -1}, "invalid_request"),
        ({"after": "1"}, "invalid_request"),
        ({"session_id": "sesn_01jd3k00000000000000000000"}, "not_found"),
        ({"session_id": "run_01jd3k00000000000000000000"}, "not_found"),
        ({"session_id": None}, "invalid_request"),
    ],
)
async def test_what_cannot_be_followed(
    client: anthropic.AsyncAnthropic, house: House, fields: dict[str, Any], code: str
) -> None:
    session = await talk(client)
    async with talking(house) as socket:
        await socket.say(**{"type": "follow", "session_id": session.id, **fields})
        assert (await socket.hear())["code"] == code
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"


async def test_a_task_is_no_session(house: House) -> None:
    task = await house.perform()
    async with talking(house) as socket:
        await socket.say(type="follow", session_id=task["session_id"])
        assert (await socket.hear())["code"] == "not_found"
