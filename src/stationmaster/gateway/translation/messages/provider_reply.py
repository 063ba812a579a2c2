"""What Anthropic's Messages answer, whole and streamed, as events."""

from collections.abc import Iterator
from typing import Any

import msgspec

from stationmaster.gateway.translation.reply import (
    Begun,
    Broken,
    CallBegin,
    CallPiece,
    Counted,
    Event,
    Finished,
    Hidden,
    Stopped,
    StopReason,
    TextPiece,
    ThinkingEnd,
    ThinkingPiece,
    Tokens,
    counted,
)
from stationmaster.kernel.errors import Upstream

_REASONS: dict[str, StopReason] = {
    "end_turn": "end",
    "stop_sequence": "sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tools",
    "refusal": "refusal",
}
"""A reason that is not known yet is an end like any other."""


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    id: str
    model: str
    content: list[_Block]
    usage: _Usage
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class _Delta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: _StopDetails | None = None


class _Error(msgspec.Struct):
    type: str | None = None
    message: str | None = None


class _Frame(msgspec.Struct):
    type: str
    message: _Message | None = None
    index: int | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class _Refusal(msgspec.Struct):
    error: _Error


_message = msgspec.json.Decoder(_Message)
_frame = msgspec.json.Decoder(_Frame)
_refusal = msgspec.json.Decoder(_Refusal)


class MessagesReply:
    """Reads one reply. Raises `Upstream` and msgspec's errors for what is none."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None
        self._open: _Block | None = None
        self._index: int | None = None
        self._signature = ""
        self._silent = True
        self._stopped = Stopped("end")
        self.finished = False

    def whole(self, reply: bytes) -> Iterator[Event]:
        """The events of a reply that was not streamed."""
        message = _message.decode(reply)
        tokens = _tokens(message.usage)
        yield Begun(message.id, message.model, tokens)
        for block in message.content:
            yield from self._start(block)
            yield from self._stop()
        yield _stopped(message)
        yield Counted(tokens)
        yield Finished()

    def frame(self, data: bytes) -> Iterator[Event]:
        """The events that one event of the stream tells."""
        frame = _frame.decode(data)
        match frame.type:
            case "message_start" if frame.message is not None and self._tokens is None:
                self._tokens = _tokens(frame.message.usage)
                yield Begun(frame.message.id, frame.message.model, self._tokens)
                return
            case "error":
                told = frame.error or _Error()
                yield Broken(told.message or "The model provider failed.", kind=told.type)
                return
            case "ping":
                return
        if self._tokens is None:
            raise Upstream("The model provider's stream does not begin with its message.")
        yield from self._inside(frame)

    def _inside(self, frame: _Frame) -> Iterator[Event]:
        match frame.type:
            case "message_start":
                raise Upstream("The model provider began its message twice.")
            case "content_block_start" if frame.content_block is not None:
                self._index = frame.index
                yield from self._start(frame.content_block)
            case "content_block_delta" if frame.delta is not None:
                self._check(frame)
                yield from self._delta(frame.delta)
            case "content_block_stop":
                self._check(frame)
                yield from self._stop()
            case "message_delta":
                if frame.delta is not None and frame.delta.stop_reason is not None:
                    self._stopped = _stopped(frame.delta)
                if frame.usage is not None and self._tokens is not None:
                    self._tokens = _merged(self._tokens, frame.usage)
            case "message_stop":
                yield from self._end()
            case _:
                # A newer provider may tell more, such as its progress.
                return

    def _end(self) -> Iterator[Event]:
        if self._open is not None:
            raise Upstream("The model provider ended its message inside a block.")
        self.finished = True
        yield self._stopped
        yield Counted(self._tokens)
        yield Finished()

    def close(self) -> Iterator[Event]:
        """The stream has ended. Raises `Upstream` where that is not how a message ends."""
        if not self.finished:
            raise Upstream("The model provider's stream was cut off.")
        return iter(())

    def _check(self, frame: _Frame) -> None:
        if self._open is None or frame.index != self._index:
            raise Upstream("The model provider tells of a block that is not open.")

    def _start(self, block: _Block) -> Iterator[Event]:
        if self._open is not None:
            raise Upstream("The model provider began a block inside another.")
        self._open, self._signature, self._silent = block, block.signature or "", True
        match block.type:
            case "text":
                if block.text:
                    yield TextPiece(block.text)
            case "thinking":
                yield ThinkingPiece(block.thinking or "")
            case "redacted_thinking" if block.data is not None:
                yield Hidden(block.data)
            case "tool_use" if block.id and block.name:
                yield CallBegin(block.id, block.name)
            case _:
                raise Upstream(
                    f"The model provider sent content of the type {block.type[:40]!r},"
                    " which cannot be translated."
                )

    def _delta(self, delta: _Delta) -> Iterator[Event]:
        opened = self._open.type if self._open is not None else ""
        match delta.type, opened:
            case "text_delta", "text":
                if delta.text:
                    yield TextPiece(delta.text)
            case "thinking_delta", "thinking":
                yield ThinkingPiece(delta.thinking or "")
            case "signature_delta", "thinking":
                self._signature += delta.signature or ""
            case "input_json_delta", "tool_use":
                if delta.partial_json:
                    self._silent = False
                    yield CallPiece(delta.partial_json)
            case (("text_delta" | "thinking_delta" | "signature_delta" | "input_json_delta"), _):
                raise Upstream("The model provider sent a piece of another kind than its block.")

    def _stop(self) -> Iterator[Event]:
        block, self._open = self._open, None
        if block is None:
            return
        if block.type == "thinking":
            yield ThinkingEnd(self._signature)
        elif block.type == "tool_use" and self._silent:
            # Without arguments nothing came, and an empty text is no JSON.
            yield CallPiece(msgspec.json.encode(block.input or {}).decode())


def refusal(status: int, body: bytes) -> Broken:
    """What an error reply says."""
    try:
        told = _refusal.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = _Error()
    message = told.message or f"The model provider answered with the status {status}."
    return Broken(message, status, kind=told.type)


def _stopped(told: _Message | _Delta) -> Stopped:
    explanation = told.stop_details.explanation if told.stop_details is not None else None
    return Stopped(_REASONS.get(told.stop_reason or "", "end"), told.stop_sequence, explanation)


def _tokens(usage: _Usage) -> Tokens:
    return _merged(Tokens(), usage)


def _merged(known: Tokens, usage: _Usage) -> Tokens:
    """The larger figure of each kind: a stream's are cumulative, and never shrink."""
    details = usage.output_tokens_details
    thinking = counted(details.thinking_tokens) if details is not None else 0
    return Tokens(
        input=max(known.input, counted(usage.input_tokens)),
        output=max(known.output, counted(usage.output_tokens)),
        cache_write=max(known.cache_write, counted(usage.cache_creation_input_tokens)),
        cache_read=max(known.cache_read, counted(usage.cache_read_input_tokens)),
        thinking=max(known.thinking or 0, thinking) or known.thinking,
    )
