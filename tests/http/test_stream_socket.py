"""`/v1/stream`: who may talk, what is answered, cut anywhere, bounded, stopped."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stationmaster.agents.scripted import Say, Script, Think, UseTool, WaitFor
from stationmaster.http.sockets import stream
from stationmaster.http.sockets.connection import PATH
from stationmaster.http.sockets.stream import SocketLimits
from tests.http.conftest import ADMIN, USER, House, Open
from tests.support.vendor_upstream import VendorUpstream

LONG: Script = tuple(
    step
    for number in range(8)
    for step in (Think(f"Thought {number}"), UseTool("Bash", {"n": number}), Say(f"Word {number}"))
)
FINAL = {"result", "done", "error"}


class Talk:
    """A client of the socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
            return frame

    async def answer(self, **frame: Any) -> list[dict[str, Any]]:
        """Everything up to a frame that ends an answer."""
        await self.say(**frame)
        return [frame async for frame in self.until_final()]

    async def until_final(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            frame = await self.hear()
            yield frame
            if frame["type"] in FINAL:
                return

    async def closed(self) -> int:
        """The code that the server closes with."""
        async with asyncio.timeout(30):
            with suppress(ConnectionClosed):
                while True:
                    await self.socket.recv()
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def talking(house: House, key: str | None = ADMIN, path: str = PATH) -> AsyncIterator[Talk]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = house.url.replace("http://", "ws://") + path
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        yield Talk(socket)


# --- who --------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_a_key_in_the_handshake_will_do(house: House, header: str) -> None:
    value = f"Bearer {USER}" if header == "authorization" else USER
    url = house.url.replace("http://", "ws://") + PATH
    async with connect(url, additional_headers={header: value}, proxy=None) as socket:
        talk = Talk(socket)
        await talk.say(type="ping", id="a")
        assert await talk.hear() == {"type": "pong", "id": "a"}


async def test_a_wrong_key_in_the_handshake_gets_a_401(house: House) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with talking(house, "wrong-key-0123456789"):
            pass
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert json.loads(response.body or b"")["code"] == "invalid_api_key"


async def test_a_key_in_the_first_frame_will_do(house: House) -> None:
    async with talking(house, None) as talk:
        await talk.say(type="auth", api_key=USER)
        assert await talk.hear() == {"type": "authenticated"}
        await talk.say(type="ping")
        assert await talk.hear() == {"type": "pong"}


async def test_the_first_request_may_carry_the_key(house: House) -> None:
    house.agent.script = (Say("Hello."),)
    async with talking(house, None) as talk:
        frames = await talk.answer(type="agentic_task", api_key=USER, description="Do it.")
    assert frames[-1]["status"] == "completed"


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ping"},
        {"type": "auth", "api_key": "wrong-key-0123456789"},
        {"type": "auth"},
        {"type": "chat", "messages": [{"role": "user", "content": "Hi"}]},
        {"type": "auth", "api_key": "\ud800"},
        "no object",
    ],
)
async def test_without_a_key_nothing_is_answered(house: House, frame: Any) -> None:
    async with talking(house, None) as talk:
        await talk.socket.send(json.dumps(frame))
        assert (await talk.hear())["type"] == "error"
        assert await talk.closed() == 4001


async def test_who_says_nothing_is_let_go(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = SocketLimits(authenticate=0.1)
    monkeypatch.setattr(stream, "SocketLimits", lambda: limits)
    async with open_house() as house, talking(house, None) as talk:
        assert await talk.closed() == 4001


async def test_a_revoked_key_is_noticed_at_the_next_frame(house: House) -> None:
    made = await house.client.post("/api/admin/keys", json={"name": "short"})
    made.raise_for_status()
    key, key_id = made.json()["key"], made.json()["id"]
    async with talking(house, key) as talk:
        await talk.say(type="ping")
        assert (await talk.hear())["type"] == "pong"
        (await house.client.delete(f"/api/admin/keys/{key_id}")).raise_for_status()
        await talk.say(type="ping")
        assert (await talk.hear())["code"] == "invalid_api_key"
        assert await talk.closed() == 4001


async def test_another_keys_request_is_refused(house: House) -> None:
    async with talking(house, USER) as talk:
        frames = await talk.answer(type="agentic_task", api_key=ADMIN, description="Do it.")
    assert [frame["code"] for frame in frames] == ["conflicting_credentials"]


# --- tasks ------------------------------------------------------------------------------------


async def test_a_task_is_told_as_it_happens(house: House) -> None:
    house.agent.script = LONG
    async with talking(house) as talk:
        frames = await talk.answer(type="agentic_task", id="t", description="Do it.")
    assert {frame["id"] for frame in frames} == {"t"}
    kinds = [frame["type"] for frame in frames]
    assert kinds[0] == "accepted"
    assert kinds[-1] == "result"
    told = [kind for kind in kinds if kind in {"thinking", "tool_call", "tool_result", "message"}]
    assert told == ["thinking", "tool_call", "tool_result", "message"] * 8
    call = next(frame for frame in frames if frame["type"] == "tool_call")
    assert (call["tool"], call["arguments"]) == ("Bash", {"n": 0})
    assert call["timestamp"].endswith("Z")
    result = frames[-1]
    task = await house.task(result["task_id"])
    assert result["status"] == task["status"] == "completed"
    assert result["usage"] == task["usage"]
    assert any(frame["type"] == "token" for frame in frames)


async def test_several_at_once_keep_their_ids(house: House) -> None:
    house.agent.script = LONG
    async with talking(house) as talk:
        for name in ("a", "b"):
            await talk.say(type="start_task", id=name, description=f"Do {name}.")
        seen: dict[str, list[int]] = {"a": [], "b": []}
        ended = 0
        while ended < 2:
            frame = await talk.hear()
            if "seq" in frame:
                seen[frame["id"]].append(frame["seq"])
            ended += frame["type"] == "result"
    assert all(numbers == sorted(set(numbers)) for numbers in seen.values())
    assert all(len(numbers) > 30 for numbers in seen.values())


async def test_cut_after_every_frame_and_resumed_nothing_is_missed(house: House) -> None:
    house.agent.script = LONG
    async with talking(house) as talk:
        whole = await talk.answer(type="agentic_task", description="Do it.")
        task_id = whole[-1]["task_id"]
    numbered = [frame for frame in whole if "seq" in frame]
    for cut, last in enumerate(numbered):
        async with talking(house) as talk:
            rest = await talk.answer(type="resume", task_id=task_id, after=last["seq"])
        again = [frame["seq"] for frame in rest if "seq" in frame]
        assert again == [frame["seq"] for frame in numbered[cut + 1 :]]
        assert rest[-1]["status"] == "completed"


async def test_a_task_goes_on_when_its_socket_closes(house: House) -> None:
    wait = WaitFor()
    house.agent.script = (wait, Say("Done."))
    async with talking(house) as talk:
        await talk.say(type="agentic_task", description="Do it.")
        task_id = (await talk.hear())["task_id"]
    wait.event.set()
    assert (await house.ended(task_id))["status"] == "completed"


async def test_or_is_cancelled_by_choice(house: House) -> None:
    house.agent.script = (WaitFor(), Say("Done."))
    async with talking(house) as talk:
        await talk.say(type="agentic_task", description="Do it.", on_disconnect="cancel")
        task_id = (await talk.hear())["task_id"]
    assert (await house.ended(task_id))["status"] == "cancelled"


async def test_a_task_can_be_cancelled_from_the_same_socket(house: House) -> None:
    house.agent.script = (WaitFor(), Say("Done."))
    async with talking(house) as talk:
        await talk.say(type="agentic_task", description="Do it.")
        task_id = (await talk.hear())["task_id"]
        await talk.say(type="cancel", id="c", task_id=task_id)
        frames = [frame async for frame in talk.until_final()]
    assert {"type": "cancelling", "task_id": task_id, "id": "c"} in frames
    assert frames[-1]["status"] == "cancelled"


async def test_another_tenants_task_is_not_there(house: House, stranger: dict[str, str]) -> None:
    task_id = await house.submit()
    key = stranger["authorization"].removeprefix("Bearer ")
    async with talking(house, key) as talk:
        for kind in ("resume", "cancel"):
            frames = await talk.answer(type=kind, task_id=task_id)
            assert [frame["code"] for frame in frames] == ["not_found"]


# --- chats ------------------------------------------------------------------------------------


async def test_a_chat_comes_in_tokens_and_is_billed(house: House) -> None:
    async with talking(house) as talk:
        frames = await talk.answer(
            type="chat",
            id="c",
            model="sonnet",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Say hello."},
            ],
        )
    done = frames[-1]
    assert done["type"] == "done", done
    assert "".join(frame["content"] for frame in frames if frame["type"] == "token")
    assert done["usage"]["output_tokens"] > 0
    assert done["stop_reason"] == "end_turn"
    assert {frame["id"] for frame in frames} == {"c"}
    usage = (await house.client.get("/v1/usage")).raise_for_status().json()
    assert str(done["usage"]["output_tokens"]) in json.dumps(usage)


async def test_a_chat_at_a_provider_of_another_format_comes_as_it_is_written(
    open_house: Open, tmp_path: Path
) -> None:
    async with VendorUpstream() as upstream:
        (tmp_path / "config.yaml").write_text(
            f"providers: {{vendor: {{type: openai, base_url: '{upstream.url}/v1', api_key: sk}}}}\n"
            "models:\n"
            "  gpt-5:\n"
            "    targets: [{provider: vendor, model: claude-haiku-5-5}]\n"
            "    price: {input: 1, output: 5}\n"
        )
        async with open_house() as house, talking(house) as talk:
            messages = [{"role": "user", "content": "Say pear."}]
            for number in ("1", "2"):
                await talk.say(type="chat", id=number, model="gpt-5", messages=messages)
            frames: list[dict[str, Any]] = []
            while [each["type"] for each in frames].count("done") < 2:
                frames.append(await talk.hear())
                assert frames[-1]["type"] != "error", frames[-1]
    for number in ("1", "2"):
        mine = [each for each in frames if each["id"] == number]
        words = [each["content"] for each in mine if each["type"] == "token"]
        assert "pear" in "".join(words)
        assert len(words) > 2
        assert mine[-1]["usage"]["output_tokens"] > 0
        assert mine[-1]["cost"] > 0
    assert all(call.json["stream"] for call in upstream.calls)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "no-such-model"}, "unknown_model"),
        ({"project_id": "another"}, "project_not_allowed"),
        ({"messages": [{"role": "system", "content": "Only this."}]}, "invalid_request"),
        ({"messages": []}, "invalid_request"),
        ({"max_tokens": 0}, "invalid_request"),
        ({"surprise": 1}, "invalid_request"),
    ],
)
async def test_a_wrong_chat_is_refused(house: House, fields: dict[str, Any], code: str) -> None:
    frame = {"messages": [{"role": "user", "content": "Hi"}], **fields}
    async with talking(house) as talk:
        frames = await talk.answer(type="chat", id="c", **frame)
        assert [(told["type"], told["id"]) for told in frames] == [("error", "c")]
        assert frames[0]["code"] == code or code == "unknown_model"
        await talk.say(type="ping")
        assert (await talk.hear())["type"] == "pong"


# --- bad input, bounds, ends ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"type": 5}', '{"type": "nothing"}', '{"type": "ping", "more": 1}',
     '{"type": "agentic_task"}', '{"type": "agentic_task", "description": ""}',
     '{"type": "resume", "task_id": "x"}', '{"type": "resume", "task_id": "run_x", "after": -1}',
     '{"type": "cancel", "task_id": "../../etc"}', '{"type": "ping", "type": "ping"}', "[" * 5000],
)  # fmt: skip
async def test_a_frame_that_is_none_gets_an_error_and_the_socket_lives(
    house: House, text: str
) -> None:
    async with talking(house) as talk:
        await talk.socket.send(text)
        frame = await talk.hear()
        assert frame["type"] == "error"
        assert frame["code"] in {"invalid_json", "invalid_request", "not_found"}
        await talk.say(type="ping")
        assert (await talk.hear())["type"] == "pong"
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []


async def test_binary_frames_are_refused(house: House) -> None:
    async with talking(house) as talk:
        await talk.socket.send(b"{}")
        assert await talk.closed() == 1003


async def test_a_frame_over_the_bound_closes_the_socket(house: House) -> None:
    async with talking(house) as talk:
        await talk.say(type="ping", id="x" * 70_000)
        assert await talk.closed() == 1009


async def test_requests_under_way_are_bounded(house: House) -> None:
    house.agent.script = (WaitFor(), Say("Done."))
    async with talking(house) as talk:
        for number in range(11):
            await talk.say(type="agentic_task", id=str(number), description="Wait.")
        codes = []
        while "too_many_requests_on_socket" not in codes:
            codes.append((await talk.hear()).get("code"))


async def test_two_under_way_cannot_have_one_id(house: House) -> None:
    house.agent.script = (WaitFor(), Say("Done."))
    async with talking(house) as talk:
        for _ in range(2):
            await talk.say(type="agentic_task", id="same", description="Wait.")
        codes = []
        while "id_in_use" not in codes:
            codes.append((await talk.hear()).get("code"))


async def test_a_key_has_so_many_sockets_and_gets_them_back(house: House) -> None:
    sockets = []
    for _ in range(10):
        sockets.append(talking(house, USER))
        await sockets[-1].__aenter__()
    with pytest.raises(InvalidStatus) as refused:
        async with talking(house, USER):
            pass
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["retry-after"]
    async with talking(house, ADMIN) as other:
        await other.say(type="ping")
        assert (await other.hear())["type"] == "pong"
    for each in sockets:
        await each.__aexit__(None, None, None)
    async with asyncio.timeout(10):
        while "sockets_open 0.0" not in (await house.client.get("/metrics")).text:
            await asyncio.sleep(0.01)
    async with talking(house, USER) as again:
        await again.say(type="ping")
        assert (await again.hear())["type"] == "pong"


@pytest.mark.parametrize(
    ("limits", "code"), [(SocketLimits(idle=0.1), 4008), (SocketLimits(lifetime=0.1), 4009)]
)
async def test_an_idle_and_an_old_socket_are_closed(
    open_house: Open, monkeypatch: pytest.MonkeyPatch, limits: SocketLimits, code: int
) -> None:
    monkeypatch.setattr(stream, "SocketLimits", lambda: limits)
    async with open_house() as house, talking(house) as talk:
        assert await talk.closed() == code


async def test_elsewhere_there_is_no_socket(house: House, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/", "/v1/tasks", "/v1/stream/more"):
        with pytest.raises(InvalidStatus) as refused:
            async with talking(house, path=path):
                pass
        assert refused.value.response.status_code == 404
    assert "handshake" not in caplog.text


async def test_the_servers_stop_is_told(open_house: Open) -> None:
    async with open_house() as house:
        house.agent.script = (WaitFor(), Say("Done."))
        socket = talking(house)
        talk = await socket.__aenter__()
        await talk.say(type="agentic_task", description="Wait.")
        assert (await talk.hear())["type"] == "accepted"
    code = await talk.closed()
    await socket.__aexit__(None, None, None)
    assert code == 1001
