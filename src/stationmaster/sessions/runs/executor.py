"""Carrying out one claimed run: seat the agent, write down what it does, end it once."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

import structlog

from stationmaster.agents import base as agents
from stationmaster.agents.slots import Seat
from stationmaster.events import EventLog, Fenced
from stationmaster.gateway.ports import CallEnded, CallRefused, CallStarted
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import StationmasterError, Unavailable
from stationmaster.kernel.money import MAX_DOLLARS, to_dollars, to_micros
from stationmaster.live.bus import Bus
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.files import RunFiles
from stationmaster.sessions.runs.gate import Gate
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.patience import Patience
from stationmaster.sessions.runs.record import Records, Run
from stationmaster.sessions.runs.recorder import SessionRecorder, TaskRecorder, ready
from stationmaster.sessions.runs.seats import Seats, Surroundings, place_with, rules_of
from stationmaster.sessions.runs.settlement import Ending, Settlement
from stationmaster.sessions.runs.slots import Slot, Slots
from stationmaster.sessions.runs.spans import Spans
from stationmaster.sessions.runs.turn import Turn, plan_turn
from stationmaster.sessions.topics import control_topic
from stationmaster.storage import Database, Transaction

__all__ = ["Execution", "Surroundings", "Timers"]

log = structlog.get_logger(__name__)

CALLS_GRACE_S = 5.0  # for the run's last model calls to be settled once its agent is gone
END_RETRY_S = 0.5
CONTROL_POLL_S = 1.0  # how late a cancellation is seen whose wake-up was lost
INTERRUPT_S = 0.9  # for the agent to end its turn by itself: an interrupt takes two seconds at most
# No later turn of a session can go on from these.
_TERMINAL = {"agent_history_missing", "agent_history_lost", "transcript_full"}


@dataclass(frozen=True, slots=True)
class Timers:
    """In seconds. The wall clock is the run's own `timeout`; `approval` is a person's."""

    first_event: float
    inactivity: float
    approval: float = 3600.0


class Execution:
    """One claimed run at work."""

    def __init__(
        self,
        claim: Claim,
        *,
        agent: agents.Agent,
        database: Database,
        events: EventLog,
        records: Records,
        settlement: Settlement,
        bus: Bus,
        clock: Clock,
        files: RunFiles,
        seats: Seats,
        timers: Timers,
    ) -> None:
        self.claim = claim
        self._agent = agent
        self._database = database
        self._events = events
        self._records = records
        self._settlement = settlement
        self._bus = bus
        self._clock = clock
        self._files = files
        self._seats = seats
        self._timers = timers
        self._is_task = claim.session.kind == "task"
        self._patience = Patience()
        self._slot = Slots(1).take()
        self._journal = Journal(database, events, records, claim, clock)
        self._spans = Spans(self._journal)
        self._recorder: TaskRecorder | SessionRecorder = TaskRecorder(self._journal)
        self._stop: asyncio.Future[Ending | None] = asyncio.get_running_loop().create_future()
        self._turns = 0
        self._own_login = seats.own_login(claim)
        self._reported: dict[str, int] | None = None
        self._seat: Seat | None = None
        self._place = claim.place
        self._speaking = False  # the agent has been given its turn
        self._finished = False  # it has ended its turn by itself, and could have another
        self._interrupted = False

    # --- from outside -------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether somebody is waited for now."""
        return self._patience.waiting

    def stop(self, ending: Ending | None) -> None:
        """End the run soon, as `ending`; None abandons it to whoever has taken it over."""
        if not self._stop.done():
            self._stop.set_result(ending)

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """Take note of a model call of this run."""
        if not isinstance(event, CallRefused):
            self._spans.take(event)
            return
        limit = to_dollars(event.refusal.limit)
        whose = "session" if event.refusal.subject_kind == "session" else "task"
        self.stop(
            Ending(
                "cost_exceeded",
                error_code="budget_exceeded",
                error_message=f"The {whose}'s next model call does not fit its budget of"
                f" ${limit:g}.",
                turns=self._turns,
            )
        )

    # --- the life of a run --------------------------------------------------------------------

    async def run(self, slot: Slot | None = None) -> Ending | None:
        """Carry the run out. Returns how it ended, None where it was abandoned.

        `slot` is the worker's, lent to other runs while somebody is waited for.
        If cancelled, the agent is still closed; the run's end is then left to recovery.
        """
        if slot is not None:
            self._slot = slot
        writer = asyncio.create_task(self._journal.run(), name="journal")
        watcher = asyncio.create_task(self._watch_control(), name="control")
        writer.add_done_callback(self._journal_failed)
        try:
            ending = await self._carry_out()
            if not self._may_stay(ending):
                await self._leave(keep=False)
            if ending is None:
                return None
            if ending.error_code == "shutting_down" and self.claim.session.resumes:
                return await self._give_back(ending)
            ended = await self._end(ending)
            await self._leave(keep=ended is not None)
            return ended
        finally:
            await self._leave(keep=False)
            for task in (writer, watcher):
                task.cancel()
            await asyncio.gather(writer, watcher, return_exceptions=True)

    def _may_stay(self, ending: Ending | None) -> bool:
        """Whether the agent may wait for the session's next turn."""
        return ending is not None and self._finished and not self._is_task and not ending.terminal

    async def _leave(self, *, keep: bool) -> None:
        if self._seat is not None:
            seat, self._seat = self._seat, None
            await self._seats.leave(self.claim, seat, keep=keep)

    def _journal_failed(self, writer: "asyncio.Task[None]") -> None:
        if writer.cancelled() or (error := writer.exception()) is None:
            return
        if isinstance(error, Fenced):
            self.stop(None)
        else:
            log.error("A run's events cannot be written.", exc_info=error)
            self.stop(self._failure("internal_error", "The task's events could not be kept."))

    async def _watch_control(self) -> None:
        run_id = self.claim.run.id
        wake = self._bus.subscribe(control_topic(run_id))
        try:
            while not self._stop.done():
                run = await self._look()
                if run is not None and run.state.cancel_requested:
                    self.stop(Ending("cancelled", turns=self._turns))
                elif run is not None and run.state.interrupt_requested:
                    await self._interrupt()
                else:
                    await wake.wait(CONTROL_POLL_S)
                    wake.reset()
        finally:
            self._bus.unsubscribe(wake)

    async def _look(self) -> Run | None:
        try:
            return await self._database.read(lambda tx: self._records.get(tx, self.claim.run.id))
        except Unavailable:
            return None

    async def _interrupt(self) -> None:
        """Have the agent end its turn, and end it for it where that takes too long."""
        self._interrupted = True
        if self._seat is not None and self._speaking:
            await self._seat.live.interrupt()
            await asyncio.sleep(INTERRUPT_S)
        # Does nothing where the turn has ended meanwhile: nobody looks at it any more.
        self.stop(Ending("interrupted", turns=self._turns))

    async def _carry_out(self) -> Ending | None:
        """Drive the agent until it is done, something fails, or somebody stops it."""
        drive = asyncio.create_task(self._drive(), name="drive")
        waiting: set[asyncio.Future[Any]] = {drive, self._stop}
        try:
            while not (drive.done() or self._stop.done()):
                left = self.claim.run.plan.timeout - self._patience.spent()
                if left <= 0 and not self._patience.waiting:
                    return self._timed_out("timeout", "The task did not end within its timeout.")
                pause = max(left, CONTROL_POLL_S) if self._patience.waiting else left
                await asyncio.wait(waiting, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            return drive.result() if drive.done() else self._stop.result()
        except agents.AgentFailure as failure:
            return self._failed(failure)
        except Fenced:
            return None
        except StationmasterError as error:
            ending = self._failure(error.error_code, error.message)
            return replace(ending, terminal=self._is_terminal(error))
        except Exception:
            log.exception("A run failed for a reason of the server's own.")
            return self._failure("internal_error", "The server failed to carry out the task.")
        finally:
            drive.cancel()
            await asyncio.gather(drive, return_exceptions=True)

    async def _drive(self) -> Ending:
        start = asyncio.timeout(self._timers.first_event)
        try:
            async with start:
                speak = await self._sit()
            await self._remember_files()
            start = asyncio.timeout(self._timers.first_event)
            async with start:
                self._speaking = True
                turn = speak()
                event = await anext(turn)
        except TimeoutError:
            if not start.expired():
                raise
            return self._timed_out("agent_start_timeout", "The agent did not start in time.")
        async with aclosing(turn):
            return await self._pump(event, turn)

    async def _sit(self) -> Callable[[], AsyncGenerator[agents.AgentEvent, None]]:
        """Seat the agent. What is returned says to it what this turn is about."""
        planned = await plan_turn(self.claim, self._database, self._seats)
        host = None if self._is_task else self._host(planned)
        self._seat = await self._seats.take(self.claim, planned.wanted)
        self._place = place_with(self.claim, self._seat)
        return partial(self._seat.live.turn, planned.content, host)

    async def _remember_files(self) -> None:
        """Keep a task's files as they are before its agent is told anything."""
        if self._is_task and self._place is not None:
            await asyncio.to_thread(self._files.before, self.claim.run.id, self._place)

    def _host(self, planned: Turn) -> Gate:
        rules = rules_of(self.claim.session)
        self._recorder = recorder = SessionRecorder(
            self._journal,
            self.claim.session.id,
            rules,
            planned.recovery,
            patience=self._timers.approval,
        )
        planned.write_down(self._journal)
        return Gate(
            self.claim,
            database=self._database,
            events=self._events,
            records=self._records,
            journal=self._journal,
            recorder=recorder,
            rules=rules,
            bus=self._bus,
            clock=self._clock,
            patience=self._patience,
            slot=self._slot,
        )

    async def _pump(
        self, event: agents.AgentEvent, turn: AsyncGenerator[agents.AgentEvent, None]
    ) -> Ending:
        while not isinstance(event, agents.Finished):
            self._take(event)
            await self._journal.room()
            following = await self._next(turn)
            if following is None:
                return self._silent()
            event = following
        return self._finish(event)

    async def _next(
        self, turn: AsyncGenerator[agents.AgentEvent, None]
    ) -> agents.AgentEvent | None:
        """What comes next; None after too long a silence in which nobody was waited for."""
        step = asyncio.ensure_future(anext(turn))
        try:
            while True:
                before = self._patience.spent()
                done, _ = await asyncio.wait({step}, timeout=self._timers.inactivity)
                if done:
                    return step.result()
                if self._patience.spent() - before >= self._timers.inactivity * 0.9:
                    return None
        finally:
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)

    def _finish(self, event: agents.Finished) -> Ending:
        self._turns = event.turns
        self._finished = True
        if self._own_login:
            self._reported = _reported(event)
        ending = self._outcome(event)
        return replace(ending, structured=event.structured, position=event.position)

    def _outcome(self, event: agents.Finished) -> Ending:
        if self._interrupted and event.error_code == "interrupted":
            return Ending("interrupted", event.text or None, turns=event.turns)
        if event.outcome == "success":
            return Ending("completed", result=event.text, turns=event.turns)
        if event.outcome == "max_turns":
            return self._failure("max_turns", "The agent used up its turns.", event.text)
        if event.outcome == "max_cost":
            return Ending(
                "cost_exceeded",
                event.text or None,
                error_code="budget_exceeded",
                error_message="The agent stopped at the task's budget, by its own count.",
                turns=event.turns,
            )
        code = "output_invalid" if event.error_code == "output_invalid" else "agent_error"
        return self._failure(code, event.error or "The agent failed.", event.text)

    def _take(self, event: agents.AgentEvent) -> None:
        if isinstance(event, agents.Started):
            ready(
                self._journal,
                event,
                name=self._agent.name,
                sandbox=self._seat.live.rung if self._seat is not None else "none",
                login="subscription" if self._own_login else "gateway",
            )
        else:
            self._recorder.take(event)

    # --- endings ------------------------------------------------------------------------------

    def _failure(self, code: str, message: str, result: str | None = None) -> Ending:
        return Ending(
            "failed", result or None, error_code=code, error_message=message, turns=self._turns
        )

    def _failed(self, failure: agents.AgentFailure) -> Ending:
        return Ending(
            "failed",
            error_code=failure.error_code,
            error_message=failure.message,
            stderr_tail=failure.stderr_tail,
            turns=self._turns,
            terminal=self._is_terminal(failure),
        )

    def _is_terminal(self, error: StationmasterError) -> bool:
        return not self._is_task and error.error_code in _TERMINAL

    def _timed_out(self, code: str, message: str) -> Ending:
        return Ending("timed_out", error_code=code, error_message=message, turns=self._turns)

    def _silent(self) -> Ending:
        if self._spans.open:
            return self._timed_out("upstream_timeout", "The model did not answer in time.")
        return self._timed_out("agent_silent", "The agent showed no sign of life for too long.")

    async def _give_back(self, ending: Ending) -> Ending | None:
        """The server stops: another goes on with the run."""
        await self._journal.flush()

        def verb(tx: Transaction) -> bool:
            run = self._records.lock(tx, self.claim.run.id)
            self._settlement.requeue(
                tx, run, reason="shutting_down", lost=False, epoch=self.claim.epoch
            )
            return True

        return await self._retrying(verb, ending)

    async def _end(self, ending: Ending) -> Ending | None:
        """Write the end down, after all that came before it. None where another has done so."""
        try:
            async with asyncio.timeout(CALLS_GRACE_S):
                await self._spans.settled()
        except TimeoutError:
            log.warning("A run ends with model calls still open.", calls=self._spans.open)
        complete = replace(ending, artifacts=await self._changes(), reported=self._reported)
        if self._stop.done() and self._stop.result() is None:
            return None
        await self._journal.flush()
        return await self._retrying(lambda tx: self._write_end(tx, complete), complete)

    async def _changes(self) -> dict[str, Any] | None:
        if not self._is_task or self._place is None:
            return None
        try:
            return await asyncio.to_thread(self._files.after, self.claim.run.id, self._place)
        except (OSError, StationmasterError):
            log.exception("A run's artifacts cannot be listed.")
            return None

    def _write_end(self, tx: Transaction, ending: Ending) -> bool:
        """False where the run has ended otherwise: another worker was faster."""
        run = self._records.lock(tx, self.claim.run.id)
        run = self._settlement.end(tx, run, ending, epoch=self.claim.epoch)
        return run.state.state == ending.state

    async def _retrying(self, verb: Callable[[Transaction], bool], ending: Ending) -> Ending | None:
        while True:
            try:
                mine = await self._database.write(verb)
            except Fenced:
                return None
            except Unavailable as error:
                # `_write_end` leaves a run alone that has ended: trying again is safe.
                log.warning("A run's end waits for the database.", reason=error.error_code)
                if self._stop.done() and self._stop.result() is None:
                    return None
                await asyncio.sleep(END_RETRY_S)
            else:
                return ending if mine else None


def _reported(event: agents.Finished) -> dict[str, int] | None:
    """What the agent says that it used, with its cost in micro-dollars."""
    dollars = event.reported_cost_usd
    if event.reported_usage is None or dollars is None or not 0 <= dollars <= MAX_DOLLARS:
        return event.reported_usage
    return {**event.reported_usage, "cost": to_micros(Decimal(str(dollars)))}
