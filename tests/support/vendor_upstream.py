"""OpenAI's, Ollama's, Bedrock's and Vertex's APIs, on one free port.

    async with VendorUpstream() as upstream:
        ... call upstream.url ...

Each says the word that it is asked for (`Say WORD.`). `endless` hangs in the middle of its stream,
the model `no-such-model` is refused in the vendor's own way. Every call is kept.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from stationmaster.providers.conformance import ENDLESS
from tests.support import vendor_answers as wire
from tests.support.listening import Listening

Json = dict[str, Any]

MODEL = "claude-haiku-5-5"
UNKNOWN = "no-such-model"
HANG_AFTER = 3
"""Frames."""

_EVENTS = "text/event-stream; charset=utf-8"
_NDJSON = "application/x-ndjson"
_AWS = "application/vnd.amazon.eventstream"
_PROJECT = r"/v1/projects/[^/]+/locations/[^/]+/publishers/anthropic/models"


@dataclass(slots=True)
class Call:
    """One request that arrived; header names are in lower case, the path is as it was sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    raw: bytes
    json: Json
    disconnected: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Answer:
    """Frames are written one by one; a JSON value in one piece."""

    value: Any = None
    status: int = 200
    frames: Sequence[bytes] | None = None
    content_type: str = "application/json"
    hang: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Call], Answer]


class VendorUpstream(Listening):
    """Answers in order from `answers` where there are some, else by the request's path."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[Answer] = []
        self.models = [MODEL]

    def routes(self, app: web.Application) -> None:
        """Whatever is asked."""
        app.router.add_route("*", "/{rest:.*}", self._serve)

    async def closed(self) -> None:
        """Return when the last call's client has gone. Raises where it never does."""
        async with asyncio.timeout(10):
            await self.calls[-1].done.wait()
        assert self.calls[-1].disconnected

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        headers = {name.lower(): value for name, value in request.headers.items()}
        path, _, query = request.raw_path.partition("?")
        call = Call(request.method, path, query, headers, raw, body)
        self.calls.append(call)
        try:
            answer = self.answers.pop(0) if self.answers else self._answer(call)
            return await self._told(request, answer)
        except asyncio.CancelledError:
            call.disconnected = True
            raise
        except ConnectionError:
            call.disconnected = True
            return web.Response()
        finally:
            call.done.set()

    async def _told(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        headers = {"content-type": answer.content_type, "set-cookie": "a=b", **answer.headers}
        if answer.frames is None:
            body = b"" if answer.value is None else wire.encoded(answer.value)
            return web.Response(body=body, status=answer.status, headers=headers)
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        for sent, frame in enumerate(answer.frames):
            if answer.hang and sent == HANG_AFTER:
                await asyncio.Event().wait()
            await response.write(frame)
        await response.write_eof()
        return response

    def _answer(self, call: Call) -> Answer:
        if call.method == "HEAD":
            return Answer()
        for pattern, respond in _ROUTES.items():
            if re.fullmatch(pattern, call.path):
                return respond(self, call)
        return Answer({"message": "not found"}, 404)

    # --- the vendors --------------------------------------------------------------------------

    def _chat(self, call: Call) -> Answer:
        model, text = call.json["model"], _text(call)
        if model not in self.models:
            return Answer(wire.openai_error("There is no such model.", "model_not_found"), 404)
        if not call.json.get("stream"):
            return Answer(wire.completion(model, text))
        asked = call.json.get("stream_options") or {}
        frames = wire.completion_frames(model, text, include_usage=bool(asked.get("include_usage")))
        return Answer(frames=frames, content_type=_EVENTS, hang=ENDLESS in text)

    def _embeddings(self, call: Call) -> Answer:
        if call.json["model"] not in self.models:
            return Answer(wire.openai_error("There is no such model.", "model_not_found"), 404)
        given = call.json["input"]
        packed = call.json.get("encoding_format") == "base64"
        inputs = [given] if isinstance(given, str) else given
        return Answer(wire.embedding_list(call.json["model"], inputs, packed=packed))

    def _responses(self, call: Call) -> Answer:
        model, text = call.json["model"], _text(call)
        if not call.json.get("stream"):
            return Answer(wire.response(model, text))
        frames = wire.named_frames(wire.response_events(model, text))
        return Answer(frames=frames, content_type=_EVENTS)

    def _models(self, call: Call) -> Answer:
        return Answer({"object": "list", "data": [{"id": each} for each in self.models]})

    def _ollama_chat(self, call: Call) -> Answer:
        model = call.json["model"]
        if model not in self.models:
            return Answer({"error": f"model '{model}' not found"}, 404)
        text = _text(call)
        if call.json.get("stream") is False:
            return Answer(wire.ollama_answer(model, text))
        frames = wire.ollama_frames(model, text)
        return Answer(frames=frames, content_type=_NDJSON, hang=ENDLESS in text)

    def _ollama_embed(self, call: Call) -> Answer:
        model = call.json["model"]
        if model not in self.models:
            return Answer({"error": f"model '{model}' not found"}, 404)
        given = call.json["input"]
        inputs = [given] if isinstance(given, str) else given
        vectors = [wire.vector(each) for each in inputs]
        return Answer({"model": model, "embeddings": vectors, "prompt_eval_count": 4})

    def _ollama_tags(self, call: Call) -> Answer:
        return Answer({"models": [{"name": each, "size": 1} for each in self.models]})

    def _ollama_pull(self, call: Call) -> Answer:
        layer = {"status": "pulling 1a2b", "digest": "sha256:1a2b", "total": 100}
        steps = [
            {"status": "pulling manifest"},
            {**layer, "completed": 40},
            {**layer, "completed": 100},
            {"status": "verifying sha256 digest"},
            {"status": "success"},
        ]
        self.models.append(call.json["model"])
        frames = [wire.encoded(step) + b"\n" for step in steps]
        return Answer(frames=frames, content_type=_NDJSON)

    def _ollama_show(self, call: Call) -> Answer:
        if call.json["model"] not in self.models:
            return Answer({"error": "model not found"}, 404)
        return Answer({"model_info": {"llama.context_length": 8192}, "capabilities": ["tools"]})

    def _bedrock(self, call: Call) -> Answer:
        _, _, model, action = call.path.split("/")
        if model == UNKNOWN:
            words = {"message": "The provided model identifier is invalid."}
            kind = {"x-amzn-errortype": "ResourceNotFoundException:http://internal.amazon.com/"}
            return Answer(words, 404, headers=kind)
        if action == "count-tokens":
            return Answer({"inputTokens": 40})
        text = _text(call)
        if action == "invoke":
            return Answer(wire.message(model, text))
        frames = wire.aws_frames(wire.message_events(model, text))
        return Answer(frames=frames, content_type=_AWS, hang=ENDLESS in text)

    def _vertex(self, call: Call) -> Answer:
        model, _, verb = call.path.rsplit("/", 1)[1].partition(":")
        if model == "count-tokens":
            return Answer({"input_tokens": 40})
        if model == UNKNOWN:
            told = {"code": 404, "message": "Publisher Model was not found.", "status": "NOT_FOUND"}
            return Answer([{"error": told}], 404)
        text = _text(call)
        if verb == "rawPredict":
            return Answer(wire.message(model, text))
        frames = wire.named_frames(wire.message_events(model, text))
        return Answer(frames=frames, content_type=_EVENTS, hang=ENDLESS in text)

    def _token(self, call: Call) -> Answer:
        number = sum(each.path == "/token" for each in self.calls)
        return Answer({"access_token": f"token-{number}", "expires_in": 3600})


_ROUTES: Mapping[str, Callable[[VendorUpstream, Call], Answer]] = {
    "/v1/chat/completions": VendorUpstream._chat,
    "/v1/embeddings": VendorUpstream._embeddings,
    "/v1/responses": VendorUpstream._responses,
    "/v1/models": VendorUpstream._models,
    "/api/chat": VendorUpstream._ollama_chat,
    "/api/embed": VendorUpstream._ollama_embed,
    "/api/tags": VendorUpstream._ollama_tags,
    "/api/pull": VendorUpstream._ollama_pull,
    "/api/show": VendorUpstream._ollama_show,
    "/model/.*": VendorUpstream._bedrock,
    rf"{_PROJECT}/[^/]+": VendorUpstream._vertex,
    "/token": VendorUpstream._token,
}


def _text(call: Call) -> str:
    asked = call.json.get("messages") or call.json.get("input", "")
    said = asked if isinstance(asked, str) else asked[-1]["content"]
    if not isinstance(said, str):
        said = said[-1]["text"]
    word = re.sub(r"^Say |\.$", "", said)
    return f"Here it is: {word}. And some more words."
