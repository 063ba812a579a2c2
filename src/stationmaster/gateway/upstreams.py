"""One provider as calls go to it: spared when it is down, not crowded, tried again with care."""

import asyncio
import email.utils
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from stationmaster.gateway.breaker import Breaker, State
from stationmaster.kernel.errors import Unavailable, Upstream, UpstreamTimeout
from stationmaster.providers.base import Headers, Provider, ProviderReply, ProviderRequest

AGAIN = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Answers after which the same call may succeed, here or elsewhere."""

_FAILING = frozenset({500, 502, 503, 504, 529})
"""Answers that tell of an upstream in trouble. A 429 tells of a limit, not of trouble."""

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 8.0
MAX_RETRY_AFTER_S = 20.0
"""Where a provider asks for more patience, its client is told instead."""

RETRY_SHARE = 0.1
"""Of the calls to an upstream, so many may be retries: an outage is not made worse."""
RETRY_RESERVE = 10.0
"""Retries that are allowed at once, however few calls there were."""

SLOWNESS_SHARE = 0.2
"""How much the last call counts for the average of first bytes."""


@dataclass(frozen=True, slots=True)
class Care:
    """How an upstream is treated. `max_waiting` bounds who waits where `max_concurrent` is.

    Where no connection could be made, nothing was sent: trying again costs the provider nothing,
    and is done `connect_retries` times even without `retries`.
    """

    retries: int = 0
    connect_retries: int = 1
    threshold: int = 0
    recovery: float = 30.0
    max_concurrent: int | None = None
    max_waiting: int = 100
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How an upstream does. `retries_left` is what its retry budget has now.

    `slowness` is the average of its last first bytes in seconds, None where there was none yet.
    """

    name: str
    breaker: State
    active: int
    waiting: int
    retries_left: int
    slowness: float | None


class UpstreamOf:
    """A provider with what is known of how it does. Shared by all calls to it.

    `native` is what a call costs in a batch of the provider's own, as a part of its usual price;
    None where batches are made of single calls.
    """

    def __init__(
        self,
        provider: Provider,
        care: Care | None = None,
        *,
        native: Decimal | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.name = provider.name
        self.native = native
        self.care = care = care or Care()
        self.breaker = Breaker(threshold=care.threshold, recovery=care.recovery, now=now)
        self.active = 0
        self._engaged = 0
        self.waiting = 0
        self.slowness: float | None = None
        self._places = asyncio.Semaphore(care.max_concurrent) if care.max_concurrent else None
        self._retries_left = RETRY_RESERVE
        self._emptied: asyncio.Event | None = None  # where somebody waits for that

    def standing(self) -> "Standing":
        """How it does now."""
        return Standing(
            name=self.name,
            breaker=self.breaker.state,
            active=self.active,
            waiting=self.waiting,
            retries_left=int(self._retries_left),
            slowness=self.slowness,
        )

    def engage(self) -> None:
        """Say that a call may come here; it says `disengage` when it no longer may.

        That is from when it is chosen, not from when it is sent: in between a call waits for its
        hold, and its provider must not be closed then.
        """
        self._engaged += 1

    def disengage(self) -> None:
        """See `engage`."""
        self._engaged -= 1
        if not self._engaged and self._emptied is not None:
            self._emptied.set()

    async def enter(self) -> int:
        """Take a place; return the call's number. Whoever has one gives it back with `leave`.

        Raises `Unavailable` with code `upstream_open` while it is left alone, and `upstream_busy`
        where too many wait already, or for too long.
        """
        if self._places is not None:
            if not self.breaker.ready:
                raise self._open()
            await self._wait_for(self._places)
        # After the wait: it may have failed for those who were before.
        call = self.breaker.enter()
        if call is None:
            if self._places is not None:
                self._places.release()
            raise self._open()
        self.active += 1
        if self._retries_left < RETRY_RESERVE:
            self._retries_left = min(self._retries_left + RETRY_SHARE, RETRY_RESERVE)
        return call

    def _open(self) -> Unavailable:
        return Unavailable(
            f"The model provider {self.name!r} has failed too often and is left alone for now.",
            code="upstream_open",
            retry_after=self.breaker.retry_after,
        )

    async def _wait_for(self, places: asyncio.Semaphore) -> None:
        if places.locked() and self.waiting >= self.care.max_waiting:
            raise self._busy()
        self.waiting += 1
        try:
            async with asyncio.timeout(self.care.patience):
                await places.acquire()
        except TimeoutError:
            raise self._busy() from None
        finally:
            self.waiting -= 1

    def _busy(self) -> Unavailable:
        return Unavailable(
            f"Too many calls wait for the model provider {self.name!r}.",
            code="upstream_busy",
            retry_after=1.0,
        )

    def leave(self, call: int) -> None:
        """Give the place of a call back."""
        self.active -= 1
        self.breaker.left(call)
        if self._places is not None:
            self._places.release()

    async def emptied(self) -> None:
        """Wait until nobody is engaged with it. Nobody may begin to be meanwhile."""
        if self._engaged:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    async def send(
        self, request: ProviderRequest, sent: Callable[[bool], None], call: int
    ) -> ProviderReply:
        """Start the call of that number, trying again before its first byte where that may help.

        `sent` is told whether the provider has the call: not while there is a pause.

        Raises what `Provider.send` does. A reply that asks to come back later is returned where
        there is no patience left for it.
        """
        connect_retries = max(self.care.retries, self.care.connect_retries)
        for attempt in range(1 + connect_retries):
            begun = time.monotonic()
            sent(True)
            try:
                reply = await self.provider.send(request)
            except UpstreamTimeout:
                self.breaker.failed(call)
                raise
            except Upstream as error:
                self.breaker.failed(call)
                if error.error_code != "upstream_unreachable" or not self._again(
                    attempt, at_most=connect_retries
                ):
                    raise
                sent(False)
                await asyncio.sleep(_jitter(attempt, first=FIRST_PAUSE_S / 2))
                continue
            if reply.status in _FAILING:
                self.breaker.failed(call)
            else:
                self.breaker.succeeded()
                seconds = time.monotonic() - begun
                before = seconds if self.slowness is None else self.slowness
                self.slowness = before + SLOWNESS_SHARE * (seconds - before)
            if reply.status not in AGAIN:
                return reply
            pause = self._pause(reply, attempt)
            if pause is None:
                return reply
            sent(False)
            await reply.aclose()
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, reply: ProviderReply, attempt: int) -> float | None:
        """How long to wait before the call is sent again; None where it is not."""
        if told_not_to(reply.headers):
            return None
        asked = asked_for(reply.headers)
        if asked is not None and asked > MAX_RETRY_AFTER_S:
            return None
        if not self._again(attempt, at_most=self.care.retries):
            return None
        return _jitter(attempt) if asked is None else asked + _jitter(0, first=0.1)

    def _again(self, attempt: int, *, at_most: int) -> bool:
        if attempt >= at_most or self._retries_left < 1 or self.breaker.state != "closed":
            return False
        self._retries_left -= 1
        return True


def _jitter(attempt: int, *, first: float = FIRST_PAUSE_S) -> float:
    """Full jitter: anything up to a bound that doubles."""
    bound: float = min(first * 2**attempt, MAX_PAUSE_S)
    return bound * secrets.randbelow(1_000) / 1_000


def told_not_to(headers: Headers) -> bool:
    """Whether the provider says that trying again is of no use."""
    return any(name == "x-should-retry" and value == "false" for name, value in headers)


def asked_for(headers: Headers) -> float | None:
    """The seconds that a provider asks to wait; None where it does not say."""
    given = dict(headers)
    try:
        if (value := given.get("retry-after-ms")) is not None:
            return max(0.0, float(value) / 1000)
        if (value := given.get("retry-after")) is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
