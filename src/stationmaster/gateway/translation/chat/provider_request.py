"""A conversation as a chat completion request."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from stationmaster.gateway.translation.content import PDF, data_url
from stationmaster.gateway.translation.conversation import (
    Conversation,
    Document,
    Effort,
    Format,
    Image,
    Part,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)

FAILED = "Error: "
"""Put before the result of a tool that failed: OpenAI's format has no flag for it."""

_MODES = {"auto": "auto", "none": "none", "any": "required"}
_EFFORTS: tuple[tuple[int, Effort], ...] = ((2048, "low"), (8192, "medium"))
"""Budgets of thinking, in tokens, up to which an effort is meant; above it is `high`."""


def write(asked: Conversation, *, model: str, max_tokens_field: str, ignored: list[str]) -> bytes:
    """The request's body. Raises `Invalid` for what OpenAI's format cannot carry."""
    body: dict[str, Any] = {"model": model, "messages": list(_messages(asked, ignored))}
    given = {
        max_tokens_field: asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "stop": list(asked.stop) or None,
        "reasoning_effort": _effort(asked.reasoning),
        "response_format": None if asked.format is None else _format(asked.format),
        "user": asked.user,
        "service_tier": asked.tier,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    if asked.stream:
        # Without usage nobody could be billed for the stream.
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.tools:
        body["tools"] = [_tool(tool) for tool in asked.tools]
        if asked.choice is not None:
            body["tool_choice"] = (
                {"type": "function", "function": {"name": asked.choice.name}}
                if asked.choice.mode == "one"
                else _MODES[asked.choice.mode]
            )
        if not asked.parallel:
            body["parallel_tool_calls"] = False
    elif asked.choice is not None and asked.choice.mode in ("any", "one"):
        raise asked.refusal("choice", "There are no tools to choose from.")
    return msgspec.json.encode(body)


def _effort(wanted: Reasoning | None) -> Effort | None:
    if wanted is None or wanted.effort is not None or wanted.budget is None:
        return None if wanted is None else wanted.effort
    budget = wanted.budget
    return next((effort for most, effort in _EFFORTS if budget <= most), "high")


def _format(wanted: Format) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": wanted.name or "answer", "schema": wanted.schema}
    if wanted.description is not None:
        described["description"] = wanted.description
    if wanted.strict is not None:
        described["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": described}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _messages(asked: Conversation, ignored: list[str]) -> Iterator[dict[str, Any]]:
    if asked.system:
        yield {"role": "system", "content": _content(asked.system)}
    for turn in asked.turns:
        match turn.role:
            case "system":
                yield {"role": "system", "content": _content(turn.parts)}
            case "assistant":
                message = _answer(turn, ignored)
                if message is not None:
                    yield message
            case "user":
                yield from _user(turn)


def _user(turn: Turn) -> Iterator[dict[str, Any]]:
    """The results of tools, each a message of its own, and then what else the user says.

    Only text has a place in a result: pictures follow in the user's message, with a word of whose
    they are.
    """
    rest: list[Part] = []
    for part in turn.parts:
        if not isinstance(part, ToolResult):
            rest.append(part)
            continue
        texts = [each for each in part.parts if isinstance(each, Text)]
        media = [each for each in part.parts if not isinstance(each, Text)]
        if part.failed:
            texts = [Text(FAILED + (texts[0].text if texts else "")), *texts[1:]]
        if media:
            rest += [Text(f"Result of the tool call {part.call_id}:"), *media]
        yield {"role": "tool", "tool_call_id": part.call_id, "content": _content(texts)}
    if rest:
        yield {"role": "user", "content": _content(rest)}


def _answer(turn: Turn, ignored: list[str]) -> dict[str, Any] | None:
    message: dict[str, Any] = {"role": "assistant"}
    texts = [part for part in turn.parts if isinstance(part, Text)]
    calls = [_call(part) for part in turn.parts if isinstance(part, ToolCall)]
    thoughts = [
        part.text for part in turn.parts if isinstance(part, Thinking) and not part.signature
    ]
    if len(texts) + len(calls) + len(thoughts) < len(turn.parts):
        # Thinking of Anthropic's models is for them alone.
        ignored.append(f"{turn.at}.content (thinking)")
    if not texts and not calls:
        return None
    message["content"] = _content(texts) if texts else None
    if any(thoughts):
        # Only a model that tells its thinking in this way can have told it.
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.arguments).decode()
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }


def _content(parts: Iterable[Part]) -> Any:
    """One text alone is written as a string, and nothing as an empty one."""
    parts = list(parts)
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image(url, media_type, data):
            shown = url if url is not None else data_url(media_type or "", data or "")
            return {"type": "image_url", "image_url": {"url": shown}}
        case Document(data, name):
            file = {"filename": name or "document.pdf", "file_data": data_url(PDF, data)}
            return {"type": "file", "file": file}
        case _:
            raise TypeError(f"{type(part).__name__} is no part of a message's content.")
