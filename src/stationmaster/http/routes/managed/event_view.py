"""An event of the book as the API shows it, or not at all."""

from collections.abc import Mapping
from typing import Any

import msgspec

from stationmaster.http.routes.managed.money import budget_json, cents
from stationmaster.kernel.clock import iso
from stationmaster.sessions.session import SessionEvent

# The fields of each type that is shown, beside `id`, `type` and `processed_at`. What else an event
# holds is ours. A `?` marks a field that is left out where the event does not have it.
_FIELDS: dict[str, tuple[str, ...]] = {
    "user.message": ("content",),
    "user.interrupt": ("session_thread_id?",),
    "user.tool_confirmation": (
        "result",
        "tool_use_id",
        "deny_message?",
        "session_thread_id?",
    ),
    "user.custom_tool_result": (
        "custom_tool_use_id",
        "content?",
        "is_error?",
        "session_thread_id?",
    ),
    "user.tool_result": ("tool_use_id", "content?", "is_error?", "session_thread_id?"),
    "agent.message": ("content",),
    "agent.thinking": (),
    "agent.tool_use": (
        "name",
        "input",
        "evaluated_permission?",
        "evaluation?",
        "session_thread_id?",
    ),
    "agent.tool_result": ("tool_use_id", "content?", "is_error?"),
    "agent.mcp_tool_use": (
        "name",
        "input",
        "mcp_server_name",
        "evaluated_permission?",
        "evaluation?",
        "session_thread_id?",
    ),
    "agent.mcp_tool_result": ("mcp_tool_use_id", "content?", "is_error?"),
    "agent.custom_tool_use": ("name", "input", "session_thread_id?"),
    "agent.thread_message_sent": ("content", "to_session_thread_id", "to_agent_name?"),
    "agent.thread_message_received": ("content", "from_session_thread_id", "from_agent_name?"),
    "agent.thread_context_compacted": (),
    "session.error": ("error",),
    "session.status_running": (),
    "session.status_rescheduled": (),
    "session.status_idle": ("stop_reason", "stop_details?"),
    "session.status_terminated": (),
    "session.deleted": (),
    "session.updated": ("title?", "metadata?", "agent?", "budget?"),
    "session.usage": ("usage", "budget?"),
    "session.thread_created": ("agent_name", "session_thread_id"),
    "session.thread_status_running": ("agent_name", "session_thread_id"),
    "session.thread_status_rescheduled": ("agent_name", "session_thread_id"),
    "session.thread_status_idle": (
        "agent_name",
        "session_thread_id",
        "stop_reason",
        "stop_details?",
    ),
    "session.thread_status_terminated": ("agent_name", "session_thread_id"),
    "span.model_request_start": (),
    "span.model_request_end": ("model_request_start_id", "is_error?", "model_usage"),
}
SHOWN = frozenset(_FIELDS)

# What an error's code begins with, and the API's kind of it.
_ERRORS = (
    ("budget_", "billing_error"),
    ("upstream_", "model_request_failed_error"),
    ("max_turns", "tool_use_limit_reached_error"),
    ("mcp_connection_failed", "mcp_connection_failed_error"),
)

_ANSWERED = frozenset({"complete", "partial"})

# Only what a client sends can wait to be processed.
_MAY_WAIT = "user."


def event_view(found: SessionEvent) -> dict[str, Any] | None:
    """The event, in the form of the SDK's model of its type; None where the API has none."""
    kind = found.event.type
    fields = _FIELDS.get(kind)
    if fields is None or (kind == "agent.tool_result" and found.event.data.get("custom")):
        return None
    at = found.processed_at
    if at is None and not kind.startswith(_MAY_WAIT):
        at = found.event.at
    shown: dict[str, Any] = {
        "id": found.id,
        "type": kind,
        "processed_at": None if at is None else iso(at),
    }
    data = {**found.event.data, **_translated(kind, found.event.data)}
    for field in fields:
        name = field.removesuffix("?")
        if name in data or name == field:
            shown[name] = data.get(name)
    return shown


def _translated(kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are other in the book than in the API."""
    match kind:
        case "agent.tool_result":
            use = data.get("tool_use_event_id", data.get("tool_use_id"))
            return {"tool_use_id": use, "content": _blocks(data.get("content"))}
        case "agent.mcp_tool_result":
            use = data.get("tool_use_event_id", data.get("mcp_tool_use_id"))
            return {"mcp_tool_use_id": use, "content": _blocks(data.get("content"))}
        case "session.error":
            return {"error": _error(data.get("error") or {})}
        case "session.updated" if isinstance(data.get("budget"), int):
            return {"budget": budget_json(data["budget"])}
        case "session.usage":
            made: dict[str, Any] = {"usage": _usage(data.get("usage") or {}, data.get("cost"))}
            if isinstance(data.get("budget"), int):
                made["budget"] = budget_json(data["budget"])
            return made
        case "span.model_request_end":
            return {
                "model_usage": _model_usage(data.get("usage") or {}),
                "is_error": data.get("outcome") not in _ANSWERED,
            }
    return {}


def _blocks(content: Any) -> list[dict[str, Any]]:
    """A tool's result as blocks that the API knows; what else there is, as text."""
    if content is None or content == "":
        return []
    if not isinstance(content, list):
        content = [content]
    return [_block(block) for block in content]


def _block(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"type": "text", "text": block}
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}:
            source = {"type": "base64", "media_type": kind, "data": data}
            return {"type": "image", "source": source}
        case {"type": "document" | "search_result"}:
            return dict(block)
    return {"type": "text", "text": msgspec.json.encode(block).decode()}


def _error(error: dict[str, Any]) -> dict[str, Any]:
    """Why a turn did not come to its end, by the API's kinds. The session goes on after it."""
    code = str(error.get("code", ""))
    kind = next((kind for start, kind in _ERRORS if code.startswith(start)), "unknown_error")
    shown = {
        "type": kind,
        "message": str(error.get("message") or "The turn failed."),
        "retry_status": {"type": "exhausted"},
    }
    if kind == "mcp_connection_failed_error":
        shown["mcp_server_name"] = str(error.get("mcp_server_name", ""))
    return shown


def _usage(usage: dict[str, Any], cost: int | None) -> dict[str, Any]:
    """Usage by the ledger's classes, as the API has it."""
    shown: dict[str, Any] = {
        "input_tokens": usage.get("input_tokens", 0),
        "output_tokens": usage.get("output_tokens", 0),
        "cache_read_input_tokens": usage.get("cache_read_tokens", 0),
        "cache_creation": cache_creation(usage),
    }
    if cost is not None:
        shown["list_cost"] = {"amount": cents(cost), "currency": "USD"}
    return shown


def cache_creation(usage: Mapping[str, Any]) -> dict[str, int]:
    """What was written to the provider's cache, by how long it is kept there."""
    long = usage.get("cache_write_1h_tokens", 0)
    return {
        "ephemeral_1h_input_tokens": long,
        "ephemeral_5m_input_tokens": usage.get("cache_write_tokens", 0) - long,
    }


def _model_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": usage.get("input_tokens", 0),
        "output_tokens": usage.get("output_tokens", 0),
        "cache_read_input_tokens": usage.get("cache_read_tokens", 0),
        "cache_creation_input_tokens": usage.get("cache_write_tokens", 0),
    }
