"""Submissions as rows: requests of a batch on their way into a batch of their provider.

Every verb locks the batch before its submissions, requests and budgets, as everywhere. All may be
called twice, and by two servers at once: a verb does nothing where another has gone on meanwhile.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from stationmaster.batches.batches import AT_ONCE, close, count
from stationmaster.batches.progress import take_off
from stationmaster.batches.submission import (
    Ending,
    Submission,
    Waiting,
    joined,
    submission_of,
)
from stationmaster.batches.tables import batch_requests, batch_submissions, batches
from stationmaster.budgets import Budgets
from stationmaster.budgets.entry import Held, unspent
from stationmaster.jobs import Instances
from stationmaster.kernel.clock import Clock, Millis
from stationmaster.kernel.ids import new_id
from stationmaster.storage import Database, Prepared, Transaction

PREFIX = "bsub"
MOST = 10_000
"""Requests in one submission, which is in memory while it is sent; the vendors take 50,000."""
MOST_CHARACTERS = 32 * 1024 * 1024
"""Of their bodies together."""

_END = Prepared(
    update(batch_requests)
    .where(
        batch_requests.c.batch_id == bindparam("of"), batch_requests.c.number == bindparam("place")
    )
    .values(state=bindparam("outcome"), status=bindparam("code"), reply=bindparam("said"), body="")
)


class Submissions:
    """The verbs on submissions."""

    def __init__(
        self, database: Database, clock: Clock, instances: Instances, budgets: Budgets
    ) -> None:
        self._database = database
        self._clock = clock
        self._instances = instances
        self._budgets = budgets

    @property
    def instance_id(self) -> str:
        """This server's."""
        return self._instances.id

    # --- which there are ------------------------------------------------------------------------

    async def due(self) -> list[Submission]:
        """The open ones that are to be looked at now."""
        query = joined().where(
            batch_submissions.c.state != "ended", batch_submissions.c.next_at <= self._clock.now()
        )
        query = query.order_by(batch_submissions.c.next_at, batch_submissions.c.id)
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        return [submission_of(row) for row in rows]

    async def get(self, submission_id: str) -> Submission | None:
        """One of them, as it is now."""
        query = joined().where(batch_submissions.c.id == submission_id)
        row = await self._database.read(lambda tx: tx.execute(query).first())
        return None if row is None else submission_of(row)

    async def known(self, provider: str, since: Millis) -> set[str]:
        """A provider's ids of those that were made since."""
        query = select(batch_submissions.c.upstream_id).where(
            batch_submissions.c.provider == provider,
            batch_submissions.c.upstream_id.is_not(None),
            batch_submissions.c.created_at >= since,
        )
        return set(await self._database.read(lambda tx: tx.execute(query).scalars().all()))

    async def is_lost(self, submission: Submission) -> bool:
        """Whether its server has died. The present one has not."""
        of = submission.instance_id
        return not await self._database.read(lambda tx: self._instances.is_alive(tx, of))

    # --- into one -------------------------------------------------------------------------------

    async def open(self) -> Submission | None:
        """Put requests that wait into a new one; None where there are none."""
        made = await self._database.write(self._open)
        if made is None:
            return None
        submission_id, batch_id, place = made
        numbers = await self._database.read(partial(self._room, batch_id, place))
        for start in range(0, len(numbers), AT_ONCE):
            piece = numbers[start : start + AT_ONCE]
            await self._database.write(partial(self._put, submission_id, batch_id, piece))
        return await self.get(submission_id)

    def _open(self, tx: Transaction) -> tuple[str, str, int] | None:
        now = self._clock.now()
        candidates = tx.execute(
            select(batches)
            .where(
                batches.c.state == "in_progress", batches.c.native > 0, batches.c.expires_at > now
            )
            .order_by(batches.c.id)
        ).all()
        for batch in candidates:
            place = tx.execute(
                _waiting(batch.id, now)
                .with_only_columns(batch_requests.c.destination)
                .order_by(batch_requests.c.due_at)
                .limit(1)
            ).scalar()
            if place is None:
                continue
            submission_id = new_id(PREFIX)
            row = {
                "id": submission_id,
                "batch_id": batch.id,
                **batch.destinations[place],
                "state": "preparing",
                "size": 0,
                "instance_id": self._instances.id,
                "next_at": now,
                "failures": 0,
                "created_at": now,
            }
            tx.execute(insert(batch_submissions), row)
            return submission_id, str(batch.id), int(place)
        return None

    def _room(self, batch_id: str, place: int, tx: Transaction) -> list[int]:
        """The numbers of the requests that wait and fit into one."""
        rows: Sequence[Any] = tx.execute(
            _waiting(batch_id, self._clock.now())
            .where(batch_requests.c.destination == place)
            .with_only_columns(batch_requests.c.number, func.length(batch_requests.c.body))
            .order_by(batch_requests.c.due_at)  # as the index has it
            .limit(MOST)
        ).all()
        found: list[int] = []
        characters = 0
        for row in rows:
            characters += row[1]
            if found and characters > MOST_CHARACTERS:
                break
            found.append(row[0])
        return sorted(found)

    def _put(
        self, submission_id: str, batch_id: str, numbers: Sequence[int], tx: Transaction
    ) -> None:
        batch, row = _lock(tx, batch_id), _locked(tx, submission_id)
        if batch is None or row is None or row.state != "preparing":
            return
        if batch.state != "in_progress" or batch.expires_at <= self._clock.now():
            return
        put = tx.execute(
            update(batch_requests)
            .where(
                batch_requests.c.batch_id == batch_id,
                batch_requests.c.number.in_(numbers),
                batch_requests.c.state == "waiting",
            )
            .values(
                state="submitted",
                submission_id=submission_id,
                attempts=batch_requests.c.attempts + 1,
            )
        )
        tx.execute(_one(submission_id).values(size=batch_submissions.c.size + put.rowcount))

    # --- its requests ---------------------------------------------------------------------------

    async def pages(self, submission: Submission) -> AsyncIterator[list[Waiting]]:
        """Its requests that have not ended, in their order, in pieces."""
        # Numbers first: to sort by them what another index has found would carry the bodies along.
        query = _submitted(submission).with_only_columns(batch_requests.c.number)
        found = await self._database.read(lambda tx: tx.execute(query).scalars().all())
        numbers = sorted(found)
        for start in range(0, len(numbers), AT_ONCE):
            yield await self.load(submission, numbers[start : start + AT_ONCE])

    async def is_empty(self, submission: Submission) -> bool:
        """Whether all of its requests have ended."""
        query = _submitted(submission).with_only_columns(batch_requests.c.number).limit(1)
        return await self._database.read(lambda tx: tx.execute(query).first()) is None

    async def load(self, submission: Submission, numbers: Sequence[int]) -> list[Waiting]:
        """Those of some of its requests that have not ended."""
        query = _submitted(submission).where(batch_requests.c.number.in_(numbers))
        rows = await self._database.read(lambda tx: tx.execute(query).all())
        found = [Waiting(row.number, row.custom_id, row.body, row.attempts) for row in rows]
        return sorted(found, key=lambda each: each.number)

    async def holds(self, submission: Submission, page: Sequence[Waiting]) -> dict[int, Held]:
        """The open holds of some of its requests, by their numbers."""
        calls = {each.call_id(submission): each.number for each in page}
        found = await self._database.read(
            lambda tx: self._budgets.held(tx, submission.id, calls=list(calls))
        )
        return {calls[held.context.call_id]: held for held in found}

    async def end(self, submission: Submission, endings: Sequence[Ending]) -> list[Ending]:
        """End some of its requests and settle their holds; return those that had not ended."""
        return await self._database.write(partial(self._end, submission, endings))

    def _end(
        self, submission: Submission, endings: Sequence[Ending], tx: Transaction
    ) -> list[Ending]:
        if _lock(tx, submission.batch_id) is None:
            return []
        wanted = _submitted(submission).where(
            batch_requests.c.number.in_([each.number for each in endings])
        )
        there = set(tx.execute(wanted.with_only_columns(batch_requests.c.number)).scalars())
        done = [each for each in endings if each.number in there]
        # Also of those that are not there: their entries are made once, and a hold never stays.
        self._budgets.settle_within(tx, [each.entry for each in endings if each.entry is not None])
        if not done:
            return []
        tx.run_many(
            _END,
            [
                {
                    "of": submission.batch_id,
                    "place": each.number,
                    "outcome": each.outcome,
                    "code": each.status,
                    "said": each.reply,
                }
                for each in done
            ],
        )
        now = self._clock.now()
        numbers: Counter[str] = Counter(each.outcome for each in done)
        take_off(tx, submission.id, numbers)
        for outcome, number in sorted(numbers.items()):
            count(tx, submission.batch_id, outcome, number, now)
        return done

    async def put_back(
        self, submission: Submission, numbers: Sequence[int], *, delay: float, call: bool = False
    ) -> None:
        """Let some of its requests wait again; with `call` they are made as calls from now on."""
        await self._database.write(
            partial(self._put_back, submission, numbers, delay=delay, call=call)
        )

    def _put_back(
        self,
        submission: Submission,
        numbers: Sequence[int],
        tx: Transaction,
        *,
        delay: float,
        call: bool,
    ) -> None:
        batch = _lock(tx, submission.batch_id)
        if batch is None:
            return
        now = self._clock.now()
        mine = _submitted(submission).where(batch_requests.c.number.in_(numbers))
        there = tx.execute(mine.with_only_columns(batch_requests.c.number)).scalars().all()
        values: dict[str, Any] = {
            "state": "waiting",
            "submission_id": None,
            "due_at": now + round(delay * 1000),
        }
        if call:
            values["destination"] = None
            tx.execute(
                update(batches)
                .where(batches.c.id == batch.id)
                .values(native=batches.c.native - len(there))
            )
        tx.execute(
            update(batch_requests)
            .where(batch_requests.c.batch_id == batch.id, batch_requests.c.number.in_(there))
            .values(values)
        )
        if batch.state == "canceling":
            close(tx, batch.id, "canceled", now)
        elif batch.expires_at <= now:
            close(tx, batch.id, "expired", now)

    # --- its life -------------------------------------------------------------------------------

    async def intend(self, submission: Submission, size: int) -> Millis | None:
        """Commit that it is sent now; return when. None where it may not be any more."""

        def verb(tx: Transaction) -> Millis | None:
            batch, row = _lock(tx, submission.batch_id), _locked(tx, submission.id)
            now = self._clock.now()
            if row is None or (row.state, row.instance_id) != ("preparing", self._instances.id):
                return None
            if batch is None or batch.state != "in_progress" or batch.expires_at <= now:
                return None
            sent = {"state": "submitting", "size": size, "sent_at": now, "next_at": now}
            tx.execute(_one(submission.id).values(sent))
            return now

        return await self._database.write(verb)

    async def adopt(self, submission: Submission, upstream_id: str) -> None:
        """The provider has it, under this id."""
        adopted = {
            "state": "in_progress",
            "upstream_id": upstream_id,
            "next_at": self._clock.now(),
            "failures": 0,
            "note": None,
        }
        mine = _one(submission.id).where(batch_submissions.c.state == "submitting")
        await self._database.write(lambda tx: tx.execute(mine.values(adopted)))

    async def heard(
        self, submission: Submission, counts: Mapping[str, int], *, delay: float
    ) -> None:
        """The provider has said how far it is; look again after `delay` seconds."""
        at = self._clock.now() + round(delay * 1000)
        told = {"counts": dict(counts), "next_at": at, "failures": 0, "note": None}
        await self._update(submission, told)

    async def missed(self, submission: Submission, note: str, *, delay: float) -> None:
        """Something went wrong; look again after `delay` seconds."""
        at = self._clock.now() + round(delay * 1000)
        await self._update(
            submission,
            {"next_at": at, "failures": batch_submissions.c.failures + 1, "note": note},
        )

    async def _update(self, submission: Submission, values: Mapping[str, Any]) -> None:
        mine = _one(submission.id).where(batch_submissions.c.state != "ended")
        await self._database.write(lambda tx: tx.execute(mine.values(dict(values))))

    async def abandon(self, submission: Submission, note: str | None, *, delay: float) -> None:
        """It is not there, and never was: give its holds back, and let its requests wait again.

        Where it has gone on since it was looked at, nothing is done. Whoever is about to send it
        finds that he may not any more.
        """
        if not await self._database.write(partial(self._disown, submission)):
            return
        async for page in self.pages(submission):
            await self.put_back(submission, [each.number for each in page], delay=delay)
        await self.finish(submission, note)

    def _disown(self, submission: Submission, tx: Transaction) -> bool:
        still = _one(submission.id).where(
            batch_submissions.c.state == submission.state,
            batch_submissions.c.instance_id.in_([submission.instance_id, ""]),
        )
        return bool(tx.execute(still.values(instance_id="")).rowcount)

    async def finish(
        self,
        submission: Submission,
        note: str | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """It has ended. Holds that are left of it are given back. Idempotent.

        `counts` are its provider's last word.
        """
        ended: dict[str, Any] = {"state": "ended", "note": note}
        if counts is not None:
            ended["counts"] = dict(counts)
        # In pieces: thousands of holds at once would keep all others from writing.
        while await self._database.write(partial(self._give_back, submission)):
            pass
        await self._database.write(partial(self._finish, submission, ended))

    def _give_back(self, submission: Submission, tx: Transaction) -> bool:
        _lock(tx, submission.batch_id)
        now = self._clock.now()
        held = self._budgets.held(tx, submission.id, limit=AT_ONCE)
        self._budgets.settle_within(tx, [unspent(each, now) for each in held])
        return len(held) == AT_ONCE

    def _finish(self, submission: Submission, ended: Mapping[str, Any], tx: Transaction) -> None:
        mine = (batch_submissions.c.id == submission.id, batch_submissions.c.state != "ended")
        if _lock(tx, submission.batch_id) is None:
            tx.execute(delete(batch_submissions).where(*mine))
        else:
            now = self._clock.now()
            tx.execute(update(batch_submissions).where(*mine).values(ended_at=now, **ended))


def _one(submission_id: str) -> Any:
    return update(batch_submissions).where(batch_submissions.c.id == submission_id)


def _locked(tx: Transaction, submission_id: str) -> Row[Any] | None:
    mine = batch_submissions.c.id == submission_id
    return tx.execute(select(batch_submissions).where(mine).with_for_update()).first()


def _lock(tx: Transaction, batch_id: str) -> Row[Any] | None:
    return tx.execute(select(batches).where(batches.c.id == batch_id).with_for_update()).first()


def _waiting(batch_id: str, now: Millis) -> Any:
    return select(batch_requests).where(
        batch_requests.c.batch_id == batch_id,
        batch_requests.c.state == "waiting",
        batch_requests.c.due_at <= now,
        batch_requests.c.destination.is_not(None),
    )


def _submitted(submission: Submission) -> Any:
    return select(batch_requests).where(
        batch_requests.c.batch_id == submission.batch_id,
        batch_requests.c.submission_id == submission.id,
        batch_requests.c.state == "submitted",
    )
