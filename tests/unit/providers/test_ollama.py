import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stationmaster.kernel.errors import Invalid, NotFound, Upstream
from stationmaster.providers.base import Operation, ProviderRequest
from stationmaster.providers.conformance import chunks_of, completed, whole
from stationmaster.providers.ollama import OllamaProvider, Preset, PullProgress
from stationmaster.providers.ollama.chat_answer import ChatStream
from stationmaster.providers.ollama.context import ContextSizes
from stationmaster.providers.ollama.factory import provider as made
from stationmaster.providers.ollama.lines import MAX_LINE, Lines
from stationmaster.providers.ollama.provider import Retries, Settings
from stationmaster.providers.upstream import Timeouts
from tests.support import vendor_answers as wire
from tests.support.raw_upstream import RawUpstream, writes
from tests.support.vendor_upstream import MODEL, Answer, VendorUpstream

Json = dict[str, Any]

USER = [{"role": "user", "content": "Say x."}]
TOOL: Json = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PIXEL = "iVBORw0KGgo="


def asking(
    *, model: str = MODEL, stream: bool = False, operation: Operation = "chat", **members: Any
) -> ProviderRequest:
    body: Json = {"model": model, "stream": stream, **members}
    if operation == "chat":
        body.setdefault("messages", USER)
    else:
        del body["stream"]
    return ProviderRequest(operation, model, json.dumps(body).encode(), (), stream)


class Naps:
    """Sleeps that take no time, and are counted."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@asynccontextmanager
async def running(
    settings: Settings | None = None,
) -> AsyncIterator[tuple[VendorUpstream, OllamaProvider]]:
    async with VendorUpstream() as upstream:
        provider = OllamaProvider(base_url=upstream.url, settings=settings, sleep=Naps())
        yield upstream, provider
        await provider.aclose()


async def sent(request: ProviderRequest, settings: Settings | None = None) -> Json:
    """What Ollama is asked."""
    async with running(settings) as (upstream, provider):
        await whole(await provider.send(request))
    return upstream.calls[0].json


async def answered(answer: Answer, *, stream: bool, **members: Any) -> bytes:
    async with running() as (upstream, provider):
        upstream.answers = [answer]
        return await whole(await provider.send(asking(stream=stream, **members)))


# --- what is asked ---------------------------------------------------------------------------


async def test_the_parameters_have_their_places() -> None:
    body = await sent(
        asking(
            temperature=0.5,
            top_p=0.9,
            top_k=20,
            min_p=0.1,
            seed=7,
            presence_penalty=0.1,
            frequency_penalty=0.2,
            stop=["a", "b"],
            max_completion_tokens=99,
            user="somebody",
            metadata={"a": "b"},
            logit_bias=None,
            reasoning_effort="high",
            tools=[TOOL],
        )
    )
    options = body["options"]
    assert options.pop("num_ctx") >= 8192
    assert options == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.1,
        "seed": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "stop": ["a", "b"],
        "num_predict": 99,
    }
    assert body["think"] == "high"
    assert body["tools"] == [TOOL]
    assert body["stream"] is False
    assert body["truncate"] is False
    assert body["shift"] is False
    assert body["messages"] == USER
    assert "somebody" not in json.dumps(body)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"options": {"num_gpu": 9}}, "options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"reasoning_effort": "utmost"}, "reasoning_effort"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wizard"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "tool call"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_ollama_has_no_word_for_is_refused_by_name(members: Json, named: str) -> None:
    async with running() as (upstream, provider):
        with pytest.raises(Invalid, match=named):
            await provider.send(asking(**members))
    assert upstream.calls == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"model": 3}', b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize("operation", ["chat", "embeddings"])
async def test_a_body_that_is_no_request_is_refused(operation: Operation, body: bytes) -> None:
    async with running() as (upstream, provider):
        with pytest.raises(Invalid):
            await provider.send(ProviderRequest(operation, "m", body, (), False))
    assert upstream.calls == []


async def test_a_conversation_with_tools_goes_there_and_back() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }
    empty = {**call, "id": "call_2", "function": {"name": "now", "arguments": ""}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, empty], "name": "x"},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "assistant", "content": "Two.", "reasoning_content": "Hm."},
        {"role": "user", "content": "Say x."},
    ]
    body = await sent(asking(messages=messages))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "function": {"name": "add", "arguments": {"a": 1}}},
                {"id": "call_2", "function": {"name": "now", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "2", "tool_name": "add", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "Two.", "thinking": "Hm."},
        {"role": "user", "content": "Say x."},
    ]


async def test_an_image_goes_as_base64_and_an_address_is_not_fetched() -> None:
    def pictured(url: str) -> list[Json]:
        parts = [
            {"type": "text", "text": "Say x."},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        return [{"role": "user", "content": parts}, *USER]

    body = await sent(asking(messages=pictured(f"data:image/png;base64,{PIXEL}")))
    assert body["messages"][0] == {"role": "user", "content": "Say x.", "images": [PIXEL]}
    for url in ("http://169.254.169.254/", "https://x.example/a.png", "file:///etc/passwd"):
        with pytest.raises(Invalid, match="data URLs"):
            await sent(asking(messages=pictured(url)))


@pytest.mark.parametrize(
    ("wanted", "form"),
    [
        ({"type": "json_object"}, "json"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            {"type": "object"},
        ),
        ({"type": "text"}, None),
    ],
    ids=["object", "schema", "text"],
)
async def test_a_response_format_becomes_ollamas(wanted: Json, form: Any) -> None:
    assert (await sent(asking(response_format=wanted))).get("format") == form


async def test_no_tool_is_offered_where_none_may_be_called() -> None:
    assert "tools" not in await sent(asking(tools=[TOOL], tool_choice="none"))


# --- the context -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "answer", "context"),
    [
        (100, None, 8_192),
        (3 * 4_096, 4_096, 8_192),
        (3 * 4_096 + 1, 4_096, 16_384),
        (3 * 100_000, 1_000, 131_072),
        (3 * 200_000, 1_000, 131_072),
    ],
)
def test_the_context_holds_the_prompt_and_its_answer(
    size: int, answer: int | None, context: int
) -> None:
    assert ContextSizes().fitting(prompt_bytes=size, images=0, answer=answer) == context


def test_an_image_needs_room_too() -> None:
    sizes = ContextSizes()
    assert sizes.fitting(prompt_bytes=10, images=4, answer=4_096) == 16_384


def test_a_prompt_that_cannot_fit_is_refused() -> None:
    with pytest.raises(Invalid) as caught:
        ContextSizes(most=8_192).fitting(prompt_bytes=60_000, images=0, answer=1)
    assert caught.value.error_code == "context_length_exceeded"


async def test_the_context_is_always_said() -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    assert (await sent(asking()))["options"]["num_ctx"] == 8_192
    assert (await sent(asking(messages=long)))["options"]["num_ctx"] == 65_536
    assert (await sent(asking(messages=long, max_tokens=60_000)))["options"]["num_ctx"] == 131_072


# --- presets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "fast", "balanced", "quality", "coding"])
async def test_a_preset_is_a_model_with_its_options(name: str) -> None:
    settings = Settings(
        presets={name: Preset(model=MODEL, options={"num_ctx": 32_768, "top_k": 5})}
    )
    body = await sent(asking(model=name, top_k=6), settings)
    assert body["model"] == MODEL
    assert body["options"] == {"num_ctx": 32_768, "top_k": 6}


async def test_a_preset_names_the_model_of_an_embedding_too() -> None:
    settings = Settings(presets={"fast": Preset(model=MODEL, options={"top_k": 5})})
    request = asking(model="fast", operation="embeddings", input="x")
    assert await sent(request, settings) == {"model": MODEL, "input": "x", "truncate": False}


def test_every_preset_is_there_by_default() -> None:
    provider = made("ollama", {"presets": {"fast": {"model": "mine:1b"}}}, Timeouts())
    presets = provider._settings.presets
    assert set(presets) == {"tiny", "fast", "balanced", "quality", "coding"}
    assert presets["fast"].model == "mine:1b"


# --- what is answered ------------------------------------------------------------------------

CALLS: list[Json] = [
    {"function": {"name": "add", "arguments": {"a": 1}}},
    {"id": "call_own", "function": {"name": "now", "arguments": {}}},
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_tool_calls_have_ids_and_written_arguments(stream: bool) -> None:
    answer = (
        Answer(frames=wire.ollama_frames(MODEL, "Well.", calls=CALLS))
        if stream
        else Answer(wire.ollama_answer(MODEL, "Well.", tool_calls=CALLS))
    )
    body = await answered(answer, stream=stream)
    (choice,) = (completed(chunks_of(body)) if stream else json.loads(body))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Well."
    first, second = choice["message"]["tool_calls"]
    assert first["id"].startswith("call_")
    assert first["type"] == "function"
    assert first["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert second["id"] == "call_own"
    assert second["function"] == {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_thinking_is_told_apart(stream: bool) -> None:
    last = wire.ollama_answer(MODEL, "x", thinking="Hm.")
    frames = [wire.encoded(last)]  # the last line without its end
    answer = Answer(frames=frames) if stream else Answer(last)
    body = await answered(answer, stream=stream)
    message = (completed(chunks_of(body)) if stream else json.loads(body))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("x", "Hm.")


async def test_an_answer_cut_by_its_bound_says_so() -> None:
    body = await answered(
        Answer({**wire.ollama_answer(MODEL, "x"), "done_reason": "length"}), stream=False
    )
    assert json.loads(body)["choices"][0]["finish_reason"] == "length"


async def test_an_error_in_mid_stream_is_told_and_nothing_after_it() -> None:
    frames = wire.ollama_frames(MODEL, "x")
    body = await answered(
        Answer(frames=[frames[0], b'{"error": "out of memory"}\n', *frames[1:]]), stream=True
    )
    events = body.decode().rstrip("\n").split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["message"] == "out of memory"
    assert b"[DONE]" not in body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_answer_that_never_says_done_is_broken_off(stream: bool) -> None:
    line = {**wire.ollama_answer(MODEL, "x"), "done": False}
    with pytest.raises(Upstream):
        await answered(Answer(frames=[wire.encoded(line)]), stream=stream)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (404, "invalid_request_error", "model_not_found"),
        (500, "server_error", None),
        (503, "server_error", None),
    ],
)
async def test_errors_have_openais_shape(status: int, kind: str, code: str | None) -> None:
    for value, words in (({"error": "Why not."}, "Why not."), ("<html>", f"status {status}")):
        error = json.loads(await answered(Answer(value, status), stream=True))["error"]
        assert words in error["message"]
        assert (error["type"], error["code"]) == (kind, code)


async def test_a_prompt_that_does_not_fit_the_model_has_openais_code() -> None:
    words = "the input length exceeds the context length"
    error = json.loads(await answered(Answer({"error": words}, 400), stream=False))["error"]
    assert error["code"] == "context_length_exceeded"


async def test_openais_own_library_reads_the_stream() -> None:
    body = await answered(
        Answer(frames=wire.ollama_frames(MODEL, "Hello.", calls=CALLS)), stream=True
    )
    async with VendorUpstream() as upstream:
        upstream.answers = [Answer(frames=[body], content_type="text/event-stream")]
        client = openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k")
        async with client.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": "x"}]
        ) as stream:
            final = await stream.get_final_completion()
        await client.close()
    message = final.choices[0].message
    assert message.content == "Hello."
    assert [call.function.name for call in message.tool_calls or ()] == ["add", "now"]


STREAM = b"".join(wire.ollama_frames(MODEL, "It is a text — ü.", calls=CALLS[1:]))


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cut_gives_the_same_completion(cuts: list[int]) -> None:
    stream = ChatStream(include_usage=True)
    told, at = b"", 0
    for cut in [*sorted(cuts), len(STREAM)]:
        told += stream.feed(STREAM[at:cut])
        at = cut
    told += stream.finish()
    answer = completed(chunks_of(told))
    assert answer["choices"][0]["message"]["content"] == "It is a text — ü."
    assert answer["usage"]["total_tokens"] == 7 + wire.tokens("It is a text — ü.")


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    lines = Lines()
    for _ in range(4):
        assert lines.feed(b"x" * (MAX_LINE // 4)) == []
    with pytest.raises(Upstream, match="too long"):
        lines.feed(b"x")


# --- when it does not answer -----------------------------------------------------------------


class Flaky:
    """Hangs up on the first calls, then serves."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.tries = 0
        self.raw = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tries += 1
        if self.left:
            self.left -= 1
            return
        body = wire.encoded(wire.ollama_answer(MODEL, "x"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@pytest.mark.parametrize(("failures", "tries"), [(0, 1), (1, 2), (2, 3)])
async def test_a_connection_that_fails_is_tried_three_times_five_seconds_apart(
    failures: int, tries: int
) -> None:
    naps, flaky = Naps(), Flaky(failures)
    async with RawUpstream(flaky) as upstream:
        provider = OllamaProvider(base_url=upstream.url, sleep=naps)
        answer = json.loads(await whole(await provider.send(asking())))
        await provider.aclose()
    assert answer["choices"][0]["message"]["content"] == "x"
    assert flaky.tries == tries
    assert naps.taken == [5.0] * failures


async def test_the_third_failure_is_the_last() -> None:
    naps, flaky = Naps(), Flaky(9)
    async with RawUpstream(flaky) as upstream:
        provider = OllamaProvider(base_url=upstream.url, sleep=naps)
        with pytest.raises(Upstream):
            await provider.send(asking())
        await provider.aclose()
    assert flaky.tries == 3
    assert naps.taken == [5.0, 5.0]


async def test_nobody_there_is_tried_again_too() -> None:
    async with RawUpstream(writes(b"")) as upstream:
        url = upstream.url
    naps = Naps()
    settings = Settings(retries=Retries(attempts=2, delay=1.5))
    provider = OllamaProvider(base_url=url, settings=settings, sleep=naps)
    with pytest.raises(Upstream) as caught:
        await provider.send(asking())
    with pytest.raises(Upstream):
        await provider.check()
    with pytest.raises(Upstream):
        await provider.models()
    assert caught.value.error_code == "upstream_unreachable"
    assert naps.taken == [1.5]


async def test_an_answer_even_a_refusal_is_not_asked_for_again() -> None:
    async with running() as (upstream, provider):
        upstream.answers = [Answer({"error": "busy"}, 503)]
        reply = await provider.send(asking())
        await whole(reply)
    assert reply.status == 503
    assert len(upstream.calls) == 1


# --- the fallback ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_missing_model_is_stood_in_for(stream: bool) -> None:
    async with running(Settings(fallback_model=MODEL)) as (upstream, provider):
        reply = await provider.send(asking(model="not-pulled", stream=stream))
        body = await whole(reply)
    assert reply.status == 200
    assert dict(reply.headers)["x-fallback-model"] == MODEL
    assert [call.json["model"] for call in upstream.calls] == ["not-pulled", MODEL]
    answer = chunks_of(body)[0] if stream else json.loads(body)
    assert answer["model"] == MODEL


async def test_a_missing_fallback_is_the_end() -> None:
    async with running(Settings(fallback_model="nor-this")) as (upstream, provider):
        for model in ("not-pulled", "nor-this"):
            reply = await provider.send(asking(model=model))
            await whole(reply)
            assert reply.status == 404
    assert len(upstream.calls) == 3


async def test_an_embedding_is_never_another_models() -> None:
    async with running(Settings(fallback_model=MODEL)) as (upstream, provider):
        reply = await provider.send(asking(model="not-pulled", operation="embeddings", input="x"))
        await whole(reply)
    assert reply.status == 404
    assert len(upstream.calls) == 1


# --- embeddings ------------------------------------------------------------------------------


async def test_an_input_that_is_too_long_is_not_cut() -> None:
    request = asking(operation="embeddings", input="x", dimensions=2, user="u")
    body = await sent(request, Settings(keep_alive="5m"))
    assert body == {
        "model": MODEL,
        "input": "x",
        "truncate": False,
        "dimensions": 2,
        "keep_alive": "5m",
    }


async def test_too_few_embeddings_are_an_upstream_error() -> None:
    async with running() as (upstream, provider):
        upstream.answers = [Answer({"embeddings": [[1.0]]})]
        with pytest.raises(Upstream):
            await whole(await provider.send(asking(operation="embeddings", input=["a", "b"])))


# --- models ----------------------------------------------------------------------------------


async def test_a_pull_tells_its_progress_and_the_list_shows_the_model() -> None:
    async with running() as (upstream, provider):
        assert "new:1b" not in await provider.models()
        steps = [step async for step in provider.pull("new:1b")]
        assert "new:1b" in await provider.models()
    assert steps[0].status == "pulling manifest"
    assert PullProgress("pulling 1a2b", "sha256:1a2b", 100, 40) in steps
    assert steps[-1].status == "success"
    assert upstream.calls[1].json == {"model": "new:1b", "stream": True}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(frames=[b'{"status": "pulling manifest"}\n', b'{"error": "no space left"}\n']),
        Answer(frames=[b'{"status": "pulling manifest"}\n']),
        Answer(frames=[b"<html>\n"]),
        Answer({"error": "no space left"}, 500),
    ],
    ids=["error", "cut", "garbage", "refused"],
)
async def test_a_pull_that_fails_says_so(answer: Answer) -> None:
    async with running() as (upstream, provider):
        upstream.answers = [answer]
        with pytest.raises(Upstream):
            assert [step async for step in provider.pull("new:1b")]


async def test_a_pull_given_up_is_closed_upstream() -> None:
    async with running() as (upstream, provider):
        steps = [b'{"status": "pulling"}\n'] * 9
        upstream.answers = [Answer(frames=steps, hang=True)]
        pulling = provider.pull("new:1b")
        await anext(pulling)
        await pulling.aclose()
        await upstream.closed()


async def test_a_model_is_described() -> None:
    async with running() as (_, provider):
        assert (await provider.show(MODEL))["capabilities"] == ["tools"]
        with pytest.raises(NotFound):
            await provider.show("not-pulled")


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_cxt": 9}, "num_cxt"),
        ({"num_ctx": 0}, "num_ctx"),
        ({"num_ctx": 9000, "max_num_ctx": 8000}, "num_ctx"),
        ({"num_ctx": "many"}, "num_ctx"),
        ({"retry_attempts": 0}, "retry_attempts"),
        ({"retry_delay": -1}, "retry_delay"),
        ({"presets": {"fast": {"options": {}}}}, "model"),
        ({"base_url": "ftp://x"}, "URL"),
        ({"timeouts": {"total": 0}}, "total"),
        ({"ca_file": "/does/not/exist"}, "ca_file"),
        ({"fallback_model": "a\r\nb"}, "fallback_model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_without_sense_are_refused_by_name(options: Json, named: str) -> None:
    with pytest.raises(Invalid, match=named):
        made("ollama", options, Timeouts())


def test_options_make_a_provider() -> None:
    options = {
        "base_url": "http://ollama:11434",
        "num_ctx": "16384",
        "retry_attempts": 1,
        "retry_delay": "0.5",
        "fallback_model": "m",
        "keep_alive": "-1",
        "timeouts": {"total": 30},
        "presets": {"fast": {"model": "m", "options": {"temperature": "0.2", "top_k": "9"}}},
    }
    provider = made("local", options, Timeouts(connect=1.0))
    assert provider.name == "local"
    assert provider._settings.sizes == ContextSizes(16_384, 131_072)
    assert provider._settings.retries == Retries(1, 0.5)
    assert provider._settings.keep_alive == -1
    assert provider._settings.presets["fast"].options == {"temperature": 0.2, "top_k": 9}
    assert provider._endpoint._timeouts == Timeouts(connect=1.0, total=30.0)
