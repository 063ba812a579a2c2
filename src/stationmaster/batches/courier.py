"""Carries requests of batches to providers that take batches, and brings back what came of them.

    open ──▶ hold each ──▶ commit that it is sent ──▶ send ──▶ look now and then ──▶ settle each
                                                       ╎
                          found, or surely not there ◀─┘ where the answer is lost

A request is held for before it is sent, and settled in the transaction that writes its answer down.
What was sent, and of which no answer came, is looked for at the provider, and never sent again
before it is known not to be there. So nothing is billed twice and nothing is lost, whenever a
server dies.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from stationmaster.batches.ports import Caller, Principals
from stationmaster.batches.returns import Returns
from stationmaster.batches.submission import Ending, Submission, Waiting
from stationmaster.batches.submissions import Submissions
from stationmaster.gateway.deferred import Ask, Deferred
from stationmaster.jobs import Lease
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Exhausted,
    NotFound,
    StationmasterError,
    Unauthenticated,
    Unavailable,
    Upstream,
)
from stationmaster.kernel.principal import Principal
from stationmaster.providers.batches import (
    NewCall,
    NotTaken,
    Orphan,
    Unsure,
)
from stationmaster.providers.batches import Submission as Parcel

log = structlog.get_logger(__name__)

TICK_S = 1.0  # how often the rows are looked at
AT_WORK = 4  # submissions that are worked on at once
HOLDS = 64  # that are placed at once
WAIT_S = 60.0  # for a budget that other calls hold, which may take as long as a batch
GRACE_S = 60.0  # what was sent has arrived after it, or never will
SENDING_S = 900.0  # more than any sending takes, by a server that lives and has it in hand
MAX_DELAY_S = 600.0
GIVE_UP_MS = 7 * 24 * 3600 * 1000  # after the sending; the vendors take a day
LAST_TRIES = 5  # even then: it may be this server that was away for the week
DAY_MS = 24 * 3600 * 1000
_PASSING = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: how often a provider is asked, and how long what was sent may be on its way."""

    poll: float = 30.0
    grace: float = GRACE_S


class Courier:
    """What one server at a time does, by `lease`. That two do it for a while does no harm."""

    def __init__(
        self,
        submissions: Submissions,
        deferred: Deferred,
        caller: Caller,
        *,
        principals: Principals,
        clock: Clock,
        lease: Lease,
        pace: Pace | None = None,
    ) -> None:
        self._submissions = submissions
        self._deferred = deferred
        self._returns = Returns(submissions, deferred, caller, clock)
        self._principals = principals
        self._clock = clock
        self._lease = lease
        self._pace = pace or Pace()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._draining = False

    async def run(self) -> None:
        """Work whenever this server has the lease. Until cancelled."""
        await self._lease.lead(self._lead)

    async def _lead(self) -> None:
        try:
            while True:
                try:
                    await self.look()
                except Unavailable:
                    log.warning("The submissions of batches cannot be read; trying again.")
                await asyncio.sleep(TICK_S)
        finally:
            await self._stop()

    async def _stop(self) -> None:
        under_way = self._under_way()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _under_way(self) -> set["asyncio.Task[None]"]:
        opening = set() if self._opening is None else {self._opening}
        return {*self._tasks.values(), *opening}

    async def drain(self, timeout: float) -> None:
        """Begin nothing new, and wait for what is under way."""
        self._draining = True
        if under_way := self._under_way():
            await asyncio.wait(under_way, timeout=timeout)

    async def settled(self) -> None:
        """Wait until nothing is under way in this process. For tests."""
        while under_way := self._under_way():
            await asyncio.wait(under_way)

    async def look(self) -> None:
        """Begin what is due."""
        if self._draining:
            return
        for submission in await self._submissions.due():
            if submission.id in self._tasks or len(self._tasks) >= AT_WORK:
                continue
            if submission.state == "preparing" and self._opening and self._is_mine(submission):
                continue
            self._begin(submission)
        if self._opening is None:
            # One after the other: each is in memory until it is sent.
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)

    def _begin(self, submission: Submission) -> None:
        task = asyncio.create_task(self._guarded(submission, self._step))
        self._tasks[submission.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(submission.id, None))

    def _opened(self, task: "asyncio.Task[None]") -> None:
        self._opening = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A submission of a batch could not be opened.", exc_info=error)

    async def _open(self) -> None:
        try:
            submission = await self._submissions.open()
        except Unavailable:
            return
        if submission is None:
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks[submission.id] = task
        try:
            await self._guarded(submission, self._prepare)
        finally:
            self._tasks.pop(submission.id, None)

    async def _guarded(
        self, submission: Submission, work: Callable[[Submission], Awaitable[None]]
    ) -> None:
        """Do one step; what goes wrong is written down, and tried again later."""
        try:
            try:
                await work(submission)
            except (Upstream, NotFound) as error:
                await self._failed(submission, error)
            except Unavailable:
                raise
            except Exception:
                log.exception("A submission of a batch failed in this server.", id=submission.id)
                note = "Something went wrong in this server."
                await self._submissions.missed(submission, note, delay=self._later(submission))
        except Unavailable:
            log.warning("A submission of a batch cannot be written down.", id=submission.id)

    async def _failed(self, submission: Submission, error: StationmasterError) -> None:
        log.warning(
            "A provider's batch cannot be reached.",
            submission_id=submission.id,
            provider=submission.to.provider,
            code=error.error_code,
        )
        if self._is_hopeless(submission) and submission.failures >= LAST_TRIES:
            await self._give_up(submission, error.message)
            return
        await self._submissions.missed(
            submission, error.message, delay=self._later(submission, error)
        )

    def _is_hopeless(self, submission: Submission) -> bool:
        return self._clock.now() - (submission.sent_at or submission.created_at) > GIVE_UP_MS

    async def _give_up(self, submission: Submission, note: str) -> None:
        """Nobody knows what became of its requests: each costs its hold."""
        log.warning("A provider's batch is given up.", submission_id=submission.id, why=note)
        await self._returns.rest(submission, None)
        await self._submissions.finish(submission, note)

    def _later(self, submission: Submission, error: StationmasterError | None = None) -> float:
        if isinstance(error, Unsure):  # nothing is wrong: an answer is waited for, as with any
            return self._pace.poll
        own = min(self._pace.poll * 2 ** min(submission.failures, 10), MAX_DELAY_S)
        after: float | None = getattr(error, "retry_after", None)
        return float(max(own, after or 0.0))

    async def _step(self, seen: Submission) -> None:
        submission = await self._submissions.get(seen.id)  # it may have gone on since it was seen
        if submission is None:
            return
        match submission.state:
            case "preparing":
                # Nobody here is at it. Where its server lives, that may be, or has lost the lease.
                if await self._is_left(submission):
                    await self._submissions.abandon(submission, None, delay=0.0)
            case "submitting":
                await self._search(submission)
            case "in_progress":
                await self._ask(submission)

    async def _is_left(self, submission: Submission) -> bool:
        """Whether nobody is at work on it any more; here, only who asks is."""
        if self._is_mine(submission) or not submission.instance_id:
            return True
        if await self._submissions.is_lost(submission):
            return True
        begun = submission.sent_at or submission.created_at
        return self._clock.now() - begun > SENDING_S * 1000

    def _is_mine(self, submission: Submission) -> bool:
        return submission.instance_id == self._submissions.instance_id

    # --- there ----------------------------------------------------------------------------------

    async def _prepare(self, submission: Submission) -> None:
        of = submission.of
        assert of is not None, "it has just been made"
        principal = await self._principals(of.key_id, of.owner)
        calls: list[NewCall] = []
        attempt = 1
        async for page in self._submissions.pages(submission):
            attempt = max(attempt, *(each.attempt for each in page))
            for start in range(0, len(page), HOLDS):
                some = page[start : start + HOLDS]
                found = await asyncio.gather(
                    *(self._hold(submission, principal, each) for each in some),
                    return_exceptions=True,
                )
                for each in found:
                    if isinstance(each, BaseException):
                        raise each  # its holds are given back with the others, a little later
                    if each is not None:
                        calls.append(each)
        if not calls:
            await self._submissions.finish(submission)
            return
        sent_at = await self._submissions.intend(submission, len(calls))
        if sent_at is None:
            await self._submissions.abandon(submission, None, delay=0.0)
            return
        sent = replace(
            submission,
            state="submitting",
            sent_at=sent_at,
            size=len(calls),
            failures=attempt - 1,
        )
        # What fails from here on fails a submission that may be there.
        await self._guarded(sent, lambda each: self._send(each, calls))

    async def _hold(
        self, submission: Submission, principal: Principal | None, waiting: Waiting
    ) -> NewCall | None:
        """Place the hold of one request; None where it does not go along, which is seen to."""
        of = submission.of
        assert of is not None
        try:
            if principal is None:
                raise Unauthenticated(
                    "The key that made the batch is no longer valid.", code="invalid_api_key"
                )
            body = await self._deferred.hold(
                principal,
                Ask(of.operation, waiting.body.encode(), of.headers),
                submission.to,
                call_id=waiting.call_id(submission),
                holder=submission.id,
            )
        except Unavailable:
            raise
        except StationmasterError as error:  # it stands for itself
            await self._refuse(submission, waiting, error)
            return None
        except Exception as error:
            log.exception("A request of a batch failed in this server.")
            await self._refuse(submission, waiting, error)
            return None
        if body is None:
            await self._submissions.put_back(submission, [waiting.number], delay=0.0, call=True)
            return None
        return NewCall(f"{submission.id}-{waiting.number}", body)

    async def _refuse(self, submission: Submission, waiting: Waiting, error: Exception) -> None:
        held = isinstance(error, Exhausted) and not isinstance(error, BudgetExceeded)
        if held and getattr(error, "retry_after", None) is not None:
            await self._submissions.put_back(submission, [waiting.number], delay=WAIT_S)
            return
        answer = self._returns.error(submission, error)
        ending = Ending(waiting.number, "errored", answer.status, answer.body.decode())
        await self._submissions.end(submission, [ending])

    async def _send(self, submission: Submission, calls: Sequence[NewCall]) -> None:
        of = submission.of
        assert of is not None
        parcel = Parcel(submission.id, of.operation, calls, of.headers)
        try:
            with self._deferred.interface(submission.to.provider) as interface:
                upstream_id = await interface.submit(parcel)
        except (NotTaken, NotFound) as error:
            await self._not_taken(submission, error)
            return
        except Upstream as error:
            # It may be there. First of all what is on its way must have arrived.
            log.warning("It is not known whether a batch was taken.", submission_id=submission.id)
            await self._submissions.missed(submission, error.message, delay=self._pace.grace)
            return
        await self._submissions.adopt(submission, upstream_id)

    async def _not_taken(self, submission: Submission, error: NotTaken | NotFound) -> None:
        status = getattr(error, "status", None)
        if status is not None and status not in _PASSING:
            # As it is, it would be refused each time.
            answer = self._returns.error(submission, error)
            async for page in self._submissions.pages(submission):
                await self._returns.refuse(submission, page, "errored", answer)
            await self._submissions.finish(submission, error.message)
            return
        log.warning("A batch was not taken; trying again.", submission_id=submission.id)
        delay = self._later(submission, error)
        await self._submissions.abandon(submission, error.message, delay=delay)

    # --- is it there? ---------------------------------------------------------------------------

    async def _search(self, submission: Submission) -> None:
        """Find out what became of one that was sent without an answer."""
        sent_at = submission.sent_at or submission.created_at
        if not await self._is_left(submission):
            return
        if self._clock.now() - sent_at < self._pace.grace * 1000:
            return
        known = await self._submissions.known(submission.to.provider, sent_at - DAY_MS)
        orphan = Orphan(submission.id, submission.size, sent_at, known)
        with self._deferred.interface(submission.to.provider) as interface:
            upstream_id = await interface.find(orphan)
        if upstream_id is not None:
            log.info("A batch was taken whose answer was lost.", submission_id=submission.id)
            await self._submissions.adopt(submission, upstream_id)
        else:
            note = "It had not arrived at the provider, and is sent again."
            await self._submissions.abandon(submission, note, delay=0.0)

    # --- and back -------------------------------------------------------------------------------

    async def _ask(self, submission: Submission) -> None:
        assert submission.upstream_id is not None
        with self._deferred.interface(submission.to.provider) as interface:
            try:
                standing = await interface.status(submission.upstream_id)
            except Upstream as error:
                if error.status != 404:
                    raise
                left = await self._returns.rest(submission, None)
                note = "The provider had it no more." if left else None
                await self._submissions.finish(submission, note)
                return
            if standing.state != "ended":
                if self._is_hopeless(submission):
                    await self._give_up(submission, "The provider has not ended it in a week.")
                    return
                if standing.state == "in_progress" and self._is_over(submission):
                    await interface.cancel(submission.upstream_id)
                await self._submissions.heard(submission, standing.counts, delay=self._pace.poll)
                return
            # Once all have ended some of the results may be deleted there: nothing is fetched then.
            if not await self._submissions.is_empty(submission):
                await self._returns.collect(submission, interface, submission.upstream_id)
                await self._returns.rest(submission, standing)
            await interface.clear(submission.upstream_id)
        await self._submissions.finish(submission, standing.error, standing.counts)

    def _is_over(self, submission: Submission) -> bool:
        of = submission.of
        return of is None or of.state != "in_progress" or of.expires_at <= self._clock.now()
