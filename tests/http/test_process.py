"""The call of a model that names its provider, and the list of providers."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stationmaster.http.routes.process import claude_like
from tests.http.conftest import House, Open
from tests.support.vendor_upstream import VendorUpstream

CATALOGUE = """
providers:
  vendor: {{type: openai, base_url: {url}/v1, api_key: sk-vendor}}
models:
  gpt-5:
    targets: [{{provider: vendor, model: claude-haiku-5-5}}]
    price: {{input: 1, output: 5}}
"""


@pytest.fixture
async def upstream() -> AsyncIterator[VendorUpstream]:
    async with VendorUpstream() as running:
        yield running


@pytest.fixture
async def vendor(
    open_house: Open, tmp_path: Path, upstream: VendorUpstream
) -> AsyncIterator[House]:
    (tmp_path / "config.yaml").write_text(CATALOGUE.format(url=upstream.url))
    async with open_house() as house:
        yield house


def asking(provider: str = "offline", model: str = "haiku", **members: Any) -> dict[str, Any]:
    said = members or {"user_message": "Say pear."}
    return {"provider": provider, "model_name": model, **said}


async def process(house: House, *args: str, **members: Any) -> Any:
    return await house.client.post("/v1/process", json=asking(*args, **members))


@pytest.mark.parametrize(
    "said",
    [
        {"user_message": "Say pear.", "system_message": "Be brief."},
        {"content": "Say pear."},
        {"content": [{"type": "text", "text": "Say pear."}]},
        {"messages": [{"role": "user", "content": "Say pear.", "id": "1"}]},
    ],
    ids=["two-messages", "content", "parts", "messages"],
)
async def test_a_call_in_each_form(house: House, said: Any) -> None:
    answer = (await process(house, **said)).raise_for_status().json()
    assert answer["content"]
    assert answer["content_blocks"] is None
    assert (answer["model"], answer["provider"]) == ("haiku", "offline")
    told = answer["metadata"]
    assert "haiku" in told["actual_model"]
    assert told["finish_reason"] == "stop"
    assert told["mapped_from"] is None
    assert told["warnings"] == []
    used = told["usage"]
    assert used["input_tokens"] + used["output_tokens"] == used["total_tokens"] > 0
    ledger = (await house.client.get("/v1/usage")).json()
    assert ledger["total_tokens"] == used["total_tokens"]
    assert ledger["total_cost"] == pytest.approx(told["cost_usd"])


async def test_the_named_provider_answers_and_no_other(
    vendor: House, upstream: VendorUpstream
) -> None:
    answer = (await process(vendor, "vendor", "gpt-5")).raise_for_status().json()
    assert answer["metadata"]["actual_provider"] == "vendor"
    assert answer["metadata"]["mapped_from"] is None
    sent = upstream.calls[-1].json
    assert sent["temperature"] == 0.7
    assert sent["max_completion_tokens"] == 1000
    refused = await process(vendor, "vendor", "haiku")
    assert refused.status_code == 404
    assert refused.json()["code"] == "unknown_model"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("gpt-3.5-turbo", "haiku"),
        ("gpt-4o-mini", "haiku"),
        ("gpt-5-nano", "haiku"),
        ("gemini-2.0-flash", "haiku"),
        ("gemini-1.5-pro", "sonnet"),
        ("gpt-4", "sonnet"),
        ("gpt-5", "sonnet"),
        ("gpt-4o", "opus"),
        ("GPT-4-turbo", "opus"),
        ("o1-preview", "opus"),
        ("claude-2", "sonnet"),
        ("claude-3-opus", "opus"),
        ("deepseek-chat", "sonnet"),
    ],
)
def test_the_map_of_names(name: str, alias: str) -> None:
    assert claude_like(name) == alias


async def test_another_vendors_model_is_mapped_and_that_is_told(house: House) -> None:
    answer = (await process(house, "openai", "gpt-4o")).raise_for_status().json()
    assert (answer["provider"], answer["model"]) == ("openai", "gpt-4o")
    assert answer["metadata"]["mapped_from"] == "openai:gpt-4o → offline:opus"
    assert "opus" in answer["metadata"]["actual_model"]


async def test_a_call_of_a_tool_comes_as_blocks(vendor: House, upstream: VendorUpstream) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "pear"},
    ]
    answer = await process(vendor, "vendor", "gpt-5", messages=messages, tools=[tool])
    assert answer.status_code == 200, answer.text
    sent = upstream.calls[-1].json
    assert sent["tools"] == [tool]
    assert sent["messages"][1]["tool_calls"] == [call]
    assert sent["messages"][2]["tool_call_id"] == "call_1"


async def test_what_is_ignored_is_told(house: House) -> None:
    members = {"user_message": "x", "memory": {"id": "m"}, "media_content": [{}]}
    answer = (await process(house, **members)).raise_for_status().json()
    assert answer["metadata"]["warnings"] == ["media_content is ignored", "memory is ignored"]


@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"system_message": "x"}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"user_message": "x", "additional_params": {"stream": True}}, 501, None),
        ({"user_message": "x", "async_processing": True}, 501, "async_processing"),
        ({"user_message": "x", "use_cli": True}, 501, "use_cli"),
        ({"user_message": "x", "project_id": "another"}, 403, "project_id"),
        ({"user_message": "x", "max_tokens": 0}, 422, "max_tokens"),
        ({"user_message": "x", "api_base": "http://localhost"}, 422, "api_base"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 422, "messages.0.role"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    house: House, members: Any, status: int, param: str | None
) -> None:
    answer = await process(house, **members)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if param is not None:
        assert answer.json()["param"] == param
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == 0


async def test_a_budget_that_does_not_cover_it_is_a_403(house: House) -> None:
    me = (await house.client.get("/v1/usage")).json()["project_id"]
    budget = {
        "subject": {"type": "project", "id": me},
        "limit_usd": "0.000001",
        "period": "total",
        "mode": "hard",
    }
    made = await house.client.post("/v1/budgets", json=budget)
    assert made.status_code == 201, made.text
    answer = await process(house)
    assert answer.status_code == 403, answer.text
    assert "budget" in answer.json()["code"]


async def test_providers_and_their_models(vendor: House) -> None:
    listed = (await vendor.client.get("/v1/providers")).raise_for_status().json()
    by_name = {each["name"]: each for each in listed}
    assert by_name["vendor"] == {"name": "vendor", "available": True, "models": ["gpt-5"]}
    assert {"haiku", "sonnet", "opus"} <= set(by_name["offline"]["models"])
    one = (await vendor.client.get("/v1/providers/offline/models")).raise_for_status().json()
    haiku = one["models"]["haiku"]
    assert haiku["context_window"] >= 200_000
    assert haiku["max_tokens"] > 0
    assert haiku["supports_functions"] is haiku["supports_vision"] is True
    for path in ("/v1/providers/nobody/models", "/v1/providers/%2e%2e/models"):
        assert (await vendor.client.get(path)).status_code == 404
    assert "sk-vendor" not in json.dumps([listed, one])


async def test_a_key_sees_the_models_that_it_may_use(vendor: House) -> None:
    body = {"name": "bound", "permissions": ["write:messages"], "models": ["gpt-5"]}
    key = (await vendor.client.post("/api/admin/keys", json=body)).raise_for_status().json()
    answer = await vendor.client.get("/v1/providers", headers=vendor.as_key(key["key"]))
    assert {each["name"]: each["models"] for each in answer.json()} == {
        "offline": [],
        "vendor": ["gpt-5"],
    }
