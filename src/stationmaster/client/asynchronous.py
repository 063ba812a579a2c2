"""The client for asyncio. Method by method the same as the one for plain code."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx

from stationmaster.client import calls
from stationmaster.client.calls import Call
from stationmaster.client.connection import (
    OK,
    arguments,
    connection_failed,
    options,
    stream_timeout,
)
from stationmaster.client.errors import (
    ClientError,
    ConnectionFailed,
    LimitReached,
    ServerFailed,
    error_of,
)
from stationmaster.client.models import (
    ApiKey,
    Artifact,
    EventPage,
    Json,
    Page,
    Task,
    TaskEvent,
    TaskOptions,
)
from stationmaster.client.reading import Reading
from stationmaster.client.retry import RetryPolicy

T = TypeVar("T")


class AsyncClient:
    """A connection to a server. Close it, or use it as a context manager.

    `timeout` is in seconds and for one request; `max_retries` is how often a request is repeated
    that failed for a reason that may pass. Every method raises a `ClientError`. A cancelled call
    leaves nothing behind but what the server may have done already.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        max_retries: int = 3,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._retry = RetryPolicy(max_retries)
        self._http = httpx.AsyncClient(**options(base_url, api_key, timeout))

    # --- tasks --------------------------------------------------------------------------------

    async def submit(
        self,
        description: str,
        options: TaskOptions | None = None,
        *,
        archive: BinaryIO | None = None,
    ) -> Task:
        """Start a task. `archive` is a tar, tar.gz or zip of files for its workspace."""
        return await self.call(calls.submit(description, options, archive))

    async def get(self, task_id: str) -> Task:
        """One task."""
        return await self.call(calls.get(task_id))

    async def tasks(
        self, *, limit: int | None = None, after: str | None = None, status: str | None = None
    ) -> Page[Task]:
        """The project's tasks, newest first."""
        return await self.call(calls.tasks(limit, after, status))

    async def cancel(self, task_id: str) -> Task:
        """Ask a task to stop. One that has ended stays as it is."""
        return await self.call(calls.cancel(task_id))

    async def events(self, task_id: str, *, after: int = 0, limit: int | None = None) -> EventPage:
        """A page of the task's events that follow number `after`."""
        return await self.call(calls.events(task_id, after, limit))

    async def follow(
        self, task_id: str, *, after: int = 0, patience: float = 60.0
    ) -> AsyncGenerator[TaskEvent, None]:
        """The task's events from number `after` to its end, each once, as they happen.

        A cut connection is taken up again where it was; after `patience` seconds without a sign
        of life from the server, `ConnectionFailed` is raised.
        """
        reading = Reading(after, patience, _now())
        while not reading.done:
            try:
                async with aclosing(self._stream(task_id, reading)) as events:
                    async for event in events:
                        yield event
                pause = 0.0
                if not reading.done:
                    ended = (await self.get(task_id)).ended
                    pause = reading.closed(_now(), ended=ended)
            except (httpx.TransportError, ConnectionFailed) as error:
                reason = self.told(error)
                pause = reading.failed(reason, _now())
            except (ServerFailed, LimitReached) as error:
                pause = max(reading.failed(error.message, _now()), error.retry_after or 0)
            if pause:
                await asyncio.sleep(pause)

    async def _stream(self, task_id: str, reading: Reading) -> AsyncGenerator[TaskEvent, None]:
        path = calls.stream_path(task_id)
        headers, timeout = reading.headers(), stream_timeout()
        async with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.status_code not in OK:
                await answer.aread()
                raise error_of(answer)
            async for chunk in answer.aiter_bytes():
                for event in reading.feed(chunk, _now()):
                    yield event
                if reading.done:
                    return

    async def wait(self, task_id: str, *, patience: float = 60.0) -> Task:
        """The task once it has ended."""
        async for _ in self.follow(task_id, patience=patience):
            pass
        return await self.get(task_id)

    async def log(self, task_id: str) -> list[Json]:
        """The steps of a task: `step`, `timestamp`, `action` and `details` each."""
        return await self.call(calls.log(task_id))

    async def diff(self, task_id: str) -> str:
        """What a task changed, as a unified diff; empty where it changed nothing."""
        return await self.call(calls.diff(task_id))

    async def artifacts(self, task_id: str) -> list[Artifact]:
        """The files that a task created, modified or deleted."""
        return await self.call(calls.artifacts(task_id))

    async def download(self, task_id: str, path: str, into: BinaryIO) -> int:
        """Write one file of a task to `into`; return its size in bytes."""
        return await self._download(calls.artifact_path(task_id, path), into)

    async def archive(self, task_id: str, into: BinaryIO) -> int:
        """Write all files of a task to `into`, as a tar.gz; return its size in bytes."""
        return await self._download(calls.archive_path(task_id), into)

    # --- the server ---------------------------------------------------------------------------

    async def usage(self, period: str = "month") -> Json:
        """What the key's project used in the last `day`, `week`, or this `month`."""
        return await self.call(calls.usage(period))

    async def process(self, provider: str, model_name: str, **said: Any) -> Json:
        """Call a model of any provider. `said` are the other members of `POST /v1/process`."""
        return await self.call(calls.process(provider, model_name, said))

    async def providers(self) -> list[Json]:
        """The server's providers, and their models that the key may use."""
        return await self.call(calls.providers())

    async def provider_models(self, provider: str) -> Json:
        """What is known of a provider's models."""
        return await self.call(calls.provider_models(provider))

    async def capabilities(self) -> Json:
        """The project's agents, and what agents can be given, as far as the key may use it."""
        return await self.call(calls.capabilities())

    async def route(self, prompt: str, *, context_size: int = 0) -> Json:
        """Which model a chat with this prompt would get if it named none. Costs nothing."""
        return await self.call(calls.route(prompt, context_size))

    async def queue(self) -> Json:
        """What waits for workers. The key needs `admin:server`."""
        return await self.call(calls.queue())

    async def health(self) -> Json:
        """How the server's parts are. Needs no key."""
        return await self.call(calls.health())

    async def create_key(
        self, name: str, *, permissions: list[str] | None = None, expires_in_days: int | None = None
    ) -> ApiKey:
        """Make an API key. Its `secret` is in this answer and never again."""
        return await self.call(calls.create_key(name, permissions, expires_in_days))

    async def keys(self, *, limit: int | None = None, after: str | None = None) -> Page[ApiKey]:
        """The project's API keys, newest first."""
        return await self.call(calls.keys(limit, after))

    async def rotate_key(self, key_id: str, *, overlap_days: float | None = None) -> ApiKey:
        """Replace an API key; the old one works for some days more, 7 unless told."""
        return await self.call(calls.rotate_key(key_id, overlap_days))

    async def collect_key(self, key_id: str) -> ApiKey:
        """Be given the secret of a key that replaces an old one by itself: once."""
        return await self.call(calls.collect_key(key_id))

    async def revoke_key(self, key_id: str) -> None:
        """End an API key. Idempotent."""
        await self.call(calls.revoke_key(key_id))

    # --- sending ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def call(self, call: Call[T]) -> T:
        """Send a request, again where that is safe and may help; its answer, read."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._http.request(**arguments(call))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                pause = self._pause_after(attempt, error, call)
            else:
                if answer.status_code in OK:
                    return call.parse(answer)
                asked = self._retry.after_answer(attempt, answer, repeatable=call.repeatable)
                if asked is None:
                    raise error_of(answer)
                pause = asked
            await asyncio.sleep(pause)

    def _pause_after(
        self, attempt: int, error: httpx.HTTPError | httpx.InvalidURL, call: Call[Any]
    ) -> float:
        if isinstance(error, httpx.TransportError):
            pause = self._retry.after_error(attempt, error, repeatable=call.repeatable)
            if pause is not None:
                return pause
        raise connection_failed(error, self.base_url) from error

    async def open(
        self, path: str, *, params: dict[str, Any], headers: dict[str, str]
    ) -> httpx.Response:
        """Open a stream; close it. Raises what the server says, and httpx's `TransportError`."""
        request = self._http.build_request(
            "GET", path, params=params, headers=headers, timeout=stream_timeout()
        )
        answer = await self._http.send(request, stream=True)
        if answer.status_code not in OK:
            await answer.aread()
            await answer.aclose()
            raise error_of(answer)
        return answer

    def told(self, error: httpx.HTTPError | ClientError) -> str:
        """Why a stream broke off, in words."""
        failed = (
            connection_failed(error, self.base_url) if isinstance(error, httpx.HTTPError) else error
        )
        return str(failed)

    async def _download(self, path: str, into: BinaryIO) -> int:
        size = 0
        try:
            async with self._http.stream("GET", path, timeout=stream_timeout()) as answer:
                if answer.status_code not in OK:
                    await answer.aread()
                    raise error_of(answer)
                async for chunk in answer.aiter_bytes():
                    size += into.write(chunk)
        except httpx.HTTPError as error:
            raise connection_failed(error, self.base_url) from error
        return size


def _now() -> float:
    return asyncio.get_running_loop().time()
