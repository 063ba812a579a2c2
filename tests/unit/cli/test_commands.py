"""Commands against a scripted server: what is asked, what is printed, how they exit."""

import json
from pathlib import Path

import pytest

from stationmaster.cli.application import run
from stationmaster.cli.printing import Output
from stationmaster.cli.target import Shared
from tests.support.command import Command
from tests.support.scripted_http import Answer, ScriptedServer, sse

TASK = {
    "task_id": "run_1",
    "status": "completed",
    "description": "Do it.",
    "created_at": "2026-01-01T00:00:00.000Z",
    "result": {"summary": "Done \x1b[31mred"},
    "usage": {"total_cost": 0.5, "total_tokens": 1200},
}


def test_tasks_are_listed(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of({"tasks": [TASK], "next": "run_1"})]
    code, out, err = command("tasks", "list", "--limit", "1", "--status", "completed")
    assert code == 0
    assert out.splitlines() == [
        "ID     STATUS     CREATED                   COST     DESCRIPTION",
        "run_1  completed  2026-01-01T00:00:00.000Z  $0.5000  Do it.",
    ]
    assert err == "There are more: --after run_1\n"
    assert server.requests[0].path == "/v1/tasks?limit=1&status=completed"
    assert server.requests[0].headers["authorization"] == "Bearer sm_live_test"


@pytest.mark.parametrize(
    "arguments",
    [["--output", "json", "tasks", "show", "run_1"], ["tasks", "show", "run_1", "-o", "json"]],
)
def test_json_is_asked_for_before_or_behind_the_command(
    server: ScriptedServer, command: Command, arguments: list[str]
) -> None:
    server.answers = [Answer.of(TASK)]
    code, out, _ = command(*arguments)
    assert (code, json.loads(out)) == (0, TASK)


def test_a_task_is_shown_and_nothing_in_it_acts(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of(TASK)]
    code, out, _ = command("tasks", "show", "run_1")
    assert code == 0
    assert "cost:        $0.5000 for 1,200 tokens" in out
    assert "Done red" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("timeout", 6)])
def test_following_exits_as_the_task_ends(
    server: ScriptedServer, command: Command, status: str, code: int
) -> None:
    stream = Answer.events(sse(1, "run.started"), sse(2, "run.ended", {"state": status}))
    server.answers = [stream, Answer.of(TASK | {"status": status})]
    found, out, _ = command("tasks", "follow", "run_1")
    assert found == code
    assert out.startswith("· running\n")


def test_following_as_json_is_an_event_a_line(server: ScriptedServer, command: Command) -> None:
    stream = Answer.events(sse(1, "run.started"), sse(2, "run.ended", {"state": "completed"}))
    server.answers = [stream, Answer.of(TASK)]
    _, out, _ = command("tasks", "follow", "run_1", "--output", "json")
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 2]


def test_a_key_is_the_only_thing_on_stdout(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of({"id": "key_1", "name": "bot", "key": "sm_live_x"}, 201)]
    code, out, err = command("keys", "create", "bot", "--permission", "read:tasks")
    assert (code, out) == (0, "sm_live_x\n")
    assert "key_1" in err
    assert server.requests[0].json == {"name": "bot", "permissions": ["read:tasks"]}


def test_usage_is_a_table(server: ScriptedServer, command: Command) -> None:
    by_model = {"sonnet": {"tokens": 1200, "cost": 0.5}}
    totals = {"total_tokens": 1200, "total_cost": 0.5}
    server.answers = [
        Answer.of({"project_id": "p", "period": "day", "by_model": by_model, **totals})
    ]
    code, out, _ = command("usage", "--period", "day")
    assert code == 0
    assert out.splitlines()[1:] == [
        "MODEL   TOKENS  COST",
        "sonnet  1,200   $0.5000",
        "all     1,200   $0.5000",
    ]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "unauthenticated", 3),
        (403, "permission_denied", 3),
        (404, "not_found", 4),
        (422, "invalid_request", 5),
        (402, "budget_exceeded", 6),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    server: ScriptedServer, command: Command, status: int, code: str, exit_code: int
) -> None:
    server.answers = [Answer.problem(status, code, "Not \x1b[2Jnow.")]
    found, out, err = command("tasks", "show", "run_1")
    assert (found, out) == (exit_code, "")
    assert err.startswith("error: Not now.")
    assert err.count("\n") == 1


def test_detaching_prints_the_id_alone(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of({"task_id": "run_9", "status": "pending"}, 202)]
    code, out, _ = command("run", "Do it.", "--detach", "--tools", "Read, Grep", "--max-cost", "2")
    assert (code, out) == (0, "run_9\n")
    assert server.requests[0].json == {
        "description": "Do it.",
        "allow_tools": ["Read", "Grep"],
        "max_cost": 2.0,
    }


def test_what_a_task_may_use_is_named_with_commas(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of({"task_id": "run_9", "status": "pending"}, 202)]
    named = ("--agents", "a,b", "--skills", "pdf", "--mcp-servers", " docs ,", "--tags", "team")
    command("run", "Do it.", "--detach", *named)
    assert server.requests[0].json == {
        "description": "Do it.",
        "allow_agents": ["a", "b"],
        "allow_skills": ["pdf"],
        "mcp_servers": ["docs"],
        "tags": ["team"],
    }


def test_no_tools_are_none_at_all(server: ScriptedServer, command: Command) -> None:
    server.answers = [Answer.of({"task_id": "run_9", "status": "pending"}, 202)]
    command("run", "Do it.", "--detach", "--tools", "")
    assert server.requests[0].json["allow_tools"] == []


def test_running_shows_the_task_and_its_files(
    server: ScriptedServer, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    changed = {"path": "b.txt", "type": "file", "change": "created", "size_bytes": 1}
    server.answers = [
        Answer.of({"task_id": "run_1", "status": "pending"}, 202),
        Answer.events(sse(1, "run.ended", {"state": "completed", "cost": 500_000})),
        Answer.of(TASK),
        Answer.of({"artifacts": [changed]}),
    ]
    code, out, _ = command("run", "Do it.", "--dir", str(tmp_path))
    assert code == 0
    assert out.splitlines() == [
        "Sending 1 file, 1 B.",
        "· task run_1",
        "= completed: $0.5000, 0 model calls",
        "  created   b.txt",
        "Nothing was changed here; --apply or --out brings the changes back.",
    ]
    assert b'name="archive"' in server.requests[0].body


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "x", "--apply"],
        ["run", "x", "--detach", "--out", "o"],
        ["run"],
        ["nothing"],
        ["usage", "--period", "year"],
        ["tasks", "list", "--limit", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_asks_nothing(
    server: ScriptedServer, command: Command, arguments: list[str]
) -> None:
    code, _, err = command(*arguments)
    assert code == 2
    assert err
    assert server.requests == []


def test_a_fault_of_ours_is_told_without_a_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Shared, "target", broken)
    code, _, err = command("usage")
    assert code == 70
    assert "ZeroDivisionError: oh" in err
    assert "Traceback" not in err
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "usage"])


# --- the server and the key -------------------------------------------------------------------


def test_a_named_key_file_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("key-one\n")
    (tmp_path / "two").write_text("key-two\n")
    monkeypatch.setenv("STATIONMASTER_KEY_FILE", str(tmp_path / "two"))
    monkeypatch.delenv("STATIONMASTER_API_KEY", raising=False)
    monkeypatch.delenv("STATIONMASTER_URL", raising=False)
    shared = Shared(Output.table)
    assert shared.target(None, None).key == "key-two"
    monkeypatch.setenv("STATIONMASTER_API_KEY", "key-env")
    assert shared.target(None, None).key == "key-env"
    assert shared.target(None, tmp_path / "one").key == "key-one"
    assert shared.target(None, None).url is None
    assert shared.target("http://x", None).url == "http://x"


@pytest.mark.parametrize("content", ["", "two words", "x" * 5000])
def test_a_key_file_holds_one_key(command: Command, tmp_path: Path, content: str) -> None:
    (tmp_path / "key").write_text(content)
    code, _, err = command("usage", "--key-file", str(tmp_path / "key"))
    assert code == 5
    assert "does not hold one API key" in err


def test_a_missing_key_file_is_said(command: Command, tmp_path: Path) -> None:
    code, _, err = command("usage", "--key-file", str(tmp_path / "none"))
    assert code == 5
    assert "No such file or directory" in err
