"""The CLI as a provider of model calls, with the owner's own login.

Each call is a process of its own: no tools, no settings, no history, nothing kept. It runs in the
sandbox of agents and reaches what an agent with that login reaches. The CLI tells the events of the
model's answer as they come, in Anthropic's format; they are passed on as they are.
"""

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from stationmaster.agents.base import AgentProtocolError, AgentUnavailable, LaunchSpec
from stationmaster.agents.claude_code.frames import read_frames
from stationmaster.agents.claude_code.launcher import AgentProcess, finish
from stationmaster.agents.claude_code.mask import Mask
from stationmaster.agents.claude_code.question import (
    Question,
    QuestionRefusedError,
    question_of,
)
from stationmaster.kernel.errors import Upstream, UpstreamTimeout
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.upstream import Timeouts

Json = dict[str, Any]
Open = Callable[[LaunchSpec, Sequence[str]], AbstractAsyncContextManager[AgentProcess]]
"""Starts the CLI with the words given, confined as an agent; kills it at the block's end."""

_JSON: Headers = (("content-type", "application/json"),)
_EVENTS: Headers = (("content-type", "text/event-stream; charset=utf-8"),)
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_NO_SECRET = Mask(())


class ClaudeCodeProvider:
    """Asks the model through the CLI. For the owner of the login alone: see `owner_only`."""

    operations: frozenset[Operation] = frozenset({"messages"})
    owner_only = True
    """Its terms allow nobody else."""

    def __init__(
        self,
        open_process: Open,
        *,
        directory: Path,
        name: str = "claude_code",
        timeouts: Timeouts | None = None,
        own_login: bool = True,
        gateway_url: str = "",
        token: str = "",
    ) -> None:
        """`directory` is for what lives as long as a call. Tests ask elsewhere than at home."""
        self._open = open_process
        self._directory = directory
        self._name = name
        self._timeouts = timeouts or Timeouts()
        self._own_login = own_login
        self._gateway_url = gateway_url
        self._token = token
        self._replies: set[ClaudeCodeReply] = set()

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> "ClaudeCodeReply":
        """See `Provider.send`. What cannot be asked is a reply with status 400."""
        try:
            question = question_of(request.body, request.model)
        except QuestionRefusedError as refusal:
            return ClaudeCodeReply.refusal(400, str(refusal))
        reply = ClaudeCodeReply(self._timeouts)
        self._replies.add(reply)
        try:
            await reply.begin(self._asking(question), question, stream=request.stream)
        except BaseException as error:
            await reply.aclose()
            if isinstance(error, AgentUnavailable):
                raise Upstream(error.message, code="upstream_unreachable") from error
            raise
        finally:
            self._replies = {each for each in self._replies if not each.over}
        return reply

    async def check(self) -> None:
        """Nothing that costs nothing could tell."""

    async def aclose(self) -> None:
        """End every call. Idempotent."""
        await asyncio.gather(*(reply.aclose() for reply in list(self._replies)))

    def _asking(self, question: Question) -> "_Place":
        return _Place(
            self._open,
            self._directory,
            question,
            own_login=self._own_login,
            gateway_url=self._gateway_url,
            token=self._token,
        )


class _Place:
    """Where one call's process lives. As a context it is the process."""

    def __init__(
        self,
        open_process: Open,
        directory: Path,
        question: Question,
        *,
        own_login: bool,
        gateway_url: str,
        token: str,
    ) -> None:
        self._open = open_process
        self._within = directory
        self._question = question
        self._own_login = own_login
        self._gateway_url = gateway_url
        self._token = token
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AgentProcess:
        try:
            top = await finish(asyncio.to_thread(self._make))
            spec = LaunchSpec(
                session_id=f"call_{secrets.token_hex(8)}",
                workspace=top / "workspace",
                home=top / "home",
                gateway_socket=Path("/nonexistent"),
                gateway_url=self._gateway_url,
                token=self._token,
                model=self._question.model,
                tools=(),
                own_login=self._own_login,
                add_env={
                    "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(self._question.max_tokens),
                    "MAX_THINKING_TOKENS": "0",
                    # Else `@PATH` in what a user says would be read, this login's file too.
                    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",
                    "CLAUDE_CODE_DISABLE_FILE_MENTIONS": "1",
                },
            )
            words = _words(self._question, spec.home)
            return await self._stack.enter_async_context(self._open(spec, words))
        except BaseException:
            await finish(self._stack.aclose())
            raise

    async def __aexit__(self, *_: object) -> None:
        await finish(self._stack.aclose())

    def _make(self) -> Path:
        self._within.mkdir(mode=0o700, parents=True, exist_ok=True)
        top = Path(tempfile.mkdtemp(prefix="call-", dir=self._within)).resolve()
        self._stack.callback(shutil.rmtree, top, ignore_errors=True)
        for name in ("workspace", "home"):
            (top / name).mkdir(mode=0o700)
        # In a file: what a command line says is seen by everybody on the machine.
        (top / "home" / "system.txt").write_text(self._question.system or " ", encoding="utf-8")
        return top


def _words(question: Question, home: Path) -> list[str]:
    return [
        *("-p", "--output-format=stream-json", "--input-format=stream-json", "--verbose"),
        "--include-partial-messages",
        *("--setting-sources=", "--strict-mcp-config", "--no-session-persistence"),
        *("--tools=", "--disable-slash-commands", "--max-turns=1", f"--model={question.model}"),
        f"--system-prompt-file={home / 'system.txt'}",
    ]


class ClaudeCodeReply:
    """An answer that comes from a process. Closing it kills the process and all below it."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._stack = AsyncExitStack()
        self._frames: AsyncIterator[Json] | None = None
        self._first: Json | None = None
        self._whole: bytes | None = None
        self._due = asyncio.get_running_loop().time() + timeouts.total
        self._status = 200
        self._headers = _JSON
        self.over = False

    @classmethod
    def refusal(cls, status: int, message: str) -> "ClaudeCodeReply":
        """An error in Anthropic's shape."""
        made = cls(Timeouts())
        made._status = status
        made._whole = _error(status, message)
        made.over = True
        return made

    @property
    def status(self) -> int:
        """The provider's, as far as the CLI says."""
        return self._status

    @property
    def headers(self) -> Headers:
        """The kind of the body."""
        return self._headers

    async def begin(self, asking: _Place, question: Question, *, stream: bool) -> None:
        """Start the CLI, and wait for the answer's begin, or for all of it."""
        process = await self._stack.enter_async_context(asking)
        with suppress(ConnectionError, RuntimeError):  # it has ended: what it said is read below
            await process.write(question.frame)
        process.end_input()
        self._frames = read_frames(process.stdout)
        patience = self._timeouts.first_byte if stream else self._timeouts.total
        found = await self._next(patience)
        if found is None:
            raise Upstream("The CLI ended without an answer.")
        if found.get("type") == "result":
            self._status, message = _failure(found)
            self._whole = _error(self._status, message)
            await self._end()
        elif stream:
            self._headers = _EVENTS
            self._first = found
        else:
            message_of = _Message()
            event: Json | None = found
            while event is not None and not message_of.take(event):
                event = await self._next(self._timeouts.total)
            if event is None or event.get("type") == "result":
                raise Upstream("The CLI's answer ended before its end.")
            self._whole = json.dumps(message_of.message).encode()
            await self._end()

    def arrived(self) -> bytes | None:
        """See `ProviderReply.arrived`."""
        return self._whole

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """See `ProviderReply.chunks`."""
        if self._whole is not None:
            yield self._whole
            return
        event = self._first
        while event is not None:
            if event.get("type") == "result":
                raise Upstream("The CLI's answer broke off.")
            kind = str(event.get("type"))
            yield b"event: %s\ndata: %s\n\n" % (kind.encode(), json.dumps(event).encode())
            if kind == "message_stop":
                await self._end()
                return
            event = await self._next(self._timeouts.inactivity)
        raise Upstream("The CLI ended in the middle of its answer.")

    async def aclose(self) -> None:
        """See `ProviderReply.aclose`."""
        await self._end()

    async def _end(self) -> None:
        self.over = True
        await finish(self._stack.aclose())

    async def _next(self, seconds: float) -> Json | None:
        """The next event of the model's answer, or the result of all; None at the end."""
        if self.over or self._frames is None:
            raise Upstream("The answer was closed.")
        due = min(asyncio.get_running_loop().time() + seconds, self._due)
        try:
            async with asyncio.timeout_at(due):
                async for frame in self._frames:
                    if frame.get("type") == "stream_event" and isinstance(frame.get("event"), dict):
                        event: Json = frame["event"]
                        return event
                    if frame.get("type") == "result":
                        return frame
        except TimeoutError:
            raise UpstreamTimeout("The CLI did not answer in time.") from None
        except AgentProtocolError as error:
            raise Upstream("The CLI wrote what is no answer.") from error
        return None


class _Message:
    """A message, put together of its events."""

    def __init__(self) -> None:
        self.message: Json = {}

    def take(self, event: Json) -> bool:
        """Take one; True where it was the last."""
        kind, delta = event.get("type"), event.get("delta") or {}
        blocks = self.message.get("content", [])
        if kind == "message_start":
            self.message = {**event["message"], "content": []}
        elif kind == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif kind == "content_block_delta" and blocks:
            for name in ("text", "thinking", "signature"):
                if name in delta:
                    blocks[-1][name] = blocks[-1].get(name, "") + delta[name]
        elif kind == "message_delta":
            self.message |= delta
            self.message["usage"] = {
                **self.message.get("usage", {}),
                **(event.get("usage") or {}),
            }
        return kind in {"message_stop", "result"}


def _failure(result: Json) -> tuple[int, str]:
    """The status and the words of a call that the CLI says has failed."""
    said = _NO_SECRET.text(str(result.get("result") or "The call failed."))[:500]
    if result.get("is_error") is False:  # and yet no model was asked
        return 400, f"messages.0.content: Claude Code takes it for a command of its own: {said}"
    status = result.get("api_error_status")
    known = isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600
    return (status if known else 502), said  # type: ignore[return-value]


def _error(status: int, message: str) -> bytes:
    kind = _KINDS.get(status, "api_error")
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
