"""A conversation as a request of Anthropic's Messages."""

import hashlib
import re
from typing import Any

import msgspec

from stationmaster.gateway.translation.content import PDF
from stationmaster.gateway.translation.conversation import (
    Conversation,
    Document,
    Effort,
    Format,
    HiddenThinking,
    Image,
    Part,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from stationmaster.gateway.translation.schema import strict

LEAST_BUDGET = 1024
"""Tokens of thinking that Anthropic takes at least."""

_BUDGETS: dict[Effort, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 32768,
    "max": 65536,
}
"""Tokens of thinking, for models that want a number."""

# Up to 4.5 a model takes a number of tokens; later ones decide for themselves, given an effort.
# Models that are not Claude but speak this format know the older way.
_DECIDES_ITSELF = re.compile(
    r"claude-(?!instant|[23])(?!(?:opus|sonnet|haiku)-4(?:-[0-5])?(?!-?\d{1,2}(?!\d)))"
)
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def write(asked: Conversation, *, model: str, default_max_tokens: int, ignored: list[str]) -> bytes:
    """The request's body. Raises `Invalid` for what Anthropic's format cannot carry."""
    if not asked.turns:
        raise asked.refusal("turns", "There must be a message of the user's.")
    max_tokens = default_max_tokens if asked.max_tokens is None else asked.max_tokens
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": _messages(asked, ignored),
    }
    if asked.system:
        body["system"] = _texts(asked.system)
    if asked.stop:
        body["stop_sequences"] = asked.stop
    if asked.stream:
        body["stream"] = True
    if asked.user is not None:
        body["metadata"] = {"user_id": asked.user}
    if asked.tier is not None:
        body["service_tier"] = "standard_only" if asked.tier == "default" else "auto"
    body |= _thinking(asked, model, max_tokens)
    body |= _sampling(asked, thinks="thinking" in body and body["thinking"]["type"] != "disabled")
    body |= _tools(asked)
    if asked.format is not None:
        body.setdefault("output_config", {})["format"] = _format(asked, asked.format)
    return msgspec.json.encode(body)


def _sampling(asked: Conversation, *, thinks: bool) -> dict[str, float]:
    """Temperature or `top_p`. A value of 1 is the default of both, in both formats."""
    temperature = None if asked.temperature == 1 else asked.temperature
    top_p = None if asked.top_p == 1 else asked.top_p
    if temperature is not None:
        if not 0 <= temperature <= 1:
            raise asked.refusal("temperature", "The model of this request takes 0 to 1.")
        if thinks:
            raise asked.refusal("temperature", "It cannot go with reasoning for this model.")
        if top_p is not None:
            raise asked.refusal("top_p", "It cannot go with temperature for this model.")
        return {"temperature": temperature}
    if top_p is None:
        return {}
    if not 0 <= top_p <= 1:
        raise asked.refusal("top_p", "The model of this request takes 0 to 1.")
    return {"top_p": top_p}


def _thinking(asked: Conversation, model: str, max_tokens: int) -> dict[str, Any]:
    wanted = asked.reasoning
    if wanted is None or wanted.effort is None:
        return {}
    if wanted.effort == "none":
        return {"thinking": {"type": "disabled"}}
    if asked.choice is not None and asked.choice.mode in ("any", "one"):
        raise asked.refusal("choice", "A tool cannot be forced with reasoning for this model.")
    if _DECIDES_ITSELF.search(model):
        effort = "low" if wanted.effort == "minimal" else wanted.effort
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    if max_tokens <= LEAST_BUDGET:
        raise asked.refusal(
            "reasoning", f"Reasoning needs more than {LEAST_BUDGET} tokens of output here."
        )
    budget = min(_BUDGETS[wanted.effort], max(LEAST_BUDGET, max_tokens // 2))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _tools(asked: Conversation) -> dict[str, Any]:
    forced = asked.choice is not None and asked.choice.mode in ("any", "one")
    if not asked.tools:
        if forced:
            raise asked.refusal("choice", "There are no tools to choose from.")
        return {}
    choice: dict[str, Any] | None = None
    if asked.choice is not None or not asked.parallel:
        mode = asked.choice.mode if asked.choice is not None else "auto"
        choice = {"type": "tool" if mode == "one" else mode}
        if asked.choice is not None and asked.choice.name is not None:
            choice["name"] = asked.choice.name
        if not asked.parallel and mode != "none":
            choice["disable_parallel_tool_use"] = True
    tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(asked.tools)]
    return {"tools": tools} if choice is None else {"tools": tools, "tool_choice": choice}


def _tool(tool: Tool, at: str) -> dict[str, Any]:
    # A schema without a type is any object to OpenAI; Anthropic wants it said.
    written: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object", **tool.schema}}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict:
        written["strict"] = True
        written["input_schema"] = strict(written["input_schema"], at)
    return written


def _format(asked: Conversation, wanted: Format) -> dict[str, Any]:
    if wanted.schema is None:
        raise asked.refusal("format", "For JSON, this model needs a schema (json_schema).")
    schema = strict(wanted.schema, asked.names.get("format", "format"))
    if wanted.description:
        schema.setdefault("description", wanted.description)
    return {"type": "json_schema", "schema": schema}


def _messages(asked: Conversation, ignored: list[str]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for turn in asked.turns:
        blocks = [block for part in turn.parts if (block := _block(part)) is not None]
        if len(blocks) < len(turn.parts):
            ignored.append(f"{turn.at}.reasoning_content")
        if blocks:
            messages.append({"role": turn.role, "content": _shortest(blocks)})
    return messages


def _shortest(blocks: list[dict[str, Any]]) -> Any:
    """One text alone is written as a string."""
    return blocks[0]["text"] if [each["type"] for each in blocks] == ["text"] else blocks


def _texts(parts: tuple[Text, ...]) -> Any:
    return _shortest([{"type": "text", "text": part.text} for part in parts])


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text):
            return {"type": "text", "text": text}
        case Image():
            return _image(part)
        case Document(data, name):
            source = {"type": "base64", "media_type": PDF, "data": data}
            titled = {} if name is None else {"title": name}
            return {"type": "document", "source": source, **titled}
        case Thinking(_, ""):
            # Another model's thinking: Anthropic takes only what it has signed.
            return None
        case Thinking(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case HiddenThinking(data):
            return {"type": "redacted_thinking", "data": data}
        case ToolCall(call_id, name, arguments):
            return {"type": "tool_use", "id": _id(call_id), "name": name, "input": arguments}
        case ToolResult():
            return _result(part)


def _image(image: Image) -> dict[str, Any]:
    if image.url is not None:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    source = {"type": "base64", "media_type": image.media_type, "data": image.data}
    return {"type": "image", "source": source}


def _result(result: ToolResult) -> dict[str, Any]:
    written: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(result.call_id)}
    blocks = [block for part in result.parts if (block := _block(part)) is not None]
    if blocks:
        written["content"] = _shortest(blocks)
    if result.failed:
        written["is_error"] = True
    return written


def _id(call_id: str) -> str:
    """A call's id as Anthropic takes it: other models make ids of other characters."""
    if _CALL_ID.fullmatch(call_id):
        return call_id
    return "toolu_" + hashlib.sha256(call_id.encode()).hexdigest()[:24]
