"""The server's background jobs, for plain code and for asyncio. The key needs `admin:jobs`."""

from urllib.parse import quote
from uuid import uuid4

import httpx

from stationmaster.client.asynchronous import AsyncClient
from stationmaster.client.calls import Call, _items, _next, _object, _params
from stationmaster.client.models import Json, Page
from stationmaster.client.synchronous import Client

_HERE = "/v1/jobs"


class JobClient:
    """Jobs through a `Client`, which stays its owner's to close. Raises `ClientError`s."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Json]:
        """Jobs that are not done, the oldest first; of a state: waiting, running or parked."""
        return self._client.call(_jobs(state, kind, limit, after))

    def get(self, job_id: str) -> Json:
        """One job."""
        return self._client.call(Call("GET", _of(job_id), _object))

    def replay(self, job_id: str) -> Json:
        """Let a parked job be tried again; how it waits. Sent twice it is done once."""
        return self._client.call(_replay(job_id))

    def discard(self, job_id: str) -> Json:
        """Throw a parked job away; what it was."""
        return self._client.call(_discard(job_id))


class AsyncJobClient:
    """As `JobClient`, through an `AsyncClient`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Json]:
        """Jobs that are not done, the oldest first; of a state: waiting, running or parked."""
        return await self._client.call(_jobs(state, kind, limit, after))

    async def get(self, job_id: str) -> Json:
        """One job."""
        return await self._client.call(Call("GET", _of(job_id), _object))

    async def replay(self, job_id: str) -> Json:
        """Let a parked job be tried again; how it waits. Sent twice it is done once."""
        return await self._client.call(_replay(job_id))

    async def discard(self, job_id: str) -> Json:
        """Throw a parked job away; what it was."""
        return await self._client.call(_discard(job_id))


def _of(job_id: str, what: str = "") -> str:
    return f"{_HERE}/{quote(job_id, safe='')}" + (f"/{what}" if what else "")


def _jobs(
    state: str | None, kind: str | None, limit: int | None, after: str | None
) -> Call[Page[Json]]:
    return Call("GET", _HERE, _page, _params(state=state, kind=kind, limit=limit, after=after))


def _replay(job_id: str) -> Call[Json]:
    key = {"idempotency-key": str(uuid4())}
    return Call("POST", _of(job_id, "replay"), _object, headers=key)


def _discard(job_id: str) -> Call[Json]:
    # Sent twice it would say that there is no such job.
    return Call("DELETE", _of(job_id), _object, repeatable=False)


def _page(answer: httpx.Response) -> Page[Json]:
    return Page(_items(answer, "jobs"), _next(answer))
