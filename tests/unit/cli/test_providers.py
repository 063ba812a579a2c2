"""`stationmaster providers`, `process` and `route`: what is asked, and what is printed."""

import io
import json
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.scripted_http import Answer, ScriptedServer

PROVIDERS: Any = [
    {"name": "anthropic", "available": True, "models": ["haiku", "sonnet"]},
    {"name": "local", "available": False, "models": []},
]
MODELS: Any = {
    "provider": "anthropic",
    "models": {
        "haiku": {
            "max_tokens": 64000,
            "context_window": 200000,
            "supports_functions": True,
            "supports_vision": None,
        }
    },
}
ANSWER: Any = {
    "content": "A pear.\x1b[31m",
    "model": "gpt-4",
    "provider": "openai",
    "metadata": {
        "actual_model": "claude-sonnet-5-5",
        "actual_provider": "anthropic",
        "usage": {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200},
        "cost_usd": 0.02,
        "mapped_from": "openai:gpt-4 → anthropic:sonnet",
    },
}
ADVICE: Any = {"recommended_model": "haiku", "reasoning": "It is simple.", "budget_status": {}}


def test_providers_are_listed(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of(PROVIDERS), Answer.of(PROVIDERS)]
    code, out, _ = command("providers", "list")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["PROVIDER", "AVAILABLE", "MODELS"],
        ["anthropic", "yes", "haiku,", "sonnet"],
        ["local", "no"],
    ]
    assert json.loads(command("-o", "json", "providers", "list")[1]) == PROVIDERS
    assert {request.path for request in server.requests} == {"/v1/providers"}


def test_what_agents_can_be_given_is_listed(server: ScriptedServer, command: Command) -> None:
    offered: Any = {
        "agents": [{"id": "agent_1", "name": "helper", "description": None}],
        "skills": [{"name": "tidy", "description": "Tidies.\x1b[31m", "command": "/tidy"}],
        "mcp_servers": [{"name": "docs", "url": "catalogue://docs"}],
        "tools": ["Bash", "Read"],
    }
    server.answers = [Answer.of(offered), Answer.of(offered)]
    code, out, _ = command("capabilities")
    assert code == 0
    assert "\x1b" not in out
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["agent", "agent_1", "helper"],
        ["skill", "tidy", "Tidies."],
        ["tool", "server", "docs"],
        ["tool", "Bash"],
        ["tool", "Read"],
    ]
    assert json.loads(command("-o", "json", "capabilities")[1]) == offered
    assert {request.path for request in server.requests} == {"/v1/capabilities"}


def test_a_providers_models_are_shown(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of(MODELS), Answer.of(MODELS), Answer.problem(404, "not_found")]
    code, out, _ = command("providers", "models", "a/b")
    assert code == 0
    assert out.splitlines()[1].split() == ["haiku", "200,000", "64,000", "yes", "unknown"]
    assert json.loads(command("providers", "models", "a/b", "-o", "json")[1]) == MODELS
    assert server.requests[0].path == "/v1/providers/a%2Fb/models"
    assert command("providers", "models", "nobody")[0] != 0


def test_an_answer_is_printed_and_its_cost_beside_it(
    server: ScriptedServer, command: Command
) -> None:
    server.answers = [Answer.of(ANSWER), Answer.of(ANSWER)]
    code, out, err = command("process", "openai", "gpt-4", "Name a fruit.", "--max-tokens", "9")
    assert (code, out) == (0, "A pear.\n")
    assert "anthropic:claude-sonnet-5-5, 1,200 tokens, $0.0200" in err
    assert "openai:gpt-4 → anthropic:sonnet" in err
    asked = server.requests[0]
    assert (asked.method, asked.path) == ("POST", "/v1/process")
    assert asked.json == {
        "provider": "openai",
        "model_name": "gpt-4",
        "user_message": "Name a fruit.",
        "max_tokens": 9,
    }
    told = command("process", "openai", "gpt-4", "x", "--system", "s", "--temperature", "0")
    assert told[0] == 0
    assert server.requests[1].json["system_message"] == "s"
    assert server.requests[1].json["temperature"] == 0


def test_a_prompt_comes_from_stdin(
    server: ScriptedServer, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe."))
    server.answers = [Answer.of(ANSWER)]
    assert json.loads(command("-o", "json", "process", "p", "m", "-")[1]) == ANSWER
    assert server.requests[0].json["user_message"] == "From a pipe."


def test_a_call_that_may_have_been_made_is_not_made_again(
    server: ScriptedServer, command: Command
) -> None:
    server.answers = [Answer.problem(502, "upstream_error", retry_after="0"), Answer.of(ANSWER)]
    assert command("process", "p", "m", "x")[0] != 0
    assert len(server.requests) == 1


def test_a_route_is_told_with_its_reason(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of(ADVICE), Answer.of(ADVICE)]
    assert command("route", "List them", "--context-size", "20")[:2] == (
        0,
        "haiku: It is simple.\n",
    )
    assert server.requests[0].json == {"prompt": "List them", "context_size": 20}
    assert json.loads(command("-o", "json", "route", "List them")[1]) == ADVICE
