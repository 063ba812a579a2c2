"""What plain clients send to the chat endpoint, and read there: a choice of model, a cost."""

from typing import Any

import pytest

from tests.http.conftest import House, Open
from tests.support.wire_upstream import Reply, Text, WireUpstream, fixed

SHORT = "List the files."
HARD = "Please analyze this."


def asking(prompt: str = "Say pear.", **members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], **members}


async def chat(house: House, **members: Any) -> Any:
    return await house.client.post("/v1/chat/completions", json=asking(**members))


async def test_the_answer_tells_its_content_and_cost_beside_openais_members(house: House) -> None:
    answer = (await chat(house, model="haiku", project_id="default", timeout=30)).json()
    assert answer["object"] == "chat.completion"
    assert answer["content"] == answer["choices"][0]["message"]["content"]
    assert answer["cost"] > 0
    assert answer["project_id"]
    used = (await house.client.get("/v1/usage")).json()
    assert used["total_cost"] == pytest.approx(answer["cost"])


async def test_a_model_is_chosen_for_who_names_none_and_the_reason_is_told(house: House) -> None:
    for prompt, model in ((SHORT, "haiku"), (HARD, "sonnet"), ("x " * 25_000, "opus")):
        for named in ({}, {"model": "auto"}, {"model": None}):
            answer = await chat(house, prompt=prompt, **named)
            assert answer.status_code == 200, answer.text
            assert model in answer.headers["x-stationmaster-model"]
            assert answer.headers["x-stationmaster-reason"]


async def test_the_advice_is_what_a_chat_gets(house: House) -> None:
    advice = (await house.client.post("/v1/route", json={"prompt": SHORT})).json()
    assert advice["recommended_model"] == "haiku"
    assert advice["reasoning"]
    assert advice["budget_status"] == {
        "total_tokens": 0,
        "total_cost": 0.0,
        "limit": None,
        "remaining": None,
    }
    long = await house.client.post("/v1/route", json={"prompt": SHORT, "context_size": 20_000})
    assert long.json()["recommended_model"] == "opus"


async def test_a_project_that_costs_too_much_gets_the_cheapest(open_house: Open) -> None:
    async with open_house(COST_THRESHOLD="0.000001") as house:
        first = await chat(house, prompt=HARD)
        assert "sonnet" in first.headers["x-stationmaster-model"]
        second = await chat(house, prompt=HARD)
        assert "haiku" in second.headers["x-stationmaster-model"]
        named = await chat(house, prompt=HARD, model="sonnet")
        assert "sonnet" in named.headers["x-stationmaster-model"]


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"allowed_tools": ["Bash"]}, 400, "allowed_tools"),
        ({"working_directory": "/project"}, 400, "working_directory"),
        ({"timeout": 0}, 400, "timeout"),
        ({"timeout": "long"}, 400, "timeout"),
        ({"timeout": 301}, 400, "timeout"),
        ({"project_id": "another"}, 403, "project_id"),
        ({"project_id": 3}, 400, "project_id"),
        ({"model": 3, "timeout": 5}, 400, "model"),
        ({"messages": None}, 400, None),
    ],
    ids=["tools", "directory", "no-time", "word", "too-long", "project", "number", "model", "none"],
)
async def test_what_cannot_be_is_refused_by_name(
    house: House, members: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await chat(house, **members)
    assert answer.status_code == status, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == 0


async def test_a_prompt_may_speak_of_these_members(house: House) -> None:
    prompt = 'Set "timeout": 5 and "project_id": "x" and "model": "auto".'
    answer = await chat(house, prompt=prompt, model="haiku")
    assert answer.status_code == 200
    assert "x-stationmaster-reason" not in answer.headers


async def test_a_chat_that_takes_too_long_ends_with_its_timeout(open_house: Open) -> None:
    async with WireUpstream(fixed(Reply((Text("Late."),), delay=60))) as upstream:
        given = {
            "PROVIDER": "anthropic",
            "ANTHROPIC_API_KEY": "sk-upstream-0123456789",
            "ANTHROPIC_BASE_URL": upstream.url,
        }
        async with open_house(**given) as house:
            answer = await chat(house, model="haiku", timeout=1)
            assert answer.status_code == 504, answer.text
            assert answer.json()["error"]["code"] == "upstream_timeout"
            [call] = upstream.message_calls
            await call.done.wait()
            assert call.disconnected
