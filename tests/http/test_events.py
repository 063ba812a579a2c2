"""Following a task: streamed and polled, cut anywhere, slowly read, silent, stopped."""

import asyncio
from functools import partial
from typing import Any

import pytest

from stationmaster.agents.scripted import Say, Script, Think, UseTool, WaitFor
from stationmaster.events import Event, Live, Overflow, pages
from stationmaster.http.routes import events as routes
from stationmaster.http.sse import RunStream
from stationmaster.kernel.errors import Unavailable
from tests.http.conftest import JSON, House, Open
from tests.http.streams import Frame, all_events, following, raw_reader

LONG: Script = tuple(
    step
    for number in range(12)
    for step in (Think(f"Thought {number}"), UseTool("Bash", {"n": number}), Say(f"Word {number}"))
)


async def poll(house: House, task_id: str, **params: Any) -> Any:
    answer = await house.client.get(f"/v1/tasks/{task_id}/events", params=params, headers=JSON)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_task_is_streamed_from_its_first_event_to_its_last(house: House) -> None:
    house.agent.script = LONG
    task_id = await house.submit()
    found = await all_events(house, task_id)
    assert [frame.id for frame in found] == list(range(1, len(found) + 1))
    assert (found[0].type, found[-1].type) == ("run.queued", "run.ended")
    for frame in found:
        assert frame.data["seq"] == frame.id
        assert frame.data["type"] == frame.type
        assert set(frame.data) == {"seq", "type", "version", "created_at", "data"}


async def test_the_stream_has_the_headers_that_proxies_need(house: House) -> None:
    task_id = await house.submit()
    async with house.client.stream("GET", f"/v1/tasks/{task_id}/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_pages_of_large_events_are_short_and_leave_nothing_out(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.agent.script = [UseTool("Bash", {"n": number}, "x" * 5000) for number in range(8)]
    task_id = await house.submit()
    whole = await all_events(house, task_id)
    shown = (await house.client.get(f"/v1/tasks/{task_id}")).json()["execution_log_truncated"]
    monkeypatch.setattr(pages, "PAGE_BYTES", 12_000)
    found: list[Any] = []
    sizes = []
    while True:
        page = await poll(house, task_id, after=len(found), limit=500)
        found += page["events"]
        sizes.append(len(page["events"]))
        assert page["next"] == len(found)
        if page["ended"]:
            break
    assert [each["seq"] for each in found] == [frame.id for frame in whole]
    assert len(sizes) >= 4
    assert await all_events(house, task_id) == whole, "a stream reads page after page"
    cut = (await house.client.get(f"/v1/tasks/{task_id}")).json()["execution_log_truncated"]
    assert (shown, cut) == (False, True)


async def test_cut_at_every_event_a_reader_misses_nothing(house: House) -> None:
    house.agent.script = LONG
    task_id = await house.submit()
    whole = await all_events(house, task_id)
    assert len(whole) > 40
    for cut in range(len(whole)):
        before: list[Frame] = []
        async with following(house, task_id) as found:
            async for frame in found:
                if len(before) == cut:
                    break
                if frame is not None and frame.id is not None:
                    before.append(frame)
        how = {"after": cut} if cut % 2 else {"last": cut}
        after = await all_events(house, task_id, **how)
        assert before + after == whole


async def test_a_reader_cut_again_and_again_while_the_task_runs_misses_nothing(
    house: House,
) -> None:
    gates = [asyncio.Event() for _ in range(20)]
    house.agent.script = [
        step
        for number, gate in enumerate(gates)
        for step in (WaitFor(gate), Say(f"Word {number}"), UseTool("Bash", {"n": number}))
    ]
    task_id = await house.submit()
    seen: list[Frame] = []
    waiting = iter(gates)
    while not seen or seen[-1].type != "run.ended":
        async with following(house, task_id, last=len(seen)) as found:
            next(waiting, asyncio.Event()).set()
            async for frame in found:
                if frame is not None and frame.id is not None:
                    seen.append(frame)
                    if len(seen) % 3 == 0:
                        break  # the connection is cut here
    assert seen == await all_events(house, task_id)


async def test_polling_gives_the_same_events_in_pages_of_any_size(house: House) -> None:
    house.agent.script = LONG
    task_id = await house.submit()
    whole = [frame.data for frame in await all_events(house, task_id)]
    for limit in (1, 7, 100):
        seen: list[Any] = []
        page: Any = {"ended": False, "next": 0}
        while not page["ended"]:
            page = await poll(house, task_id, after=page["next"], limit=limit)
            assert len(page["events"]) <= limit
            seen += page["events"]
        assert seen == whole
    last = await poll(house, task_id, after=len(whole))
    assert last == {"events": [], "next": len(whole), "ended": True}


async def test_a_running_task_has_not_ended_for_a_poller(house: House) -> None:
    gate = asyncio.Event()
    house.agent.script = [Say("One."), WaitFor(gate)]
    task_id = await house.submit()
    async with following(house, task_id) as found:
        async for frame in found:
            if frame is not None and frame.type == "agent.message" and frame.id is not None:
                page = await poll(house, task_id, after=frame.id)
                assert page == {"events": [], "next": frame.id, "ended": False}
                gate.set()


async def test_pieces_of_a_message_pass_by_without_a_number(house: House) -> None:
    gate = asyncio.Event()
    house.agent.script = [WaitFor(gate), Say("one two three")]
    task_id = await house.submit()
    pieces = []
    async with following(house, task_id) as found:
        async for frame in found:
            if frame is not None and frame.type == "run.agent_ready":
                gate.set()
            if frame is not None and frame.type == "agent.delta":
                assert frame.id is None
                pieces.append(frame.data["data"]["text"])
    assert pieces == ["one ", "two ", "three"]
    again = await all_events(house, task_id)
    assert "agent.delta" not in {frame.type for frame in again}


async def test_a_finished_task_has_nothing_after_its_end(house: House) -> None:
    task_id = await house.submit()
    whole = await all_events(house, task_id)
    assert await all_events(house, task_id, after=len(whole)) == []


@pytest.mark.parametrize(
    ("params", "headers", "status", "code"),
    [
        ({"after": 10_000}, {}, 400, "cursor_out_of_range"),
        ({"after": -1}, {}, 422, "validation_failed"),
        ({"after": 2**80}, {}, 422, "validation_failed"),
        ({"after": "x"}, {}, 422, "validation_failed"),
        ({"after": "1"}, {"last-event-id": "2"}, 400, "conflicting_cursors"),
        ({}, {"last-event-id": "-1"}, 400, "invalid_request"),
        ({}, {"last-event-id": "1e3"}, 400, "invalid_request"),
        ({}, {"last-event-id": "9" * 400}, 400, "invalid_request"),
        ({"limit": 5}, {}, 400, "unknown_parameter"),
        ({"limit": 501}, JSON, 422, "validation_failed"),
        ({"since": 5}, {}, 400, "unknown_parameter"),
    ],
)
async def test_a_wrong_cursor_is_refused_before_the_stream_begins(
    house: House, params: Any, headers: dict[str, str], status: int, code: str
) -> None:
    task_id = await house.submit()
    await house.ended(task_id)
    for accept in ({}, JSON) if "limit" not in params else ({},):
        answer = await house.client.get(
            f"/v1/tasks/{task_id}/events", params=params, headers={**headers, **accept}
        )
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code


async def test_a_cursor_may_be_given_twice_alike(house: House) -> None:
    task_id = await house.submit()
    whole = await all_events(house, task_id)
    assert await all_events(house, task_id, after=3, last=3) == whole[3:]


async def test_a_silent_stream_is_kept_alive(open_house: Open) -> None:
    async with open_house(KEEPALIVE_INTERVAL="1s") as house:
        gate = asyncio.Event()
        house.agent.script = [WaitFor(gate)]
        task_id = await house.submit()
        comments = 0
        async with following(house, task_id) as found:
            first = await anext(aiter(found))
            assert first is None  # a byte comes at once
            async for frame in found:
                comments += frame is None
                if comments == 2:
                    gate.set()


async def test_open_streams_are_counted(house: House) -> None:
    gate = asyncio.Event()
    house.agent.script = [WaitFor(gate)]
    task_id = await house.submit()

    async def readers() -> str:
        text = (await house.client.get("/metrics")).text
        return next(line for line in text.splitlines() if line.startswith("event_readers "))

    async with following(house, task_id) as one, following(house, task_id) as two:
        await anext(aiter(one))
        await anext(aiter(two))
        assert await readers() == "event_readers 2.0"
    gate.set()
    await house.ended(task_id)
    while await readers() != "event_readers 0.0":
        await asyncio.sleep(0.01)


async def test_a_reader_that_stops_reading_is_dropped_and_resumes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "RunStream", partial(RunStream, send_seconds=0.2))
    house.agent.script = [Say("x" * 200_000) for _ in range(60)]
    task_id = await house.submit()
    dropped = house.services.metrics.slow_readers_dropped
    async with raw_reader(house, task_id) as reader:
        await reader.readuntil(b": ping\n\n")
        while dropped._value.get() == 0:  # the reader does not read
            await asyncio.sleep(0.01)
        seen = await reader.read()  # what had been sent before
    numbers = [int(line[4:]) for line in seen.split(b"\n") if line.startswith(b"id: ")]
    assert not seen.endswith(b"0\r\n\r\n")  # a client sees that this is not the end
    assert numbers == list(range(1, len(numbers) + 1))
    resumed = await all_events(house, task_id, last=numbers[-2])
    assert resumed[0].id == numbers[-2] + 1
    assert resumed[-1].type == "run.ended"


async def test_a_stream_says_that_the_server_stops(open_house: Open) -> None:
    async with open_house(MAX_WORKERS="1") as house:
        house.agent.script = [WaitFor()]
        running, queued = await house.submit(), await house.submit()
        async with following(house, running) as one, following(house, queued) as two:
            while not house.agent.launched:
                await asyncio.sleep(0)
            await house.application.drain(0)
            seen = [frame async for frame in one if frame is not None]
            left = [frame async for frame in two if frame is not None]
    assert seen[-1].type == "run.ended"
    assert seen[-1].data["data"]["state"] == "interrupted"
    assert (left[-1].type, left[-1].id) == ("server.stopping", None)
    assert left[-1].data == {"after": len(left) - 1}


# --- the stream alone, over items that are hard to bring about -------------------------------


class Client:
    """The other side of an ASGI app."""

    def __init__(self) -> None:
        self.body = b""
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.body += message.get("body", b"")


def stream(house: House, items: list[Any], after: int = 0) -> RunStream:
    async def follow(_after: int) -> Any:
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    async def catch_up(_after: int) -> list[Event]:
        return []

    return RunStream(
        house.services, after=after, follow=follow, catch_up=catch_up, ended=lambda _: False
    )


async def test_a_reader_that_falls_behind_is_told_where_it_was(house: House) -> None:
    client = Client()
    await stream(house, [Overflow(7)])({}, client.receive, client.send)
    assert client.body.endswith(b'event: overflow\ndata: {"after":7}\n\n')


async def test_a_stream_that_fails_says_why(house: House) -> None:
    client = Client()
    items = [Event("s", 1, 0, "a", 1, {}), Unavailable("The database is away.", code="gone")]
    await stream(house, items)({}, client.receive, client.send)
    assert client.body.endswith(
        b'event: error\ndata: {"code":"gone","message":"The database is away."}\n\n'
    )
    assert b"id: 1\n" in client.body


async def test_what_is_no_unicode_does_not_end_a_stream(house: House) -> None:
    client = Client()
    await stream(house, [Live("agent.delta", {"text": "\ud800"})])({}, client.receive, client.send)
    assert b'"text":"?"' in client.body
