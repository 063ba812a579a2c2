"""`/api/execute`: a prompt in, its events out, gone on with, watched again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stationmaster.agents.base import AgentFailure
from stationmaster.agents.scripted import Fail, Say, Script, Think, UseTool, WaitFor
from tests.http import managed
from tests.http.conftest import ADMIN, House
from tests.support.sdk import sdk

LONG: Script = (Think("Hm."), UseTool("Bash", {"command": "ls"}), Say("One."), Say("Two."))
ENDS = {"completed", "error"}


def frames_of(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        told = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        if "data" in told:
            found.append({**json.loads(told["data"]), "seq": told.get("id")})
    return found


async def tell(house: House, path: str, **body: Any) -> list[dict[str, Any]]:
    answer = await house.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    return frames_of(answer.text)


@asynccontextmanager
async def watching(
    house: House, path: str, **body: Any
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    async with house.client.stream("POST", path, json=body) as answer:

        async def frames() -> AsyncIterator[dict[str, Any]]:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

        yield frames()


async def test_a_job_is_told_from_its_connection_to_its_end(house: House) -> None:
    house.agent.script = LONG
    found = await tell(house, "/api/execute", prompt="Do it.")
    kinds = [frame["type"] for frame in found]
    assert kinds == [
        "connected", "thinking", "tool_use", "tool_result", "message", "message", "completed",
    ]  # fmt: skip
    assert found[0]["sessionId"].startswith("sesn_")
    assert (found[0]["resuming"], found[0]["resumedFrom"]) == (False, None)
    assert (found[2]["tool"], found[2]["input"]) == ("Bash", {"command": "ls"})
    assert found[-2]["content"] == "Two."
    assert all(frame["timestamp"].endswith("Z") for frame in found[1:])
    numbers = [int(frame["seq"]) for frame in found[1:]]
    assert numbers == sorted(set(numbers))


async def test_a_session_goes_on(house: House) -> None:
    house.agent.script = (Say("First."),)
    session = (await tell(house, "/api/execute", prompt="One."))[0]["sessionId"]
    house.agent.script = (Say("Second."),)
    found = await tell(house, "/api/execute", prompt="Two.", resumeSessionId=session)
    assert found[0] == {
        "type": "connected", "sessionId": session, "resuming": True, "resumedFrom": session,
        "workspace": "/workspace", "tools": found[0]["tools"], "seq": None,
    }  # fmt: skip
    assert {"Bash", "Read", "Write"} <= set(found[0]["tools"])
    assert [frame["type"] for frame in found] == ["connected", "message", "completed"]
    assert found[1]["content"] == "Second."
    third = await tell(house, f"/api/stream/{session}", prompt="Three.")
    assert third[-1]["type"] == "completed"


async def test_a_session_is_made_listed_shown_and_deleted(house: House) -> None:
    made = await house.client.post("/api/sessions", json={"workspace": "/workspace"})
    assert made.status_code == 201
    session = made.json()
    assert session["sessionId"] == session["id"]
    house.agent.script = (Say("Hello."),)
    found = await tell(house, f"/api/stream/{session['id']}", prompt="Hi.")
    assert found[1]["content"] == "Hello."
    listed = (await house.client.get("/api/sessions")).json()
    assert (listed["count"], listed["has_more"]) == (1, False)
    assert listed["sessions"][0]["id"] == session["id"]
    one = f"/api/sessions/{session['id']}"
    assert (await house.client.get(one)).json()["status"] == "idle"
    assert (await house.client.delete(one)).json() == {"success": True, "sessionId": session["id"]}
    assert (await house.client.get(one)).status_code == 404
    assert (await house.client.delete(one)).status_code == 404


async def test_both_guides_find_a_list_and_a_session_where_they_look(house: House) -> None:
    path, ids = "/api/sessions", list[str]()
    for _ in range(5):
        made = (await house.client.post(path, json={})).json()
        ids.insert(0, made["sessionId"])
        assert made["success"] is True
        assert (made["data"]["session_id"], made["data"]["status"]) == (ids[0], "idle")
    whole = (await house.client.get(path)).json()
    assert (whole["success"], whole["count"], whole["data"]["sessions"]) == (
        True, 5, whole["sessions"],
    )  # fmt: skip
    assert isinstance(whole["message"], str)
    assert whole["timestamp"].endswith("Z")
    assert whole["pagination"] == whole["data"]["pagination"]
    assert whole["pagination"] == {
        "total_count": 5, "limit": 20, "offset": 0, "has_more": False,
    }  # fmt: skip
    seen = []
    for offset in (0, 2, 4):
        page = (await house.client.get(path, params={"limit": 2, "offset": offset})).json()
        seen += [each["id"] for each in page["data"]["sessions"]]
        assert page["pagination"]["total_count"] == 5
        assert page["pagination"]["has_more"] == (offset < 4)
    assert seen == ids
    walked, after = [], None
    while True:
        cursor: dict[str, str] = {} if after is None else {"after": after}
        page = (await house.client.get(path, params={"limit": "2", **cursor})).json()
        walked += [each["id"] for each in page["sessions"]]
        if (after := page["next"]) is None:
            break
    assert walked == ids
    one = (await house.client.get(f"{path}/{ids[0]}")).json()
    assert one["data"] == whole["sessions"][0]
    assert {**one, **one["data"]} == one


async def test_sessions_are_filtered(house: House) -> None:
    house.agent.script = (Say("Done."),)
    path = "/api/sessions"
    first = (await tell(house, "/api/execute", prompt="Go.", model="opus"))[0]["sessionId"]
    second = (await house.client.post(path, json={})).json()
    third = (await house.client.post(path, json={})).json()
    await house.client.post(f"/v1/sessions/{third['id']}/archive")
    models = {first: (await house.client.get(f"{path}/{first}")).json()["model"]}
    assert models[first] != second["model"]
    day = second["created_at"][:10]
    for query, expected in (
        ({}, [second["id"], first]),
        ({"model": models[first]}, [first]),
        ({"model": "none"}, []),
        ({"status": "idle"}, [second["id"], first]),
        ({"status": "running"}, []),
        ({"status": "archived"}, [third["id"]]),
        ({"from_date": day, "to_date": day}, [second["id"], first]),
        ({"from_date": second["created_at"]}, [second["id"]]),
        ({"to_date": "2020-01-31"}, []),
        ({"from_date": "2020-01-31T00:00:00Z", "limit": "1"}, [second["id"]]),
    ):
        answer = await house.client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        assert [each["id"] for each in answer.json()["sessions"]] == expected, query
        if "limit" not in query:
            assert answer.json()["pagination"]["total_count"] == len(expected)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=101", 422),
        ("offset=-1", 422),
        ("offset=1000001", 422),
        ("status=sleeping", 422),
        ("from_date=yesterday", 400),
        ("to_date=2026-13-01", 400),
        ("from_date=99999-01-01", 400),
        ("after=nonsense", 404),
        ("after=sesn_01jd3k00000000000000000000&offset=1", 400),
        ("page=1", 400),
    ],
)
async def test_a_wrong_list_is_refused(house: House, query: str, status: int) -> None:
    answer = await house.client.get(f"/api/sessions?{query}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_key_of_a_narrow_profile_has_the_tools_that_it_may_use(house: House) -> None:
    house.agent.script = (UseTool("Bash", {"command": "ls"}), Say("Done."))
    key = await house.client.post("/api/admin/keys", json={"name": "narrow", "profile": "free"})
    house.client.headers["authorization"] = f"Bearer {key.json()['key']}"
    found = await tell(house, "/api/execute", prompt="Do it.")
    assert found[0]["tools"] == ["Read"]
    assert found[-1]["type"] == "completed"
    assert house.agent.launched[-1].tools == ("Read",)
    made = (await house.client.post("/api/sessions", json={})).json()
    again = await tell(house, f"/api/stream/{made['id']}", prompt="Do it.")
    assert (again[0]["tools"], again[-1]["type"]) == (["Read"], "completed")


async def test_what_has_happened_is_replayed_behind_any_number(house: House) -> None:
    house.agent.script = LONG
    whole = await tell(house, "/api/execute", prompt="Do it.")
    path = f"/api/stream/{whole[0]['sessionId']}"
    again = frames_of((await house.client.get(path)).text)
    assert again[1:] == whole[1:]
    for cut in range(1, len(whole) - 1):
        last = {"last-event-id": whole[cut]["seq"]}
        rest = frames_of((await house.client.get(path, headers=last)).text)
        assert rest[1:] == whole[cut + 1 :]


async def test_a_failure_is_an_error_event(house: House) -> None:
    house.agent.script = (Say("Begun."), Fail(AgentFailure("It broke.")))
    found = await tell(house, "/api/execute", prompt="Do it.")
    assert [frame["type"] for frame in found] == ["connected", "message", "error"]
    assert found[-1]["error"]


async def test_status_tells_idle_from_busy(house: House) -> None:
    assert (await house.client.get("/status")).json()["status"] == "idle"
    wait = WaitFor()
    house.agent.script = (Say("Begun."), wait, Say("Done."))
    async with watching(house, "/api/execute", prompt="Do it.") as frames:
        async for frame in frames:
            if frame["type"] == "message":
                break
        busy = (await house.client.get("/status")).json()
        assert (busy["status"], busy["active"]) == ("busy", 1)
        wait.event.set()
        assert [frame["type"] async for frame in frames][-1] == "completed"
    assert (await house.client.get("/status")).json()["status"] == "idle"


async def test_a_session_at_work_refuses_another_prompt(house: House) -> None:
    wait = WaitFor()
    house.agent.script = (Say("Begun."), wait, Say("Done."))
    async with watching(house, "/api/execute", prompt="Do it.") as frames:
        session = (await anext(frames))["sessionId"]
        await anext(frames)
        refused = await house.client.post(f"/api/stream/{session}", json={"prompt": "More."})
        assert refused.status_code == 409
        assert refused.json()["code"] == "session_busy"
        assert refused.headers["x-should-retry"] == "false"
        wait.event.set()
        assert [frame["type"] async for frame in frames][-1] == "completed"


@pytest.mark.parametrize("choice", ["continue", "cancel"])
async def test_a_client_that_goes_away(house: House, choice: str) -> None:
    wait = WaitFor()
    house.agent.script = (Say("Begun."), wait, Say("Done."))
    async with watching(house, "/api/execute", prompt="Do it.", onDisconnect=choice) as frames:
        session = (await anext(frames))["sessionId"]
        await anext(frames)
    one = f"/api/sessions/{session}"
    if choice == "continue":
        assert (await house.client.get(one)).json()["status"] == "running"
        wait.event.set()
    async with asyncio.timeout(20):
        while (await house.client.get(one)).json()["status"] != "idle":
            await asyncio.sleep(0.02)
    said = frames_of((await house.client.get(f"/api/stream/{session}")).text)
    texts = [frame["content"] for frame in said if frame["type"] == "message"]
    assert texts == (["Begun.", "Done."] if choice == "continue" else ["Begun."])


@pytest.mark.parametrize("choice", ["continue", "cancel"])
@pytest.mark.parametrize("tool", ["asked about", "the client's"])
async def test_a_client_that_goes_away_while_its_turn_waits_for_somebody(
    house: House, choice: str, tool: str
) -> None:
    custom = tool == "the client's"
    use = UseTool("weather", {"city": "Ulm"}) if custom else UseTool("Bash", {"command": "ls"})
    house.agent.script = (use, Say("Done."))
    async with sdk(house.url, ADMIN) as client:
        session = await managed.talk(client, managed.WEATHER if custom else managed.ASK)
        path = f"/api/stream/{session.id}"
        async with (
            asyncio.timeout(30),
            watching(house, path, prompt="Go.", onDisconnect=choice) as frames,
        ):
            await anext(frames)
            waiting = (await until_waiting(house))["event_id"]
        if choice == "continue":
            answer: Any = {"type": "user.tool_confirmation", "tool_use_id": waiting}
            answer |= {"result": "allow"}
            if custom:
                answer = {"type": "user.custom_tool_result", "custom_tool_use_id": waiting}
            await session.send(answer)
        async with asyncio.timeout(20):
            path = f"/v1/sessions/{session.id}/turns"  # of those that have ended
            while not (await house.client.get(path)).json()["data"]:
                await asyncio.sleep(0.02)
        events = await session.events()
        [call] = (await house.client.get("/v1/approvals")).json()["approvals"]
    assert managed.said(events) == ("Done." if choice == "continue" else "")
    assert events[-1].stop_reason.type == "end_turn"
    wanted = {"continue": "answered" if custom else "allowed", "cancel": "cancelled"}
    assert call["state"] == wanted[choice]


async def until_waiting(house: House) -> dict[str, Any]:
    """The call that waits, as soon as there is one."""
    while True:
        found: list[dict[str, Any]] = (await house.client.get("/v1/approvals")).json()["approvals"]
        if found:
            return found[0]
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"prompt": ""}, 422),
        ({"prompt": 5}, 422),
        ({"prompt": "x", "surprise": 1}, 422),
        ({"prompt": "x", "workspace": "../../etc"}, 400),
        ({"prompt": "x", "model": "--danger"}, 422),
        ({"prompt": "x", "model": "no-such-model"}, 400),
        ({"prompt": "x", "onDisconnect": "explode"}, 422),
        ({"prompt": "x", "resumeSessionId": "sesn_01jd3k00000000000000000000"}, 404),
        ({"prompt": "x", "resumeSessionId": "../etc"}, 404),
    ],
)
async def test_what_is_wrong_is_refused_and_changes_nothing(
    house: House, body: dict[str, Any], status: int
) -> None:
    answer = await house.client.post("/api/execute", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await house.client.get("/api/sessions")).json()["count"] == 0


async def test_another_tenants_session_is_not_there(house: House, stranger: dict[str, str]) -> None:
    house.agent.script = (Say("Mine."),)
    session = (await tell(house, "/api/execute", prompt="Do it."))[0]["sessionId"]
    for method, path, body in (
        ("GET", f"/api/sessions/{session}", None),
        ("DELETE", f"/api/sessions/{session}", None),
        ("GET", f"/api/stream/{session}", None),
        ("POST", f"/api/stream/{session}", {"prompt": "x"}),
        ("POST", "/api/execute", {"prompt": "x", "resumeSessionId": session}),
    ):
        answer = await house.client.request(method, path, json=body, headers=stranger)
        assert answer.status_code == 404, (method, path)
    assert (await house.client.get("/api/sessions", headers=stranger)).json()["count"] == 0
