"""Ollama's answers to a chat, told in OpenAI's format."""

import secrets
from datetime import datetime
from typing import Any

import msgspec

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.ollama.lines import Lines
from stationmaster.providers.upstream import WholeBody

Json = dict[str, Any]

_DONE = b"data: [DONE]\n\n"
_FINISHES = {"length": "length"}
_TOO_LONG = "context length"  # in Ollama's words for a prompt that does not fit


class _Function(msgspec.Struct):
    name: str = ""
    arguments: Json | None = None


class _ToolCall(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)
    id: str = ""


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct):
    model: str = ""
    created_at: str = ""
    message: _Message = msgspec.field(default_factory=_Message)
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int = 0
    eval_count: int = 0
    error: str | None = None


_line = msgspec.json.Decoder(_Line)


def read_line(raw: bytes) -> _Line:
    """One object of Ollama's. Raises `Upstream` where it is none."""
    try:
        return _line.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Upstream("The model provider's answer cannot be read.") from None


def error_body(message: str, *, status: int) -> Json:
    """An error in OpenAI's shape."""
    kind, code = "server_error", None
    if status < 500:
        kind = "invalid_request_error"
        if status == 404:
            code = "model_not_found"
        elif _TOO_LONG in message.lower():
            code = "context_length_exceeded"
    param = "model" if status == 404 else None
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class WholeChat(WholeBody):
    """An answer in one piece."""

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        line = read_line(body)
        if line.error is not None or not line.done:
            raise Upstream("The model provider broke off in the middle.")
        calls = _tool_calls(line)
        message: Json = {"role": "assistant", "content": line.message.content or ""}
        if line.message.thinking:
            message["reasoning_content"] = line.message.thinking
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "finish_reason": _finish(line, bool(calls))}
        whole = {
            "id": _new_id(),
            "object": "chat.completion",
            "created": _created(line),
            "model": line.model,
            "choices": [choice],
            "usage": _usage(line),
        }
        return msgspec.json.encode(whole)


class ChatStream:
    """An answer line by line, as server-sent events."""

    def __init__(self, *, include_usage: bool) -> None:
        self._lines = Lines()
        self._include_usage = include_usage
        self._common: Json = {}
        self._calls = 0
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """See `Translation.feed`."""
        return b"".join([self._told(line) for line in self._lines.feed(data)])

    def finish(self) -> bytes:
        """See `Translation.finish`."""
        last = self._lines.rest()
        told = self._told(last) if last else b""
        if not self._ended:
            raise Upstream("The model provider broke off in the middle.")
        return told

    def _told(self, raw: bytes) -> bytes:
        if self._ended:
            return b""
        line = read_line(raw)
        if line.error is not None:
            self._ended = True
            return _event(error_body(line.error, status=500))
        begins = not self._common
        if begins:
            self._common = {
                "id": _new_id(),
                "object": "chat.completion.chunk",
                "created": _created(line),
                "model": line.model,
            }
        told = self._chunk({"role": "assistant", "content": ""}) if begins else b""
        if line.message.thinking:
            told += self._chunk({"reasoning_content": line.message.thinking})
        if line.message.content:
            told += self._chunk({"content": line.message.content})
        if calls := _tool_calls(line):
            numbered = [{"index": at, **call} for at, call in enumerate(calls, self._calls)]
            self._calls += len(calls)
            told += self._chunk({"tool_calls": numbered})
        return told + self._end(line) if line.done else told

    def _end(self, line: _Line) -> bytes:
        self._ended = True
        told = self._chunk({}, _finish(line, self._calls > 0))
        if self._include_usage:
            told += _event({**self._common, "choices": [], "usage": _usage(line)})
        return told + _DONE

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**self._common, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return _event(chunk)


class ErrorAnswer(WholeBody):
    """A refusal. Also of what stands before Ollama, in whatever words."""

    LIMIT = 1024 * 1024

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        try:
            message = _line.decode(body).error
        except (msgspec.DecodeError, ValueError, RecursionError):
            message = None
        message = message or f"Ollama answered with status {self._status}."
        return msgspec.json.encode(error_body(message, status=self._status))


def _event(value: Json) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _new_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _created(line: _Line) -> int:
    """Seconds since 1970; 0 where the answer does not say when it was made."""
    try:
        return int(datetime.fromisoformat(line.created_at).timestamp())
    except (ValueError, OverflowError):
        return 0


def _finish(line: _Line, called: bool) -> str:
    return "tool_calls" if called else _FINISHES.get(line.done_reason or "", "stop")


def _tool_calls(line: _Line) -> list[Json]:
    return [
        {
            "id": call.id or f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {
                "name": call.function.name,
                "arguments": msgspec.json.encode(call.function.arguments or {}).decode(),
            },
        }
        for call in line.message.tool_calls or ()
    ]


def _usage(line: _Line) -> Json:
    return {
        "prompt_tokens": line.prompt_eval_count,
        "completion_tokens": line.eval_count,
        "total_tokens": line.prompt_eval_count + line.eval_count,
    }
