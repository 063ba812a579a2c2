"""Message Batches, for plain code and for asyncio.

Anthropic's own SDK is a client for these too: `anthropic.Anthropic(base_url=…).messages.batches`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import uuid4

import httpx

from stationmaster.client.asynchronous import AsyncClient
from stationmaster.client.calls import Call
from stationmaster.client.errors import ClientError, UnexpectedAnswer
from stationmaster.client.models import Json, Page
from stationmaster.client.synchronous import Client

_HERE = "/v1/messages/batches"
_PROMPTS = "/v1/batch"


class BatchClient:
    """Batches through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, requests: Sequence[Json]) -> Json:
        """Make a batch of `{"custom_id", "params"}`. Sent twice it is there once."""
        return self._client.call(_create(requests))

    def batches(self, *, limit: int | None = None, after: str | None = None) -> Page[Json]:
        """The project's batches, newest first."""
        return self._client.call(_batches(limit, after))

    def get(self, batch_id: str) -> Json:
        """One batch, and how far it is."""
        return self._client.call(Call("GET", _of(batch_id), _object))

    def submissions(self, batch_id: str) -> list[Json]:
        """What of it went into batches of its providers' own, and how far that is."""
        return self._client.call(Call("GET", _submissions(batch_id), _data))

    def cancel(self, batch_id: str) -> Json:
        """Begin none of its requests any more."""
        return self._client.call(Call("POST", _of(batch_id, "cancel"), _object))

    def delete(self, batch_id: str) -> Json:
        """Delete a batch that has ended, and its results."""
        return self._client.call(Call("DELETE", _of(batch_id), _object))

    def results(self, batch_id: str, into: BinaryIO) -> int:
        """Write what came of each request to `into`, a line of JSON each; return how many bytes."""
        return self._client._download(_of(batch_id, "results"), into)

    def ask(
        self, prompts: Sequence[str], *, model: str | None = None, timeout: float | None = None
    ) -> Json:
        """Have prompts answered in parallel, and wait for all. `timeout` is for each, in seconds.

        Give the client a timeout that all of them fit into.
        """
        return self._client.call(_ask(prompts, model, timeout))


class AsyncBatchClient:
    """As `BatchClient`, through an `AsyncClient`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, requests: Sequence[Json]) -> Json:
        """Make a batch of `{"custom_id", "params"}`. Sent twice it is there once."""
        return await self._client.call(_create(requests))

    async def batches(self, *, limit: int | None = None, after: str | None = None) -> Page[Json]:
        """The project's batches, newest first."""
        return await self._client.call(_batches(limit, after))

    async def get(self, batch_id: str) -> Json:
        """One batch, and how far it is."""
        return await self._client.call(Call("GET", _of(batch_id), _object))

    async def submissions(self, batch_id: str) -> list[Json]:
        """What of it went into batches of its providers' own, and how far that is."""
        return await self._client.call(Call("GET", _submissions(batch_id), _data))

    async def cancel(self, batch_id: str) -> Json:
        """Begin none of its requests any more."""
        return await self._client.call(Call("POST", _of(batch_id, "cancel"), _object))

    async def delete(self, batch_id: str) -> Json:
        """Delete a batch that has ended, and its results."""
        return await self._client.call(Call("DELETE", _of(batch_id), _object))

    async def results(self, batch_id: str, into: BinaryIO) -> int:
        """Write what came of each request to `into`, a line of JSON each; return how many bytes."""
        return await self._client._download(_of(batch_id, "results"), into)

    async def ask(
        self, prompts: Sequence[str], *, model: str | None = None, timeout: float | None = None
    ) -> Json:
        """Have prompts answered in parallel, and wait for all. `timeout` is for each, in seconds.

        Give the client a timeout that all of them fit into.
        """
        return await self._client.call(_ask(prompts, model, timeout))


def read_requests(lines: BinaryIO) -> list[Json]:
    """The requests of a file of JSON lines, blank ones left out.

    Raises `ClientError` with the number of the line that is no JSON object.
    """
    found: list[Json] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise ClientError(f"line {number} is not a JSON object")
        found.append(request)
    return found


def _create(requests: Sequence[Json]) -> Call[Json]:
    return _once(_HERE, {"requests": list(requests)})


def _ask(prompts: Sequence[str], model: str | None, timeout: float | None) -> Call[Json]:
    asked = [{"prompt": prompt} for prompt in prompts]
    given = {"prompts": asked, "model": model, "timeout": timeout}
    return _once(_PROMPTS, {name: value for name, value in given.items() if value is not None})


def _once(path: str, body: Json) -> Call[Json]:
    """A call that may be sent again: its key makes it one."""
    return Call("POST", path, _object, body=body, headers={"idempotency-key": str(uuid4())})


def _batches(limit: int | None, after: str | None) -> Call[Page[Json]]:
    wanted: Mapping[str, Any] = {"limit": limit, "after_id": after}
    params = {name: str(value) for name, value in wanted.items() if value is not None}
    return Call("GET", _HERE, _page, params)


def _of(batch_id: str, what: str = "") -> str:
    return f"{_HERE}/{quote(batch_id, safe='')}" + (f"/{what}" if what else "")


def _submissions(batch_id: str) -> str:
    # Of both APIs' batches.
    return f"/v1/batches/{quote(batch_id, safe='')}/submissions"


def _data(answer: httpx.Response) -> list[Json]:
    return _page(answer).items


def _object(answer: httpx.Response) -> Json:
    try:
        found: Any = answer.json()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnexpectedAnswer("The answer is not a JSON object. Is this a Stationmaster server?")
    return found


def _page(answer: httpx.Response) -> Page[Json]:
    found = _object(answer)
    items = found.get("data")
    if not isinstance(items, list):
        raise UnexpectedAnswer("The answer has no list of data.")
    following = found.get("last_id") if found.get("has_more") else None
    return Page(
        [item for item in items if isinstance(item, dict)],
        following if isinstance(following, str) else None,
    )
