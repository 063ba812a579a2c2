"""`stationmaster calls`: what is asked, and what is printed."""

import json
from typing import Any

import pytest

from stationmaster.cli.application import run
from tests.support.scripted_http import Answer, ScriptedServer

CALL: Any = {
    "id": "call_1",
    "at": "2026-01-01T00:00:00Z",
    "model": "haiku",
    "operation": "messages",
    "outcome": "complete",
    "key_id": "key_1",
}
POLICY: Any = {"project_id": "proj_1", "enabled": False, "retention_days": 30, "rules": ["email"]}


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in server.requests]


def test_they_are_listed(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers = [Answer.of({"calls": [CALL], "next": "5.call_1"})] * 2
    assert run(["calls", "list", "--model", "haiku", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert "call_1" in said.out
    assert "--after 5.call_1" in said.err
    assert run(["-o", "json", "calls", "list"]) == 0
    assert json.loads(capsys.readouterr().out) == {"calls": [CALL], "next": "5.call_1"}
    assert asked(server)[0] == ("GET", "/v1/calls?limit=1&model=haiku")


def test_one_is_shown_and_forgotten(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [
        Answer.of({**CALL, "request": {"ask": 1}}),
        Answer.of({"deleted": 1}),
        Answer.of({"deleted": 1200}),
    ]
    assert run(["calls", "show", "call_1"]) == 0
    assert json.loads(capsys.readouterr().out)["request"] == {"ask": 1}
    assert run(["calls", "delete", "call_1"]) == 0
    assert run(["calls", "delete", "--all"]) == 0
    assert "1,200 calls" in capsys.readouterr().out
    assert run(["calls", "delete"]) != 0
    assert run(["calls", "delete", "call_1", "--all"]) != 0
    assert asked(server) == [
        ("GET", "/v1/calls/call_1"),
        ("DELETE", "/v1/calls/call_1"),
        ("DELETE", "/v1/calls"),
    ]


def test_a_policy_is_shown_and_changed_in_parts(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = [Answer.of(POLICY)] * 3
    assert run(["calls", "policy", "proj_1"]) == 0
    assert json.loads(capsys.readouterr().out) == POLICY
    change = ["--on", "--retention-days", "7", "--rule", "none", "--pattern", "a=b=c"]
    assert run(["calls", "policy", "proj_1", *change]) == 0
    path = "/api/admin/projects/proj_1/call-policy"
    assert asked(server) == [("GET", path), ("GET", path), ("PUT", path)]
    assert json.loads(server.requests[-1].body) == {
        "enabled": True,
        "retention_days": 7,
        "rules": [],
        "patterns": [{"name": "a", "pattern": "b=c"}],
    }
    assert run(["calls", "policy", "proj_1", "--pattern", "no equals sign"]) != 0
