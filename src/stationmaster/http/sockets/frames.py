"""What happens in a task, as the frames of `/v1/stream`."""

from typing import Any

from stationmaster.events import Event, Live
from stationmaster.http import task_view
from stationmaster.kernel.clock import iso
from stationmaster.sessions.runs.files import Place
from stationmaster.sessions.runs.record import Run


class TaskFrames:
    """Renders one task's events. Remembers the names of the tools that were called."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._tools: dict[str, str] = {}

    def of_event(self, event: Event) -> dict[str, Any] | None:
        """The frame that tells an event; None for one that only the book needs."""
        data = event.data
        if data.get("run_id") != self._run_id:
            return None
        frame = self._told(event.type, data)
        if frame is None:
            return None
        return {
            **frame,
            "task_id": self._run_id,
            "seq": event.seq,
            "timestamp": iso(event.at),
        }

    def of_live(self, live: Live) -> dict[str, Any] | None:
        """The frame for a piece of a message that is being written; it has no number."""
        kind = live.data.get("kind")
        if live.data.get("run_id") != self._run_id or kind not in {"text", "thinking"}:
            return None
        frame = "token" if kind == "text" else "thinking_token"
        return {"type": frame, "content": live.data["text"], "task_id": self._run_id}

    def _told(self, kind: str, data: dict[str, Any]) -> dict[str, Any] | None:
        match kind:
            case "run.queued":
                return {"type": "queued"}
            case "run.started":
                return {"type": "started"}
            case "agent.message":
                text = "".join(block.get("text", "") for block in data["content"])
                return {"type": "message", "content": text}
            case "agent.thinking":
                return {"type": "thinking", "content": data.get("thinking", "")}
            case "agent.tool_use":
                return self._tool_use(data)
            case "agent.tool_result":
                return {
                    "type": "tool_result",
                    "tool_use_id": data.get("tool_use_id"),
                    "tool": self._tools.pop(data.get("tool_use_id") or "", None),
                    "status": "error" if data.get("is_error") else "success",
                    "result": data.get("content"),
                }
        return None

    def _tool_use(self, data: dict[str, Any]) -> dict[str, Any]:
        name, given = data["name"], data["input"]
        self._tools[data["tool_use_id"]] = name
        told = {"type": task_view.tool_action(name), **task_view.told_of_call(name, given)}
        if told["type"] == "skill_invoke":
            told["input"] = given
        elif told["type"] == "tool_call":
            told |= {"tool": name, "arguments": given}
        return {**told, "tool_use_id": data["tool_use_id"]}


def result_frame(run: Run, place: Place | None) -> dict[str, Any]:
    """How a task has ended."""
    view = task_view.whole(run, place, [], more=False).model_dump(mode="json")
    result = view["result"] or {}
    return {
        "type": "result",
        "task_id": run.id,
        "status": view["status"],
        "summary": result.get("summary", ""),
        "result": result.get("full_output", ""),
        "artifacts": view["artifacts"],
        "usage": view["usage"],
        "error": view["error"],
        "timestamp": view["completed_at"],
    }
