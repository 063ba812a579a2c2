from pathlib import Path
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    RateLimitEvent,
    RateLimitInfo,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from stationmaster.agents.base import (
    Delta,
    Finished,
    LaunchSpec,
    Message,
    Started,
    Thinking,
    ToolResult,
    ToolUse,
)
from stationmaster.agents.claude_code.toolbox import Toolbox
from stationmaster.agents.claude_code.translate import Translator, finished


def _result(**changes: Any) -> ResultMessage:
    values: dict[str, Any] = {
        "subtype": "success",
        "duration_ms": 1,
        "duration_api_ms": 1,
        "is_error": False,
        "num_turns": 2,
        "session_id": "s",
        "total_cost_usd": 0.5,
        "result": "done",
    }
    return ResultMessage(**{**values, **changes})


_SPEC = LaunchSpec(
    session_id="s",
    workspace=Path("/w"),
    home=Path("/h"),
    gateway_socket=Path("/g"),
    gateway_url="http://127.0.0.1:1",
    token="token",
    model="asked-model",
)


def _translate(*messages: object) -> list[object]:
    translator = Translator(_SPEC, Toolbox(_SPEC))
    return [event for message in messages for event in translator.translate(message)]


_INIT = SystemMessage(
    "init",
    {"session_id": "s", "model": "m", "tools": ["Read"], "claude_code_version": "2.1.0"},
)
_STARTED = Started("s", "m", ("Read",), "2.1.0")


def test_a_turn() -> None:
    assert _translate(
        _INIT,
        AssistantMessage(
            [ThinkingBlock("hm", "sig"), TextBlock("hello"), ToolUseBlock("t1", "Read", {"a": 1})],
            "m",
        ),
        UserMessage([ToolResultBlock("t1", "text", None), TextBlock("a reminder")]),
        _result(),
    ) == [
        _STARTED,
        Thinking("hm"),
        Message("hello"),
        ToolUse("t1", "Read", {"a": 1}),
        ToolResult("t1", "text", is_error=False),
        Finished("success", "done", 2, None, 0.5),
    ]


def test_it_starts_once_even_where_the_agent_says_so_late_or_twice() -> None:
    late = _translate(AssistantMessage([TextBlock("early")], "m"), _INIT, _INIT)
    assert late == [Started("", "asked-model", (), ""), Message("early")]
    assert _translate(_INIT, _INIT) == [_STARTED]


def test_deltas_of_the_main_turn_alone() -> None:
    def event(delta: object, parent: str | None = None) -> StreamEvent:
        return StreamEvent(
            "u", "s", {"type": "content_block_delta", "delta": delta}, parent_tool_use_id=parent
        )

    assert _translate(
        _INIT,
        event({"type": "text_delta", "text": "a"}),
        event({"type": "thinking_delta", "thinking": "b"}),
        event({"type": "input_json_delta", "partial_json": "{"}),
        event({"type": "signature_delta", "signature": "c"}),
        event({"type": "text_delta", "text": ""}),
        event({"type": "text_delta"}),
        event({"type": "newer_delta", "text": "?"}),
        event("nonsense"),
        event({"type": "text_delta", "text": "of a sub-agent"}, parent="t1"),
    ) == [_STARTED, Delta("text", "a"), Delta("thinking", "b"), Delta("tool_input", "{")]


def test_what_is_not_known_is_skipped() -> None:
    limit = RateLimitEvent(RateLimitInfo("allowed"), "u", "s")
    assert _translate(_INIT, SystemMessage("newer", {}), limit, object()) == [_STARTED]


def test_ends() -> None:
    def end(message: ResultMessage) -> object:
        return _translate(_INIT, message)[-1]

    assert end(_result(subtype="error_max_turns", is_error=True, result=None)) == Finished(
        "max_turns", "", 2, None, 0.5
    )
    assert end(_result(is_error=True, result="API Error: 400")) == Finished(
        "error", "API Error: 400", 2, "API Error: 400", 0.5
    )
    assert end(
        _result(subtype="error_during_execution", is_error=True, result=None, errors=["a", "b"])
    ) == Finished("error", "", 2, "a; b", 0.5)
    assert end(_result(subtype="newer_end", result=None)) == Finished(
        "error", "", 2, "newer_end", 0.5
    )


def test_the_end_by_a_budget_has_what_was_used() -> None:
    usage = {
        "input_tokens": 3,
        "output_tokens": 4,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": -1,
        "service_tier": "standard",
    }
    end = finished(_result(subtype="error_max_budget_usd", is_error=True, usage=usage))
    assert end.outcome == "max_cost"
    assert end.reported_usage == {
        "input_tokens": 3,
        "output_tokens": 4,
        "cache_write_tokens": 0,
        "cache_read_tokens": 0,
    }
