"""A scripted model provider that speaks Anthropic's wire format on a free port of its own.

    async with WireUpstream(script) as upstream:
        ... call upstream.url ...
        assert upstream.calls[0].completed

A script is a function from the request's JSON to a `Reply`: blocks, usage and faults. Every call is
kept with the usage that was stated to the client, so that a ledger can be compared with it.
"""

import asyncio
import json
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.listening import Listening

Json = dict[str, Any]

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Usage:
    """The four classes of tokens, as the wire names them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """The sum, class by class."""
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Text:
    """A text block."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A thinking block with its signature."""

    thinking: str
    signature: str = "c2lnbmF0dXJl"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool_use block. `id` is made up where empty."""

    name: str
    input: Json = field(default_factory=dict)
    id: str = ""


Block = Text | Thought | Tool


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, and what goes wrong with it.

    `status` other than 200 is an error in Anthropic's shape. `delay` is in seconds, before the
    status line. `hold` delays the status line until it is set. `hang_after` and `cut_after` count
    frames of the event stream (0 is before the first): the connection then stays silent, or is
    aborted without an end.
    """

    blocks: Sequence[Block] = ()
    usage: Usage = Usage(100, 10)
    stop_reason: str | None = None
    status: int = 200
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hold: asyncio.Event | None = None
    hang_after: int | None = None
    cut_after: int | None = None
    piece: int = 12

    @property
    def ending(self) -> str:
        """The stop reason: as given, else what the blocks imply."""
        if self.stop_reason is not None:
            return self.stop_reason
        return "tool_use" if any(isinstance(b, Tool) for b in self.blocks) else "end_turn"


Script = Callable[[Json], Reply]


@dataclass(slots=True)
class Call:
    """One request that arrived. `usage` is what was stated to the client so far.

    `completed` means that the whole answer was written; `disconnected` that the client went away.
    """

    path: str
    query: str
    headers: Mapping[str, str]
    body: Json
    raw: bytes
    usage: Usage = Usage()
    status: int = 200
    completed: bool = False
    disconnected: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)


# --- scripts ----------------------------------------------------------------------------------


def text(words: str, usage: Usage | None = None) -> Reply:
    """A reply of one text block."""
    return Reply((Text(words),), usage or Usage(100, 10))


def fixed(reply: Reply) -> Script:
    """Always the same reply."""
    return lambda _request: reply


def tool_results(request: Json) -> list[Json]:
    """Every tool_result block of the conversation so far, in order."""
    found: list[Json] = []
    for message in request.get("messages", ()):
        content = message.get("content")
        if isinstance(content, list):
            found += [block for block in content if block.get("type") == "tool_result"]
    return found


def result_text(result: Json) -> str:
    """The text of a tool_result block."""
    content = result.get("content", "")
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def working_directory(request: Json) -> str | None:
    """The directory that Claude Code says it works in, read from its prompt."""
    match = re.search(r"[Ww]orking directory: (/[^\s\\\"<]+)", json.dumps(request))
    return match.group(1) if match else None


def steps(*replies: Reply | Callable[[Json], Reply], aside: str = "A title") -> Script:
    """One reply after another within each turn, chosen by the tool results since its prompt.

    The turn's prompt is the last user message without tool results. Requests without tools
    (titles and the like) get the text `aside`. The last reply repeats.
    """

    def script(request: Json) -> Reply:
        if not request.get("tools"):
            return text(aside)
        done = 0
        for message in reversed(request.get("messages", ())):
            if message.get("role") != "user":
                continue
            found = tool_results({"messages": [message]})
            if not found:
                break
            done += len(found)
        reply = replies[min(done, len(replies) - 1)]
        return reply if isinstance(reply, Reply) else reply(request)

    return script


def write_run_read(request: Json) -> Reply:
    """The default script: write hello.py, run it, read it back, say so."""

    def at(name: str) -> str:
        return f"{working_directory(request) or '.'}/{name}"

    program = "print('hello from the agent')\n"
    return steps(
        Reply(
            (
                Thought("A small program will do."),
                Text("I will write a small program."),
                Tool("Write", {"file_path": at("hello.py"), "content": program}),
            ),
            Usage(1200, 80, 300, 0),
        ),
        Reply(
            (
                Text("Now I run it."),
                Tool("Bash", {"command": "python3 hello.py", "description": "Run it"}),
            ),
            Usage(200, 40, 0, 1500),
        ),
        Reply(
            (Tool("Read", {"file_path": at("hello.py")}),),
            Usage(150, 30, 0, 1600),
        ),
        Reply((Text("Done: hello.py prints a greeting."),), Usage(120, 20, 0, 1700)),
    )(request)


# --- the server -------------------------------------------------------------------------------


class WireUpstream(Listening):
    """Serves a script on 127.0.0.1, and on a unix socket where `unix` is given.

    `unix` is a path, or True for one in a private temporary directory.
    """

    def __init__(self, script: Script = write_run_read, *, unix: bool | Path = False) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.socket_path: Path | None = None
        self._unix = unix
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._changed = asyncio.Condition()

    def routes(self, app: web.Application) -> None:
        """Those of the Messages API."""
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        app.router.add_route("*", "/{rest:.*}", self._other)

    async def __aenter__(self) -> Self:
        """Start listening; `url` is then set, and `socket_path` where there is one."""
        await super().__aenter__()
        if self._unix:
            if isinstance(self._unix, Path):
                self.socket_path = self._unix
            else:
                # Unix socket paths end at 107 bytes: pytest's directories are too deep.
                self._directory, self.socket_path = _socket_directory()
            await web.UnixSite(self.runner, str(self.socket_path)).start()
            self.socket_path.chmod(0o666)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, dropping what still hangs."""
        await super().__aexit__(kind, error, trace)
        if self._directory is not None:
            self._directory.cleanup()

    @property
    def message_calls(self) -> list[Call]:
        """Calls of /v1/messages alone."""
        return [call for call in self.calls if call.path == "/v1/messages"]

    @property
    def served(self) -> Usage:
        """What has been stated to clients over all calls."""
        total = Usage()
        for call in self.calls:
            total += call.usage
        return total

    async def wait_for_calls(self, count: int, *, path: str = "/v1/messages") -> list[Call]:
        """Wait until `count` calls of `path` have arrived (not: been answered)."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: sum(call.path == path for call in self.calls) >= count
            )
        return [call for call in self.calls if call.path == path]

    async def _arrived(self, request: web.Request) -> Call:
        raw = await request.read()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = {}
        call = Call(request.path, request.query_string, dict(request.headers), body, raw)
        self.calls.append(call)
        async with self._changed:
            self._changed.notify_all()
        return call

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        call = await self._arrived(request)
        try:
            return await self._reply(request, call, self.script(call.body))
        except asyncio.CancelledError:
            call.disconnected = True
            raise
        except ConnectionError:
            call.disconnected = True
            return web.Response()
        finally:
            call.done.set()

    async def _reply(self, request: web.Request, call: Call, reply: Reply) -> web.StreamResponse:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.hold is not None:
            await reply.hold.wait()
        headers = {"request-id": f"req_{secrets.token_hex(12)}", **reply.headers}
        call.status = reply.status
        if reply.status != 200:
            call.completed = True
            return error_of(reply.status, reply.message, headers)
        if call.body.get("stream"):
            return await self._stream(request, call, reply, headers)
        call.usage, call.completed = reply.usage, True
        return web.json_response(message_of(call.body, reply), headers=headers)

    async def _stream(
        self, request: web.Request, call: Call, reply: Reply, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream; charset=utf-8",
                "cache-control": "no-cache",
                **headers,
            }
        )
        await response.prepare(request)
        sent = 0
        async for frame in frames_of(call.body, reply):
            if reply.hang_after == sent:
                await asyncio.Event().wait()
            if reply.cut_after == sent:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(f"event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode())
            sent += 1
            call.usage = _stated(frame, call.usage)
        await response.write_eof()
        call.completed = True
        return response

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        call = await self._arrived(request)
        call.completed = True
        call.done.set()
        return web.json_response({"input_tokens": max(1, len(call.raw) // 4)})

    async def _other(self, request: web.Request) -> web.StreamResponse:
        call = await self._arrived(request)
        call.completed = True
        call.done.set()
        if request.path == "/" and request.method in {"GET", "HEAD"}:
            return web.Response()
        call.status = 404
        return error_of(404, "not found", {})


def _socket_directory() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    directory = tempfile.TemporaryDirectory(prefix="wire-")
    path = Path(directory.name)
    path.chmod(0o755)
    return directory, path / "gateway.sock"


def error_of(status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    kind = _ERROR_TYPES.get(status, "api_error")
    body = {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": headers.get("request-id"),
    }
    return web.json_response(body, status=status, headers=headers)


def _stated(frame: Json, before: Usage) -> Usage:
    if frame["type"] == "message_start":
        return Usage(**frame["message"]["usage"])
    if frame["type"] == "message_delta":
        return Usage(**{**asdict(before), **frame["usage"]})
    return before


def _block(block: Block) -> Json:
    match block:
        case Text():
            return {"type": "text", "text": block.text}
        case Thought():
            return {
                "type": "thinking",
                "thinking": block.thinking,
                "signature": block.signature,
            }
        case Tool():
            made_up = f"toolu_{secrets.token_hex(12)}"
            return {
                "type": "tool_use",
                "id": block.id or made_up,
                "name": block.name,
                "input": block.input,
            }


def message_of(request: Json, reply: Reply) -> Json:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", ""),
        "content": [_block(block) for block in reply.blocks],
        "stop_reason": reply.ending,
        "stop_sequence": None,
        "usage": asdict(reply.usage),
    }


async def frames_of(request: Json, reply: Reply) -> AsyncIterator[Json]:
    message = message_of(request, reply)
    blocks = message["content"]
    # At the start only the input is known: the real service states one output token or so.
    start = {**asdict(reply.usage), "output_tokens": min(1, reply.usage.output_tokens)}
    yield {
        "type": "message_start",
        "message": {**message, "content": [], "stop_reason": None, "usage": start},
    }
    yield {"type": "ping"}
    for index, block in enumerate(blocks):
        for frame in _block_frames(index, block, reply.piece):
            yield frame
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reply.ending, "stop_sequence": None},
        "usage": {"output_tokens": reply.usage.output_tokens},
    }
    yield {"type": "message_stop"}


def _block_frames(index: int, block: Json, piece: int) -> list[Json]:
    kind = block["type"]
    if kind == "text":
        opening, deltas = {**block, "text": ""}, _deltas("text_delta", "text", block["text"], piece)
    elif kind == "thinking":
        opening = {**block, "thinking": "", "signature": ""}
        deltas = _deltas("thinking_delta", "thinking", block["thinking"], piece)
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        opening = {**block, "input": {}}
        written = json.dumps(block["input"]) if block["input"] else ""
        deltas = _deltas("input_json_delta", "partial_json", written, piece)
    return [
        {"type": "content_block_start", "index": index, "content_block": opening},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _deltas(kind: str, name: str, written: str, piece: int) -> list[Json]:
    cuts = [written[at : at + piece] for at in range(0, len(written), piece)] or [""]
    return [{"type": kind, name: cut} for cut in cuts]
