"""`previous_response_id`, by OpenAI's own client: at a provider of Responses, and at another."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import select

from stationmaster.kernel.clock import ManualClock
from stationmaster.responses.tables import kept_responses
from stationmaster.storage import open_database
from tests.http.conftest import ADMIN, USER, House, Open
from tests.support.vendor_upstream import VendorUpstream

CATALOGUE = """
providers:
  vendor:
    type: openai
    base_url: {url}/v1
    api_key: sk-vendor
    operations: [chat, responses]
  chatter: {{type: openai, base_url: {url}/v1, api_key: sk-vendor}}
models:
  plum:
    targets: [{{provider: chatter, model: claude-haiku-5-5}}]
    price: {{input: 1, output: 5}}
  gpt-5:
    targets: [{{provider: vendor, model: claude-haiku-5-5}}]
    price: {{input: 1, output: 5}}
"""
MODELS = pytest.mark.parametrize(
    "model", ["gpt-5", "plum", "haiku"], ids=["own", "chat", "messages"]
)
SECRET = "the-pear-is-blue"


@pytest.fixture
async def upstream() -> AsyncIterator[VendorUpstream]:
    async with VendorUpstream() as running:
        yield running


@pytest.fixture
async def house(open_house: Open, tmp_path: Path, upstream: VendorUpstream) -> AsyncIterator[House]:
    (tmp_path / "config.yaml").write_text(CATALOGUE.format(url=upstream.url))
    async with open_house() as opened:
        yield opened


def client(house: House, key: str = ADMIN) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=house.url + "/v1", api_key=key, max_retries=0)


async def rows(house: House) -> list[Any]:
    database = open_database(house.settings.database_url.get_secret_value())
    try:
        return list(await database.read(lambda tx: tx.execute(select(kept_responses)).all()))
    finally:
        await database.close()


@MODELS
async def test_a_conversation_goes_on_from_a_response(house: House, model: str) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model=model, input="Say pear.")
        second = await sdk.responses.create(
            model=model, input="And apple.", previous_response_id=first.id
        )
        third = await sdk.responses.create(
            model=model,
            input=[{"role": "user", "content": "And plum."}],
            previous_response_id=second.id,
        )
        assert (first.previous_response_id, second.previous_response_id) == (None, first.id)
        assert first.id != second.id != third.id
        found = await sdk.responses.input_items.list(third.id, order="asc")
        kinds = [getattr(item, "role", None) for item in found.data]
        assert kinds == ["user", "assistant", "user", "assistant", "user"]
        words = json.dumps([item.model_dump() for item in found.data])
        for said in ("Say pear.", first.output_text, "And apple.", "And plum."):
            assert json.dumps(said)[1:-1] in words


async def test_the_provider_is_sent_the_whole_conversation(
    house: House, upstream: VendorUpstream
) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model="gpt-5", input="Say pear.")
        await sdk.responses.create(
            model="gpt-5", input="And apple.", previous_response_id=first.id, metadata={"a": "b"}
        )
    sent = upstream.calls[-1].json
    assert "previous_response_id" not in sent
    assert sent["metadata"] == {"a": "b"}
    assert sent["input"] == [
        {"role": "user", "content": "Say pear."},
        *[item.model_dump(exclude_unset=True) for item in first.output],
        {"role": "user", "content": "And apple."},
    ]


@MODELS
async def test_a_streamed_response_is_kept_and_gone_on_from(house: House, model: str) -> None:
    async with client(house) as sdk:
        async with sdk.responses.stream(model=model, input="Say pear.") as stream:
            async for _ in stream:
                pass
            first = await stream.get_final_response()
        seen = []
        async with sdk.responses.stream(
            model=model, input="And apple.", previous_response_id=first.id
        ) as stream:
            async for event in stream:
                seen.append(event)
            second = await stream.get_final_response()
        assert second.previous_response_id == first.id
        told = [event.response for event in seen if hasattr(event, "response")]
        assert {each.previous_response_id for each in told} == {first.id}
        kept = await sdk.responses.retrieve(second.id)
        assert kept.output_text == second.output_text
        assert kept.previous_response_id == first.id


async def test_a_response_is_shown_and_deleted(house: House) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model="haiku", input="Say pear.", metadata={"a": "b"})
        kept = await sdk.responses.retrieve(first.id)
        assert kept == first
        second = await sdk.responses.create(
            model="haiku", input="More.", previous_response_id=first.id
        )
        await sdk.responses.delete(first.id)
        for call in (
            sdk.responses.retrieve(first.id),
            sdk.responses.delete(first.id),
            sdk.responses.create(model="haiku", input="x", previous_response_id=first.id),
            sdk.responses.create(model="haiku", input="x", previous_response_id=second.id),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                await call
            assert refused.value.code == "response_not_found"
    entries = (await house.client.get("/v1/audit", params={"limit": 100})).json()["entries"]
    deleted = [entry["target"] for entry in entries if entry["action"] == "response.delete"]
    assert deleted == [first.id]


async def test_input_items_are_paged(house: House) -> None:
    said: Any = [{"role": "user", "content": f"Pear {number}."} for number in range(5)]
    async with client(house) as sdk:
        made = await sdk.responses.create(model="haiku", input=said)
        found = [item async for item in sdk.responses.input_items.list(made.id, limit=2)]
    texts = [item.to_dict()["content"][0]["text"] for item in found]  # type: ignore[index]
    assert texts == [f"Pear {number}." for number in reversed(range(5))]
    assert len({item.id for item in found}) == 5


async def test_what_is_not_to_be_stored_is_not(house: House) -> None:
    async with client(house) as sdk:
        made = await sdk.responses.create(model="haiku", input=SECRET, store=False)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(made.id)
        assert await rows(house) == []
        kept = await sdk.responses.create(model="haiku", input=SECRET)
        again = await sdk.responses.create(
            model="haiku", input="x", previous_response_id=kept.id, store=False
        )
        assert again.previous_response_id == kept.id
    [row] = await rows(house)
    assert SECRET not in row.sealed


async def test_nobody_else_goes_on_from_it(house: House, stranger: dict[str, str]) -> None:
    async with client(house) as sdk:
        made = await sdk.responses.create(model="haiku", input=SECRET)
    before = (await house.client.get("/v1/usage")).json()["total_calls"]
    for headers in (house.as_key(USER), stranger):
        body = {"model": "haiku", "input": "x", "previous_response_id": made.id}
        answers = [
            await house.client.post("/v1/responses", json=body, headers=headers),
            await house.client.get(f"/v1/responses/{made.id}", headers=headers),
            await house.client.get(f"/v1/responses/{made.id}/input_items", headers=headers),
            await house.client.delete(f"/v1/responses/{made.id}", headers=headers),
        ]
        for answer in answers:
            assert answer.status_code == 404, answer.text
            assert answer.json()["error"]["code"] == "response_not_found"
            assert SECRET not in answer.text
    assert (await house.client.get(f"/v1/responses/{made.id}")).status_code == 200
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == before


async def test_a_response_lives_as_long_as_what_came_of_it(
    open_house: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(RESPONSES_RETENTION="10d") as house, client(house) as sdk:
        responses = house.services.responses
        clock = ManualClock(house.services.clock.now())
        monkeypatch.setattr(responses, "_clock", clock)
        first = await sdk.responses.create(model="haiku", input="Say pear.")
        clock.advance(9 * 86_400)
        second = await sdk.responses.create(
            model="haiku", input="More.", previous_response_id=first.id
        )
        clock.advance(9 * 86_400)
        assert await responses.sweep() == 0
        assert (await sdk.responses.retrieve(first.id)).id == first.id
        clock.advance(2 * 86_400)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(second.id)
        assert await responses.sweep() == 2
        assert await rows(house) == []


async def test_a_server_that_keeps_none(open_house: Open) -> None:
    async with open_house(RESPONSES_RETENTION="0s") as house, client(house) as sdk:
        made = await sdk.responses.create(model="haiku", input="Say pear.")
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.create(model="haiku", input="x", previous_response_id=made.id)
        assert await rows(house) == []


@MODELS
@pytest.mark.parametrize(
    ("members", "status", "param"),
    [
        ({"previous_response_id": "resp_unknown"}, 404, "previous_response_id"),
        ({"previous_response_id": "x" * 5000}, 404, "previous_response_id"),
        ({"previous_response_id": 3}, 400, "previous_response_id"),
        ({"conversation": "conv_1"}, 400, "conversation"),
        ({"conversation": {"id": "conv_1"}}, 400, "conversation"),
        ({"background": True}, 400, "background"),
        ({"store": "yes"}, 400, "store"),
        ({"input": 3}, 400, "input"),
        ({"input": [3]}, None, None),
        ({"input": None}, 400, "input"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    house: House, model: str, members: Any, status: int | None, param: str | None
) -> None:
    body = {"model": model, "input": "x", **members}
    answer = await house.client.post("/v1/responses", json=body)
    if status is None:
        return
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert (await house.client.get("/v1/usage")).json()["total_calls"] == 0


async def test_a_batch_cannot_name_a_response_of_the_operators_account(house: House) -> None:
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"model": "gpt-5", "input": "x", "previous_response_id": "resp_1"},
    }
    files = {"file": ("in.jsonl", json.dumps(line).encode())}
    form = {"purpose": "batch"}
    file = (await house.client.post("/v1/files", data=form, files=files)).json()
    body = {
        "input_file_id": file["id"],
        "endpoint": "/v1/responses",
        "completion_window": "24h",
    }
    batch = (await house.client.post("/v1/batches", json=body)).json()
    async with client(house) as sdk:
        while (made := await sdk.batches.retrieve(batch["id"])).status != "completed":
            pass
        assert made.error_file_id is not None
        told = (await sdk.files.content(made.error_file_id)).text
    assert "previous_response_id" in told


async def test_the_input_of_a_response_is_counted(house: House) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model="haiku", input="Say pear, and mean it. " * 20)
        alone = await sdk.responses.input_tokens.count(model="haiku", input="And apple.")
        after = await sdk.responses.input_tokens.count(
            model="haiku", input="And apple.", previous_response_id=first.id
        )
        assert alone.object == "response.input_tokens"
        assert 0 < alone.input_tokens < after.input_tokens
        # One that does not count is estimated for.
        guessed = await sdk.responses.input_tokens.with_raw_response.count(
            model="gpt-5", input="And apple."
        )
        assert guessed.headers["x-stationmaster-estimated"] == "true"
        assert guessed.parse().input_tokens > 0
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.input_tokens.count(
                model="haiku", input="x", previous_response_id="resp_never"
            )
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.input_tokens.count(model="nobody", input="x")
    used = (await house.client.get("/v1/usage")).json()
    assert used["total_calls"] == 1


@pytest.mark.parametrize("path", ["resp_1/cancel", "compact", "resp_1/nothing"])
async def test_what_is_not_there_is_refused_in_openais_words(house: House, path: str) -> None:
    answer = await house.client.post(f"/v1/responses/{path}", json={"model": "haiku"})
    assert answer.status_code in {404, 405}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
