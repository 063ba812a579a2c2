"""Responses requests for providers of either format."""

import json
from typing import Any

import pytest

from stationmaster.kernel.errors import Invalid
from tests.unit.gateway.translation.upstream import (
    STREAMS,
    between,
    events,
    sent,
    streamed,
)

TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "encrypted_content": "signature:c2ln",
    },
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "redacted:eA=="},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
    },
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "c2", "name": "f", "arguments": '{"a":1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "one"},
    {
        "type": "function_call_output",
        "call_id": "c2",
        "output": [{"type": "input_text", "text": "two"}],
    },
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "so?"}]},
]


def test_a_history_for_anthropic() -> None:
    body = sent("responses", "messages", input=HISTORY, instructions="be nice")
    assert body["system"] == "be nice"
    assert body["messages"] == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "eA=="},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "two"},
                {"type": "text", "text": "so?"},
            ],
        },
    ]


def test_a_history_for_a_chat_provider() -> None:
    body = sent("responses", "chat", input=HISTORY, instructions="be nice")
    assert [each["role"] for each in body["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert len(body["messages"][2]["tool_calls"]) == 2


@pytest.mark.parametrize("provider", ["messages", "chat"])
def test_what_came_out_can_go_in(provider: str) -> None:
    told = list(events(streamed(between("responses", provider, stream=True), STREAMS[provider])))
    output = told[-1]["response"]["output"]
    history = [{"role": "user", "content": "hi"}, *output]
    results = [
        {"type": "function_call_output", "call_id": each["call_id"], "output": "1"}
        for each in output
        if each["type"] == "function_call"
    ]
    translation = between("responses", provider, input=history + results)
    assert translation.ignored == ()
    answer = json.loads(translation.body)["messages"][1]
    if provider == "messages":
        assert answer["content"][:2] == [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "c2VjcmV0"},
        ]
    else:
        assert answer["reasoning_content"] == "Let me see."


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        ({"reasoning": {"summary": "auto"}}, {}),
        ({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}),
        ({"store": True, "metadata": {"a": "b"}, "previous_response_id": "resp_1"}, {}),
        ({"include": ["reasoning.encrypted_content"], "truncation": "disabled"}, {}),
        ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {
                "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "tool", "name": "f"},
            },
        ),
    ],
    ids=str,
)
def test_parameters(asked: dict[str, Any], told: dict[str, Any]) -> None:
    assert sent("responses", "messages", **asked) == {**sent("responses", "messages"), **told}


def test_structured_output() -> None:
    shape = {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "object"}}
    body = sent("responses", "chat", text={"format": shape})
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    body = sent("responses", "messages", text={"format": shape})
    assert body["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert sent("responses", "chat", text={"format": {"type": "json_object"}})[
        "response_format"
    ] == {"type": "json_object"}


def test_a_response_repeats_its_request() -> None:
    asked: dict[str, Any] = {
        "tools": [TOOL],
        "metadata": {"a": "b"},
        "previous_response_id": "resp_1",
    }
    told = list(
        events(streamed(between("responses", "chat", stream=True, **asked), STREAMS["chat"]))
    )
    for response in (told[0]["response"], told[-1]["response"]):
        assert {name: response[name] for name in asked} == asked


def test_a_secret_of_openais_is_left_out_and_named() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
    translation = between("responses", "messages", input=[{"role": "user", "content": "a"}, item])
    assert len(json.loads(translation.body)["messages"]) == 1
    assert "input[].encrypted_content" in translation.ignored


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"new_thing": 1}, "new_thing"),
        ({"temperature": 1.5}, "temperature"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "low"}, "max_output_tokens": 9}, "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "web_search"}, "tools": [TOOL]}, "tool_choice.type"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_translated_is_refused_by_name(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as caught:
        sent("responses", "messages", **asked)
    assert caught.value.param == param
