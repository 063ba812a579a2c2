"""The cells of Anthropic's own Python client."""

import asyncio
from typing import Any

import anthropic
import pydantic
import pytest

from tests.conformance.features import OURS, STATUSES
from tests.conformance.openai_python import PATIENCE, READY_SECONDS, Check
from tests.conformance.scenes import FORECAST, LONG, PICTURE, SIGNATURE, THOUGHT, WORDS, seen
from tests.conformance.station import Case
from tests.conformance.upstream import COUNTED, Call
from tests.support.sdk import check

WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "PaymentRequiredError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    413: "ContentTooLargeError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "InternalServerError",
    503: "ServiceUnavailableError",
    529: "OverloadedError",
}
"""By name: not every one of the classes is public."""


class Forecast(pydantic.BaseModel):
    """What structured output is parsed into."""

    city: str
    degrees: int


def client(case: Case, key: str | None = None, **more: Any) -> Any:
    """By default it asks once. What it answers is looked at, not believed: hence no type."""
    options = {"max_retries": 0, "timeout": 60, **more}
    return case.station.anthropic.with_options(api_key=key or case.station.key, **options)


def asking(case: Case, scene: str, **more: Any) -> dict[str, Any]:
    """A message."""
    messages = [{"role": "user", "content": case.ask(scene)}]
    return {"model": case.model, "messages": messages, "max_tokens": 2000, **more}


def check_usage(case: Case, usage: Any) -> None:
    wanted = case.usage
    assert (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
    ) == (
        wanted.input_tokens,
        wanted.output_tokens,
        wanted.cache_creation_input_tokens,
        wanted.cache_read_input_tokens,
    )


async def text(case: Case) -> None:
    sdk = client(case)
    answer = await sdk.messages.create(**asking(case, "text"))
    check(answer)
    assert [block.text for block in answer.content if block.type == "text"] == [WORDS]
    assert answer.stop_reason == "end_turn"
    assert answer._request_id, "no request-id"
    check_usage(case, answer.usage)


async def stream(case: Case) -> None:
    sdk = client(case)
    async with sdk.messages.stream(**asking(case, "text")) as told:
        pieces = [piece async for piece in told.text_stream]
        final = await told.get_final_message()
    assert "".join(pieces) == WORDS
    assert len(pieces) > 3
    assert final.stop_reason == "end_turn"
    check_usage(case, final.usage)
    sdk = client(case)
    events = [
        event async for event in await sdk.messages.create(**asking(case, "text", stream=True))
    ]
    assert events[0].type == "message_start"
    assert events[0].message.usage.input_tokens > 0
    assert events[-1].type == "message_stop"


async def tools(case: Case) -> None:
    await _tools(case, "tools", ["Ulm"])


async def parallel(case: Case) -> None:
    await _tools(case, "parallel", ["Ulm", "Bonn"])


async def _tools(case: Case, scene: str, cities: list[str]) -> None:
    asked = asking(case, scene, tools=[WEATHER])
    sdk = client(case)
    answer = await sdk.messages.create(**asked)
    async with sdk.messages.stream(**asked) as told:
        streamed = await told.get_final_message()
    for each in (answer, streamed):
        assert each.stop_reason == "tool_use"
        calls = [block for block in each.content if block.type == "tool_use"]
        assert [call.input for call in calls] == [{"city": city} for city in cities]
        assert len({call.id for call in calls}) == len(cities)
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": f"fine in {city}"}
            for call, city in zip(calls, cities, strict=True)
        ]
        said = {"role": "assistant", "content": [_sent_back(block) for block in each.content]}
        turn = {"role": "user", "content": results}
        after = await sdk.messages.create(**{**asked, "messages": [*asked["messages"], said, turn]})
        wanted = " and ".join(f"fine in {city}" for city in cities)
        assert after.content[0].type == "text"
        assert after.content[0].text == f"The tool said: {wanted}"


def _sent_back(block: Any) -> Any:
    return block.to_dict(mode="json", exclude_none=True)


async def image(case: Case) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": case.ask("image")}]
    asked = asking(case, "image", messages=[{"role": "user", "content": parts}])
    sdk = client(case)
    answer = await sdk.messages.create(**asked)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == seen([PICTURE])


async def structured(case: Case) -> None:
    sdk = client(case)
    answer = await sdk.messages.parse(**asking(case, "structured"), output_format=Forecast)
    assert answer.parsed_output == Forecast.model_validate(FORECAST)


async def thinking(case: Case) -> str | None:
    budget = {"type": "enabled", "budget_tokens": 1024}
    asked = asking(case, "thinking", tools=[WEATHER], thinking=budget)
    signature = SIGNATURE if case.as_anthropic else ""
    sdk = client(case)
    answer = await sdk.messages.create(**asked)
    async with sdk.messages.stream(**asked) as told:
        streamed = await told.get_final_message()
    for each in (answer, streamed):
        thought = each.content[0]
        assert thought.type == "thinking"
        assert (thought.thinking, thought.signature) == (THOUGHT, signature)
        call = each.content[-1]
        assert call.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "fine"}
        said = {"role": "assistant", "content": [_sent_back(block) for block in each.content]}
        after = await sdk.messages.create(
            **{
                **asked,
                "messages": [
                    *asked["messages"],
                    said,
                    {"role": "user", "content": [result]},
                ],
            }
        )
        assert after.content[0].type == "text"
        assert after.content[0].text == "Kept."
    return None if case.as_anthropic else "no_signature"


async def count_tokens(case: Case) -> None:
    asked = asking(case, "text")
    del asked["max_tokens"]
    sdk = client(case)
    counted = await sdk.messages.with_raw_response.count_tokens(**asked)
    tokens = (await counted.parse()).input_tokens
    if case.as_anthropic:
        assert tokens == COUNTED
    else:
        assert tokens > 0
        assert counted.headers["x-stationmaster-estimated"] == "true"


async def embeddings(_: Case) -> str:
    return "no_such_call"


async def responses(_: Case) -> str:
    return "no_such_call"


async def previous(_: Case) -> str:
    return "no_such_call"


async def agent(case: Case) -> None:
    sdk = client(case)
    asked = asking(case, "text", model=case.agent)
    answer = await sdk.messages.create(**asked)
    assert [block.text for block in answer.content if block.type == "text"] == [WORDS]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens > 0
    async with sdk.messages.stream(**asked) as told:
        pieces = [piece async for piece in told.text_stream]
    assert "".join(pieces) == WORDS
    assert len(pieces) > 1


async def gzip(case: Case) -> None:
    sdk = client(case)
    asked = asking(case, "long")
    for more, packed in ({}, True), ({"stream": True}, False):
        raw = await sdk.messages.with_raw_response.create(**asked, **more)
        assert (raw.headers.get("content-encoding") == "gzip") == packed
        told = await raw.parse()
        if packed:
            assert told.content[0].text == LONG
        else:
            async for _ in told:
                pass
    plain = {"accept-encoding": "identity"}
    raw = await sdk.messages.with_raw_response.create(**asked, extra_headers=plain)
    assert "content-encoding" not in raw.headers
    assert (await raw.parse()).content[0].text == LONG


async def batches(case: Case) -> None:
    sdk = client(case)
    batch = await sdk.messages.batches.create(
        requests=[{"custom_id": "one", "params": asking(case, "text")}]
    )
    async with asyncio.timeout(READY_SECONDS):
        while batch.processing_status != "ended":
            await asyncio.sleep(0.2)
            batch = await sdk.messages.batches.retrieve(batch.id)
    results = [line async for line in await sdk.messages.batches.results(batch.id)]
    assert [line.custom_id for line in results] == ["one"]
    assert results[0].result.type == "succeeded", results
    content = results[0].result.message.content[0]
    assert content.type == "text"
    assert content.text == WORDS


async def error(case: Case, status: int) -> None:
    key = {402: case.station.poor, 403: case.station.denied, 401: "sk-nobodys"}.get(status)
    scene = "text" if status in OURS else f"status{status}"
    sdk = client(case, key)
    for streamed in (False, True):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await sdk.messages.create(**asking(case, scene, stream=streamed))
        raised = caught.value
        assert type(raised).__name__ == ERRORS[status]
        assert raised.status_code == status
        assert raised.request_id, "no request-id"
        assert isinstance(raised.body, dict)
        assert raised.body["type"] == "error"
        assert {"type", "message"} <= set(raised.body["error"])
        if status not in OURS:
            assert f"scripted {status}" in raised.body["error"]["message"]
        if status == 402:
            assert raised.response.headers["x-should-retry"] == "false"
        elif status in {429, 503, 529}:
            assert float(raised.response.headers["retry-after"]) > 0


async def retry(case: Case) -> None:
    sdk = client(case, max_retries=2)
    answer = await sdk.messages.create(**asking(case, "retry"))
    assert answer.content[0].type == "text"
    assert answer.content[0].text == WORDS
    first, second = (call.at for call in case.station.providers.calls[case.tag])
    assert second - first >= 1


async def timeout(case: Case) -> None:
    calls: list[Call] = []
    for patience in PATIENCE:
        with pytest.raises(anthropic.APITimeoutError):
            await client(case, timeout=patience).messages.create(**asking(case, "slow"))
        if calls := await case.station.providers.ended(case.tag):
            break
    assert {call.disconnected for call in calls} == {True}


async def cancel(case: Case) -> None:
    sdk = client(case)
    told = await sdk.messages.create(**asking(case, "endless", stream=True))
    async for event in told:
        if event.type == "content_block_delta":
            break
    await told.close()
    calls = await case.station.providers.ended(case.tag)
    assert [call.disconnected for call in calls] == [True]


def _of_status(status: int) -> Check:
    return lambda case: error(case, status)


CHECKS: dict[str, Check] = {
    each.__name__: each
    for each in (
        *(text, stream, tools, parallel, image, structured, thinking, count_tokens),
        *(embeddings, responses, previous, agent, gzip, batches, retry, timeout, cancel),
    )
} | {f"error_{status}": _of_status(status) for status in STATUSES}
