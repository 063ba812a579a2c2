"""A task's events in words: what a person reads, whatever it is shown on."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from stationmaster.cli.printing import dollars, one_line, safe
from stationmaster.client import TaskEvent

Style = Literal["status", "thinking", "text", "tool", "input", "result", "failure", "done"]

_LINES = 16  # of a tool's input or result; all of it is in the task's log
_WIDTH = 500  # characters of one such line
_PER_DOLLAR = 1_000_000
_CLAIMED = {
    "run.started": ("running", "running"),
    "run.requeued": ("queued", "its server was lost; another will begin it"),
}
# A session's workspace, wherever the server keeps it: what matters to a reader is below it.
_WORKSPACE = re.compile(r"/(?:sesn|slot)_[0-9a-z]{26}/(?:run_[0-9a-z]{26}/)?")
# Word by word: one pattern for all of it would look from every slash of a long text to its end.
_WORD = re.compile(r"[^\s'\"]+")


@dataclass(frozen=True, slots=True)
class Line:
    """Something to show. The text may have several lines, and nothing in it acts on a terminal."""

    style: Style
    text: str


class Narrator:
    """Follows one task. `cost` is in US dollars, of the model calls that have ended."""

    def __init__(self) -> None:
        self.cost = 0.0
        self.calls = 0
        self.tokens = 0
        self.state = "queued"

    def lines(self, event: TaskEvent) -> list[Line]:
        """What this event has to say; nothing for one that only counts."""
        data, lines = event.data, list[Line]()
        match event.type:
            case "run.started" | "run.requeued":
                self.state, said = _CLAIMED[event.type]
                lines = [Line("status", said)]
            case "run.agent_ready":
                lines = [Line("status", _agent(data))]
            case "agent.thinking":
                lines = [Line("thinking", safe(data.get("thinking", "")).strip())]
            case "agent.message":
                lines = [Line("text", _content(data.get("content")).strip())]
            case "agent.tool_use":
                lines = _tool(data)
            case "agent.tool_result":
                lines = [_result(data)]
            case "span.model_request_end":
                self._count(data)
            case "run.cancel_requested":
                lines = [Line("status", "stopping, as was asked for")]
            case "run.ended":
                lines = self._end(data)
        return lines

    def _count(self, data: dict[str, Any]) -> None:
        self.calls += 1
        self.cost += float(data.get("cost") or 0) / _PER_DOLLAR
        usage = data.get("usage")
        if isinstance(usage, dict):
            self.tokens += sum(int(count or 0) for count in usage.values())

    def _end(self, data: dict[str, Any]) -> list[Line]:
        self.state = str(data.get("state", "ended")).replace("_", " ")
        self.cost = float(data.get("cost") or 0) / _PER_DOLLAR
        self.calls = int(data.get("model_calls") or self.calls)
        lines = []
        error = data.get("error")
        if isinstance(error, dict):
            lines.append(Line("failure", safe(f"{error.get('message')} ({error.get('code')})")))
            if error.get("stderr_tail"):
                lines.append(Line("result", _shortened(error["stderr_tail"])))
        style: Style = "done" if self.state == "completed" else "failure"
        return [*lines, Line(style, f"{safe(self.state)}: {self.so_far()}")]

    def so_far(self) -> str:
        """Cost and calls, in a few words."""
        calls = "1 model call" if self.calls == 1 else f"{self.calls} model calls"
        return f"{dollars(self.cost)}, {calls}"


def _agent(data: dict[str, Any]) -> str:
    agent = data.get("agent")
    if not isinstance(agent, dict):
        return "the agent is ready"
    name = "Claude Code" if agent.get("name") == "claude_code" else agent.get("name")
    version, model, sandbox = (agent.get(key) for key in ("version", "model", "sandbox"))
    return one_line(f"{name} {version}, model {model}, sandbox {sandbox}", 200)


def _tool(data: dict[str, Any]) -> list[Line]:
    name, given = safe(data.get("name", "tool")), data.get("input")
    given = given if isinstance(given, dict) else {}
    if name == "Bash":
        return [Line("tool", f"Bash  $ {_shortened(given.get('command', ''))}")]
    path = given.get("file_path") or given.get("path") or given.get("pattern")
    if name == "Write":
        head = Line("tool", f"Write  {_path(path)}")
        return [head, Line("input", _shortened(given.get("content", "")))]
    if name in {"Read", "Glob", "Grep"} and path:
        return [Line("tool", f"{name}  {_path(path)}")]
    head = Line("tool", f"{name}  {_path(path)}" if path else name)
    rest = {key: value for key, value in given.items() if value != path}
    return [head, Line("input", _shortened(json.dumps(rest, indent=2)))] if rest else [head]


def _path(path: object) -> str:
    return _WORD.sub(_below, one_line(path, 300))


def _below(word: re.Match[str]) -> str:
    """A word without the path of a workspace in it."""
    text = word[0]
    first, found = text.find("/"), list(_WORKSPACE.finditer(text))
    if not found or found[-1].start() <= first:
        return text
    return text[:first] + text[found[-1].end() :]


def _result(data: dict[str, Any]) -> Line:
    text = _shortened(_content(data.get("content"))) or "(no output)"
    return Line("failure" if data.get("is_error") else "result", text)


def _content(content: object) -> str:
    if isinstance(content, str):
        return safe(content)
    if not isinstance(content, list):
        return ""
    blocks = [block for block in content if isinstance(block, dict)]
    return safe("\n".join(str(block.get("text", f"[{block.get('type')}]")) for block in blocks))


def _shortened(text: object) -> str:
    lines = _WORD.sub(_below, safe(text)).rstrip().split("\n")
    shown = [line if len(line) <= _WIDTH else line[:_WIDTH] + "…" for line in lines[:_LINES]]
    if len(lines) > _LINES:
        shown.append(f"… {len(lines) - _LINES} more lines")
    return "\n".join(shown)
