"""OpenAI's own client, unmodified: at a provider of its format, and at another."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import InvalidStatus

from tests.http.conftest import ADMIN, House, Open
from tests.support.vendor_upstream import Answer, VendorUpstream

HELLO: Any = [{"role": "user", "content": "Say pear."}]
CATALOGUE = """
providers:
  vendor: {{type: openai, base_url: {url}/v1, api_key: sk-vendor}}
models:
  gpt-5: {{targets: [{{provider: vendor, model: claude-haiku-5-5}}]}}
  text-embedding-3-small:
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


def client(house: House) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=house.url + "/v1", api_key=ADMIN, max_retries=0)


async def ledger(house: House) -> Any:
    return (await house.client.get("/v1/usage")).raise_for_status().json()


async def test_a_chat_at_its_own_kind_of_provider_is_passed_on_byte_for_byte(
    vendor: House, upstream: VendorUpstream
) -> None:
    raw = b'{"model":"gpt-5", "messages":[{"role":"user","content":"Say pear."}], "x_new": 1.0 }'
    answer = await vendor.client.post("/v1/chat/completions", content=raw)
    assert answer.status_code == 200, answer.text
    assert "pear" in answer.json()["choices"][0]["message"]["content"]
    assert upstream.calls[-1].raw == raw.replace(b"gpt-5", b"claude-haiku-5-5")
    assert upstream.calls[-1].headers["authorization"] == "Bearer sk-vendor"
    used = await ledger(vendor)
    assert used["total_tokens"] > 0
    assert "claude-haiku-5-5" in json.dumps(used)


@pytest.mark.parametrize("asked", [True, False], ids=["usage", "no-usage"])
async def test_a_stream_is_metered_whether_its_client_asked_for_usage_or_not(
    vendor: House, upstream: VendorUpstream, asked: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    async with client(vendor) as sdk:
        stream = await sdk.chat.completions.create(
            model="gpt-5", messages=HELLO, stream=True, **options
        )
        chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "pear" in said
    assert any(not chunk.choices for chunk in chunks) == asked
    assert upstream.calls[-1].json["stream_options"]["include_usage"] is True
    assert (await ledger(vendor))["total_tokens"] > 0


@pytest.mark.parametrize("model", ["haiku", "gpt-5"])
async def test_a_chat_whatever_the_provider_speaks(vendor: House, model: str) -> None:
    async with client(vendor) as sdk:
        whole = await sdk.chat.completions.create(model=model, messages=HELLO)
        assert whole.choices[0].message.content
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert whole.usage.total_tokens > 0
        async with sdk.chat.completions.stream(model=model, messages=HELLO) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert final.choices[0].message.content


CHOICES = {"n": 2, "logprobs": True, "top_logprobs": 2, "seed": 7}
LIKELY = {
    "token": "pear",
    "logprob": -0.25,
    "bytes": [112, 101, 97, 114],
    "top_logprobs": [{"token": "apple", "logprob": -1.5, "bytes": None}],
}


@pytest.mark.parametrize("stream", [False, True])
async def test_choices_and_probabilities_pass_where_the_provider_has_them(
    vendor: House, upstream: VendorUpstream, stream: bool
) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    common = {"id": "c", "created": 1, "model": "m"}
    told = {"logprobs": {"content": [LIKELY], "refusal": None}, "finish_reason": "stop"}
    said = {"role": "assistant", "content": "pear"}
    if stream:
        chunks: list[Any] = [
            {"choices": [{"index": index, "delta": said, **told}], "usage": None}
            for index in (0, 1)
        ]
        chunks.append({"choices": [], "usage": usage})
        frames = [
            b"data: "
            + json.dumps({**common, "object": "chat.completion.chunk", **each}).encode()
            + b"\n\n"
            for each in chunks
        ]
        upstream.answers = [
            Answer(frames=[*frames, b"data: [DONE]\n\n"], content_type="text/event-stream")
        ]
    else:
        choices = [{"index": index, "message": said, **told} for index in (0, 1)]
        whole = {**common, "object": "chat.completion", "choices": choices, "usage": usage}
        upstream.answers = [Answer(whole)]
    asked: Any = {"model": "gpt-5", "messages": HELLO, **CHOICES}
    async with client(vendor) as sdk:
        answer: Any = await sdk.chat.completions.create(**asked, stream=stream)
        found: list[Any] = [each async for each in answer] if stream else [answer]
    sent = upstream.calls[-1].json
    assert {name: sent[name] for name in CHOICES} == CHOICES
    got: list[Any] = [choice for each in found for choice in each.choices]
    assert [choice.index for choice in got] == [0, 1]
    assert [choice.logprobs.content[0].to_dict() for choice in got] == [LIKELY, LIKELY]
    assert (await ledger(vendor))["total_tokens"] == 11


@pytest.mark.parametrize(
    ("path", "members", "param"),
    [
        ("chat/completions", {"n": 2}, "n"),
        ("chat/completions", {"logprobs": True}, "logprobs"),
        ("chat/completions", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ("chat/completions", {"top_logprobs": 2}, "top_logprobs"),
        ("responses", {"top_logprobs": 2}, "top_logprobs"),
        ("responses", {"include": ["message.output_text.logprobs"]}, "include"),
    ],
)
async def test_choices_and_probabilities_are_refused_by_name_where_it_has_none(
    vendor: House, path: str, members: dict[str, Any], param: str
) -> None:
    said: Any = {"input": "Hi."} if path == "responses" else {"messages": HELLO}
    for stream in (False, True):
        body = {"model": "haiku", **said, **members, "stream": stream}
        answer = await vendor.client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param
    assert (await ledger(vendor))["total_calls"] == 0


async def test_a_response_is_translated(vendor: House) -> None:
    async with client(vendor) as sdk:
        whole = await sdk.responses.create(model="haiku", input="Say pear.")
        assert whole.output_text
        async with sdk.responses.stream(model="gpt-5", input="Say pear.") as stream:
            numbers = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert "pear" in final.output_text


async def test_embeddings(vendor: House) -> None:
    async with client(vendor) as sdk:
        found = await sdk.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        assert len(found.data) == 2
        with pytest.raises(openai.BadRequestError, match="does not take requests of this kind"):
            await sdk.embeddings.create(model="haiku", input="a")


async def test_a_messages_client_reaches_a_provider_of_the_other_format(vendor: House) -> None:
    body = {"model": "gpt-5", "max_tokens": 50, "messages": HELLO}
    answer = await vendor.client.post("/v1/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "message"
    assert "pear" in answer.json()["content"][0]["text"]
    streamed = await vendor.client.post("/v1/messages", json={**body, "stream": True})
    assert "event: message_stop" in streamed.text
    counted = await vendor.client.post(
        "/v1/messages/count_tokens", json={"model": "gpt-5", "messages": HELLO}
    )
    assert counted.json()["input_tokens"] > 0
    assert counted.headers["x-stationmaster-estimated"] == "true"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "", "messages": HELLO}, 400, "invalid_request"),
        ({"model": "gpt-5", "messages": HELLO, "n": 0}, 400, "invalid_request"),
        ({"model": "gpt-5", "messages": HELLO, "max_tokens": -1}, 400, "invalid_request"),
        ({"model": "haiku", "messages": HELLO, "n": 2}, 400, "invalid_request"),
        ({"model": "haiku", "messages": HELLO, "logprobs": True}, 400, "invalid_request"),
        ({"model": "no-such-model", "messages": HELLO}, 404, "model_not_found"),
    ],
    ids=["empty-model", "no-choice", "no-tokens", "two-answers", "logprobs", "unknown-model"],
)
async def test_a_refusal_has_openais_shape(
    vendor: House, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await vendor.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert (await ledger(vendor))["total_tokens"] == 0


@pytest.mark.parametrize("path", ["chat/completions", "responses", "embeddings", "models"])
async def test_without_a_key_the_shape_is_openais(vendor: House, path: str) -> None:
    async with httpx.AsyncClient(base_url=vendor.url) as nobody:
        method = "GET" if path == "models" else "POST"
        answer = await nobody.request(method, f"/v1/{path}", json={})
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        other = await nobody.request("PUT", f"/v1/{path}")
        assert other.status_code in {401, 405}
        assert "error" in other.json()


async def test_models_are_listed_in_the_shape_of_who_asks(vendor: House) -> None:
    async with client(vendor) as sdk:
        listed = [model.id async for model in sdk.models.list()]
        assert {"gpt-5", "text-embedding-3-small"} <= set(listed)
        assert (await sdk.models.retrieve("gpt-5")).owned_by == "vendor"
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("no-such-model")
    theirs = await vendor.client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert theirs.json()["has_more"] is False
    assert theirs.json()["data"][0]["type"] == "model"


async def test_a_changed_file_is_read_and_a_broken_one_changes_nothing(
    vendor: House, tmp_path: Path, upstream: VendorUpstream
) -> None:
    file = tmp_path / "config.yaml"
    gateway = vendor.services.gateway
    before = gateway.models
    file.write_text(CATALOGUE.format(url=upstream.url) + "  broken: {targets: 3}\n")
    vendor.application.reread.set()
    while vendor.application.reread.is_set():
        await vendor.client.get("/live")
    assert gateway.models is before
    file.write_text(
        CATALOGUE.format(url=upstream.url) + "  pear: {targets: [{provider: vendor}]}\n"
    )
    vendor.application.reread.set()
    while gateway.models is before:
        await vendor.client.get("/live")
    assert "pear" in gateway.models.routes
    kept, now = before.routes["gpt-5"].targets[0], gateway.models.routes["gpt-5"].targets[0]
    assert kept.upstream is now.upstream  # nothing was said anew of it


@pytest.mark.parametrize(
    ("place", "instead"), [("responses", "POST /v1/responses"), ("realtime", "text")]
)
async def test_a_socket_of_openais_is_refused_with_what_there_is_instead(
    house: House, place: str, instead: str
) -> None:
    async with client(house) as made:
        connect = (
            made.responses.connect() if place == "responses" else made.realtime.connect(model="m")
        )
        with pytest.raises(InvalidStatus) as refused:
            async with connect:
                pass
    answer = refused.value.response
    assert answer.status_code == 404
    assert answer.body is not None
    error = json.loads(bytes(answer.body))["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")
    assert instead in error["message"]
    assert answer.headers["x-request-id"]


async def test_what_is_not_offered_is_not_found(house: House) -> None:
    async with client(house) as made:
        for ask in (
            lambda: made.moderations.create(input="x"),
            lambda: made.images.generate(prompt="x"),
            lambda: made.audio.speech.create(input="x", model="m", voice="alloy"),
            made.conversations.create,
            lambda: made.completions.create(model="haiku", prompt="x"),
            made.chat.completions.list,
            made.vector_stores.create,
            lambda: made.uploads.create(
                bytes=1, filename="x", mime_type="text/plain", purpose="batch"
            ),
            made.fine_tuning.jobs.list,
        ):
            with pytest.raises(openai.APIStatusError) as refused:
                await ask()
            assert refused.value.status_code in {404, 405}, refused.value
