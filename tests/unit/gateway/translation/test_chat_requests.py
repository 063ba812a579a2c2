"""Chat completion requests for a provider of Anthropic's format."""

import json
from typing import Any

import pytest

from stationmaster.gateway.translation import translate
from stationmaster.kernel.errors import Invalid
from tests.unit.gateway.translation.upstream import PNG, between, sent


def said(*messages: dict[str, Any]) -> dict[str, Any]:
    return sent("chat", "messages", messages=list(messages))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def calls(*ids: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": each, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
            for each in ids
        ],
    }


def test_a_small_request() -> None:
    assert sent("chat", "messages") == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_instructions_at_the_start_are_the_system_prompt_and_later_ones_stay() -> None:
    body = said(
        {"role": "system", "content": "one"},
        {"role": "developer", "content": [{"type": "text", "text": "two"}]},
        user("hi"),
        {"role": "system", "content": "three"},
    )
    assert body["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert [each["role"] for each in body["messages"]] == ["user", "system"]


def test_results_of_tools_become_one_turn_before_what_the_user_says() -> None:
    body = said(
        user("hi"),
        calls("c1", "c2"),
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": []},
        user("go on"),
    )
    assert body["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
            {"type": "tool_result", "tool_use_id": "c1"},
            {"type": "text", "text": "go on"},
        ],
    }
    assert body["messages"][1]["content"][0] == {
        "type": "tool_use",
        "id": "c1",
        "name": "f",
        "input": {"a": 1},
    }


def test_ids_of_other_models_keep_a_call_and_its_result_together() -> None:
    body = said(
        user("hi"),
        calls("functions.f:0"),
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"},
    )
    made = body["messages"][1]["content"][0]["id"]
    assert made.startswith("toolu_")
    assert body["messages"][2]["content"][0]["tool_use_id"] == made


def test_pictures_and_files() -> None:
    body = said(
        user(
            [
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
                },
            ]
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
            "title": "a.pdf",
        },
    ]


def test_thinking_returns_with_its_proof() -> None:
    proofs = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln", "index": 0},
        {"type": "redacted_thinking", "data": "eA==", "index": 1},
    ]
    answer = {
        "role": "assistant",
        "content": "yes",
        "reasoning_content": "Hm.",
        "thinking_blocks": proofs,
    }
    assert said(user("hi"), answer, user("so?"))["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "yes"},
    ]


def test_thinking_without_a_proof_is_left_out_and_named() -> None:
    answer = {"role": "assistant", "content": "yes", "reasoning_content": "Hm."}
    translation = between("chat", "messages", messages=[user("hi"), answer])
    assert json.loads(translation.body)["messages"][1]["content"] == "yes"
    assert translation.ignored == ("messages[].reasoning_content",)


def test_an_answer_of_openais_client_goes_back_as_it_came() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "yes",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert said(user("hi"), answer)["messages"][1] == {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 6}, {"max_tokens": 6}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1, "top_p": 0.5}, {"top_p": 0.5}),
        ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"user": "u", "safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"stream": True}, {"stream": True}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        (
            {"reasoning_effort": "low"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            {"reasoning_effort": "high", "max_tokens": 9000},
            {"thinking": {"type": "enabled", "budget_tokens": 4500}, "max_tokens": 9000},
        ),
        ({"n": 1, "logprobs": False, "top_logprobs": None, "frequency_penalty": 0.0}, {}),
        ({"response_format": {"type": "text"}, "modalities": ["text"], "store": False}, {}),
    ],
    ids=str,
)
def test_parameters(asked: dict[str, Any], told: dict[str, Any]) -> None:
    assert sent("chat", "messages", **asked) == {**sent("chat", "messages"), **told}


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("claude-opus-4-6", True),
        ("claude-sonnet-5-5", True),
        ("claude-mythos-preview", True),
        ("claude-opus-4-5-20251101", False),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-3-7-sonnet", False),
        ("glm-5", False),
    ],
)
def test_how_a_model_is_asked_to_think(model: str, adaptive: bool) -> None:
    translation = between("chat", "messages", model=model, reasoning_effort="medium")
    body = json.loads(translation.body)
    if adaptive:
        assert body["thinking"] == {"type": "adaptive"}
        assert body["output_config"] == {"effort": "medium"}
    else:
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"type": "tool", "name": "f"},
        ),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": True}, None),
    ],
    ids=str,
)
def test_tools(asked: dict[str, Any], choice: Any) -> None:
    body = sent("chat", "messages", tools=[TOOL], **asked)
    assert body["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    assert body.get("tool_choice") == choice


def test_a_strict_tool_is_closed() -> None:
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    tool = sent("chat", "messages", tools=[strict])["tools"][0]
    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False


def test_structured_output_in_the_words_that_anthropic_knows() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["n"],
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 9, "description": "How many."},
            "when": {"type": ["string", "null"], "format": "date"},
            "what": {"oneOf": [{"$ref": "#/$defs/a"}, {"const": None}]},
            "rest": {"type": "array", "items": {"type": "string", "pattern": "x"}, "minItems": 1},
        },
        "$defs": {"a": {"type": "object", "properties": {}}},
    }
    asked = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert sent("chat", "messages", response_format=asked)["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "required": ["n"],
            "additionalProperties": False,
            "properties": {
                "n": {"type": "integer", "description": "How many.\n\n{minimum: 1, maximum: 9}"},
                "when": {"type": ["string", "null"], "format": "date"},
                "what": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": None}]},
                "rest": {
                    "type": "array",
                    "items": {"type": "string", "description": '{pattern: "x"}'},
                    "minItems": 1,
                },
            },
            "$defs": {"a": {"type": "object", "properties": {}, "additionalProperties": False}},
        },
    }


def schema(inside: Any) -> dict[str, Any]:
    described = {"name": "n", "schema": inside}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"seed": 1}, "seed"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 0.5, "top_p": 0.5}, "top_p"),
        ({"top_p": 7}, "top_p"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"new_thing": 1}, "new_thing"),
        ({"stream_options": {"new_thing": 1}}, "stream_options.new_thing"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (schema({"properties": {}}), "response_format"),
        (schema({"type": "object", "properties": {"a": 1}}), "response_format"),
        (schema({"type": "object", "additionalProperties": {"type": "string"}}), "response_format"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "max_tokens": 1000}, "reasoning_effort"),
        ({"reasoning_effort": "low", "temperature": 0.5}, "temperature"),
        ({"reasoning_effort": "low", "tool_choice": "required", "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "custom"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"functions": [{"name": "f"}]}, "functions"),
        (
            {
                "tools": [
                    TOOL,
                    {
                        "type": "function",
                        "function": {
                            "name": "g",
                            "strict": True,
                            "parameters": {"type": "object", "properties": {"a": {}}},
                        },
                    },
                ]
            },
            "tools[1]",
        ),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{"role": "function"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a", "new": 1}]}, "messages[0].new"),
        ({"messages": [user([{"type": "input_audio"}])]}, "messages[0].content[0].type"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text"),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": "file:///x"}}])]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {
                "messages": [
                    user([{"type": "image_url", "image_url": {"url": "data:image/png,???"}}])
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [user([{"type": "file", "file": {"file_id": "f"}}])]},
            "messages[0].content[0].file.file_id",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[]"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_translated_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as caught:
        sent("chat", "messages", **asked)
    assert caught.value.param == param
    assert param in caught.value.message


def test_names_do_not_reach_the_provider() -> None:
    translation = between("chat", "messages", messages=[{**user("hi"), "name": "bob"}])
    assert b"bob" not in translation.body
    assert translation.ignored == ("messages[].name",)


def test_only_formats_that_differ_are_translated() -> None:
    with pytest.raises(Invalid):
        translate("chat", "chat", b"{}", model="m", default_max_tokens=1)
    with pytest.raises(Invalid):
        translate("embeddings", "chat", b"{}", model="m", default_max_tokens=1)
