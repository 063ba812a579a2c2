"""What an operator says of models, as clients of both vendors meet it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tests.http.conftest import ADMIN, House, Open
from tests.support.vendor_upstream import MODEL, VendorUpstream

CONFIG = """
providers:
  old: {{type: openai, base_url: "{url}/v1", api_key: k, max_tokens_field: max_tokens}}
  new: {{type: openai, base_url: "{url}/v1", api_key: k, max_tokens_field: max_completion_tokens}}
models:
  house:
    targets: [{{provider: old, model: {model}}}]
    price: {{input: 1, output: 1}}
    context_window: 65536
    max_output: 8192
    abilities: {{vision: false, tools: false}}
  roomy:
    targets: [{{provider: new, model: large}}]
    price: {{input: 1, output: 1}}
"""
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


@pytest.fixture
async def upstream() -> AsyncIterator[VendorUpstream]:
    async with VendorUpstream() as vendors:
        vendors.models.append("large")
        yield vendors


@pytest.fixture
async def house(open_house: Open, tmp_path: Path, upstream: VendorUpstream) -> AsyncIterator[House]:
    (tmp_path / "config.yaml").write_text(CONFIG.format(url=upstream.url, model=MODEL))
    async with open_house() as opened:
        yield opened


async def test_anthropics_client_is_told_how_much_a_model_takes(house: House) -> None:
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=ADMIN) as client:
        known = await client.models.retrieve("house")
        assert (known.max_input_tokens, known.max_tokens) == (65_536, 8_192)
        listed = {model.id: model async for model in client.models.list()}
        assert listed["house"].max_input_tokens == 65_536
        assert listed["roomy"].max_input_tokens is None  # nobody told
        assert listed["claude-haiku-5-5"].max_input_tokens
        assert {model.lifecycle for model in listed.values()} == {"active"}


async def test_what_a_model_lacks_is_refused_by_name_before_anything_is_sent(
    house: House, upstream: VendorUpstream
) -> None:
    chat: dict[str, Any] = {"model": "house", "messages": [{"role": "user", "content": [PICTURE]}]}
    answer = await house.client.post("/v1/chat/completions", json=chat)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "model_lacks_ability")
    assert (error["message"], error["param"]) == ("model: house takes no images.", "model")
    call = {"model": "house", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    answer = await house.client.post("/v1/messages", json={**call, "tools": tools})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "model: house uses no tools."
    assert upstream.calls == []
    assert (await house.client.post("/v1/messages", json=call)).status_code == 200
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == 1


@pytest.mark.parametrize(
    ("model", "field"), [("house", "max_tokens"), ("roomy", "max_completion_tokens")]
)
async def test_a_bound_reaches_a_provider_under_the_name_that_it_knows(
    house: House, upstream: VendorUpstream, model: str, field: str
) -> None:
    for path, given in (
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/messages", "max_tokens"),
    ):
        call = {"model": model, given: 77, "messages": [{"role": "user", "content": "x"}]}
        answer = await house.client.post(path, json=call)
        assert answer.status_code == 200, answer.text
        sent = upstream.calls[-1].json
        assert {name for name in sent if "max" in name} == {field}
        assert sent[field] == 77


async def test_a_setting_that_is_none_is_named_with_its_line(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = house.services.gateway.models
    (tmp_path / "config.yaml").write_text("models:\n  house: {abilities: {sight: false}}\n")
    house.application.reread.set()
    while house.application.reread.is_set():
        await house.client.get("/live")
    assert house.services.gateway.models is before
    said = capsys.readouterr()
    assert "sight" in said.out + said.err
    assert "line 2" in said.out + said.err
