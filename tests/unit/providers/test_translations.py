"""Every translation, against whatever a client or an upstream may send it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.bedrock.answers import ErrorAnswer as BedrockError
from stationmaster.providers.bedrock.answers import MessageStream, TokenCount
from stationmaster.providers.ollama.chat_answer import ChatStream, WholeChat
from stationmaster.providers.ollama.chat_answer import ErrorAnswer as OllamaError
from stationmaster.providers.ollama.chat_request import read_chat, told
from stationmaster.providers.ollama.context import ContextSizes
from stationmaster.providers.ollama.embeddings import Embeddings, EmbeddingsRequest, read_embeddings
from stationmaster.providers.upstream import Translation, WholeBody
from stationmaster.providers.vertex.answers import ErrorAnswer as VertexError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "model": JSON,
        "created_at": JSON,
        "message": st.fixed_dictionaries(
            {}, optional={"content": JSON, "thinking": JSON, "tool_calls": JSON}
        ),
        "done": st.booleans() | JSON,
        "done_reason": JSON,
        "prompt_eval_count": JSON,
        "error": JSON,
        "embeddings": JSON,
        "inputTokens": JSON,
    },
)
BODIES = (
    st.binary(max_size=60)
    | LINES.map(lambda line: json.dumps(line).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
)

REFUSALS: dict[str, Callable[[], Translation]] = {
    "ollama's": lambda: OllamaError(429),
    "bedrock's": lambda: BedrockError(429),
    "vertex's": lambda: VertexError(429),
}
ANSWERS: dict[str, Callable[[], Translation]] = {
    "whole chat": WholeChat,
    "chat stream": lambda: ChatStream(include_usage=True),
    "embeddings": lambda: Embeddings(EmbeddingsRequest(model="m", input="x")),
    "message stream": MessageStream,
    "token count": TokenCount,
}


def translated(translation: Translation, body: bytes) -> bytes:
    return translation.feed(body) + translation.finish()


@pytest.mark.parametrize("name", sorted(REFUSALS))
@settings(max_examples=50)
@given(body=BODIES)
def test_any_refusal_becomes_an_error_with_words(name: str, body: bytes) -> None:
    error = json.loads(translated(REFUSALS[name](), body))["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"]


@pytest.mark.parametrize("name", sorted(ANSWERS))
@settings(max_examples=50)
@given(body=BODIES)
def test_any_answer_is_told_or_is_an_upstream_error(name: str, body: bytes) -> None:
    try:
        said = translated(ANSWERS[name](), body)
    except Upstream:
        return
    if "stream" in name:
        assert said == b"" or said.endswith(b"\n\n")
    else:
        assert isinstance(json.loads(said), dict)


@settings(max_examples=50)
@given(
    fields=st.dictionaries(
        st.sampled_from(
            ["model", "messages", "tools", "stop", "n", "max_tokens", "response_format"]
        ),
        JSON,
    )
    | st.just({}),
    messages=st.lists(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
            optional={"content": JSON, "tool_calls": JSON, "tool_call_id": st.text(max_size=3)},
        ),
        max_size=3,
    ),
)
def test_any_chat_is_asked_or_refused(fields: dict[str, Any], messages: list[Any]) -> None:
    body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    try:
        asked = read_chat(body)
        made = told(asked, model="m", sizes=ContextSizes(), preset={}, keep_alive=None)
    except Invalid:
        return
    assert made["options"]["num_ctx"] >= 8_192
    assert len(made["messages"]) == len(asked.messages)


@settings(max_examples=50)
@given(body=BODIES)
def test_any_request_for_embeddings_is_read_or_refused(body: bytes) -> None:
    try:
        assert read_embeddings(body).model is not None
    except Invalid:
        return


class Small(WholeBody):
    LIMIT = 10

    def told(self, body: bytes) -> bytes:
        return body


def test_a_body_without_an_end_is_not_kept_for_ever() -> None:
    small = Small()
    assert small.feed(b"x" * 10) == b""
    with pytest.raises(Upstream, match="too large"):
        small.feed(b"x")
