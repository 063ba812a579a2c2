"""Every way to a model counts against the budget, whoever asks."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from stationmaster.http.app import openapi_document
from tests.http.conftest import House

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
}
FREE = {
    # Nothing is spent: a count, and a choice that is explained.
    *("/v1/messages/count_tokens", "/v1/route"),
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
