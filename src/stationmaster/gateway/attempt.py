"""One call to one provider, from its hold to its settlement: once, in every ending."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache

import structlog

from stationmaster.budgets.entry import LedgerEntry, Outcome, Usage
from stationmaster.gateway.admission import Admitted
from stationmaster.gateway.billing import Tariff
from stationmaster.gateway.formats import Reply, Scanner, scanner, served_whole
from stationmaster.gateway.ports import CallEnded, CallObserver, CallStarted, Meter
from stationmaster.gateway.pricing import Pricing
from stationmaster.gateway.upstreams import UpstreamOf
from stationmaster.gateway.usage import BYTES_PER_TOKEN, Served
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import StationmasterError, Upstream, UpstreamTimeout
from stationmaster.providers.base import Headers, ProviderReply, ProviderRequest

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""A reply that is not streamed is read whole before it is passed on; none is as large."""

EVENT_STREAM = "text/event-stream"
IGNORED_HEADER = "x-stationmaster-ignored"
MAX_IGNORED = 20
"""Names in that header."""
_NOT_DONE = 300  # from here on a status is no success
_OURS_TO_MEND = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class Services:
    """What every call works with."""

    pricing: Pricing
    meter: Meter
    observer: CallObserver
    clock: Clock


class Attempt:
    """An admitted call to one provider: a hold is placed, nothing is sent yet.

    `start` sends it, `chunks` yields the answer, `aclose` ends it; then `entry` is what was billed.
    Whoever has one must close it, whatever happens; the hold is settled then at the latest. Not
    safe for concurrent use.
    """

    __slots__ = (
        "_admitted",
        "_body",
        "_first_byte_ms",
        "_place",
        "_reply",
        "_reply_as",
        "_request",
        "_scanner",
        "_sent",
        "_services",
        "_settled",
        "_started_at",
        "_upstream",
        "body",
        "context",
        "entry",
        "headers",
        "max_tokens",
        "status",
        "stream",
    )

    def __init__(
        self,
        *,
        upstream: UpstreamOf,
        request: ProviderRequest,
        admitted: Admitted,
        services: Services,
    ) -> None:
        candidate = admitted.candidate
        self.context = candidate.context
        self.stream = request.stream
        self.max_tokens = admitted.max_tokens
        self.status = 0
        self.headers: Headers = ()
        self.body: bytes | None = None
        self.entry: LedgerEntry | None = None
        self._upstream = upstream
        self._request = request
        self._body = candidate.body
        self._reply_as = candidate.reply
        self._admitted = admitted
        self._services = services
        self._started_at = time.monotonic()
        self._first_byte_ms: int | None = None
        self._reply: ProviderReply | None = None
        self._scanner: Scanner | None = None
        self._place: int | None = None
        self._sent = False
        self._settled = False

    @property
    def between_events(self) -> bool:
        """Whether a keepalive event may be put in now: the stream is at an event's end."""
        if self._scanner is None or self._reply_as is not None:
            return True
        return self._scanner.between_events

    async def start(self) -> None:
        """Send the call; when this returns, `status` and `headers` are set.

        A reply that is not a stream has then been read whole into `body`, and is settled.

        Raises `Upstream` and `UpstreamTimeout` where no answer came; nothing is billed then, but
        for one that was not to be streamed and did not come in time: that is billed at its full
        length. Where the provider refuses this server's own credentials or account, that is an
        `Upstream` too (code `upstream_credentials`): the client's key is not at fault.
        """
        self._services.observer.observe(CallStarted(self.context))
        try:
            place = self._place = await self._upstream.enter()
            reply = self._reply = await self._upstream.send(self._request, self._note_sent, place)
            self._first_byte_ms = self._elapsed_ms()
            self.status, self.headers = reply.status, reply.headers
            if reply.status >= _NOT_DONE:
                await self._settle(_NOTHING, "error")
                check_credentials(reply.status, self.context.provider)
                self.body = await read_whole(reply)
                if self._reply_as is not None:
                    self.body = self._reply_as.error(reply.status, self.body)
                    self.headers = self._in_our_words(reply)
            elif _is_stream(reply.headers):
                self._scanner = scanner(self._body)
                if self._reply_as is not None:
                    self.headers = self._in_our_words(reply, EVENT_STREAM)
            else:
                await self._read_whole(reply)
        except UpstreamTimeout as error:
            if self.stream or error.error_code == "upstream_unreachable":
                await self._settle(_NOTHING, "error")
            else:
                # It was at work on the whole answer for as long as it may take; nobody can know
                # how far it got.
                await self._settle(self._came_so_far(), "unknown")
            raise
        except StationmasterError:
            await self._settle(_NOTHING, "error")
            raise

    async def answered_elsewhere(self) -> None:
        """Settle, in place of `start`: the answer is a kept one. It costs nothing."""
        self._services.observer.observe(CallStarted(self.context))
        await self._settle(_NOTHING, "cached")

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer's body, byte for byte as the provider sends it. Iterated once.

        The call is settled before the bytes that end the answer are yielded, so that whoever has
        seen the end finds it in the ledger. Raises `Upstream` where the stream breaks off.
        """
        if self._reply_as is None or self.body is not None:
            return self._arriving()
        return self._turned(self._reply_as)

    async def _turned(self, reply_as: Reply) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._arriving()) as arriving:
            async for chunk in arriving:
                if turned := reply_as.feed(chunk):
                    yield turned
        if owed := reply_as.end():
            yield owed

    async def _arriving(self) -> AsyncGenerator[bytes, None]:
        if self.body is not None:
            yield self.body
        scanner, reply = self._scanner, self._reply
        if scanner is None or reply is None:
            return
        try:
            async with aclosing(reply.chunks()) as arriving:
                async for chunk in arriving:
                    scanner.feed(chunk)
                    if (scanner.finished or scanner.failed) and not self._settled:
                        await self._settle_stream(scanner)
                    yield chunk
            await self._stream_ended(scanner)
        except Upstream:
            await reply.aclose()
            if not self._settled:
                await self._settle_stream(scanner)
                raise
            # The answer was whole: what went wrong after its end is nobody's loss.

    async def _stream_ended(self, scanner: Scanner) -> None:
        scanner.close()
        if self._settled:
            return
        if not scanner.finished:
            raise Upstream("The model provider's stream ended before its answer did.")
        await self._settle_stream(scanner)

    async def aclose(self) -> None:
        """Give up what is left, close the upstream call and settle. Idempotent.

        Where the answer is not complete by now, its client has gone: it pays for what came.
        """
        if self._reply is not None:
            await self._reply.aclose()
        if self._place is not None:
            place, self._place = self._place, None
            self._upstream.leave(place)
        if not self._settled:
            await self._settle(self._came_so_far(), "partial" if self._sent else "error")

    def _note_sent(self, sent: bool) -> None:
        self._sent = sent

    async def _read_whole(self, reply: ProviderReply) -> None:
        try:
            whole = await read_whole(reply)
        except Upstream:
            # The answer existed when its head came; how much of it is unknown.
            await self._settle(self._came_so_far(), "partial")
            raise
        served = served_whole(self._body, whole)
        if served is not None:
            await self._settle(served, "complete")
        elif not _is_json(reply.headers):
            raise Upstream("The model provider's answer is not a message.", status=reply.status)
        else:
            await self._settle(self._estimated(len(whole)), "partial")
        self.body = whole
        if self._reply_as is not None:
            self.headers = self._in_our_words(reply)
            self.body = self._reply_as.whole(whole)

    async def _settle_stream(self, scanner: Scanner) -> None:
        served = scanner.served(max_tokens=self._admitted.max_tokens)
        if not served.reported:
            if scanner.content_bytes:
                served = self._estimated(scanner.content_bytes)
                await self._settle(served, "complete" if scanner.finished else "partial")
            else:
                await self._settle(_NOTHING, "error")
        elif scanner.finished:
            await self._settle(served, "complete")
        else:
            await self._settle(served, "partial")

    def _came_so_far(self) -> Served:
        """What a call has used whose client went away."""
        if not self._sent:
            return _NOTHING
        if self._scanner is None:
            # What is not streamed may have been written to its end before a byte of it came: no
            # model's speed bounds it from above, only its length does.
            begun = self._reply is not None or not self.stream
            return self._estimated(self._admitted.max_tokens * BYTES_PER_TOKEN if begun else 0)
        served = self._scanner.served(max_tokens=self._admitted.max_tokens)
        return served if served.reported else self._estimated(self._scanner.content_bytes)

    def _estimated(self, content_bytes: int) -> Served:
        """An estimate from above, where the provider has said nothing of usage."""
        counted = self._admitted.input_tokens
        if counted is None:
            counted = -(-len(self._admitted.raw) // BYTES_PER_TOKEN)
        written = min(-(-content_bytes // BYTES_PER_TOKEN), self._admitted.max_tokens)
        usage = Usage(input_tokens=counted, output_tokens=written)
        return Served(usage=usage, parts=((None, usage),), reported=False, exact=False)

    async def _settle(self, served: Served, outcome: Outcome) -> None:
        if self._settled:
            return
        self._settled = True
        admitted, services = self._admitted, self._services
        candidate = admitted.candidate
        tariff = Tariff(services.pricing, candidate.prices, self.context.model, candidate.rates)
        cost = tariff.cost(served, self._body)
        duration = self._elapsed_ms()
        now = services.clock.now()
        entry = self.entry = LedgerEntry(
            self.context, now, served.usage, cost, outcome, duration_ms=duration
        )
        if cost > admitted.held or served.usage.total > admitted.held_tokens:
            log.warning(
                "A model call cost more than was held for it.",
                call_id=self.context.call_id,
                held=admitted.held,
                cost=cost,
            )
        try:
            await services.meter.settle(entry)
        except StationmasterError as error:
            # The hold stays, and is billed whole when the store is back: never too little.
            log.error(
                "A model call could not be settled; its hold stays.",
                call_id=self.context.call_id,
                code=error.error_code,
            )
        finally:
            services.observer.observe(
                CallEnded(
                    self.context,
                    served.usage,
                    cost,
                    outcome,
                    status=self.status or None,
                    stop_reason=served.stop_reason,
                    duration_ms=duration,
                    first_byte_ms=self._first_byte_ms,
                )
            )

    def _in_our_words(self, reply: ProviderReply, media_type: str = "application/json") -> Headers:
        """A reply's headers where its body is another than the provider's."""
        kept = [item for item in reply.headers if item[0] != "content-type"]
        if self._reply_as is not None and self._reply_as.ignored:
            kept.append((IGNORED_HEADER, ", ".join(self._reply_as.ignored[:MAX_IGNORED])))
        return (("content-type", media_type), *kept)

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started_at) * 1000)


_NOTHING = Served(usage=Usage(), parts=(), reported=False)


def _media_type(headers: Headers) -> str:
    for name, value in headers:
        if name == "content-type":
            return _without_parameters(value)
    return ""


@lru_cache(maxsize=128)  # every answer of a provider has one of a few
def _without_parameters(value: str) -> str:
    return value.split(";", 1)[0].strip().lower()


def _is_stream(headers: Headers) -> bool:
    return _media_type(headers) == EVENT_STREAM


def _is_json(headers: Headers) -> bool:
    return _media_type(headers) in {"application/json", ""}


def check_credentials(status: int, provider: str) -> None:
    """Raise `Upstream` where a status says that the provider refuses this server.

    Passed on as it is, a 401 would tell the client that its own key is wrong.
    """
    if status not in _OURS_TO_MEND:
        return
    log.error(
        "The model provider refuses this server's credentials or account.",
        provider=provider,
        status=status,
    )
    raise Upstream(
        "The model provider refuses this server's credentials or account; its operator must act.",
        status=status,
        code="upstream_credentials",
    )


async def read_whole(reply: ProviderReply) -> bytes:
    """The body of a reply. Raises `Upstream` over `MAX_REPLY_BYTES`."""
    whole = reply.arrived()
    if whole is not None:
        _check_size(len(whole))
        return whole
    parts: list[bytes] = []
    size = 0
    async for chunk in reply.chunks():
        parts.append(chunk)
        size += len(chunk)
        _check_size(size)
    return b"".join(parts)


def _check_size(size: int) -> None:
    if size > MAX_REPLY_BYTES:
        raise Upstream("The model provider's answer is too large.")
