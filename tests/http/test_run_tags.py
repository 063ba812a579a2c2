"""What runs cost is counted under the tags of who asked for them, and held to those budgets."""

import asyncio
from typing import Any

import httpx
import pytest

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import Call
from tests.http.conftest import House, Open
from tests.http.test_stream_socket import talking

CALL = {"model": "haiku", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello."}]}


def calling(house: House) -> Call:
    """A step of an agent that calls a model, and would choose a tag of its own."""

    async def call(spec: LaunchSpec) -> None:
        token = next(
            seat.token
            for seat in house.application.pool._busy.values()
            if seat.workspace == spec.workspace
        )
        headers = {"authorization": f"Bearer {token}", "x-stationmaster-tags": "its-own"}
        async with httpx.AsyncClient(base_url=house.url) as client:
            (await client.post("/v1/messages", json=CALL, headers=headers)).raise_for_status()

    return Call(call)


async def counted(house: House) -> dict[str, int]:
    """How many calls there were under each tag."""
    found = (await house.client.get("/v1/usage", params={"group_by": "tag"})).json()
    return {each["by"]["tag"]: each["calls"] for each in found["groups"]}


async def test_a_tasks_calls_are_counted_under_its_tags(house: House) -> None:
    house.agent.script = (calling(house),)
    body = {"description": "x", "tags": ["team", "job"]}
    headers = {"x-stationmaster-tags": "job, nightly"}
    answer = await house.client.post("/v1/task", json=body, headers=headers)
    assert answer.json()["status"] == "completed", answer.text
    assert await counted(house) == {"job": 1, "nightly": 1, "team": 1}
    async with talking(house) as talk:
        frames = await talk.answer(type="agentic_task", description="x", tags=["team"])
    assert frames[-1]["status"] == "completed"
    assert await counted(house) == {"job": 1, "nightly": 1, "team": 2}


async def test_a_turns_calls_are_counted_under_the_tags_of_its_message(open_house: Open) -> None:
    async with open_house(AGENT_POOL_SIZE="0") as house:
        house.agent.script = (calling(house),)
        body: dict[str, Any] = {"prompt": "x", "tags": ["first"]}
        answer = await house.client.post("/api/execute", json=body)
        assert '"completed"' in answer.text
        [session] = (await house.client.get("/api/sessions")).json()["sessions"]
        headers = {"x-stationmaster-tags": "second"}
        again = await house.client.post(
            f"/api/stream/{session['id']}", json={"prompt": "y"}, headers=headers
        )
        assert '"completed"' in again.text
        assert len(house.agent.launched) == 1  # one process, and each turn its own tags
        message = {"type": "user.message", "content": [{"type": "text", "text": "z"}]}
        sent = await house.client.post(
            f"/v1/sessions/{session['id']}/events",
            json={"events": [message]},
            headers={"x-stationmaster-tags": "third"},
        )
        assert sent.status_code == 200, sent.text
        path = f"/api/sessions/{session['id']}"
        while (await house.client.get(path)).json()["status"] != "idle":
            await asyncio.sleep(0)
        assert await counted(house) == {"first": 1, "second": 1, "third": 1}


async def test_a_budget_of_a_tag_holds_for_runs(house: House) -> None:
    budget = {"subject": {"type": "tag", "id": "red"}, "limit_usd": "0"}
    made = await house.client.post("/v1/budgets", json={**budget, "period": "month"})
    assert made.status_code == 201, made.text
    house.agent.script = (calling(house),)
    assert (await house.perform(tags=["red"]))["status"] == "cost_exceeded"
    assert (await house.perform(tags=["blue"]))["status"] == "completed"
    assert await counted(house) == {"blue": 1}


@pytest.mark.parametrize("path", ["/v1/task", "/v1/tasks", "/api/execute"])
async def test_a_wrong_tag_is_refused_and_nothing_begins(house: House, path: str) -> None:
    text = "prompt" if path == "/api/execute" else "description"
    for headers, body in (
        ({"x-stationmaster-tags": "two words"}, {}),
        ({"x-stationmaster-tags": "a,b,c,d"}, {"tags": ["e"]}),
        ({}, {"tags": ["-x"]}),
    ):
        answer = await house.client.post(path, json={text: "x", **body}, headers=headers)
        assert (answer.status_code, answer.json()["param"]) == (400, "tags")
    assert (await house.client.get("/v1/tasks")).json()["tasks"] == []
    assert (await house.client.get("/api/sessions")).json()["sessions"] == []
