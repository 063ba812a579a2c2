"""The provider over HTTP. Takes and answers in OpenAI's format; Ollama never sees it."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stationmaster.kernel.errors import NotFound, Upstream, UpstreamTimeout
from stationmaster.providers.base import Headers, Operation, ProviderRequest
from stationmaster.providers.ollama import chat_request, embeddings
from stationmaster.providers.ollama.chat_answer import ChatStream, ErrorAnswer, WholeChat
from stationmaster.providers.ollama.context import ContextSizes
from stationmaster.providers.ollama.lines import Lines
from stationmaster.providers.ollama.presets import PRESETS, Preset
from stationmaster.providers.upstream import (
    Endpoint,
    Timeouts,
    TranslatedReply,
    Translation,
    UpstreamReply,
    document,
)

Json = dict[str, Any]

DEFAULT_BASE_URL = "http://localhost:11434"
PULL_TIME = 24 * 3600.0
"""Seconds for a whole download: models have tens of gigabytes."""
PULL_SILENCE = 1800.0
"""Seconds: it says nothing while it checks what has come."""

_JSON: Headers = (("content-type", "application/json"),)
_STREAM_TYPE = "text/event-stream; charset=utf-8"
_JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried at all, and the seconds between two tries."""

    attempts: int = 3
    delay: float = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may say; see the guide. `fallback_model` is for chats."""

    keep_alive: str | int | None = None
    sizes: ContextSizes = field(default_factory=ContextSizes)
    retries: Retries = field(default_factory=Retries)
    fallback_model: str | None = None
    presets: Mapping[str, Preset] = field(default_factory=lambda: PRESETS)


class PullProgress(msgspec.Struct, frozen=True):
    """One step of a download. `total` and `completed` are bytes of the layer `digest`."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class _Model(msgspec.Struct):
    name: str


class _Tags(msgspec.Struct):
    models: list[_Model]


class _PullLine(msgspec.Struct):
    status: str = ""
    digest: str | None = None
    total: int | None = None
    completed: int | None = None
    error: str | None = None


_tags = msgspec.json.Decoder(_Tags)
_pull_line = msgspec.json.Decoder(_PullLine)
_object = msgspec.json.Decoder(Json)


@dataclass(frozen=True, slots=True)
class _Call:
    """A request in Ollama's words, and how its answer is told."""

    path: str
    body: Json
    streamed: bool
    translation: Callable[[], Translation]


class OllamaProvider:
    """Calls an Ollama server. The connection pool belongs to the event loop of the first call."""

    operations: frozenset[Operation] = frozenset({"chat", "embeddings"})

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        settings: Settings | None = None,
        timeouts: Timeouts | None = None,
        name: str = "ollama",
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`api_key` is for what stands before Ollama. Raises `Invalid` for a URL without sense."""
        self._settings = settings or Settings()
        timeouts = timeouts or Timeouts()
        key = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self._endpoint = Endpoint(base_url, timeouts, headers=key, tls=tls)
        patient = replace(timeouts, total=PULL_TIME, inactivity=PULL_SILENCE)
        self._downloads = Endpoint(base_url, patient, headers=key, tls=tls)
        self._sleep = sleep
        self._name = name

    @property
    def name(self) -> str:
        """Its name in the ledger."""
        return self._name

    async def send(self, request: ProviderRequest) -> TranslatedReply:
        """Start a call; see `Provider.send`.

        A connection that fails before any answer is tried again, some times after a pause. Where
        a chat's model is not there, the fallback model answers, and the reply says so in the
        header `x-fallback-model`. Raises `Invalid` for what Ollama has no word for.
        """
        call = self._chat(request) if request.operation == "chat" else self._embeddings(request)
        reply = await self._tried(call)
        fallback = self._settings.fallback_model
        extra: Headers = ()
        # Not for embeddings: those of another model mean something else.
        missing = request.operation == "chat" and reply.status == 404
        if missing and fallback and call.body["model"] != fallback:
            await reply.aclose()
            call = replace(call, body={**call.body, "model": fallback})
            reply = await self._tried(call)
            extra = (("x-fallback-model", fallback),)
        if reply.status >= 400:
            error = ErrorAnswer(reply.status)
            return TranslatedReply(reply, error, content_type=_JSON_TYPE, headers=extra)
        kind = _STREAM_TYPE if call.streamed else _JSON_TYPE
        return TranslatedReply(reply, call.translation(), content_type=kind, headers=extra)

    async def models(self) -> tuple[str, ...]:
        """What is installed; see `Listing`."""
        reply = await self._endpoint.get("/api/tags")
        body = await document(reply)
        try:
            tags = _tags.decode(body) if reply.status == 200 else None
        except (msgspec.DecodeError, ValueError):
            tags = None
        if tags is None:
            raise Upstream("Ollama does not list its models.", status=reply.status)
        return tuple(model.name for model in tags.models)

    async def show(self, model: str) -> Json:
        """What Ollama knows of a model: `details`, `model_info`, `capabilities` and more.

        Raises `NotFound` for a model that is not there, and `Upstream`.
        """
        reply = await self._endpoint.post(
            "/api/show", msgspec.json.encode({"model": model}), _JSON, streamed=True
        )
        body = await document(reply)
        if reply.status == 404:
            raise NotFound("Ollama has no such model.")
        try:
            if reply.status == 200:
                return _object.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            pass
        raise Upstream("Ollama does not describe the model.", status=reply.status)

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Download a model, telling each step; the last has the status `success`.

        Closing the generator early ends the download; what came is kept by Ollama for the next.
        Raises `Upstream` where it fails, with Ollama's words.
        """
        reply = await self._downloads.post(
            "/api/pull", msgspec.json.encode({"model": model, "stream": True}), _JSON, streamed=True
        )
        lines = Lines()
        last = ""
        async with aclosing(reply.chunks()) as parts:
            async for part in parts:
                for raw in lines.feed(part):
                    step = _step(raw, reply)
                    last = step.status
                    yield step
        if left := lines.rest():
            step = _step(left, reply)
            last = step.status
            yield step
        if last != "success":
            raise Upstream("The download of the model broke off.", status=reply.status)

    async def check(self) -> None:
        """Raise `Upstream` where nobody answers."""
        await self._endpoint.check()

    async def aclose(self) -> None:
        """Close pooled connections. Calls that still run break. Idempotent."""
        await self._endpoint.aclose()
        await self._downloads.aclose()

    def _chat(self, request: ProviderRequest) -> _Call:
        asked = chat_request.read_chat(request.body)
        preset = self._settings.presets.get(request.model)
        body = chat_request.told(
            asked,
            model=preset.model if preset else request.model,
            sizes=self._settings.sizes,
            preset=preset.options if preset else {},
            keep_alive=self._settings.keep_alive,
        )
        if asked.stream:
            usage = asked.include_usage
            return _Call("/api/chat", body, True, lambda: ChatStream(include_usage=usage))
        return _Call("/api/chat", body, False, WholeChat)

    def _embeddings(self, request: ProviderRequest) -> _Call:
        asked = embeddings.read_embeddings(request.body)
        preset = self._settings.presets.get(request.model)
        model = preset.model if preset else request.model
        body = embeddings.told(asked, model=model, keep_alive=self._settings.keep_alive)
        return _Call("/api/embed", body, False, lambda: embeddings.Embeddings(asked))

    async def _tried(self, call: _Call) -> UpstreamReply:
        body = msgspec.json.encode(call.body)
        left = self._settings.retries.attempts
        while True:
            left -= 1
            try:
                return await self._endpoint.post(call.path, body, _JSON, streamed=call.streamed)
            except Upstream as error:
                slow = isinstance(error, UpstreamTimeout)
                unreachable = error.error_code == "upstream_unreachable"
                # One that answered, if only with a redirect, or was busy for minutes, would again.
                if left <= 0 or error.status is not None or (slow and not unreachable):
                    raise
            await self._sleep(self._settings.retries.delay)


def _step(raw: bytes, reply: UpstreamReply) -> PullProgress:
    try:
        line = _pull_line.decode(raw)
    except (msgspec.DecodeError, ValueError):
        raise Upstream("Ollama's answer cannot be read.", status=reply.status) from None
    if line.error is not None or reply.status != 200:
        words = line.error or "no reason given"
        raise Upstream(f"Ollama cannot download the model: {words}", status=reply.status)
    return PullProgress(line.status, line.digest, line.total, line.completed)
