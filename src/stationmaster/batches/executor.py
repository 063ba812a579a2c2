"""Makes the requests of batches, a few at a time, while nobody else needs the provider.

    take ──▶ call ──▶ put away
      ▲        │
      └────────┘  refused for now: the provider's or our own limits, or a failure that cost nothing

A request is billed at most once. One whose call was cut (its server died, or stopped before the
answer) may be billed: it ends as errored, and only its owner has it made again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from stationmaster.batches.batch import Operation, Taken
from stationmaster.batches.desk import Desk
from stationmaster.batches.ports import Answer, Caller, Principals
from stationmaster.jobs import Job
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Exhausted,
    StationmasterError,
    Unauthenticated,
    Unavailable,
    Upstream,
)

log = structlog.get_logger(__name__)

POLL_S = 1.0  # how late a request may start that was put back, or whose wake-up was lost
TEND_S = 2.0  # how often expired batches and dead servers are looked for
MAX_ATTEMPTS = 10  # with the delays below, over about half an hour
FIRST_DELAY_S = 2.0
MAX_DELAY_S = 300.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LOST = "answer_lost"


class Executor:
    """`slots` requests at a time in this process, begun only while `busy()` is false."""

    def __init__(
        self,
        desk: Desk,
        caller: Caller,
        principals: Principals,
        *,
        slots: int,
        busy: Callable[[int], bool],
        finish: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`busy` is told how many calls are of batches, and says whether others need the place.

        `finish` does what is left to do for batches that have ended.
        """
        self._desk = desk
        self._caller = caller
        self._principals = principals
        self._slots = slots
        self._busy = busy
        self._finish = finish
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._draining = False

    async def ring(self, _job: Job) -> None:
        """Look for work now: a handler of `BATCH_JOB`. Idempotent."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        tend_at = loop.time()
        try:
            while True:
                self._wake.clear()
                try:
                    if loop.time() >= tend_at:
                        tend_at = loop.time() + TEND_S
                        await self.tend()
                    await self.fill()
                except Unavailable:
                    log.warning("The batches cannot be read; trying again.")
                await self._woken()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def drain(self, timeout: float) -> None:
        """Begin nothing new, and wait for what is under way."""
        self._draining = True
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout)

    async def tend(self) -> None:
        """End what has expired, and what dead servers were doing."""
        await self._desk.expire()
        if lost := await self._desk.bury(self._lost):
            log.warning("Requests of batches were lost with their server.", requests=lost)
        if self._finish is not None:
            await self._finish()

    async def fill(self) -> None:
        """Begin as many requests as there is room for."""
        while len(self._running) < self._slots and not self._draining:
            if self._busy(len(self._running)):
                return
            taken = await self._desk.take()
            if taken is None:
                return
            task = asyncio.create_task(self._make(taken))
            self._running.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # It stays with this server until that ends; then it counts as lost.
            log.error("A request of a batch could not be put away.", exc_info=error)

    async def _make(self, taken: Taken) -> None:
        try:
            answer = await self._ask(taken)
        except StationmasterError as error:
            delay = _delay(error, taken.attempt)
            if delay is not None:
                await self._desk.put_back(taken, delay=delay)
                return
            answer = self._caller.error(taken.operation, error)
        except Exception as error:
            log.exception("A request of a batch failed in this server.")
            answer = self._caller.error(taken.operation, error)
        await self._desk.put_away(taken, answer)

    async def _ask(self, taken: Taken) -> Answer:
        principal = await self._principals(taken.key_id, taken.owner)
        if principal is None:
            raise Unauthenticated(
                "The key that made the batch is no longer valid.", code="invalid_api_key"
            )
        answer = await self._caller.call(
            principal,
            taken.operation,
            taken.body.encode(),
            taken.headers,
            call_id=taken.call_id,
        )
        try:
            answer = Answer(answer.status, msgspec.json.format(answer.body, indent=-1))
            answer.body.decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Upstream(
                "The model provider's answer is not JSON.", status=answer.status, code=LOST
            ) from None
        if answer.status in _PASSING and taken.attempt < MAX_ATTEMPTS:
            raise Upstream("The model provider refuses for now.", status=answer.status)
        return answer

    def _lost(self, operation: Operation) -> Answer:
        error = Upstream(
            "The server stopped while this request was under way. What it used is billed; send it"
            " again if you need the answer.",
            code=LOST,
        )
        return self._caller.error(operation, error)


def _delay(error: StationmasterError, attempt: int) -> float | None:
    """How long to wait before the request is made again, in seconds; None where it is not."""
    passing = isinstance(error, Exhausted | Unavailable | Upstream)
    if not passing or attempt >= MAX_ATTEMPTS or error.error_code == LOST:
        return None
    after: float | None = getattr(error, "retry_after", None)
    if isinstance(error, BudgetExceeded) or (isinstance(error, Exhausted) and after is None):
        return None  # waiting cannot help
    if error.error_code == "upstream_credentials":
        return None
    own: float = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
    return max(own, after or 0.0)
