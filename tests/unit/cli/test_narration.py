import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stationmaster.cli.narration import Narrator
from stationmaster.cli.printing import count_of, dollars, one_line, safe, size
from stationmaster.cli.view import LiveView, PlainView, open_view
from stationmaster.client import TaskEvent

SESSION = "/srv/data/workspaces/sessions/sesn_" + "0" * 26
USAGE = {"input_tokens": 10, "output_tokens": 5}
STORY = [
    TaskEvent(1, "run.queued", {}),
    TaskEvent(2, "run.started", {"epoch": 1}),
    TaskEvent(
        3,
        "run.agent_ready",
        {"agent": {"name": "claude_code", "version": "2.1", "model": "m", "sandbox": "bubblewrap"}},
    ),
    TaskEvent(4, "agent.thinking", {"thinking": "Hm."}),
    TaskEvent(5, "agent.message", {"content": [{"type": "text", "text": "My plan.\nStep."}]}),
    TaskEvent(
        6,
        "agent.tool_use",
        {"name": "Write", "input": {"file_path": f"{SESSION}/a.py", "content": "print(1)\n"}},
    ),
    TaskEvent(7, "agent.tool_result", {"content": "written", "is_error": False}),
    TaskEvent(8, "agent.tool_use", {"name": "Bash", "input": {"command": f"cat {SESSION}/a.py"}}),
    TaskEvent(9, "agent.tool_result", {"content": [{"text": "no"}], "is_error": True}),
    TaskEvent(10, "span.model_request_end", {"cost": 1500, "usage": USAGE}),
    TaskEvent(11, "run.ended", {"state": "completed", "cost": 1500, "model_calls": 1}),
]
TOLD = """\
· running
· Claude Code 2.1, model m, sandbox bubblewrap
  Hm.
My plan.
Step.
> Write  a.py
    print(1)
    written
> Bash  $ cat a.py
! no
= completed: $0.001500, 1 model call
"""


def test_a_task_is_told_in_plain_lines() -> None:
    stream = io.StringIO()
    with open_view(stream) as view:
        for event in STORY:
            view.show(event)
    assert stream.getvalue() == TOLD


def test_a_terminal_shows_the_same_and_what_is_being_written() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with LiveView(console) as view:
        view.note("task run_1")
        view.show(TaskEvent(None, "agent.delta", {"kind": "text", "text": "in the mak"}))
        view.show(TaskEvent(None, "agent.delta", {"kind": "text", "text": "ing"}))
        view._live.refresh()
        for event in STORY:
            view.show(event)
    shown = stream.getvalue()
    assert "in the making" in shown
    assert all(line in shown for line in TOLD.splitlines())


def test_a_failure_says_why() -> None:
    error = {"code": "agent_exited", "message": "It ended.", "stderr_tail": "Segfault\n"}
    ended = TaskEvent(3, "run.ended", {"state": "timed_out", "error": error, "cost": 0})
    stream = io.StringIO()
    PlainView(stream).show(ended)
    assert stream.getvalue() == (
        "! It ended. (agent_exited)\n    Segfault\n! timed out: $0.0000, 0 model calls\n"
    )


def test_long_results_are_shortened() -> None:
    text = "\n".join(map(str, range(100)))
    [line] = Narrator().lines(TaskEvent(1, "agent.tool_result", {"content": text}))
    assert line.text.splitlines()[-1] == "… 84 more lines"


def test_a_task_that_is_begun_again_says_so() -> None:
    narrator, given_back = Narrator(), {"reason": "worker_lost", "lost": 1}
    told = [
        line.text
        for event in (
            TaskEvent(1, "run.started", {"epoch": 1}),
            TaskEvent(2, "run.requeued", given_back),
            TaskEvent(3, "run.started", {"epoch": 3}),
        )
        for line in narrator.lines(event)
    ]
    assert told == ["running", "its server was lost; another will begin it", "running"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["content", "input", "name", "agent", "error", "thinking", "command"])
KINDS = st.sampled_from(["agent.message", "agent.tool_use", "agent.tool_result", "agent.thinking"])


@given(KINDS, st.dictionaries(FIELDS, JSON))
def test_nothing_an_agent_writes_acts_on_the_terminal(kind: str, data: dict[str, Any]) -> None:
    stream = io.StringIO()
    PlainView(stream).show(TaskEvent(1, kind, data))
    assert not set(stream.getvalue()) & {"\x1b", "\r", "\x07", "\x9b", "\u202e"}


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\rb", "a\\x0db"),
        ("a\r\nb", "a\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\x202egnp.exe"),
        ("\ud800", "?"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_text_is_made_safe(hostile: str, shown: str) -> None:
    assert safe(hostile) == shown


def test_numbers_for_people() -> None:
    assert [dollars(amount) for amount in (0, 0.00012, 1.5)] == ["$0.0000", "$0.000120", "$1.5000"]
    assert [size(count) for count in (5, 2048, 3 * 1024**2)] == ["5 B", "2.0 KB", "3.0 MB"]
    assert [count_of(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert one_line("a\n  b" + "c" * 100, 8) == "a bcccc…"
