"""The commands around batches: what is asked of the server, and what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest

from stationmaster.cli import batches
from tests.support.command import Command
from tests.support.scripted_http import Answer, ScriptedServer

REQUEST: Any = {"custom_id": "a", "params": {"model": "haiku"}}
SUBMISSION: Any = {
    "id": "bsub_1",
    "provider": "claude",
    "model": "claude-haiku-4-5",
    "state": "in_progress",
    "requests": 3,
    "counts": {"processing": 2, "succeeded": 0, "errored": 1},
    "note": "It cannot be reached.",
}


def batch(status: str = "in_progress", **counts: int) -> dict[str, Any]:
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    return {
        "id": "msgbatch_1",
        "processing_status": status,
        "request_counts": {name: counts.get(name, 0) for name in names},
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
        "ended_at": None,
    }


@pytest.fixture
def command(command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr(batches, "POLL_S", 0)

    def call(*arguments: str) -> tuple[int, str, str]:
        return command("batches", *arguments)

    return call


def test_a_file_becomes_a_batch_and_is_waited_for(
    server: ScriptedServer, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(f"{json.dumps(REQUEST)}\n\n{json.dumps({**REQUEST, 'custom_id': 'b'})}\n")
    server.answers = [
        Answer.of(batch(processing=2)),
        Answer.of(batch(processing=1, succeeded=1)),
        Answer.of(batch("ended", succeeded=1, errored=1)),
    ]
    code, out, _ = command("create", str(file), "--wait", "-o", "json")
    assert (code, json.loads(out)["processing_status"]) == (0, "ended")
    made = server.requests[0]
    assert [each["custom_id"] for each in made.json["requests"]] == ["a", "b"]
    assert made.headers["idempotency-key"]
    assert [request.method for request in server.requests] == ["POST", "GET", "GET"]


def test_a_batch_that_may_have_been_made_is_asked_for_under_the_same_key(
    server: ScriptedServer, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(json.dumps(REQUEST))
    server.answers = [
        Answer.problem(502, "upstream_error", retry_after="0"),
        Answer.of(batch(processing=1)),
    ]
    assert command("create", str(file))[0] == 0
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_file_with_a_wrong_line_makes_nothing(
    server: ScriptedServer, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(f"{json.dumps(REQUEST)}\n[1]\n")
    code, _, err = command("create", str(file))
    assert (code, server.requests) == (5, [])
    assert "line 2" in err


def test_batches_are_listed_shown_cancelled_and_deleted(
    server: ScriptedServer, command: Command
) -> None:
    page = {"data": [batch(processing=3)], "has_more": True, "last_id": "msgbatch_1"}
    server.answers = [
        Answer.of(page),
        Answer.of(batch(processing=3)),
        Answer.of({"object": "list", "data": [SUBMISSION]}),
        Answer.of(batch("canceling", processing=1, canceled=2)),
        Answer.of({"id": "msgbatch_1", "type": "message_batch_deleted"}),
    ]
    code, out, err = command("list")
    assert (code, err) == (0, "There are more: --after msgbatch_1\n")
    assert out.splitlines()[1].split()[:4] == [
        "msgbatch_1",
        "in_progress",
        "2026-01-01T00:00:00Z",
        "3",
    ]
    shown = command("show", "msgbatch_1")[1]
    assert "processing:  3" in shown
    assert (
        "at provider: claude, claude-haiku-4-5, 3 requests, in progress, 2 processing, 1 errored:"
        " It cannot be reached." in shown
    )
    assert "canceling" in command("cancel", "msgbatch_1")[1]
    assert command("delete", "msgbatch_1")[1] == "Batch msgbatch_1 is deleted.\n"
    assert [(request.method, request.path) for request in server.requests][1:] == [
        ("GET", "/v1/messages/batches/msgbatch_1"),
        ("GET", "/v1/batches/msgbatch_1/submissions"),
        ("POST", "/v1/messages/batches/msgbatch_1/cancel"),
        ("DELETE", "/v1/messages/batches/msgbatch_1"),
    ]


def test_results_go_to_stdout_or_to_a_file(
    server: ScriptedServer, command: Command, tmp_path: Path
) -> None:
    lines = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'
    server.answers = [Answer(200, lines), Answer(200, lines)]
    assert command("results", "msgbatch_1")[1].encode() == lines
    file = tmp_path / "results.jsonl"
    code, out, _ = command("results", "msgbatch_1", "--to", str(file))
    assert (code, out, file.read_bytes()) == (0, "", lines)
