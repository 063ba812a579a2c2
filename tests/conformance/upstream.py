"""The providers behind the server, each by its format, on one free port, scripted.

`GET /calls/TAG` tells a check in whatever language what became of its calls.
"""

import asyncio
import base64
import json
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from tests.conformance import chat_wire, vendor_wires
from tests.conformance.features import Provider
from tests.conformance.scenes import Asked, Wire, mark_of, reply
from tests.support.listening import Listening
from tests.support.vendor_answers import aws_chunk
from tests.support.wire_upstream import Reply, error_of, frames_of, message_of

Json = dict[str, Any]

COUNTED = 42
"""Input tokens, for every count."""
VECTOR = (0.25, -0.5, 0.75)

OLLAMA_MODEL = "scripted"

GONE_SECONDS = 10.0
Vendor = Provider
_ACTIONS: dict[Vendor, str] = {"bedrock": "inputTokens", "vertex": "input_tokens"}
"""Who says in the path what is wanted, and how it names a count."""
_WHOLE: dict[Vendor, Callable[[Json, Reply], Json]] = {
    "openai": chat_wire.completion,
    "ollama": vendor_wires.ollama,
}
_KINDS: dict[Vendor, str] = {
    "ollama": "application/x-ndjson",
    "bedrock": "application/vnd.amazon.eventstream",
}
_BEDROCK = "/model/{model}/{action}"
_VERTEX = "/vertex/projects/{project}/locations/{place}/publishers/anthropic/models/{called}"
_PATHS: dict[str, tuple[Wire, Vendor]] = {
    "/v1/messages": ("messages", "anthropic"),
    "/v1/chat/completions": ("chat", "openai"),
    "/api/chat": ("ollama", "ollama"),
    _BEDROCK: ("messages", "bedrock"),
    _VERTEX: ("messages", "vertex"),
}


@dataclass(slots=True)
class Call:
    """One request. `at` is in seconds of a monotonic clock."""

    scene: str
    at: float
    headers: Json
    body: Json
    disconnected: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Providers(Listening):
    """All of them; `url` is set once it listens. `calls` is by tag, in order of arrival."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)

    def routes(self, app: web.Application) -> None:
        """Every format, and what became of calls."""
        for path, (wire, vendor) in _PATHS.items():
            app.router.add_post(path, partial(self._answer, wire, vendor))
        app.router.add_post("/api/embed", _embed_at_ollama)
        app.router.add_get("/api/tags", _tags)
        app.router.add_post("/api/show", _show)
        app.router.add_post("/v1/messages/count_tokens", _count)
        app.router.add_post("/v1/embeddings", _embed)
        app.router.add_get("/v1/models", _models)
        app.router.add_get("/calls/{tag}", self._calls)
        app.router.add_route("*", "/", _nothing)

    async def _answer(self, wire: Wire, vendor: Vendor, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        if vendor in _ACTIONS:
            action = request.match_info["action" if vendor == "bedrock" else "called"]
            if action.startswith("count-tokens"):
                return web.json_response({_ACTIONS[vendor]: COUNTED})
            body |= {"stream": "stream" in action, "model": "claude-sonnet-4-5"}
        mark = mark_of(body)
        if mark is None:
            return _refused(vendor, Reply(status=400, message="The prompt has no mark."))
        scene, number, tag = mark
        earlier = sum(call.scene == scene for call in self.calls[tag])
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(scene, time.monotonic(), headers, body)
        self.calls[tag].append(call)
        try:
            told = reply(Asked(wire, body, scene, number, earlier))
            return await _tell(request, vendor, body, told)
        except asyncio.CancelledError:
            call.disconnected = True
            raise
        except ConnectionError:
            call.disconnected = True
            return web.Response()
        finally:
            call.done.set()

    async def ended(self, tag: str) -> list[Call]:
        """The calls of a check, once all of them have ended."""
        async with asyncio.timeout(GONE_SECONDS):
            for call in self.calls[tag]:
                await call.done.wait()
        return self.calls[tag]

    async def _calls(self, request: web.Request) -> web.Response:
        calls = await self.ended(request.match_info["tag"])
        told = [{"at": each.at, "disconnected": each.disconnected} for each in calls]
        return web.json_response(told)


async def _tell(
    request: web.Request, vendor: Vendor, body: Json, told: Reply
) -> web.StreamResponse:
    if told.delay:
        await asyncio.sleep(told.delay)
    if told.status != 200:
        return _refused(vendor, told)
    headers = {"request-id": "req_upstream", "x-request-id": "req_upstream"}
    if not body.get("stream"):
        whole = _WHOLE.get(vendor, message_of)(body, told)
        return web.json_response(whole, headers=headers)
    kind = _KINDS.get(vendor, "text/event-stream; charset=utf-8")
    response = web.StreamResponse(headers={"content-type": kind, **headers})
    await response.prepare(request)
    sent = 0
    async for frame in _frames(vendor, body, told):
        if told.hang_after == sent:
            await asyncio.Event().wait()
        await response.write(frame)
        sent += 1
    await response.write_eof()
    return response


async def _frames(vendor: Vendor, body: Json, told: Reply) -> AsyncIterator[bytes]:
    if vendor in {"openai", "ollama"}:
        made = chat_wire.chunks if vendor == "openai" else vendor_wires.ollama_lines
        for frame in made(body, told):
            yield frame
        return
    async for event in frames_of(body, told):
        if vendor == "bedrock":
            yield aws_chunk(event)
        else:
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _refused(vendor: Vendor, told: Reply) -> web.Response:
    headers = {"request-id": "req_upstream", "x-request-id": "req_upstream", **told.headers}
    if vendor == "anthropic":
        return error_of(told.status, told.message, headers)
    body: Any = chat_wire.error(told.status, told.message)
    if vendor != "openai":
        body, more = vendor_wires.refusal(vendor, told.status, told.message)
        headers |= more
    return web.json_response(body, status=told.status, headers=headers)


async def _count(_: web.Request) -> web.Response:
    return web.json_response({"input_tokens": COUNTED})


async def _embed(request: web.Request) -> web.Response:
    body = await request.json()
    given = body["input"]
    count = 1 if isinstance(given, str) else len(given)
    packed = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
    vector = packed if body.get("encoding_format") == "base64" else VECTOR
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(count)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return web.json_response(
        {"object": "list", "data": data, "model": body["model"], "usage": usage}
    )


async def _embed_at_ollama(request: web.Request) -> web.Response:
    given = (await request.json())["input"]
    count = 1 if isinstance(given, str) else len(given)
    return web.json_response({"embeddings": [VECTOR] * count, "prompt_eval_count": 4})


async def _tags(_: web.Request) -> web.Response:
    return web.json_response({"models": [{"name": OLLAMA_MODEL}]})


async def _show(_: web.Request) -> web.Response:
    return web.json_response(
        {"model_info": {"llama.context_length": 65536}, "capabilities": ["tools", "vision"]}
    )


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def _nothing(_: web.Request) -> web.Response:
    return web.Response()
