"""The cells of OpenAI's own Python client."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pydantic
import pytest

from tests.conformance.features import OURS, STATUSES
from tests.conformance.scenes import (
    CITY,
    FORECAST,
    LONG,
    PICTURE,
    SIGNATURE,
    THOUGHT,
    USAGE,
    WORDS,
    seen,
)
from tests.conformance.station import Case
from tests.conformance.upstream import VECTOR, Call

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    402: openai.RateLimitError,  # where a budget is spent, OpenAI has no other
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    **dict.fromkeys((500, 502, 503, 529), openai.InternalServerError),
}
READY_SECONDS = 60.0
PATIENCE = (0.5, 2.0, 8.0)
"""Seconds until a client gives up. On a busy machine the first may pass before anything is sent."""


class Forecast(pydantic.BaseModel):
    """What structured output is parsed into."""

    city: str
    degrees: int


def client(case: Case, key: str | None = None, **more: Any) -> Any:
    """By default it asks once. What it answers is looked at, not believed: hence no type."""
    options = {"max_retries": 0, "timeout": 60, **more}
    return case.station.openai.with_options(api_key=key or case.station.key, **options)


def asking(case: Case, scene: str, **more: Any) -> dict[str, Any]:
    """A chat."""
    messages = [{"role": "user", "content": case.ask(scene)}]
    return {"model": case.model, "messages": messages, "max_completion_tokens": 2000, **more}


def check_usage(case: Case, usage: Any) -> None:
    wanted = case.usage
    prompt = wanted.input_tokens + wanted.cache_creation_input_tokens
    prompt += wanted.cache_read_input_tokens
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, wanted.output_tokens)
    assert usage.total_tokens == prompt + wanted.output_tokens
    details = usage.prompt_tokens_details  # where a provider tells of a cache
    assert (details.cached_tokens if details else 0) == wanted.cache_read_input_tokens


async def text(case: Case) -> None:
    sdk = client(case)
    answer = await sdk.chat.completions.create(**asking(case, "text"))
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer._request_id, "no x-request-id"
    assert "," not in answer._request_id, answer._request_id
    check_usage(case, answer.usage)


async def stream(case: Case) -> None:
    options = {"include_usage": True}
    sdk = client(case)
    told = await sdk.chat.completions.create(
        **asking(case, "text", stream=True, stream_options=options)
    )
    chunks = [chunk async for chunk in told]
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert "".join(pieces) == WORDS
    assert len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    check_usage(case, chunks[-1].usage)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def tools(case: Case) -> None:
    await _tools(case, "tools", ["Ulm"])


async def parallel(case: Case) -> None:
    await _tools(case, "parallel", ["Ulm", "Bonn"])


async def _tools(case: Case, scene: str, cities: list[str]) -> None:
    asked = asking(case, scene, tools=[WEATHER])
    sdk = client(case)
    answer = await sdk.chat.completions.create(**asked)
    async with sdk.chat.completions.stream(**asked) as told:
        streamed = await told.get_final_completion()
    for each in (answer, streamed):
        choice = each.choices[0]
        assert choice.finish_reason == "tool_calls"
        calls = choice.message.tool_calls or []
        assert [json.loads(call.function.arguments) for call in calls] == [
            {"city": city} for city in cities
        ]
        assert len({call.id for call in calls}) == len(cities)
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": f"fine in {city}"}
            for call, city in zip(calls, cities, strict=True)
        ]
        said = choice.message.model_dump(exclude_none=True, exclude={"parsed"})
        for call in said["tool_calls"]:
            call["function"].pop("parsed_arguments", None)
            call.pop("index", None)
        after = await sdk.chat.completions.create(
            **{**asked, "messages": [*asked["messages"], said, *results]}
        )
        wanted = " and ".join(f"fine in {city}" for city in cities)
        assert after.choices[0].message.content == f"The tool said: {wanted}"


async def image(case: Case) -> None:
    parts = [
        {"type": "text", "text": case.ask("image")},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    ]
    asked = asking(case, "image", messages=[{"role": "user", "content": parts}])
    sdk = client(case)
    answer = await sdk.chat.completions.create(**asked)
    assert answer.choices[0].message.content == seen([PICTURE])


async def structured(case: Case) -> None:
    sdk = client(case)
    answer = await sdk.chat.completions.parse(
        **asking(case, "structured"), response_format=Forecast
    )
    assert answer.choices[0].message.parsed == Forecast.model_validate(FORECAST)


async def thinking(case: Case) -> str | None:
    asked = asking(case, "thinking", tools=[WEATHER], reasoning_effort="low")
    asked["max_completion_tokens"] = 8000
    sdk = client(case)
    answer = await sdk.chat.completions.create(**asked)
    said: Any = answer.choices[0].message
    assert said.reasoning_content == THOUGHT
    if case.as_anthropic:
        assert said.thinking_blocks[0]["signature"] == SIGNATURE
    result = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": "fine"}
    after = await sdk.chat.completions.create(
        **{**asked, "messages": [*asked["messages"], said.model_dump(), result]}
    )
    assert after.choices[0].message.content == "Kept."
    return None if case.as_anthropic else "no_signature"


async def count_tokens(_: Case) -> str:
    return "no_such_call"


async def embeddings(case: Case) -> str | None:
    sdk = client(case)
    if case.as_anthropic:
        with pytest.raises(openai.BadRequestError, match="does not take requests of this kind"):
            await sdk.embeddings.create(model=case.model, input="a")
        return "no_embeddings"
    # The client asks for base64 unless it is told not to.
    for more in ({}, {"encoding_format": "float"}):
        found = await sdk.embeddings.create(model=case.model, input=["a", "b"], **more)
        assert [tuple(each.embedding) for each in found.data] == [VECTOR, VECTOR]
    return None


async def responses(case: Case) -> None:
    tool = {"type": "function", **WEATHER["function"], "strict": False}
    sdk = client(case)
    plain = await sdk.responses.create(model=case.model, input=case.ask("text"))
    assert (plain.output_text, plain.status) == (WORDS, "completed")
    assert plain.usage is not None
    assert plain.usage.output_tokens == USAGE.output_tokens
    async with sdk.responses.stream(model=case.model, input=case.ask("text")) as told:
        events = [event async for event in told]
        final = await told.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == WORDS
    called = await sdk.responses.create(model=case.model, input=case.ask("tools"), tools=[tool])
    call = next(item for item in called.output if item.type == "function_call")
    assert json.loads(call.arguments) == CITY
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "fine"}
    history = [
        {"role": "user", "content": case.ask("tools")},
        *(item.model_dump(exclude_none=True) for item in called.output),
        output,
    ]
    after = await sdk.responses.create(model=case.model, input=history, tools=[tool])
    assert after.output_text == "The tool said: fine"
    parsed = await sdk.responses.parse(
        model=case.model, input=case.ask("structured"), text_format=Forecast
    )
    assert parsed.output_parsed == Forecast.model_validate(FORECAST)


async def previous(case: Case) -> None:
    """The provider is sent what came before: its own answer, and the tool's result."""
    tool = {"type": "function", **WEATHER["function"], "strict": False}
    sdk = client(case)
    called = await sdk.responses.create(model=case.model, input=case.ask("tools"), tools=[tool])
    call = next(item for item in called.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "fine"}
    after = {"model": case.model, "previous_response_id": called.id, "tools": [tool]}
    told = await sdk.responses.create(**after, input=[result])
    assert told.output_text == "The tool said: fine"
    assert told.previous_response_id == called.id
    async with sdk.responses.stream(**after, input=[result]) as events:
        async for _ in events:
            pass
        assert (await events.get_final_response()).output_text == told.output_text
    assert (await sdk.responses.retrieve(told.id)).output_text == told.output_text


async def agent(case: Case) -> None:
    sdk = client(case)
    asked = asking(case, "text", model=case.agent)
    answer = await sdk.chat.completions.create(**asked)
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0
    async with sdk.chat.completions.stream(**asked) as told:
        pieces = [event.delta async for event in told if event.type == "content.delta"]
        final = await told.get_final_completion()
    assert final.choices[0].message.content == WORDS
    assert len(pieces) > 1


async def gzip(case: Case) -> None:
    sdk = client(case)
    asked = asking(case, "long")
    for more, packed in ({}, True), ({"stream": True}, False):
        raw = await sdk.chat.completions.with_raw_response.create(**asked, **more)
        assert (raw.headers.get("content-encoding") == "gzip") == packed
        if packed:
            assert raw.parse().choices[0].message.content == LONG
        else:
            async for _ in raw.parse():
                pass
    plain = {"accept-encoding": "identity"}
    raw = await sdk.chat.completions.with_raw_response.create(**asked, extra_headers=plain)
    assert "content-encoding" not in raw.headers
    assert raw.parse().choices[0].message.content == LONG


async def batches(case: Case) -> None:
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": asking(case, "text"),
    }
    sdk = client(case)
    file = ("in.jsonl", json.dumps(line).encode())
    given = await sdk.files.create(file=file, purpose="batch")
    batch = await sdk.batches.create(
        input_file_id=given.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    async with asyncio.timeout(READY_SECONDS):
        while batch.status != "completed":
            assert batch.status in {"validating", "in_progress", "finalizing"}, batch
            await asyncio.sleep(0.2)
            batch = await sdk.batches.retrieve(batch.id)
    assert batch.output_file_id, batch
    result = json.loads((await sdk.files.content(batch.output_file_id)).text)
    assert result["response"]["body"]["choices"][0]["message"]["content"] == WORDS


async def error(case: Case, status: int) -> None:
    key = {402: case.station.poor, 403: case.station.denied, 401: "sk-nobodys"}.get(status)
    shown = 429 if status == 402 else status
    scene = "text" if status in OURS else f"status{status}"
    sdk = client(case, key)
    for streamed in (False, True):
        with pytest.raises(ERRORS[status]) as caught:
            await sdk.chat.completions.create(**asking(case, scene, stream=streamed))
        raised = caught.value
        assert type(raised) is ERRORS[status]
        assert raised.status_code == shown
        assert raised.request_id, "no x-request-id"
        assert isinstance(raised.body, dict)
        assert set(raised.body) == {"message", "type", "param", "code"}, raised.body
        if status not in OURS:
            assert f"scripted {status}" in raised.body["message"]
        if status == 402:
            assert raised.code == "insufficient_quota"
            assert raised.response.headers["x-should-retry"] == "false"
        elif shown in {429, 503, 529}:
            assert float(raised.response.headers["retry-after"]) > 0


async def retry(case: Case) -> None:
    sdk = client(case, max_retries=2)
    answer = await sdk.chat.completions.create(**asking(case, "retry"))
    assert answer.choices[0].message.content == WORDS
    first, second = (call.at for call in case.station.providers.calls[case.tag])
    assert second - first >= 1


async def timeout(case: Case) -> None:
    calls: list[Call] = []
    for patience in PATIENCE:
        with pytest.raises(openai.APITimeoutError):
            await client(case, timeout=patience).chat.completions.create(**asking(case, "slow"))
        if calls := await case.station.providers.ended(case.tag):
            break
    assert {call.disconnected for call in calls} == {True}


async def cancel(case: Case) -> None:
    sdk = client(case)
    told = await sdk.chat.completions.create(**asking(case, "endless", stream=True))
    async for chunk in told:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await told.close()
    calls = await case.station.providers.ended(case.tag)
    assert [call.disconnected for call in calls] == [True]


Check = Callable[[Case], Awaitable[str | None]]


def _of_status(status: int) -> Check:
    return lambda case: error(case, status)


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        *(text, stream, tools, parallel, image, structured, thinking, count_tokens),
        *(embeddings, responses, previous, agent, gzip, batches, retry, timeout, cancel),
    )
} | {f"error_{status}": _of_status(status) for status in STATUSES}
