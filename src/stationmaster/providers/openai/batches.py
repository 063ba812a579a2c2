"""OpenAI's batches, as a client of them: a file of calls goes up, files of results come down."""

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import quote

import msgspec

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Operation
from stationmaster.providers.batches import (
    HALF,
    SKEW_MS,
    NotTaken,
    Orphan,
    Outcome,
    Result,
    Standing,
    Submission,
    answer,
    decoded,
    done,
    result_lines,
    surely,
)
from stationmaster.providers.upstream import Endpoint

_URLS: Mapping[Operation, str] = MappingProxyType(
    {
        "chat": "/v1/chat/completions",
        "embeddings": "/v1/embeddings",
        "responses": "/v1/responses",
    }
)
_OURS = "stationmaster"
"""The name in a batch's metadata under which its id of ours stands."""

_PAGE = 100  # the most that is listed at once
_JSON = (("content-type", "application/json"),)
_RESTS: Mapping[str, Outcome] = MappingProxyType(
    {"failed": "errored", "expired": "expired", "cancelled": "canceled"}
)
_NEVER: Mapping[str, Outcome] = MappingProxyType(
    {"batch_expired": "expired", "batch_cancelled": "canceled"}
)


class _File(msgspec.Struct):
    id: str
    filename: str = ""
    created_at: int = 0


class _Files(msgspec.Struct):
    data: list[_File]


class _Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Said(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Said] | None = None


class _Batch(msgspec.Struct):
    id: str
    status: str
    input_file_id: str
    created_at: int
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
    metadata: dict[str, str] | None = None
    errors: _Errors | None = None

    def ours(self) -> str | None:
        return (self.metadata or {}).get(_OURS)


class _Batches(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Said | None = None


_file = msgspec.json.Decoder(_File)
_files = msgspec.json.Decoder(_Files)
_batch = msgspec.json.Decoder(_Batch)
_batches = msgspec.json.Decoder(_Batches)
_line = msgspec.json.Decoder(_Line)


class FileBatches:
    """Implements `BatchInterface`. A batch carries our id in its metadata, its file in its name."""

    price: Decimal = HALF

    def __init__(self, endpoint: Endpoint, query: str, operations: frozenset[Operation]) -> None:
        """`query` goes with each call; it is empty or begins with a question mark."""
        self._endpoint = endpoint
        self._query = query
        self.operations = operations & frozenset(_URLS)

    async def submit(self, submission: Submission) -> str:
        """See `BatchInterface.submit`."""
        try:
            file = await self._upload(submission)
        except Upstream as error:  # without the batch itself nothing is done with the file
            raise NotTaken(
                error.message,
                status=error.status,
                retry_after=error.retry_after,
                code=error.error_code,
            ) from None
        asked = {
            "input_file_id": file.id,
            "endpoint": _URLS[submission.operation],
            "completion_window": "24h",
            "metadata": {_OURS: submission.id},
        }
        try:
            reply = await self._endpoint.post(
                "/batches" + self._query,
                msgspec.json.encode(asked),
                _JSON,
                streamed=False,
                once=True,
            )
            return str(decoded(_batch, await answer(reply)).id)
        except Upstream as error:
            raise surely(error) from None

    async def _upload(self, submission: Submission) -> _File:
        url = _URLS[submission.operation]
        content = b"".join(
            b'{"custom_id":%b,"method":"POST","url":"%b","body":%b}\n'
            % (
                msgspec.json.encode(call.custom_id),
                url.encode(),
                # One line: a body may come with line ends between its members.
                msgspec.json.format(call.body, indent=-1),
            )
            for call in submission.calls
        )
        mark = secrets.token_hex(16)
        form = (
            f'--{mark}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\ncontent-disposition: form-data; name="file"; '
            f'filename="{submission.id}.jsonl"\r\ncontent-type: application/jsonl\r\n\r\n'
        )
        body = form.encode() + content + f"\r\n--{mark}--\r\n".encode()
        headers = (("content-type", f"multipart/form-data; boundary={mark}"),)
        reply = await self._endpoint.post("/files" + self._query, body, headers, streamed=False)
        file: _File = decoded(_file, await answer(reply))
        return file

    async def find(self, orphan: Orphan) -> str | None:
        """See `BatchInterface.find`: by the metadata. A file that no batch was made of is deleted.

        Never raises `Unsure`.
        """
        after = ""
        while True:
            target = "/batches" + _with(self._query, f"limit={_PAGE}{after}")
            page: _Batches = decoded(_batches, await answer(await self._endpoint.get(target)))
            for batch in page.data:
                if batch.ours() == orphan.id:
                    return batch.id
            last = page.data[-1] if page.data else None
            if not page.has_more or not last or last.created_at * 1000 < orphan.since - SKEW_MS:
                break
            after = f"&after={quote(last.id, safe='')}"
        await self._drop_file(f"{orphan.id}.jsonl")
        return None

    async def _drop_file(self, name: str) -> None:
        target = "/files" + _with(self._query, "purpose=batch")
        found: _Files = decoded(_files, await answer(await self._endpoint.get(target)))
        for file in found.data:
            if file.filename == name:
                await self._delete(file.id)

    async def status(self, batch_id: str) -> Standing:
        """See `BatchInterface.status`."""
        batch = await self._batch(batch_id)
        told = batch.request_counts or _Counts()
        counts = {
            "processing": max(0, told.total - told.completed - told.failed),
            "succeeded": told.completed,
            "errored": told.failed,
        }
        match batch.status:
            case "completed" | "failed" | "expired" | "cancelled" as status:
                return Standing("ended", counts, _RESTS.get(status), _why(batch))
            case "cancelling":
                return Standing("canceling", counts)
            case _:
                return Standing("in_progress", counts)

    async def _batch(self, batch_id: str) -> _Batch:
        reply = await self._endpoint.get(self._at("/batches", batch_id))
        batch: _Batch = decoded(_batch, await answer(reply))
        return batch

    async def results(self, batch_id: str) -> AsyncGenerator[Result, None]:
        """See `BatchInterface.results`."""
        batch = await self._batch(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is None:
                continue
            reply = await self._endpoint.get(self._at("/files", file_id, "/content"))
            async with aclosing(result_lines(reply)) as found:
                async for line in found:
                    yield _result(decoded(_line, line))

    async def cancel(self, batch_id: str) -> None:
        """See `BatchInterface.cancel`."""
        target = self._at("/batches", batch_id, "/cancel")
        reply = await self._endpoint.post(target, b"", _JSON, streamed=True)
        await done(reply, 400, 404, 409)  # it has ended meanwhile

    async def clear(self, batch_id: str) -> None:
        """See `BatchInterface.clear`: the batch itself stays listed, its files are gone."""
        batch = await self._batch(batch_id)
        for file_id in (batch.output_file_id, batch.error_file_id, batch.input_file_id):
            if file_id is not None:
                await self._delete(file_id)

    async def _delete(self, file_id: str) -> None:
        await done(await self._endpoint.delete(self._at("/files", file_id)), 404)

    def _at(self, where: str, what: str, then: str = "") -> str:
        return f"{where}/{quote(what, safe='')}{then}{self._query}"


def _with(query: str, more: str) -> str:
    return f"{query}&{more}" if query else f"?{more}"


def _why(batch: _Batch) -> str | None:
    said = (batch.errors.data if batch.errors else None) or []
    return next((each.message or each.code for each in said if each.message or each.code), None)


def _result(line: _Line) -> Result:
    if line.response is not None:
        status = line.response.status_code
        outcome: Outcome = "succeeded" if 200 <= status < 300 else "errored"
        return Result(line.custom_id, outcome, status, bytes(line.response.body))
    said = line.error or _Said()
    never = _NEVER.get(said.code or "")
    if never is not None:
        return Result(line.custom_id, never)
    error = {"message": said.message or "The request failed.", "type": "server_error"}
    body = msgspec.json.encode({"error": {**error, "param": None, "code": said.code}})
    return Result(line.custom_id, "errored", 500, body)
