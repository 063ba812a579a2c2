"""What came of the requests of a submission: settled, and written down with their batch.

All of it may be done again: a request that has ended is passed over.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from stationmaster.batches.batch import Outcome
from stationmaster.batches.batches import AT_ONCE
from stationmaster.batches.executor import LOST
from stationmaster.batches.ports import Answer, Caller
from stationmaster.batches.submission import Ending, Submission, Waiting
from stationmaster.batches.submissions import Submissions
from stationmaster.budgets.entry import Held, LedgerEntry, lost, unspent
from stationmaster.gateway.deferred import Ask, Deferred
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Upstream
from stationmaster.providers.batches import BatchInterface, Result, Standing


class Returns:
    """Puts results away."""

    def __init__(
        self, submissions: Submissions, deferred: Deferred, caller: Caller, clock: Clock
    ) -> None:
        self._submissions = submissions
        self._deferred = deferred
        self._caller = caller
        self._clock = clock

    def error(self, submission: Submission, error: Exception) -> Answer:
        """What an error is in the format of its requests."""
        operation = "messages" if submission.of is None else submission.of.operation
        return self._caller.error(operation, error)

    async def collect(
        self, submission: Submission, interface: BatchInterface, upstream_id: str
    ) -> None:
        """Fetch the results of one that has ended at its provider. Raises `Upstream`."""
        async with aclosing(interface.results(upstream_id)) as results:
            async for page in _pages(results):
                found = {number: r for r in page if (number := _number(submission, r)) is not None}
                there = await self._submissions.load(submission, list(found))
                holds = await self._submissions.holds(submission, there)
                made = [self._ending(submission, w, found[w.number], holds) for w in there]
                await self._put_away(submission, there, made)

    def _ending(
        self,
        submission: Submission,
        waiting: Waiting,
        result: Result,
        holds: Mapping[int, Held],
    ) -> Ending:
        now, held = self._clock.now(), holds.get(waiting.number)
        if result.body is None:
            return self._never(submission, waiting, result.outcome, held)
        try:
            reply = msgspec.json.format(result.body, indent=-1).decode()
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._lost(submission, waiting, held)
        entry: LedgerEntry | None = None
        if held is not None:
            ask = self._asked(submission, waiting)
            succeeded = result.outcome == "succeeded"
            entry = (
                self._deferred.bill(held, ask, submission.to, result.body)
                if succeeded
                else unspent(held, now)
            )
        return Ending(waiting.number, result.outcome, result.status, reply, entry)

    def _never(
        self, submission: Submission, waiting: Waiting, outcome: Outcome, held: Held | None
    ) -> Ending:
        """Of a request that was not made: it costs nothing."""
        of = submission.of
        if outcome == "canceled" and of is not None and of.state != "canceling":
            # Nobody cancelled the batch: its time was over, and so the provider was told to stop.
            outcome = "expired" if of.expires_at <= self._clock.now() else "canceled"
        entry = None if held is None else unspent(held, self._clock.now())
        return Ending(waiting.number, outcome, entry=entry)

    def _lost(self, submission: Submission, waiting: Waiting, held: Held | None) -> Ending:
        """Of a request of whose answer nobody knows: it costs its whole hold."""
        error = Upstream(
            "The model provider's batch has no answer to this request. What it may have used is"
            " billed; send it again if you need the answer.",
            code=LOST,
        )
        answer = self.error(submission, error)
        entry = None if held is None else lost(held, self._clock.now())
        return Ending(waiting.number, "errored", answer.status, answer.body.decode(), entry)

    async def rest(self, submission: Submission, standing: Standing | None) -> int:
        """End those of its requests that no result told of; return how many.

        Without a `standing` they are lost.
        """
        number = 0
        rest = None if standing is None else standing.rest
        if rest == "errored":
            why = "" if standing is None else standing.error
            answer = self.error(
                submission, Upstream(f"The model provider refuses the batch: {why}", status=400)
            )
            async for page in self._submissions.pages(submission):
                await self.refuse(submission, page, rest, answer)
                number += len(page)
            return number
        async for page in self._submissions.pages(submission):
            holds = await self._submissions.holds(submission, page)
            made = [
                self._lost(submission, each, holds.get(each.number))
                if rest is None
                else self._never(submission, each, rest, holds.get(each.number))
                for each in page
            ]
            await self._put_away(submission, page, made)
            number += len(page)
        return number

    async def refuse(
        self,
        submission: Submission,
        page: Sequence[Waiting],
        outcome: Outcome,
        answer: Answer,
    ) -> None:
        """End some of its requests with one answer; they cost nothing."""
        holds = await self._submissions.holds(submission, page)
        now, told = self._clock.now(), answer.body.decode()
        made = [
            Ending(
                each.number,
                outcome,
                answer.status,
                told,
                unspent(holds[each.number], now) if each.number in holds else None,
            )
            for each in page
        ]
        await self._put_away(submission, page, made)

    async def _put_away(
        self, submission: Submission, page: Sequence[Waiting], made: Sequence[Ending]
    ) -> None:
        by_number = {each.number: each for each in page}
        for ending in await self._submissions.end(submission, made):
            if ending.entry is None:
                continue
            answer = None if ending.reply is None else ending.reply.encode()
            ask = self._asked(submission, by_number[ending.number])
            self._deferred.note(ending.entry, ask, answer, ending.status)

    @staticmethod
    def _asked(submission: Submission, waiting: Waiting) -> Ask:
        of = submission.of
        operation = "messages" if of is None else of.operation
        return Ask(operation, waiting.body.encode(), () if of is None else of.headers)


def _number(submission: Submission, result: Result) -> int | None:
    """Which request a result is of; None where it is of none of this submission's."""
    ours, _, number = result.custom_id.rpartition("-")
    return int(number) if ours == submission.id and number.isdecimal() else None


async def _pages(results: AsyncIterator[Result]) -> AsyncIterator[list[Result]]:
    page: list[Result] = []
    async for result in results:
        page.append(result)
        if len(page) == AT_ONCE:
            yield page
            page = []
    if page:
        yield page
