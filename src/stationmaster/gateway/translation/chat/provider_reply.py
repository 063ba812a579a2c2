"""What a provider of chat completions answers, whole and streamed, as events."""

from collections.abc import Iterator

import msgspec

from stationmaster.gateway.translation.reply import (
    Begun,
    Broken,
    CallBegin,
    CallPiece,
    Counted,
    Event,
    Finished,
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
    "stop": "end",
    "length": "length",
    "tool_calls": "tools",
    "function_call": "tools",
    "content_filter": "refusal",
}
"""A reason that is not known yet is an end like any other."""

_DONE = b"[DONE]"


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    """A message, or a delta of one. Providers call thinking by two names."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _Completion(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: _Error | str | None = None


_completion = msgspec.json.Decoder(_Completion)


class ChatReply:
    """Reads one reply. Raises `Upstream` and msgspec's errors for what is none."""

    def __init__(self) -> None:
        self._begun = False
        self._reason: str | None = None
        self._tokens: Tokens | None = None
        self._thinking = False
        self._refused = False
        self._calls: list[_Call] = []
        self.finished = False

    def whole(self, reply: bytes) -> Iterator[Event]:
        """The events of a reply that was not streamed."""
        completion = _completion.decode(reply)
        choices = completion.choices or []
        if len(choices) != 1 or choices[0].message is None:
            raise Upstream("The model provider's answer is not a chat completion.")
        yield Begun(completion.id or "", completion.model or "")
        yield from self._said(choices[0].message, streamed=False)
        self._reason = choices[0].finish_reason or ""
        if completion.usage is not None:
            self._tokens = _tokens(completion.usage)
        yield from self._end()

    def frame(self, data: bytes) -> Iterator[Event]:
        """The events that one chunk of the stream tells."""
        if data.strip() == _DONE:
            yield from self.close()
            return
        chunk = _completion.decode(data)
        if chunk.error is not None:
            yield _broken(chunk.error, 0)
            return
        if chunk.usage is not None:
            self._tokens = _tokens(chunk.usage)
        for choice in chunk.choices or []:
            if choice.index != 0:
                raise Upstream("The model provider gave several answers.")
            if not self._begun:
                self._begun = True
                yield Begun(chunk.id or "", chunk.model or "", self._tokens)
            if choice.delta is not None:
                yield from self._said(choice.delta, streamed=True)
            self._reason = choice.finish_reason or self._reason

    def close(self) -> Iterator[Event]:
        """The stream has ended. Raises `Upstream` where it was cut.

        Not every provider says `[DONE]`, but each gives a reason for an answer's end.
        """
        if self._reason is None:
            raise Upstream("The model provider's stream was cut off.")
        yield from self._end()

    def _end(self) -> Iterator[Event]:
        self.finished = True
        yield from self._thought()
        yield Stopped(self._stop_reason())
        yield Counted(self._tokens)
        yield Finished()

    def _stop_reason(self) -> StopReason:
        reason = _REASONS.get(self._reason or "", "end")
        if self._refused:
            return "refusal"
        # Some providers say `stop` all the same.
        if reason in ("end", "tools"):
            return "tools" if self._calls else "end"
        return reason

    def _said(self, said: _Said, *, streamed: bool) -> Iterator[Event]:
        if thought := said.reasoning_content or said.reasoning:
            self._thinking = True
            yield ThinkingPiece(thought)
        if said.content or said.refusal or said.tool_calls:
            yield from self._thought()
        if said.content:
            yield TextPiece(said.content)
        if said.refusal:
            self._refused = True
            yield TextPiece(said.refusal, refusal=True)
        for call in said.tool_calls or []:
            yield from self._call(call, streamed=streamed)

    def _thought(self) -> Iterator[Event]:
        if self._thinking:
            self._thinking = False
            yield ThinkingEnd("")

    def _call(self, call: _Call, *, streamed: bool) -> Iterator[Event]:
        function = call.function or _Function()
        if not streamed or self._is_new(call):
            if not function.name:
                # Also where it goes back to a call that was over: one is told after the other.
                raise Upstream("The model provider called a tool without a name.")
            self._calls.append(call)
            yield CallBegin(call.id or "", function.name)
        if function.arguments:
            yield CallPiece(function.arguments)

    def _is_new(self, call: _Call) -> bool:
        """Whether a delta begins a call. Some providers leave the index out, or always say 0."""
        if not self._calls:
            return True
        last = self._calls[-1]
        if call.id and call.id != last.id:
            return True
        return call.index is not None and call.index != last.index


def refusal(status: int, body: bytes) -> Broken:
    """What an error reply says."""
    try:
        told = _completion.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = None
    return _broken(told or _Error(), status)


def _broken(told: _Error | str, status: int) -> Broken:
    error = _Error(message=told) if isinstance(told, str) else told
    fallback = (
        f"The model provider answered with the status {status}."
        if status
        else "The model provider failed."
    )
    code = error.code if isinstance(error.code, str) else None
    return Broken(error.message or fallback, status, kind=error.type, code=code)


def _tokens(usage: _Usage) -> Tokens:
    """OpenAI counts what came from a cache as part of the prompt; here each token counts once."""
    prompt = counted(usage.prompt_tokens)
    details, spent = usage.prompt_tokens_details, usage.completion_tokens_details
    read = min(prompt, counted(details.cached_tokens)) if details is not None else 0
    wrote = min(prompt - read, counted(details.cache_write_tokens)) if details is not None else 0
    return Tokens(
        input=prompt - read - wrote,
        output=counted(usage.completion_tokens),
        cache_write=wrote,
        cache_read=read,
        thinking=None if spent is None else counted(spent.reasoning_tokens),
    )
