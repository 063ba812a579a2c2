"""Who works on which run: claiming, and taking over from the dead."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import and_, select, update

from stationmaster.budgets import Budgets
from stationmaster.events import EventLog, NewEvent
from stationmaster.jobs import Instances, Runner
from stationmaster.kernel.clock import Clock
from stationmaster.sessions.runs import state as states
from stationmaster.sessions.runs.fairness import Line
from stationmaster.sessions.runs.files import Place
from stationmaster.sessions.runs.record import Records, Run, place_of
from stationmaster.sessions.runs.settlement import Ending, Settlement
from stationmaster.sessions.session import Session
from stationmaster.sessions.state import RUNNING
from stationmaster.sessions.tables import runs
from stationmaster.storage import Database, Transaction

HEAD_START_S = 10.0  # for a server to carry out what it has reserved; then anybody may


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker holds by `epoch`. `since` is the stream's end at the claim.

    `place` is None for a session that has no workspace yet.
    """

    run: Run
    session: Session
    epoch: int
    place: Place | None
    since: int


class Claims:
    """The verbs of workers."""

    def __init__(
        self,
        *,
        database: Database,
        events: EventLog,
        records: Records,
        settlement: Settlement,
        budgets: Budgets,
        instances: Instances,
        clock: Clock,
        queue_timeout: float,
        ageing: float,
    ) -> None:
        """`queue_timeout` and `ageing`, for which see `Line`, are in seconds."""
        self._database = database
        self._events = events
        self._records = records
        self._settlement = settlement
        self._budgets = budgets
        self._instances = instances
        self._clock = clock
        self._queue_timeout = queue_timeout
        self._line = Line(ageing=ageing)

    async def next(self) -> Claim | None:
        """Claim the run whose turn it is, if one waits. See `fairness.py`.

        One that another instance has reserved waits `HEAD_START_S` for that.
        """
        return await self._database.write(self._next)

    def _next(self, tx: Transaction) -> Claim | None:
        for run_id, session_id in self._line.runs(tx, self._clock.now()):
            # The session's row comes first, for everybody; one that is locked is being claimed.
            session = self._records.sessions.try_lock(tx, session_id)
            if session is None:
                continue
            run = self._records.lock(tx, run_id)
            if run.state.state == "queued" and not self._is_reserved(run):
                return self._claim(tx, run, session)
        return None

    async def own(self) -> Claim | None:
        """Claim the oldest run that is reserved for this instance, if one is."""
        reserved = select(runs.c.id).where(
            runs.c.instance_id == self._instances.id, runs.c.state == "queued"
        )

        def find(tx: Transaction) -> str | None:
            return tx.execute(reserved.order_by(runs.c.id).limit(1)).scalar()

        def verb(tx: Transaction, run_id: str) -> Claim | None:
            run = self._records.lock(tx, run_id)
            if run.state.state != "queued":
                return None  # cancelled meanwhile, or another server was faster
            return self._claim(tx, run, self._records.sessions.get(tx, run.session_id))

        while (run_id := await self._database.read(find)) is not None:
            if claim := await self._database.write(partial(verb, run_id=run_id)):
                return claim
        return None

    def _is_reserved(self, run: Run) -> bool:
        ends_at = run.state.queued_at + round(HEAD_START_S * 1000)
        return run.instance_id not in {None, self._instances.id} and self._clock.now() < ends_at

    def _claim(self, tx: Transaction, run: Run, session: Session) -> Claim:
        epoch = self._events.fence(tx, run.session_id)
        tx.execute(update(runs).where(runs.c.id == run.id).values(instance_id=self._instances.id))
        run = replace(run, instance_id=self._instances.id)
        started = {"run_id": run.id, "epoch": epoch, "instance_id": self._instances.id}
        new = [NewEvent(states.STARTED, started)]
        if session.state.status != "running":
            new.append(NewEvent(RUNNING, {"run_id": run.id}))
        run = self._records.apply(tx, run, new, epoch=epoch)
        place = place_of(tx, run.session_id) if session.directory else None
        session = self._records.sessions.get(tx, run.session_id)
        return Claim(run, session, epoch, place, self._events.head_in(tx, run.session_id))

    async def give_up(self, claim: Claim, ending: Ending) -> None:
        """End a run whose execution failed for a reason of the server's own. Raises `Fenced`."""

        def verb(tx: Transaction) -> None:
            run = self._records.lock(tx, claim.run.id)
            self._settlement.end(tx, run, ending, epoch=claim.epoch)

        await self._database.write(verb)

    async def resign(self) -> None:
        """Leave the list of the living, unless something unfinished is left for others to find."""
        mine = self._instances.id

        def verb(tx: Transaction) -> None:
            Runner.release(tx, mine)  # jobs that the stop has cut: nobody else would find them
            unfinished = select(runs.c.id).where(
                runs.c.instance_id == mine, runs.c.state == "running"
            )
            if tx.execute(unfinished).first() is None and not self._budgets.holds_of(tx, mine):
                self._instances.leave(tx)

        await self._database.write(verb)

    async def take_over(self, instance_id: str) -> int:
        """Finish what a dead instance left: settle its holds, end its runs or give them back.

        Return how many runs. Idempotent, and only one of several callers does it.
        """

        def verb(tx: Transaction) -> int:
            if not self._instances.bury(tx, instance_id):
                return 0
            return self._finish(tx, instance_id)

        return await self._database.write(verb)

    async def take_over_strays(self) -> int:
        """Finish what instances left that nobody lists; return how many runs.

        One that was taken for dead and struck off may go on until it hears of that, and be killed
        before: then nobody would find what it has begun meanwhile.
        """

        def holders(tx: Transaction) -> set[str]:
            at_work = select(runs.c.instance_id).where(runs.c.state == "running").distinct()
            return {*tx.execute(at_work).scalars(), *self._budgets.holders(tx)}

        # In this order: who enters the list in between was on it before it began anything.
        found = await self._database.read(holders)
        strays = sorted(found.difference(await self._instances.listed())) if found else []

        def verb(tx: Transaction, instance_id: str) -> int:
            if self._instances.is_alive(tx, instance_id):  # it has heard of it
                return 0
            return self._finish(tx, instance_id)

        return sum([await self._database.write(partial(verb, instance_id=each)) for each in strays])

    def _finish(self, tx: Transaction, instance_id: str) -> int:
        self._budgets.settle_lost(tx, instance_id)
        Runner.release(tx, instance_id)
        ids = list(
            tx.execute(
                select(runs.c.id)
                .where(runs.c.instance_id == instance_id, runs.c.state == "running")
                .order_by(runs.c.id)
            ).scalars()
        )
        for run_id in ids:
            self._lose(tx, run_id, "The server that ran this task died.")
        return len(ids)

    async def end_forgotten(self, known: Collection[str]) -> int:
        """Do the same with the runs that are this instance's but not `known` to it.

        It claimed them and the answer was lost, or it could not write their end down. Nothing may
        be claimed meanwhile.
        """
        forgotten = select(runs.c.id).where(
            runs.c.instance_id == self._instances.id,
            runs.c.state == "running",
            runs.c.id.not_in(known),
        )

        def find(tx: Transaction) -> list[str]:
            return list(tx.execute(forgotten).scalars())

        def verb(tx: Transaction) -> int:
            ids = find(tx)
            for run_id in ids:
                self._lose(tx, run_id, "The server lost sight of this task.")
            return len(ids)

        return await self._database.write(verb) if await self._database.read(find) else 0

    def _lose(self, tx: Transaction, run_id: str, message: str) -> None:
        """What becomes of a run whose worker is gone: its session's policy says.

        A task that has not begun loses nothing by another try. One: it may be what kills.
        """
        run = self._records.lock(tx, run_id)
        self._events.fence(tx, run.session_id)  # from now on its worker gives no agent its rights
        session = self._records.sessions.get(tx, run.session_id)
        again = session.kind == "task" and not run.state.lost
        if session.resumes or (again and not self._settlement.has_begun(tx, run)):
            self._settlement.requeue(tx, run, reason="worker_lost", lost=True)
            return
        ending = Ending("interrupted", error_code="worker_lost", error_message=message)
        self._settlement.end(tx, run, ending)

    async def expire_queued(self) -> int:
        """End the runs that have waited longer than the queue timeout; return how many."""
        before = self._clock.now() - round(self._queue_timeout * 1000)
        # One that has begun before and was given back is not given up.
        waiting = and_(
            runs.c.state == "queued", runs.c.started_at.is_(None), runs.c.queued_at < before
        )
        ids = await self._database.read(
            lambda tx: list(tx.execute(select(runs.c.id).where(waiting)).scalars())
        )

        def verb(tx: Transaction, run_id: str) -> None:
            run = self._records.lock(tx, run_id)
            if run.state.state == "queued":
                self._settlement.end(
                    tx,
                    run,
                    Ending(
                        "timed_out",
                        error_code="queue_timeout",
                        error_message="No worker was free in time.",
                    ),
                )

        for run_id in ids:
            await self._database.write(partial(verb, run_id=run_id))
        return len(ids)
