"""A session's turns on a terminal, in a pipe, or as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from stationmaster.cli.exits import Exit
from stationmaster.cli.narration import Line
from stationmaster.cli.printing import one_line, print_json_line, safe
from stationmaster.cli.view import View, open_view, plain
from stationmaster.client import TaskEvent

if TYPE_CHECKING:
    from stationmaster.client.sessions import SessionEvent

_CALLS = frozenset({"agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use"})
_ENDS = frozenset({"session.status_terminated", "session.deleted"})


@dataclass(frozen=True, slots=True)
class Turn:
    """How watching ended. `waits_for` are the ids of the events that somebody must answer.

    `over` tells that nothing more can happen in the session.
    """

    exit: Exit = Exit.DONE
    waits_for: tuple[str, ...] = ()
    over: bool = False


class Conversation:
    """Shows what happens in one session. `calls` are the calls of tools by their event's id."""

    def __init__(self, stream: TextIO, *, json: bool = False) -> None:
        self.calls: dict[str, dict[str, Any]] = {}
        self._stream = stream
        self._json = json
        self._failed = False

    def watch(self, events: "Iterator[SessionEvent]") -> Turn:
        """Show events until the session waits, or is over."""
        if self._json:
            return self._until_idle(events, None)
        with open_view(self._stream) as view:
            return self._until_idle(events, view)

    def _until_idle(self, events: "Iterator[SessionEvent]", view: View | None) -> Turn:
        self._failed = False
        for event in events:
            if view is None:
                if event.seq is not None:
                    print_json_line({"seq": event.seq, **event.data})
            else:
                self._show(event, view)
            if event.type in _CALLS:
                self.calls[str(event.data.get("id"))] = event.data
            if event.type == "session.error":
                self._failed = True
            if event.type in _ENDS:
                return Turn(Exit.FAILED if self._failed else Exit.DONE, over=True)
            if event.type == "session.status_idle":
                return self._idle(event.data.get("stop_reason"))
        return Turn(over=True)

    def _idle(self, reason: object) -> Turn:
        reason = reason if isinstance(reason, dict) else {}
        kind = reason.get("type")
        if kind == "requires_action":
            return Turn(Exit.LIMIT, waits_for=_texts(reason.get("event_ids")))
        if kind == "budget_reached":
            return Turn(Exit.LIMIT)
        return Turn(Exit.FAILED if self._failed or kind == "retries_exhausted" else Exit.DONE)

    def _show(self, event: "SessionEvent", view: View) -> None:
        data = event.data
        if event.type in _CALLS:
            view.show(TaskEvent(event.seq, "agent.tool_use", {**data, "name": tool_name(data)}))
        elif event.type in _TOLD:
            view.show(TaskEvent(event.seq, _TOLD[event.type], data))
        elif event.type == "event_delta":
            text = ((data.get("delta") or {}).get("content") or {}).get("text", "")
            view.show(TaskEvent(None, "agent.delta", {"kind": "text", "text": text}))
        elif (note := _note(event)) is not None:
            view.note(note)


# What has a task's words for it.
_TOLD = {
    "agent.message": "agent.message",
    "agent.thinking": "agent.thinking",
    "agent.tool_result": "agent.tool_result",
    "agent.mcp_tool_result": "agent.tool_result",
}


def _note(event: "SessionEvent") -> str | None:
    data = event.data
    match event.type:
        case "session.error":
            error = data.get("error") or {}
            return f"{error.get('type', 'error')}: {one_line(error.get('message'), 500)}"
        case "session.status_rescheduled":
            return "the server that ran this is gone; another goes on"
        case "session.status_terminated":
            return "the session has ended for good"
        case "session.thread_created":
            return f"a sub-agent begins: {one_line(data.get('agent_name'))}"
        case "session.status_idle":
            if (data.get("stop_reason") or {}).get("type") == "budget_reached":
                return "the session's budget is used up"
    return None


def described(call: dict[str, Any] | None) -> str:
    """A call of a tool in one line, for the question whether it may happen."""
    if call is None:
        return "a call of a tool"
    given = call.get("input")
    told = " ".join(f"{name}={value}" for name, value in (given or {}).items())
    return safe(plain(Line("tool", one_line(f"{tool_name(call)} {told}", 200))))


def tool_name(call: dict[str, Any]) -> str:
    """The agent's own name of a tool: `Bash`, where the API has `bash`."""
    name = str(call.get("name"))
    if call.get("type") != "agent.tool_use":
        return name
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _texts(values: object) -> tuple[str, ...]:
    items: Sequence[object] = values if isinstance(values, list) else ()
    return tuple(item for item in items if isinstance(item, str))
