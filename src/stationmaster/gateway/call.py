"""A model call as its client sees it: one answer, whoever gives it in the end."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import structlog

from stationmaster.budgets.entry import CallContext, LedgerEntry
from stationmaster.gateway.attempt import Attempt
from stationmaster.gateway.tape import Tape
from stationmaster.gateway.upstreams import AGAIN, UpstreamOf, told_not_to
from stationmaster.kernel.errors import StationmasterError, Unavailable, Upstream
from stationmaster.limits.grant import NOTHING
from stationmaster.providers.base import Headers

log = structlog.get_logger(__name__)

Following = Callable[[], Awaitable[Attempt | None]]
"""The next one to ask, its hold placed; None where there is nobody left."""


class GatewayCall:
    """An admitted call: a hold is placed, nothing is sent yet.

    `start` sends it, `chunks` yields the answer, `aclose` ends it; then `entry` is what was billed.
    Whoever has one must close it, whatever happens; the hold is settled then at the latest. Not
    safe for concurrent use.

    Where the first provider does not answer, `following` says who is asked next: each is an
    attempt with a hold and a ledger entry of its own.
    """

    def __init__(self, attempt: Attempt, following: Following | None = None) -> None:
        self.grant = NOTHING
        self._attempt = attempt
        self._following = following
        self._finished = False
        self.engaged: Sequence[UpstreamOf] = ()
        self.tape: Tape | None = None

    @property
    def context(self) -> CallContext:
        """Who calls whom, of the present attempt."""
        return self._attempt.context

    @property
    def cache(self) -> str | None:
        """`hit` or `miss`; None where the cache was not asked."""
        return None

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self._attempt.stream

    @property
    def status(self) -> int:
        """The answer's; 0 before `start`."""
        return self._attempt.status

    @property
    def headers(self) -> Headers:
        """The answer's, after `start`."""
        return self._attempt.headers

    @property
    def body(self) -> bytes | None:
        """The answer, after `start`, where it is not a stream."""
        return self._attempt.body

    @property
    def entry(self) -> LedgerEntry | None:
        """What was billed, once it is."""
        return self._attempt.entry

    @property
    def between_events(self) -> bool:
        """Whether a keepalive event may be put in now: the stream is at an event's end."""
        return self._attempt.between_events

    async def start(self) -> None:
        """Send the call; when this returns, `status` and `headers` are set.

        A reply that is not a stream has then been read whole into `body`, and is settled.

        Raises `Upstream` and `UpstreamTimeout` where no answer came, and `Unavailable` where
        nobody may be asked now; nothing is billed then, but for an answer that was not to be
        streamed and did not come in time. Where the provider refuses this server's
        own credentials or account, that is an `Upstream` too (code `upstream_credentials`): the
        client's key is not at fault.
        """
        while True:
            failure: StationmasterError | None = None
            try:
                await self._attempt.start()
                if self.status not in AGAIN or told_not_to(self.headers):
                    return
            except (Upstream, Unavailable) as error:
                failure = error
            if not await self._go_on(failure):
                if failure is not None:
                    raise failure
                return

    async def _go_on(self, failure: StationmasterError | None) -> bool:
        """Turn to the next provider; False where there is none."""
        entry = self.entry
        if self._following is None:
            return False
        if entry is not None and entry.cost and self.status:  # an answer began, and is paid for
            return False
        try:
            attempt = await self._following()
        except StationmasterError as error:
            log.info("A call has no other model to go to.", code=error.error_code)
            attempt = None
        if attempt is None:
            self._following = None
            return False
        log.info(
            "A call goes to another model.",
            call_id=attempt.context.call_id,
            instead_of=self.context.provider,
            to=attempt.context.provider,
            because=failure.error_code if failure else self.status,
        )
        failed, self._attempt = self._attempt, attempt
        await failed.aclose()
        return True

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The answer's body, byte for byte as the provider sends it. Iterated once.

        The call is settled before the bytes that end the answer are yielded, so that whoever has
        seen the end finds it in the ledger. Raises `Upstream` where the stream breaks off.
        """
        told = self._told()
        return told if self.tape is None else self.tape.recording(told)

    def _told(self) -> AsyncGenerator[bytes, None]:
        return self._attempt.chunks()

    async def aclose(self) -> None:
        """Give up what is left, close the upstream call and settle. Idempotent.

        Where the answer is not complete by now, its client has gone: it pays for what came.
        """
        try:
            await self._attempt.aclose()
        finally:
            if not self._finished:
                self._finished = True
                for upstream in self.engaged:
                    upstream.disengage()
                if (entry := self.entry) is None:
                    self.grant.finish(0, 0)
                else:
                    usage = entry.usage
                    self.grant.finish(
                        usage.input_tokens + usage.cache_write_tokens, usage.output_tokens
                    )
                if self.tape is not None:
                    self.tape.end(self.context, self.entry, self.body)
