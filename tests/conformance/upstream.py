"""The providers behind the server: Anthropic's format and OpenAI's, on one free port, scripted.

`GET /calls/TAG` tells a check in whatever language what became of its calls.
"""

import asyncio
import base64
import json
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.conformance import chat_wire
from tests.conformance.scenes import Asked, Wire, mark_of, reply
from tests.support.listening import Listening
from tests.support.wire_upstream import Reply, error_of, frames_of, message_of

Json = dict[str, Any]

COUNTED = 42
"""Input tokens, for every count."""
VECTOR = (0.25, -0.5, 0.75)

GONE_SECONDS = 10.0
_PATHS: dict[str, Wire] = {"/v1/messages": "messages", "/v1/chat/completions": "chat"}


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
    """Both of them; `url` is set once it listens. `calls` is by tag, in order of arrival."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)

    def routes(self, app: web.Application) -> None:
        """Both formats, and what became of calls."""
        for path in _PATHS:
            app.router.add_post(path, self._answer)
        app.router.add_post("/v1/messages/count_tokens", _count)
        app.router.add_post("/v1/embeddings", _embed)
        app.router.add_get("/v1/models", _models)
        app.router.add_get("/calls/{tag}", self._calls)
        app.router.add_route("*", "/", _nothing)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        wire = _PATHS[request.path]
        body = json.loads(await request.read())
        mark = mark_of(body)
        if mark is None:
            return _refused(wire, Reply(status=400, message="The prompt has no mark."))
        scene, number, tag = mark
        earlier = sum(call.scene == scene for call in self.calls[tag])
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(scene, time.monotonic(), headers, body)
        self.calls[tag].append(call)
        try:
            told = reply(Asked(wire, body, scene, number, earlier))
            return await _tell(request, wire, body, told)
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


async def _tell(request: web.Request, wire: Wire, body: Json, told: Reply) -> web.StreamResponse:
    if told.delay:
        await asyncio.sleep(told.delay)
    if told.status != 200:
        return _refused(wire, told)
    headers = {"request-id": "req_upstream", "x-request-id": "req_upstream"}
    if not body.get("stream"):
        whole = message_of(body, told) if wire == "messages" else chat_wire.completion(body, told)
        return web.json_response(whole, headers=headers)
    response = web.StreamResponse(
        headers={"content-type": "text/event-stream; charset=utf-8", **headers}
    )
    await response.prepare(request)
    sent = 0
    async for frame in _frames(wire, body, told):
        if told.hang_after == sent:
            await asyncio.Event().wait()
        await response.write(frame)
        sent += 1
    await response.write_eof()
    return response


async def _frames(wire: Wire, body: Json, told: Reply) -> AsyncIterator[bytes]:
    if wire == "chat":
        for frame in chat_wire.chunks(body, told):
            yield frame
        return
    async for event in frames_of(body, told):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _refused(wire: Wire, told: Reply) -> web.Response:
    headers = {"request-id": "req_upstream", "x-request-id": "req_upstream", **told.headers}
    if wire == "messages":
        return error_of(told.status, told.message, headers)
    body = chat_wire.error(told.status, told.message)
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


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": []})


async def _nothing(_: web.Request) -> web.Response:
    return web.Response()
