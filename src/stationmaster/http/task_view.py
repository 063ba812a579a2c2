"""A run as a task of our API: the one place where the two vocabularies meet."""

from collections.abc import Sequence
from typing import Any, cast

from stationmaster.events import Event
from stationmaster.http.shapes.task import (
    ArtifactEntry,
    LogEntry,
    ReportedUsage,
    Status,
    Task,
    TaskAccepted,
    TaskError,
    TaskHead,
    TaskLinks,
    TaskResult,
    TaskUsage,
)
from stationmaster.kernel.clock import Millis, iso
from stationmaster.kernel.errors import Invalid
from stationmaster.kernel.money import to_dollars
from stationmaster.sessions.runs.files import Place
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.state import State

MAX_LOG = 1000  # entries in one answer; the events have all
MAX_SUMMARY = 500  # characters
MAX_DETAIL = 2000  # characters of one text in the log

_STATUS: dict[State, Status] = {
    "queued": "pending",
    "running": "running",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "timed_out": "timeout",
    "cost_exceeded": "cost_exceeded",
    "interrupted": "interrupted",
}
_STATE = {status: state for state, status in _STATUS.items()}

# What the log shows of the book, by what name. The rest is for machines.
_ACTIONS = {
    "run.queued": "queued",
    "run.started": "started",
    "run.requeued": "requeued",
    "run.agent_ready": "agent_ready",
    "agent.message": "message",
    "agent.thinking": "thinking",
    "agent.tool_use": "tool_call",
    "agent.tool_result": "tool_result",
    "span.model_request_end": "model_call",
    "run.cancel_requested": "cancel_requested",
    "session.error": "error",
    "run.ended": "ended",
}
# What the agent calls its tools for giving work to a sub-agent, and for taking up a skill.
SUB_AGENT_TOOLS = frozenset({"Agent", "Task"})
SKILL_TOOL = "Skill"
_SEEN_INSIDE = "/workspace"


def status_of(run: Run) -> Status:
    """A run's state as a task's status."""
    return _STATUS[run.state.state]


def state_of(status: str | None) -> State | None:
    """A task's status as a run's state. Raises `Invalid`."""
    if status is None:
        return None
    for known, state in _STATE.items():
        if known == status:
            return state
    raise Invalid(f"There is no status {status[:32]!r}.", param="status")


def links(run_id: str) -> TaskLinks:
    """Where things of a task are."""
    here = f"/v1/tasks/{run_id}"
    names = ("events", "log", "cancel", "artifacts", "archive", "diff")
    return TaskLinks.model_validate({"self": here, **{name: f"{here}/{name}" for name in names}})


def accepted(run: Run) -> TaskAccepted:
    """The answer to a task that was just made."""
    return TaskAccepted(
        task_id=run.id,
        session_id=run.session_id,
        status=status_of(run),
        created_at=iso(run.state.queued_at),
        links=links(run.id),
    )


def head(run: Run) -> TaskHead:
    """A task as a list shows it."""
    return TaskHead.model_validate(_head(run))


def whole(run: Run, place: Place | None, events: Sequence[Event], *, more: bool) -> Task:
    """A task in full. `events` are the first of its session, `more` tells that there are others."""
    log, cut = execution_log(run.id, events)
    return Task.model_validate(
        {
            **_head(run),
            "result": _result(run, place) if run.state.finished else None,
            "execution_log": log,
            "execution_log_truncated": cut or more,
            "artifacts": artifacts(run),
            "artifacts_truncated": run.state.artifacts["truncated"],
        }
    )


def _head(run: Run) -> dict[str, Any]:
    state, plan = run.state, run.plan
    return {
        "task_id": run.id,
        "status": status_of(run),
        "description": plan.prompt,
        "session_id": run.session_id,
        "created_at": iso(state.queued_at),
        "started_at": _iso(state.started_at),
        "completed_at": _iso(state.ended_at),
        "model": plan.model,
        "timeout": plan.timeout,
        "max_cost": to_dollars(plan.max_cost),
        "priority": plan.priority,
        "metadata": plan.metadata,
        "usage": _usage(run),
        "error": TaskError.model_validate(state.error) if state.error else None,
        "sandbox": (state.agent or {}).get("sandbox"),
        "links": links(run.id),
    }


def _usage(run: Run) -> TaskUsage:
    state = run.state
    tokens = {
        name: int(state.usage.get(name, 0))
        for name in ("input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")
    }
    duration = None
    if state.ended_at is not None:
        # The clock may have stepped back meanwhile.
        duration = max(0, state.ended_at - (state.started_at or state.ended_at)) / 1000
    return TaskUsage(
        **tokens,
        total_tokens=sum(tokens.values()),
        total_cost=to_dollars(state.cost),
        model_calls=state.model_calls,
        model_used=(state.agent or {}).get("model") or run.plan.model,
        duration_seconds=duration,
        reported=_reported(state.usage.get("reported")),
    )


def _reported(usage: dict[str, int] | None) -> ReportedUsage | None:
    if usage is None:
        return None
    cost = usage.get("cost")
    return ReportedUsage(
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        cache_write_tokens=usage["cache_write_tokens"],
        cache_read_tokens=usage["cache_read_tokens"],
        total_cost=None if cost is None else to_dollars(cost),
    )


def _result(run: Run, place: Place | None) -> TaskResult:
    output = run.state.result or ""
    reason = (run.state.error or {}).get("message", "")
    inside = _SEEN_INSIDE
    if place is not None and place.scope != place.workspace:
        inside = f"{_SEEN_INSIDE}/{place.scope.relative_to(place.workspace)}"
    return TaskResult(
        summary=_shorten(output or reason, MAX_SUMMARY),
        full_output=output,
        workspace_directory=inside,
    )


def artifacts(run: Run) -> list[ArtifactEntry]:
    """The files that a run made, changed or deleted; none until it has ended."""
    return [
        ArtifactEntry(
            type=item["type"],
            path=item["path"],
            size_bytes=item["size"],
            created_at=item["modified_at"],
            change=item["kind"],
        )
        for item in run.state.artifacts["items"]
    ]


# --- the log ----------------------------------------------------------------------------------


def execution_log(run_id: str, events: Sequence[Event]) -> tuple[list[LogEntry], bool]:
    """The steps of a run, at most `MAX_LOG`, and whether there are more."""
    shown = [
        event for event in events if event.type in _ACTIONS and event.data.get("run_id") == run_id
    ]
    entries = [
        LogEntry(
            step=step,
            timestamp=iso(event.at),
            action=_action(event),
            details=_details(event),
        )
        for step, event in enumerate(shown[:MAX_LOG], start=1)
    ]
    return entries, len(shown) > MAX_LOG


def tool_action(name: str) -> str:
    """What a call of a tool is to those who watch a task."""
    if name in SUB_AGENT_TOOLS:
        return "agent_spawn"
    return "skill_invoke" if name == SKILL_TOOL else "tool_call"


def told_of_call(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Who is given work, and why; which skill is taken up. Nothing for any other tool."""
    action = tool_action(name)
    if action == "agent_spawn":
        return {"agent": given.get("subagent_type"), "reason": given.get("description")}
    return {"skill": given.get("skill")} if action == "skill_invoke" else {}


def _action(event: Event) -> str:
    if event.type == "agent.tool_use":
        return tool_action(event.data["name"])
    return _ACTIONS[event.type]


def as_text(entries: Sequence[LogEntry]) -> str:
    """The log for people: a line for each step."""
    return "".join(
        f"{entry.step:>4}  {entry.timestamp}  {entry.action:<16}  {_line(entry.details)}\n"
        for entry in entries
    )


def _line(details: dict[str, Any]) -> str:
    told = " ".join(f"{name}={_plain(value)}" for name, value in details.items())
    # Control characters would let an agent's words move the reader's cursor.
    return "".join(letter if letter.isprintable() else " " for letter in told)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _details(event: Event) -> dict[str, Any]:
    details = {name: value for name, value in event.data.items() if name != "run_id"}
    if event.type == "agent.tool_use":
        details = {**told_of_call(event.data["name"], event.data["input"]), **details}
    if event.type == "agent.message":
        details = {"text": "".join(block.get("text", "") for block in details["content"])}
    return cast("dict[str, Any]", _bounded(details))


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        return _shorten(value, MAX_DETAIL)
    if isinstance(value, dict):
        return {name: _bounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    return value


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _iso(at: Millis | None) -> str | None:
    return None if at is None else iso(at)
