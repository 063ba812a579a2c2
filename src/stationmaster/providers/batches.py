"""A provider's own interface for batches: many calls handed over at once, for less money.

What is handed over is a submission. It carries an id of ours, by which it is found again where the
answer to it was lost: a submission must never be made twice.
"""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, Protocol

import msgspec

from stationmaster.kernel.clock import Millis
from stationmaster.kernel.errors import Upstream
from stationmaster.providers.base import Headers, Operation
from stationmaster.providers.upstream import UpstreamReply, document

HALF = Decimal("0.5")
"""What the vendors ask in a batch, as a part of the price of a call."""

SKEW_MS = 10 * 60 * 1000
"""How far a vendor's clock may be from ours."""

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one result; no answer is as long."""

Outcome = Literal["succeeded", "errored", "canceled", "expired"]

STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)
"""The status that a call would have had whose error has one of Anthropic's types."""


class NotTaken(Upstream):
    """The model provider has not taken the batch: it surely never saw it, or refused it."""


class Unsure(Upstream):
    """It cannot be known yet whether the model provider has taken the batch."""

    code = "batch_unsure"


@dataclass(frozen=True, slots=True)
class NewCall:
    """One of the calls of a submission. `custom_id` is 1 to 64 letters, digits, - and _.

    That is the submission's id, a hyphen, and what the caller knows the call by.
    """

    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """What is handed over: calls of one wire format to one model. `headers` are the client's."""

    id: str
    operation: Operation
    calls: Sequence[NewCall]
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Orphan:
    """A submission of which it is not known whether it arrived: begun at `since`, of `size` calls.

    `known` are the provider's ids of others, which it cannot be.
    """

    id: str
    size: int
    since: Millis
    known: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a submission is, by the provider's word.

    `counts` are its calls by state: processing, succeeded, errored, canceled, expired. `rest` is
    how those have ended that no result will tell of; None where each has one. `error` says why it
    failed as a whole.
    """

    state: Literal["in_progress", "canceling", "ended"]
    counts: Mapping[str, int]
    rest: Outcome | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How one call ended. `body` is the answer, or an error in the wire format; JSON.

    Only what has succeeded or errored has `status` and `body`.
    """

    custom_id: str
    outcome: Outcome
    status: int | None = None
    body: bytes | None = None


class BatchInterface(Protocol):
    """Where a provider takes batches.

    All methods raise `Upstream` and `UpstreamTimeout` where there is no answer, or none that can be
    read; all but `submit` may be called again then. Where the provider refuses this server's
    credentials the code is `upstream_credentials`.
    """

    @property
    def operations(self) -> frozenset[Operation]:
        """The wire formats that it takes."""
        ...

    @property
    def price(self) -> Decimal:
        """What a call costs here, as a part of its usual price."""
        ...

    async def submit(self, submission: Submission) -> str:
        """Hand over; return the provider's id for it.

        Raises `NotTaken` where it surely was not taken. After any other error it may have been:
        `find` tells. Not idempotent.
        """
        ...

    async def find(self, orphan: Orphan) -> str | None:
        """The provider's id for a submission whose answer was lost; None where there is none.

        Raises `Unsure` where that cannot be said yet.
        """
        ...

    async def status(self, batch_id: str) -> Standing:
        """How far it is. Raises `Upstream` with the status 404 for one that is not there."""
        ...

    def results(self, batch_id: str) -> AsyncGenerator[Result, None]:
        """What came of the calls of one that has ended, in no order."""
        ...

    async def cancel(self, batch_id: str) -> None:
        """Have no more calls of it begun. Idempotent, also for one that has ended."""
        ...

    async def clear(self, batch_id: str) -> None:
        """Delete what the provider keeps of one that has ended. Idempotent."""
        ...


# --- what the vendors have in common ----------------------------------------------------------


class _Told(msgspec.Struct):
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _Told | None = None


_refusal = msgspec.json.Decoder(_Refusal)


async def answer(reply: UpstreamReply) -> bytes:
    """The body of a short answer. Raises `Upstream` for one that is a refusal, in its words."""
    body = await document(reply)
    if reply.status < 300:
        return body
    raise refused(reply.status, body)


async def done(reply: UpstreamReply, *fine: int) -> None:
    """Read an answer that says nothing. Raises `Upstream` for a refusal not of these statuses."""
    body = await document(reply)
    if reply.status >= 300 and reply.status not in fine:
        raise refused(reply.status, body)


def refused(status: int, body: bytes) -> Upstream:
    """The error for a refusal."""
    if status in {401, 402, 403}:
        return Upstream(
            "The model provider refuses this server's credentials or account; its operator must"
            " act.",
            status=status,
            code="upstream_credentials",
        )
    try:
        told = _refusal.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = None
    words = told.message if told is not None and told.message else f"status {status}"
    return Upstream(f"The model provider refuses: {words}", status=status)


def surely(error: Upstream) -> Upstream:
    """The same error as a `NotTaken` where it tells that nothing was taken.

    That is where nothing was sent, and where the provider says no. An error of the provider's own
    (5xx) may come after the deed.
    """
    said_no = error.status is not None and 400 <= error.status < 500 and error.status != 408
    if not said_no and error.error_code != "upstream_unreachable":
        return error
    return NotTaken(
        error.message, status=error.status, retry_after=error.retry_after, code=error.error_code
    )


async def result_lines(reply: UpstreamReply) -> AsyncGenerator[bytes, None]:
    """The lines of a body, without blank ones. Closes the reply.

    Raises `Upstream` for a refusal, where a line is too long, and where the body breaks off.
    """
    if reply.status != 200:
        raise refused(reply.status, await document(reply))
    try:
        held: list[bytes] = []
        size = 0
        async for chunk in reply.chunks():
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                held.append(part)
                if line := b"".join(held).strip():
                    yield line
                held, size = [], 0
            held.append(rest)
            size += len(rest)
            if size > LONGEST_LINE:
                raise Upstream("A result of the model provider is too long.")
        if line := b"".join(held).strip():
            yield line
    finally:
        await reply.aclose()


def decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """What a body says. Raises `Upstream` where it cannot be read."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Upstream("The model provider's answer cannot be read.") from None
