"""Anthropic's Message Batches, as a client of them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from urllib.parse import quote

import msgspec

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Headers, Operation
from stationmaster.providers.batches import (
    HALF,
    SKEW_MS,
    STATUSES,
    Orphan,
    Outcome,
    Result,
    Standing,
    Submission,
    Unsure,
    answer,
    decoded,
    done,
    result_lines,
    surely,
)
from stationmaster.providers.upstream import Endpoint

_HERE = "/v1/messages/batches"
_PAGE = 1000  # the most that is listed at once
_NOT_THERE = 404


class _Counts(msgspec.Struct):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        return self.processing + self.succeeded + self.errored + self.canceled + self.expired


class _Batch(msgspec.Struct):
    id: str
    processing_status: str
    request_counts: _Counts
    created_at: datetime

    @property
    def created(self) -> Millis:
        return round(self.created_at.timestamp() * 1000)


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _Kind(msgspec.Struct):
    type: str = ""


class _Error(msgspec.Struct):
    error: _Kind = msgspec.field(default_factory=_Kind)


class _Outcome(msgspec.Struct):
    type: Outcome
    message: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    custom_id: str
    result: _Outcome


_batch = msgspec.json.Decoder(_Batch)
_page = msgspec.json.Decoder(_Page)
_line = msgspec.json.Decoder(_Line)
_error = msgspec.json.Decoder(_Error)


class MessageBatches:
    """Implements `BatchInterface`.

    A batch here has no room for an id of ours: only its results carry the ids of its calls. So one
    whose answer was lost is told from others of its size when it has ended, not before.
    """

    operations: frozenset[Operation] = frozenset({"messages"})
    price: Decimal = HALF

    def __init__(self, endpoint: Endpoint, headers: Headers) -> None:
        """`headers` go with each call, where the client has not said otherwise."""
        self._endpoint = endpoint
        self._headers = headers

    async def submit(self, submission: Submission) -> str:
        """See `BatchInterface.submit`."""
        calls = [
            b'{"custom_id":%b,"params":%b}' % (msgspec.json.encode(call.custom_id), call.body)
            for call in submission.calls
        ]
        body = b'{"requests":[' + b",".join(calls) + b"]}"
        named = {name for name, _ in submission.headers}
        headers = submission.headers + tuple(h for h in self._headers if h[0] not in named)
        try:
            reply = await self._endpoint.post(_HERE, body, headers, streamed=False, once=True)
            return str(decoded(_batch, await answer(reply)).id)
        except Upstream as error:
            raise surely(error) from None

    async def find(self, orphan: Orphan) -> str | None:
        """See `BatchInterface.find`: among those of its size that were made since."""
        unsure = False
        for batch in await self._since(orphan.since - SKEW_MS):
            if batch.id in orphan.known or batch.request_counts.total != orphan.size:
                continue
            if batch.processing_status != "ended":
                unsure = True
            elif await self._is(orphan, batch.id):
                return batch.id
        if unsure:
            raise Unsure(
                "The model provider has a batch of this size that may be it; when that has ended,"
                " its results will tell."
            )
        return None

    async def _since(self, since: Millis) -> list[_Batch]:
        found: list[_Batch] = []
        after = ""
        while True:
            reply = await self._endpoint.get(f"{_HERE}?limit={_PAGE}{after}", self._headers)
            page: _Page = decoded(_page, await answer(reply))
            found += [batch for batch in page.data if batch.created >= since]
            if not page.has_more or not page.data or page.data[-1].created < since:
                return found
            after = f"&after_id={quote(page.data[-1].id, safe='')}"

    async def _is(self, orphan: Orphan, batch_id: str) -> bool:
        async with aclosing(self.results(batch_id)) as results:
            async for result in results:
                return result.custom_id.startswith(orphan.id + "-")
        return False

    async def status(self, batch_id: str) -> Standing:
        """See `BatchInterface.status`."""
        reply = await self._endpoint.get(_at(batch_id), self._headers)
        batch: _Batch = decoded(_batch, await answer(reply))
        counts = msgspec.structs.asdict(batch.request_counts)
        match batch.processing_status:
            case "ended" | "canceling" as state:
                return Standing(state, counts)
            case _:
                return Standing("in_progress", counts)

    async def results(self, batch_id: str) -> AsyncGenerator[Result, None]:
        """See `BatchInterface.results`."""
        # Not from `results_url`: another host's address there would be given the key.
        reply = await self._endpoint.get(_at(batch_id, "/results"), self._headers)
        async with aclosing(result_lines(reply)) as found:
            async for line in found:
                yield _result(decoded(_line, line))

    async def cancel(self, batch_id: str) -> None:
        """See `BatchInterface.cancel`."""
        reply = await self._endpoint.post(
            _at(batch_id, "/cancel"), b"", self._headers, streamed=True
        )
        await done(reply, _NOT_THERE, 400, 409)  # it has ended meanwhile

    async def clear(self, batch_id: str) -> None:
        """See `BatchInterface.clear`."""
        reply = await self._endpoint.delete(_at(batch_id), self._headers)
        await done(reply, _NOT_THERE)


def _result(line: _Line) -> Result:
    result = line.result
    if result.type == "succeeded":
        return Result(line.custom_id, result.type, 200, bytes(result.message))
    if result.type == "errored":
        body = bytes(result.error)
        kind = decoded(_error, body).error.type
        return Result(line.custom_id, result.type, STATUSES.get(kind, 500), body)
    return Result(line.custom_id, result.type)


def _at(batch_id: str, what: str = "") -> str:
    return f"{_HERE}/{quote(batch_id, safe='')}{what}"
