"""OpenAI's files and batches over real sockets, driven by its own SDK."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import openai
import pytest

from tests.http.conftest import USER, House, Open

PATIENCE = 30.0
CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"


def line(custom_id: str, model: str = "haiku", url: str = CHAT, **more: Any) -> str:
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    request = {"custom_id": custom_id, "method": "POST", "url": url, "body": body | more}
    return json.dumps(request)


def connected(house: House, key: str = USER) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
async def client(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with connected(house) as made:
        yield made


async def upload(client: openai.AsyncOpenAI, *lines: str, purpose: Any = "batch") -> str:
    content = "\n".join(lines).encode()
    return (await client.files.create(file=("in.jsonl", content), purpose=purpose)).id


async def make(client: openai.AsyncOpenAI, *lines: str) -> Any:
    return await client.batches.create(
        input_file_id=await upload(client, *lines), endpoint=CHAT, completion_window="24h"
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in {"completed", "cancelled", "expired", "failed"}:
                return batch
            await asyncio.sleep(0.05)


async def lines_of(client: openai.AsyncOpenAI, file_id: str) -> dict[str, Any]:
    content = await client.files.content(file_id)
    found = [json.loads(each) for each in content.text.splitlines()]
    return {each["custom_id"]: each for each in found}


async def test_the_sdk_has_a_file_made_and_reads_both_outputs(client: openai.AsyncOpenAI) -> None:
    batch = await client.batches.create(
        input_file_id=await upload(client, line("one"), "", line("two"), line("bad", "no-model")),
        endpoint=CHAT,
        completion_window="24h",
        metadata={"mine": "yes"},
    )
    assert (batch.object, batch.endpoint, batch.metadata) == ("batch", CHAT, {"mine": "yes"})
    done = await ended(client, batch.id)
    assert done.status == "completed"
    assert done.completed_at >= done.created_at
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    good = await lines_of(client, done.output_file_id)
    assert set(good) == {"one", "two"}
    response = good["one"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["choices"][0]["message"]["content"]
    bad = await lines_of(client, done.error_file_id)
    assert bad["bad"]["response"]["status_code"] == 404
    assert bad["bad"]["response"]["body"]["error"]["code"] == "model_not_found"
    shown = await client.files.retrieve(done.output_file_id)
    assert (shown.purpose, shown.status) == ("batch_output", "processed")


async def test_a_batch_is_cancelled_and_told_so(open_house: Open) -> None:
    async with open_house(BATCH_CONCURRENCY="0") as house, connected(house) as client:
        batch = await make(client, line("one"), line("two"))
        await client.batches.cancel(batch.id)
        done = await ended(client, batch.id)
        assert (done.status, done.output_file_id) == ("cancelled", None)
        told = await lines_of(client, done.error_file_id)
        assert {each["error"]["code"] for each in told.values()} == {"batch_cancelled"}
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)


async def test_lists_are_walked_by_the_sdk(open_house: Open) -> None:
    async with open_house(BATCH_CONCURRENCY="0") as house, connected(house) as client:
        made = [(await make(client, line("one"))).id for _ in range(3)]
        assert [batch.id async for batch in client.batches.list(limit=1)] == made[::-1]
        assert len([file async for file in client.files.list(limit=2)]) == 3
        assert [file async for file in client.files.list(purpose="vision")] == []
        answer = await house.client.get("/v1/messages/batches")
        assert answer.json()["data"] == []
        assert (await house.client.get(f"/v1/messages/batches/{made[0]}")).status_code == 404


async def test_a_file_is_stored_shown_and_deleted(client: openai.AsyncOpenAI) -> None:
    file_id = await upload(client, "hello", purpose="user_data")
    assert (await client.files.retrieve(file_id)).bytes == 5
    assert (await client.files.content(file_id)).content == b"hello"
    assert (await client.files.delete(file_id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(file_id)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param([], "no requests", id="empty"),
        pytest.param(["{"], "Line 1", id="no json"),
        pytest.param([line("a"), line("a")], "Line 2: custom_id must be unique", id="same id"),
        pytest.param([line("a", url="/v1/embeddings")], "it must be a POST", id="another url"),
        pytest.param([line("a", stream=True)], "cannot stream", id="stream"),
        pytest.param([line("")], "custom_id", id="no id"),
    ],
)
async def test_a_file_that_could_never_be_made_is_refused(
    client: openai.AsyncOpenAI, lines: list[str], words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await make(client, *lines)
    assert words in refused.value.message
    assert (await client.batches.list()).data == []


async def test_the_file_must_be_one_for_batches(client: openai.AsyncOpenAI) -> None:
    file_id = await upload(client, line("a"), purpose="user_data")
    with pytest.raises(openai.BadRequestError):
        await client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


async def test_anothers_batch_and_files_are_not_there(
    house: House, client: openai.AsyncOpenAI, stranger: dict[str, str]
) -> None:
    batch = await make(client, line("one"))
    for path in (f"/v1/batches/{batch.id}", f"/v1/files/{batch.input_file_id}"):
        answer = await house.client.get(path, headers=stranger)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/batches/nonsense", 404),
        ("PUT", "/v1/batches", 405),
        ("GET", "/v1/files/x/y/z", 404),
        ("GET", "/v1/batches?after=nonsense", 400),
        ("POST", "/v1/files", 400),
    ],
)
async def test_refusals_have_openais_shape(
    house: House, method: str, path: str, status: int
) -> None:
    answer = await house.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
