"""Messages requests for a provider of OpenAI's format."""

import json
from typing import Any

import pytest

from stationmaster.gateway.translation import translate
from stationmaster.kernel.errors import Invalid
from tests.unit.gateway.translation.upstream import PNG, between, sent

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "x": [1]}}


def said(*messages: dict[str, Any], **asked: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent("messages", "chat", messages=list(messages), **asked)[
        "messages"
    ]
    return found


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_small_request() -> None:
    assert sent("messages", "chat", stream=True) == {
        "model": "m",
        "max_completion_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_an_older_provider_calls_the_limit_by_its_older_name() -> None:
    raw = b'{"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}'
    translation = translate(
        "messages", "chat", raw, model="m", default_max_tokens=9, max_tokens_field="max_tokens"
    )
    assert json.loads(translation.body)["max_tokens"] == 5


def test_a_system_prompt_wherever_it_stands() -> None:
    cached = {**text("b"), "cache_control": {"type": "ephemeral"}}
    messages = said(
        {"role": "system", "content": "c"},
        user(text("hi")),
        {"role": "system", "content": [text("d")]},
        system=[text("a"), cached],
    )
    assert messages == [
        {"role": "system", "content": [text("a"), text("b"), text("c")]},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "d"},
    ]


def test_calls_and_their_results() -> None:
    messages = said(
        user(text("hi")),
        {
            "role": "assistant",
            "content": [
                text("Let me look."),
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2**70]}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        user(
            text("and then"),
            {"type": "tool_result", "tool_use_id": "t2"},
            {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True},
        ),
    )
    assert messages[1]["content"] == "Let me look."
    assert [each["id"] for each in messages[1]["tool_calls"]] == ["t1", "t2"]
    arguments = messages[1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"a": [1, 2**70]}
    assert messages[2:] == [
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "tool", "tool_call_id": "t1", "content": "Error: no"},
        {"role": "user", "content": "and then"},
    ]


def test_pictures_of_a_result_follow_it() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("see"), PICTURE]}
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert said(user(result)) == [
        {"role": "tool", "tool_call_id": "t1", "content": "see"},
        {"role": "user", "content": [text("Result of the tool call t1:"), shown]},
    ]


def test_documents() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    plain = {"type": "text", "media_type": "text/plain", "data": "words"}
    messages = said(
        user({"type": "document", "source": pdf}, {"type": "document", "source": plain})
    )
    file = {"filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    assert messages[0]["content"] == [{"type": "file", "file": file}, text("words")]


def test_a_models_own_thinking_goes_back_to_it() -> None:
    own = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    messages = said(user(text("a")), {"role": "assistant", "content": [own, text("b")]})
    assert messages[1] == {"role": "assistant", "content": "b", "reasoning_content": "Hm."}


def test_anthropics_thinking_is_for_anthropic_alone_and_named() -> None:
    theirs = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
    ]
    answer = {"role": "assistant", "content": [*theirs, text("b")]}
    translation = between("messages", "chat", messages=[user(text("a")), answer])
    assert json.loads(translation.body)["messages"][1] == {"role": "assistant", "content": "b"}
    assert translation.ignored == ("messages[].content (thinking)",)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive"}}, {}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"reasoning_effort": "low"},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 31999, "display": "omitted"}},
            {"reasoning_effort": "high"},
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
            {"reasoning_effort": "medium"},
        ),
        ({"cache_control": {"type": "ephemeral"}, "context_management": {"edits": []}}, {}),
        ({"speed": "standard", "mcp_servers": []}, {}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "answer",
                        "schema": {"type": "object"},
                        "strict": True,
                    },
                }
            },
        ),
    ],
    ids=str,
)
def test_parameters(asked: dict[str, Any], told: dict[str, Any]) -> None:
    assert sent("messages", "chat", **asked) == {**sent("messages", "chat"), **told}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "f"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
    ids=str,
)
def test_tools(choice: Any, told: dict[str, Any]) -> None:
    body = sent("messages", "chat", tools=[TOOL], tool_choice=choice)
    function = {"name": "f", "description": "d", "parameters": TOOL["input_schema"]}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert {name: body[name] for name in body if name in told or "tool_c" in name} == told


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"top_k": 5}, "top_k"),
        ({"container": "c"}, "container"),
        ({"speed": "fast"}, "speed"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"new_thing": 1}, "new_thing"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"new": 1}}, "output_config.new"),
        ({"metadata": {"new": 1}}, "metadata.new"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [user({"type": "server_tool_use"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "tool_use"})]}, "messages[0].content[0].type"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [user({**PICTURE, "new": 1})]},
            "messages[0].content[0].new",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_translated_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as caught:
        sent("messages", "chat", **asked)
    assert caught.value.param == param
    assert param in caught.value.message


def test_a_request_of_claude_codes_shape_passes() -> None:
    body = sent(
        "messages",
        "chat",
        system=[{**text("You are."), "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        tools=[{**TOOL, "eager_input_streaming": True, "cache_control": {"type": "ephemeral"}}],
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        metadata={"user_id": "{}"},
        stream=True,
    )
    assert body["reasoning_effort"] == "high"
