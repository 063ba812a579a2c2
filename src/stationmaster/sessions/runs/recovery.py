"""What an earlier attempt at a turn has left, and what the agent is told of it."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stationmaster.events import Event
from stationmaster.events.pages import page
from stationmaster.sessions.calls import refusal, same_call, unfinished_calls
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.session import Session
from stationmaster.sessions.threads import threads_of
from stationmaster.storage import Transaction

_USES = {"agent.tool_use", "agent.custom_tool_use", "agent.mcp_tool_use"}
_RESULTS = {"agent.tool_result", "agent.mcp_tool_result"}
_PAGE = 500
_SHOWN = 500  # characters of a call's input that the agent is told

UNKNOWN = (
    "The server that ran this was lost before the result came. Whether the call took effect, in"
    " whole or in part, is not known."
)


@dataclass(slots=True)
class Recovery:
    """The calls of the earlier attempts, and what is known of them.

    `finished` have a result in the book, each with it. `unknown` may have happened, and `denied`,
    each with the reason, have not; `told` are the ids of those of both that the book says so of
    already, since another attempt was cut after that: whether the agent has heard of them nobody
    knows. `waiting` have not happened: the agent's next call of the same kind takes such a one up,
    with the answer that it has been given meanwhile.
    """

    finished: list[tuple[Event, Event]] = field(default_factory=list)
    unknown: list[Event] = field(default_factory=list)
    denied: list[tuple[Event, str]] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    waiting: dict[bytes, deque[str]] = field(default_factory=dict)

    def take_up(self, name: str, input_: Mapping[str, Any]) -> str | None:
        """The id of the event of the same call, once."""
        events = self.waiting.get(same_call(name, dict(input_)))
        return events.popleft() if events else None


def look_back(tx: Transaction, session: Session, run: Run) -> Recovery:
    """Read what the earlier attempts at a run have left."""
    calls, results = _calls(tx, session, run)
    asked = {row.event_id: row for row in unfinished_calls(tx, run.id)}
    recovery = Recovery()
    for event_id, event in calls.items():
        if (result := results.get(event_id)) is not None:
            _sort(recovery, event, result)
            continue
        row = asked.get(event_id)
        by_rule = event.data.get("evaluated_permission") == "deny"
        # An answer of a client or a worker is kept and can be told again; a permission that was
        # told is used up.
        if row is not None and (row.kind != "confirmation" or not row.told):
            key = same_call(event.data["name"], event.data["input"])
            recovery.waiting.setdefault(key, deque()).append(event_id)
        elif by_rule or (row is not None and row.state != "allowed"):
            recovery.denied.append((event, refusal(None if row is None else row.answer)))
        else:
            recovery.unknown.append(event)
    return recovery


def _sort(recovery: Recovery, call: Event, result: Event) -> None:
    """Put a call where its result in the book says."""
    match result.data.get("outcome"):
        case "unknown":
            recovery.unknown.append(call)
        case "denied":
            recovery.denied.append((call, str(result.data["content"])))
        case _:
            recovery.finished.append((call, result))
            return
    recovery.told.add(call.data["id"])


def _calls(
    tx: Transaction, session: Session, run: Run
) -> tuple[dict[str, Event], dict[str, Event]]:
    """The calls of a run by the ids of their events, and the results of those that have one."""
    calls: dict[str, Event] = {}
    results: dict[str, Event] = {}
    for thread in threads_of(tx, session):
        after = (run.plan.message_seq or 0) if thread.stream_id == session.id else 0
        while batch := page(tx, thread.stream_id, after, _PAGE):
            after = batch[-1].seq
            for event in batch:
                if event.data.get("run_id") != run.id:
                    continue
                if event.type in _USES:
                    calls.setdefault(event.data["id"], event)
                elif event.type in _RESULTS:
                    # Of many long ones no more than is shown is kept in memory.
                    short = {**event.data, "content": _result(event)}
                    results[event.data["tool_use_event_id"]] = replace(event, data=short)
    return calls, results


def unseen(
    recovery: Recovery, entries: Sequence[Mapping[str, Any]], session_id: str
) -> list[tuple[Event, Event]]:
    """The finished calls that the agent's history does not have: it may be behind the book.

    Those of sub-agents are in histories of their own, and in the result of the call that began
    the sub-agent.
    """
    there = {
        block.get("id")
        for entry in entries
        for block in _blocks(entry)
        if isinstance(block, Mapping) and block.get("type") == "tool_use"
    }
    return [
        (call, result)
        for call, result in recovery.finished
        if call.stream_id == session_id and call.data.get("tool_use_id") not in there
    ]


def _blocks(entry: Mapping[str, Any]) -> Sequence[Any]:
    message = entry.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else ()


def is_said(entries: Sequence[Mapping[str, Any]], position: str | None, text: str) -> bool:
    """Whether the agent's history has this turn's message: an entry after `position` says it."""
    start = 0
    for index, entry in enumerate(entries):
        if position is not None and entry.get("uuid") == position:
            start = index + 1
    said = (_text(entry) for entry in entries[start:])
    # The agent may add words of its own to a message.
    return any(words is not None and text in words for words in said)


def text_of(content: Sequence[Mapping[str, Any]]) -> str:
    """The words of a message."""
    return "\n".join(block["text"] for block in content if block.get("type") == "text")


def _text(entry: Mapping[str, Any]) -> str | None:
    message = entry.get("message")
    if entry.get("type") != "user" or entry.get("isMeta") or not isinstance(message, Mapping):
        return None
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or any(
        block.get("type") == "tool_result" for block in content if isinstance(block, Mapping)
    ):
        return None
    return text_of([block for block in content if isinstance(block, Mapping)])


def note(recovery: Recovery, missing: Sequence[tuple[Event, Event]] = ()) -> list[dict[str, Any]]:
    """What a resumed agent is told in place of the message that it has already.

    `missing` are finished calls, with their results, that its history does not have.
    """
    lines = [
        "The server that you were running on was lost in the middle of this turn, and you now run"
        " on another. Your files are as they were at that moment."
    ]
    if missing:
        lines.append(
            "You have made these tool calls, though you may not see them above. They are done: do"
            " not make them again."
        )
        lines += [f"- {_shown(call)}\n  result: {_result(result)}" for call, result in missing]
    if recovery.unknown:
        lines.append(
            "These tool calls had begun, and whether they took effect is not known. Do not repeat"
            " one before you have looked at what it has done:"
        )
        lines += [f"- {_shown(event)}" for event in recovery.unknown]
    if recovery.denied:
        lines.append("These tool calls were denied, and did not happen:")
        lines += [f"- {_shown(call)}\n  reason: {_cut(why)}" for call, why in recovery.denied]
    if any(recovery.waiting.values()):
        lines.append(
            "Calls that were waiting to be permitted or answered did not happen. Make them again,"
            " unchanged, where they are still needed."
        )
    lines.append("Go on with the task.")
    return [{"type": "text", "text": "\n".join(lines)}]


def _shown(event: Event) -> str:
    return f"{event.data['name']} {_cut(msgspec.json.encode(event.data['input']).decode())}"


def _result(event: Event) -> str:
    content = event.data.get("content")
    if isinstance(content, list):
        blocks = [block for block in content if isinstance(block, Mapping)]
        content = "\n".join(str(block.get("text", f"[{block.get('type')}]")) for block in blocks)
    return _cut(str(content or ""))


def _cut(words: str) -> str:
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "…"
