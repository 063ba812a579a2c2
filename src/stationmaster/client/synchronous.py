"""The client for plain code."""

import time
from collections.abc import Iterator
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


class Client:
    """A connection to a server. Close it, or use it as a context manager.

    `timeout` is in seconds and for one request; `max_retries` is how often a request is repeated
    that failed for a reason that may pass. Every method raises a `ClientError`.
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
        self._http = httpx.Client(**options(base_url, api_key, timeout))

    # --- tasks --------------------------------------------------------------------------------

    def submit(
        self,
        description: str,
        options: TaskOptions | None = None,
        *,
        archive: BinaryIO | None = None,
    ) -> Task:
        """Start a task. `archive` is a tar, tar.gz or zip of files for its workspace."""
        return self.call(calls.submit(description, options, archive))

    def get(self, task_id: str) -> Task:
        """One task."""
        return self.call(calls.get(task_id))

    def tasks(
        self, *, limit: int | None = None, after: str | None = None, status: str | None = None
    ) -> Page[Task]:
        """The project's tasks, newest first."""
        return self.call(calls.tasks(limit, after, status))

    def cancel(self, task_id: str) -> Task:
        """Ask a task to stop. One that has ended stays as it is."""
        return self.call(calls.cancel(task_id))

    def events(self, task_id: str, *, after: int = 0, limit: int | None = None) -> EventPage:
        """A page of the task's events that follow number `after`."""
        return self.call(calls.events(task_id, after, limit))

    def follow(
        self, task_id: str, *, after: int = 0, patience: float = 60.0
    ) -> Iterator[TaskEvent]:
        """The task's events from number `after` to its end, each once, as they happen.

        A cut connection is taken up again where it was; after `patience` seconds without a sign
        of life from the server, `ConnectionFailed` is raised.
        """
        reading = Reading(after, patience, time.monotonic())
        while not reading.done:
            try:
                yield from self._stream(task_id, reading)
                pause = 0.0
                if not reading.done:
                    ended = self.get(task_id).ended
                    pause = reading.closed(time.monotonic(), ended=ended)
            except (httpx.TransportError, ConnectionFailed) as error:
                reason = self.told(error)
                pause = reading.failed(reason, time.monotonic())
            except (ServerFailed, LimitReached) as error:
                pause = max(reading.failed(error.message, time.monotonic()), error.retry_after or 0)
            if pause:
                time.sleep(pause)

    def _stream(self, task_id: str, reading: Reading) -> Iterator[TaskEvent]:
        path = calls.stream_path(task_id)
        headers, timeout = reading.headers(), stream_timeout()
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.status_code not in OK:
                answer.read()
                raise error_of(answer)
            for chunk in answer.iter_bytes():
                yield from reading.feed(chunk, time.monotonic())
                if reading.done:
                    return

    def wait(self, task_id: str, *, patience: float = 60.0) -> Task:
        """The task once it has ended."""
        for _ in self.follow(task_id, patience=patience):
            pass
        return self.get(task_id)

    def log(self, task_id: str) -> list[Json]:
        """The steps of a task: `step`, `timestamp`, `action` and `details` each."""
        return self.call(calls.log(task_id))

    def diff(self, task_id: str) -> str:
        """What a task changed, as a unified diff; empty where it changed nothing."""
        return self.call(calls.diff(task_id))

    def artifacts(self, task_id: str) -> list[Artifact]:
        """The files that a task created, modified or deleted."""
        return self.call(calls.artifacts(task_id))

    def download(self, task_id: str, path: str, into: BinaryIO) -> int:
        """Write one file of a task to `into`; return its size in bytes."""
        return self._download(calls.artifact_path(task_id, path), into)

    def archive(self, task_id: str, into: BinaryIO) -> int:
        """Write all files of a task to `into`, as a tar.gz; return its size in bytes."""
        return self._download(calls.archive_path(task_id), into)

    # --- the server ---------------------------------------------------------------------------

    def usage(self, period: str = "month") -> Json:
        """What the key's project used in the last `day`, `week`, or this `month`."""
        return self.call(calls.usage(period))

    def process(self, provider: str, model_name: str, **said: Any) -> Json:
        """Call a model of any provider. `said` are the other members of `POST /v1/process`."""
        return self.call(calls.process(provider, model_name, said))

    def providers(self) -> list[Json]:
        """The server's providers, and their models that the key may use."""
        return self.call(calls.providers())

    def provider_models(self, provider: str) -> Json:
        """What is known of a provider's models."""
        return self.call(calls.provider_models(provider))

    def capabilities(self) -> Json:
        """The project's agents, and what agents can be given, as far as the key may use it."""
        return self.call(calls.capabilities())

    def route(self, prompt: str, *, context_size: int = 0) -> Json:
        """Which model a chat with this prompt would get if it named none. Costs nothing."""
        return self.call(calls.route(prompt, context_size))

    def queue(self) -> Json:
        """What waits for workers. The key needs `admin:server`."""
        return self.call(calls.queue())

    def health(self) -> Json:
        """How the server's parts are. Needs no key."""
        return self.call(calls.health())

    def create_key(
        self, name: str, *, permissions: list[str] | None = None, expires_in_days: int | None = None
    ) -> ApiKey:
        """Make an API key. Its `secret` is in this answer and never again."""
        return self.call(calls.create_key(name, permissions, expires_in_days))

    def keys(self, *, limit: int | None = None, after: str | None = None) -> Page[ApiKey]:
        """The project's API keys, newest first."""
        return self.call(calls.keys(limit, after))

    def rotate_key(self, key_id: str, *, overlap_days: float | None = None) -> ApiKey:
        """Replace an API key; the old one works for some days more, 7 unless told."""
        return self.call(calls.rotate_key(key_id, overlap_days))

    def collect_key(self, key_id: str) -> ApiKey:
        """Be given the secret of a key that replaces an old one by itself: once."""
        return self.call(calls.collect_key(key_id))

    def revoke_key(self, key_id: str) -> None:
        """End an API key. Idempotent."""
        self.call(calls.revoke_key(key_id))

    # --- sending ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._http.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def call(self, call: Call[T]) -> T:
        """Send a request, again where that is safe and may help; its answer, read."""
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._http.request(**arguments(call))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                pause = self._pause_after(attempt, error, call)
            else:
                if answer.status_code in OK:
                    return call.parse(answer)
                asked = self._retry.after_answer(attempt, answer, repeatable=call.repeatable)
                if asked is None:
                    raise error_of(answer)
                pause = asked
            time.sleep(pause)

    def _pause_after(
        self, attempt: int, error: httpx.HTTPError | httpx.InvalidURL, call: Call[Any]
    ) -> float:
        if isinstance(error, httpx.TransportError):
            pause = self._retry.after_error(attempt, error, repeatable=call.repeatable)
            if pause is not None:
                return pause
        raise connection_failed(error, self.base_url) from error

    def open(self, path: str, *, params: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        """Open a stream; close it. Raises what the server says, and httpx's `TransportError`."""
        request = self._http.build_request(
            "GET", path, params=params, headers=headers, timeout=stream_timeout()
        )
        answer = self._http.send(request, stream=True)
        if answer.status_code not in OK:
            answer.read()
            answer.close()
            raise error_of(answer)
        return answer

    def told(self, error: httpx.HTTPError | ClientError) -> str:
        """Why a stream broke off, in words."""
        failed = (
            connection_failed(error, self.base_url) if isinstance(error, httpx.HTTPError) else error
        )
        return str(failed)

    def _download(self, path: str, into: BinaryIO) -> int:
        size = 0
        try:
            with self._http.stream("GET", path, timeout=stream_timeout()) as answer:
                if answer.status_code not in OK:
                    answer.read()
                    raise error_of(answer)
                for chunk in answer.iter_bytes():
                    size += into.write(chunk)
        except httpx.HTTPError as error:
            raise connection_failed(error, self.base_url) from error
        return size
