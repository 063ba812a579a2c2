"""`model: "agent:NAME"`, by both vendors' own clients: an agent asked as a model is."""

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest

from stationmaster.agents.base import AgentFailure
from stationmaster.agents.scripted import Fail, Say, UseTool, WaitFor
from stationmaster.agents.scripted.script import Call
from tests.http.conftest import ADMIN, House
from tests.http.managed import MODEL, TOOLSET, WEATHER, words_of

HELLO: Any = [{"role": "user", "content": "Say pear."}]
WORK = (Say("I look."), UseTool("Bash", {"command": "ls"}, "secret-listing"), Say("Here is pear."))
FUNCTIONS: Any = [{"type": "function", "function": {"name": "x"}}]
PICTURE = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}
ELSEWHERE: Any = [{"role": "user", "content": [PICTURE]}]
WORDS = "I look.\n\nHere is pear."


def by_openai(house: House, key: str = ADMIN, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=house.url + "/v1", api_key=key, **{"max_retries": 0, **options}
    )


def by_anthropic(house: House) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=house.url, api_key=ADMIN, max_retries=0)


async def define(house: House, name: str = "looker", **members: Any) -> str:
    body = {"name": name, "model": MODEL, "tools": [TOOLSET], **members}
    headers = {"anthropic-beta": "managed-agents-2026-04-01", "anthropic-version": "2023-06-01"}
    made = await house.client.post("/v1/agents", json=body, headers=headers)
    assert made.status_code == 200, made.text
    return str(made.json()["id"])


def call_of_model(house: House) -> Call:
    """A call of a model, as an agent makes one: with its run's token."""

    async def call(spec: Any) -> None:
        body = {"model": MODEL, "max_tokens": 50, "messages": HELLO}
        headers = {"authorization": f"Bearer {spec.token}"}
        answer = await house.client.post("/v1/messages", json=body, headers=headers)
        assert answer.status_code == 200, answer.text

    return Call(call)


async def sessions(house: House) -> Any:
    found = {}
    for status in ("running", "idle", "archived"):  # as they pass through them
        answer = await house.client.get("/api/sessions", params={"status": status})
        for each in answer.raise_for_status().json()["sessions"]:
            found[each["id"]] = each
    return list(found.values())


async def test_an_agent_answers_a_chat(house: House) -> None:
    await define(house)
    house.agent.script = WORK
    async with by_openai(house) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="agent:looker", messages=HELLO, max_tokens=10
        )
        whole = raw.parse()
        assert whole.choices[0].message.content == WORDS
        assert whole.choices[0].finish_reason == "stop"
        assert whole.model == "agent:looker"
        assert raw.headers["x-stationmaster-ignored"] == "max_tokens"
        assert json.loads(raw.text)["content"] == WORDS
        stream = await sdk.chat.completions.create(
            model="agent:looker",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == WORDS
    assert len([piece for piece in pieces if piece]) > 2
    assert chunks[-1].usage is not None
    assert "secret-listing" not in str(chunks) + raw.text
    assert [each["archived_at"] is not None for each in await sessions(house)] == [True, True]


async def test_an_agent_answers_a_message(house: House) -> None:
    await define(house)
    house.agent.script = WORK
    async with by_anthropic(house) as sdk:
        whole = await sdk.messages.create(model="agent:looker", max_tokens=100, messages=HELLO)
        assert [block.text for block in whole.content if block.type == "text"] == [WORDS]
        assert whole.stop_reason == "end_turn"
        async with sdk.messages.stream(
            model="agent:looker", max_tokens=100, messages=HELLO
        ) as stream:
            said = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
    assert "".join(said) == WORDS
    assert len(said) > 2
    assert final.content[0].type == "text"


async def test_what_was_said_before_goes_along(house: House) -> None:
    await define(house)
    heard: list[str] = []

    def script(_spec: object, content: Any) -> Any:
        heard.append(words_of(content))
        return (Say("Yes."),)

    house.agent.script = script
    async with by_openai(house) as sdk:
        await sdk.chat.completions.create(model="agent:looker", messages=HELLO)
        await sdk.chat.completions.create(
            model="agent:looker",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "First."},
                {"role": "assistant", "content": "Second."},
                {"role": "user", "content": "Third."},
            ],
        )
    assert heard[0] == "Say pear."
    told = [line for line in heard[1].splitlines() if line]
    assert told == [
        "What was said before:",
        "system:",
        "Be brief.",
        "user:",
        "First.",
        "assistant:",
        "Second.",
        "What is asked now:",
        "Third.",
    ]


async def test_usage_is_the_runs_and_is_metered_once(house: House) -> None:
    await define(house)
    house.agent.script = (call_of_model(house), call_of_model(house), Say("Done."))
    async with by_openai(house) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="agent:looker", messages=HELLO
        )
    usage, told = raw.parse().usage, json.loads(raw.text)
    used = (await house.client.get("/v1/usage")).json()
    assert usage is not None
    assert used["total_calls"] == 2
    assert usage.total_tokens == used["total_tokens"] > 0
    assert told["cost"] == pytest.approx(used["total_cost"])


async def test_agents_are_listed_for_who_may_ask_them(house: House) -> None:
    await define(house)
    await define(house, "other")
    ask = {"name": "asker", "permissions": ["write:messages"]}
    narrow = (await house.client.post("/api/admin/keys", json=ask)).json()["key"]
    async with by_openai(house) as sdk, by_openai(house, narrow) as other:
        listed = {model.id async for model in sdk.models.list()}
        assert {"agent:looker", "agent:other"} <= listed
        assert (await sdk.models.retrieve("agent:looker")).owned_by == "agents"
        assert not any([model.id.startswith("agent:") async for model in other.models.list()])
        with pytest.raises(openai.PermissionDeniedError):
            await other.chat.completions.create(model="agent:looker", messages=HELLO)


async def test_another_tenants_agent_is_not_there(house: House, stranger: dict[str, str]) -> None:
    agent_id = await define(house)
    for name in ("looker", agent_id, "nobody"):
        body = {"model": f"agent:{name}", "messages": HELLO}
        answer = await house.client.post("/v1/chat/completions", json=body, headers=stranger)
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "model_not_found"
    assert await sessions(house) == []


async def test_a_client_that_goes_cancels_the_turn(house: House) -> None:
    await define(house)
    wait = WaitFor()
    house.agent.script = (Say("I begin."), wait, Say("I end."))
    async with by_openai(house) as sdk:
        stream = await sdk.chat.completions.create(
            model="agent:looker", messages=HELLO, stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        async with asyncio.timeout(20):
            while not (found := await sessions(house)) or found[0]["status"] != "idle":
                await asyncio.sleep(0.02)
    one = found[0]
    events = await house.services.sessions.events(
        await house.services.resolver.resolve(ADMIN), one["id"], limit=100
    )
    ended = [each.event.data["state"] for each in events if each.event.type == "run.ended"]
    assert ended == ["interrupted"]


async def test_failures_have_the_routes_shape(house: House) -> None:
    await define(house)
    house.agent.script = (Fail(AgentFailure("It broke.")),)
    async with by_openai(house, max_retries=2) as sdk, by_anthropic(house) as other:
        with pytest.raises(openai.InternalServerError) as refused:
            await sdk.chat.completions.create(model="agent:looker", messages=HELLO)
        assert refused.value.status_code == 502
        assert refused.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(anthropic.APIStatusError) as told:
            await other.messages.create(model="agent:looker", max_tokens=9, messages=HELLO)
        assert told.value.body["type"] == "error"  # type: ignore[index]
    assert len(await sessions(house)) == 2
    house.agent.script = (Say("I begin."), Fail(AgentFailure("It broke.")))
    async with by_openai(house) as sdk:
        stream = await sdk.chat.completions.create(
            model="agent:looker", messages=HELLO, stream=True
        )
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass


async def test_a_chat_waits_no_longer_than_it_says(house: House) -> None:
    await define(house)
    house.agent.script = (WaitFor(),)
    body = {"model": "agent:looker", "messages": HELLO, "timeout": 1}
    answer = await house.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 504, answer.text
    assert answer.json()["error"]["code"] == "upstream_timeout"


async def test_a_budget_refuses_in_the_routes_shape(house: House) -> None:
    await define(house)
    house.agent.script = (call_of_model(house), Say("Done."))
    me = (await house.client.get("/v1/usage")).json()["project_id"]
    budget = {
        "subject": {"type": "project", "id": me},
        "limit_usd": "0.000001",
        "period": "total",
        "mode": "hard",
    }
    made = await house.client.post("/v1/budgets", json=budget)
    assert made.status_code == 201, made.text
    body = {"model": "agent:looker", "max_tokens": 9, "messages": HELLO}
    chat = await house.client.post("/v1/chat/completions", json=body)
    message = await house.client.post("/v1/messages", json=body)
    assert chat.status_code in {429, 502}, chat.text
    assert message.status_code in {402, 502}, message.text


@pytest.mark.parametrize(
    ("path", "members", "param"),
    [
        ("/v1/chat/completions", {"tools": FUNCTIONS}, "tools"),
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/chat/completions", {"stop": ["x"]}, "stop"),
        ("/v1/chat/completions", {"n": 2}, "n"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ("/v1/chat/completions", {"x_unknown": 1}, "x_unknown"),
        ("/v1/messages", {"tools": [{"name": "x", "input_schema": {"type": "object"}}]}, None),
        ("/v1/messages", {"messages": ELSEWHERE}, None),
    ],
)
async def test_what_an_agent_cannot_be_asked_is_refused_by_name(
    house: House, path: str, members: Any, param: str | None
) -> None:
    await define(house)
    body = {"model": "agent:looker", "max_tokens": 9, "messages": HELLO, **members}
    answer = await house.client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert await sessions(house) == []


async def test_an_agent_whose_client_must_run_tools_is_refused(house: House) -> None:
    await define(house, tools=[WEATHER])
    body = {"model": "agent:looker", "messages": HELLO}
    answer = await house.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert "custom" in answer.json()["error"]["message"]
    assert await sessions(house) == []
