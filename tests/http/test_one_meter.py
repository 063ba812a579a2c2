"""Every way to a model counts against the budget, whoever asks."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from stationmaster.http.routes.app import openapi_document
from tests.http.conftest import House, Open
from tests.http.test_stream_socket import talking
from tests.support.vendor_upstream import VendorUpstream

HELLO = [{"role": "user", "content": "Hello."}]
CHAT = {"model": "haiku", "messages": HELLO}
CALLS: dict[str, Any] = {
    "/v1/messages": {**CHAT, "max_tokens": 50},
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": "haiku", "input": "Hello."},
    "/v1/process": {"provider": "offline", "model_name": "haiku", "user_message": "Hello."},
    "/v1/batch": {"prompts": [{"id": "a", "prompt": "Hello."}]},
    "/v1/task": {"description": "Hello."},
    "/v1/tasks": {"description": "Hello."},
    "/api/execute": {"prompt": "Hello."},
}
FREE = {
    # Nothing is spent: a count, and a choice that is explained.
    *("/v1/messages/count_tokens", "/v1/responses/input_tokens", "/v1/route"),
    # Not without a provider of that format, and then in the same way as a chat.
    "/v1/embeddings",
}


@pytest.mark.parametrize("path", CALLS)
async def test_no_way_to_a_model_goes_past_a_spent_budget(house: House, path: str) -> None:
    """The administrator's key too: its project has nothing left."""
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    for stream in (False, True) if "model" in CALLS[path] else (None,):
        more = {} if stream is None else {"stream": stream}
        answer = await house.client.post(path, json=CALLS[path] | more)
        if path == "/v1/batch":  # each of its prompts has an end of its own
            assert answer.json()["completed"] == 0
            assert answer.json()["results"][0]["error"]["code"] == "budget_exceeded"
        else:
            assert answer.status_code in {402, 403, 429}, answer.text
            assert "budget" in answer.text or "quota" in answer.text
            if answer.status_code != httpx.codes.FORBIDDEN:  # which no client tries again
                assert answer.headers["x-should-retry"] == "false"
    await nothing_used(house)


async def test_nor_does_a_batch(house: House) -> None:
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    request = {"custom_id": "one", "params": {**CHAT, "max_tokens": 50}}
    made = await house.client.post("/v1/messages/batches", json={"requests": [request]})
    if made.status_code == httpx.codes.OK:
        path = f"/v1/messages/batches/{made.json()['id']}"
        async with asyncio.timeout(20):
            while (await house.client.get(path)).json()["processing_status"] != "ended":
                await asyncio.sleep(0.05)
        results = (await house.client.get(f"{path}/results")).text.splitlines()
        assert [json.loads(line)["result"]["type"] for line in results] == ["errored"]
    await nothing_used(house)


async def test_nor_a_session_that_goes_on(house: House) -> None:
    made = (await house.client.post("/api/sessions", json={})).json()
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    for path, body in (
        (f"/api/stream/{made['sessionId']}", {"prompt": "Hello."}),
        ("/api/execute", {"prompt": "Hello.", "resumeSessionId": made["sessionId"]}),
    ):
        answer = await house.client.post(path, json=body)
        assert answer.status_code == httpx.codes.TOO_MANY_REQUESTS, answer.text
        assert answer.json()["code"] == "budget_exceeded"
    assert (await house.client.get("/status")).json()["status"] == "idle"
    sessions = (await house.client.get("/api/sessions")).json()["sessions"]
    assert [each["status"] for each in sessions] == ["idle"]


async def test_nor_a_batch_of_openais(house: House) -> None:
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    upload = {"file": ("lines.jsonl", json.dumps(line).encode(), "application/jsonl")}
    file = await house.client.post("/v1/files", files=upload, data={"purpose": "batch"})
    made = await house.client.post(
        "/v1/batches",
        json={
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    )
    if made.status_code == httpx.codes.OK:
        path = f"/v1/batches/{made.json()['id']}"
        async with asyncio.timeout(20):
            while (found := (await house.client.get(path)).json())["status"] != "completed":
                await asyncio.sleep(0.05)
        assert found["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    else:
        assert "budget" in made.text
    await nothing_used(house)


async def test_nor_an_agent_as_a_model(house: House) -> None:
    agent = {"name": "helper", "model": "haiku"}
    (await house.client.post("/v1/agents", json=agent)).raise_for_status()
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    for path in ("/v1/chat/completions", "/v1/messages"):
        for stream in (False, True):
            body = {**CALLS[path], "model": "agent:helper", "stream": stream}
            answer = await house.client.post(path, json=body)
            assert answer.status_code in {402, 403, 429}, answer.text
    await nothing_used(house)


async def test_nor_embeddings(open_house: Open, tmp_path: Path) -> None:
    async with VendorUpstream() as vendor:
        vendor_of = {"type": "openai", "base_url": f"{vendor.url}/v1", "api_key": "k"}
        models = {
            "providers": {"vendor": vendor_of},
            "models": {
                "words": {
                    "targets": [{"provider": "vendor", "model": "claude-haiku-5-5"}],
                    "price": {"input": 1, "output": 1},
                }
            },
        }
        (tmp_path / "config.yaml").write_text(json.dumps(models))
        async with open_house() as house:
            body = {"model": "words", "input": ["a", "b"]}
            assert (await house.client.post("/v1/embeddings", json=body)).status_code == 200
            before = (await house.client.get("/v1/usage")).json()["total_calls"]
            budget = {"subject": {"type": "project"}, "limit_usd": "0"}
            (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
            answer = await house.client.post("/v1/embeddings", json=body)
            assert answer.status_code in {402, 403, 429}, answer.text
            assert (await house.client.get("/v1/usage")).json()["total_calls"] == before == 1


async def test_nor_a_socket(house: House) -> None:
    budget = {"subject": {"type": "project"}, "limit_usd": "0"}
    (await house.client.post("/v1/budgets", json=budget)).raise_for_status()
    async with talking(house) as talk:
        for asked in (
            {"type": "chat", "model": "haiku", "messages": HELLO},
            {"type": "agentic_task", "description": "Hello."},
        ):
            frames = await talk.answer(**asked)
            assert frames[-1]["type"] == "error"
            assert "budget" in json.dumps(frames[-1])
    await nothing_used(house)


def test_there_is_no_other_way() -> None:
    """Of the routes that the document calls those of models, each is looked at above."""
    paths = {
        path
        for path, ways in openapi_document()["paths"].items()
        if "models" in ways.get("post", {}).get("tags", ())
    }
    assert paths - FREE - set(CALLS) == set()


async def nothing_used(house: House) -> None:
    used = (await house.client.get("/v1/usage")).raise_for_status().json()
    assert used["total_tokens"] == 0
