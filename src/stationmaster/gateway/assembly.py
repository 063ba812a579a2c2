"""The answer that an event stream told, put together: as the provider would have told it whole.

For what is kept of calls, off their path. An answer that broke off is put together as far as it
came; what is not understood is passed over.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from stationmaster.gateway.splitter import Splitter, data_of
from stationmaster.kernel.errors import Upstream

Event = dict[str, Any]

_CONCLUDING = frozenset({"response.completed", "response.incomplete", "response.failed"})


def assembled(operation: str, raw: bytes) -> Any:
    """The answer in the words of `operation`. Raises `ValueError` for what is no stream of it."""
    put_together = _BY_OPERATION.get(operation)
    if put_together is None:
        raise ValueError(f"{operation} is not streamed")
    return put_together(_events(raw))


def _events(raw: bytes) -> Iterator[Event]:
    splitter = Splitter()
    try:
        events = splitter.feed(raw)
    except Upstream as error:
        raise ValueError("an event has no end") from error
    for event in (*events, splitter.rest):
        data = data_of(event)
        if data is None:
            continue
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _message(events: Iterator[Event]) -> Any:
    message: Event = {}
    blocks: dict[int, Event] = {}
    for event in events:
        kind, delta = event.get("type"), event.get("delta") or {}
        match kind:
            case "message_start":
                message = dict(event.get("message") or {})
            case "content_block_start":
                blocks[event.get("index", 0)] = dict(event.get("content_block") or {})
            case "content_block_delta":
                _add(blocks.setdefault(event.get("index", 0), {}), delta)
            case "message_delta":
                message |= delta
                message["usage"] = (message.get("usage") or {}) | (event.get("usage") or {})
            case "error":
                message["error"] = event.get("error")
    message["content"] = [_closed(blocks[index]) for index in sorted(blocks)]
    return message


_TEXTS = ("text", "thinking", "signature")


def _add(block: Event, delta: Event) -> None:
    for name in _TEXTS:
        if isinstance(delta.get(name), str):
            block[name] = str(block.get(name) or "") + delta[name]
    if isinstance(delta.get("partial_json"), str):
        block["_json"] = block.get("_json", "") + delta["partial_json"]
    if "citation" in delta:
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]


def _closed(block: Event) -> Event:
    """A block at its end: what came of its input in pieces is read."""
    if not (text := block.pop("_json", "")):
        return block
    try:
        block["input"] = json.loads(text)
    except (ValueError, RecursionError):  # it broke off
        block["input"] = text
    return block


def _chat(events: Iterator[Event]) -> Any:
    found: Event = {}
    choices: dict[int, Event] = {}
    for event in events:
        for name in ("id", "model", "created", "usage", "error"):
            if event.get(name) is not None:
                found[name] = event[name]
        for part in event.get("choices") or ():
            index = part.get("index", 0)
            choice = choices.setdefault(index, {"index": index, "message": {}})
            _add_choice(choice["message"], part.get("delta") or {})
            if part.get("finish_reason") is not None:
                choice["finish_reason"] = part["finish_reason"]
    found["choices"] = [choices[index] for index in sorted(choices)]
    for choice in found["choices"]:
        calls = choice["message"].get("tool_calls")
        if calls is not None:
            choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls)]
    return found


def _add_choice(message: Event, delta: Event) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", {})
            for call in value or ():
                _add_call(calls.setdefault(call.get("index", 0), {}), call)
        elif isinstance(value, str) and name != "role":
            message[name] = message.get(name, "") + value
        elif value is not None:
            message[name] = value


def _add_call(call: Event, delta: Event) -> None:
    call |= {name: delta[name] for name in ("id", "type") if delta.get(name)}
    function, came = call.setdefault("function", {}), delta.get("function") or {}
    if came.get("name"):
        function["name"] = came["name"]
    if came.get("arguments"):
        function["arguments"] = function.get("arguments", "") + came["arguments"]


def _response(events: Iterator[Event]) -> Any:
    begun: Event = {}
    items: dict[int, Any] = {}
    texts: dict[int, str] = {}
    for event in events:
        kind, index = event.get("type", ""), event.get("output_index", 0)
        if kind in _CONCLUDING and isinstance(event.get("response"), dict):
            return event["response"]
        if kind == "response.created":
            begun = dict(event.get("response") or {})
        elif kind == "response.output_item.done":
            items[index] = event.get("item")
            texts.pop(index, None)
        elif kind.endswith(".delta") and isinstance(event.get("delta"), str):
            texts[index] = texts.get(index, "") + event["delta"]
        elif kind == "error":
            begun["error"] = event.get("error") or event.get("message")
    for index, text in texts.items():
        items[index] = {"type": "partial", "text": text}
    begun["output"] = [items[index] for index in sorted(items)]
    return begun


_BY_OPERATION: dict[str, Callable[[Iterator[Event]], Any]] = {
    "messages": _message,
    "chat": _chat,
    "responses": _response,
}
