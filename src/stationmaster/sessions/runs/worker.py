"""A worker: claims runs as it has room, carries them out, and watches over the dead."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from stationmaster.gateway.ports import CallEnded, CallRefused, CallStarted
from stationmaster.jobs import Instances, Job
from stationmaster.kernel.clock import Clock
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs.claims import Claim, Claims
from stationmaster.sessions.runs.executor import Execution
from stationmaster.sessions.runs.one_job import OneJob
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.sessions.runs.slots import Slot, Slots

log = structlog.get_logger(__name__)

POLL_S = 1.0  # how late a queued run starts whose doorbell was lost
STOP_S = 10.0  # for interrupted runs to be written down
_STOPPED = Ending(
    "interrupted", error_code="shutting_down", error_message="The server was stopped."
)


class RunObserver(Protocol):
    """Told when a run begins and ends here. Must not block or raise."""

    def began(self, claim: Claim) -> None:
        """A run was claimed."""
        ...

    def ended(self, claim: Claim, ending: Ending | None, seconds: float) -> None:
        """A run ended, or was abandoned (None)."""
        ...


class Worker:
    """`slots` runs at work at once, and `waiting` more that wait for somebody.

    Also the gateway's `CallObserver`.
    """

    def __init__(
        self,
        *,
        claims: Claims,
        instances: Instances,
        clock: Clock,
        slots: int,
        waiting: int = 0,
        execution: Callable[[Claim], Execution],
        observer: RunObserver,
        one_job: OneJob | None = None,
    ) -> None:
        """With `one_job` it claims one run, and then no more."""
        self._claims = claims
        self._instances = instances
        self._clock = clock
        self._execution = execution
        self._observer = observer
        self._one_job = one_job
        self._running: dict[str, tuple[Execution, asyncio.Task[None]]] = {}
        self._doorbell = asyncio.Event()
        self._slots = Slots(slots, most_waiting=waiting, freed=self._on_room)
        self._has_room = asyncio.Event()
        self._draining = False
        self._claiming = asyncio.Lock()  # between a claim in the database and in `_running`
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def slots(self) -> int:
        """How many runs may be at work here."""
        return self._slots.most

    @property
    def active(self) -> int:
        """Runs at work here."""
        return self._slots.working

    @property
    def waiting(self) -> int:
        """Runs beside those, which wait for somebody."""
        return self._slots.waiting

    async def ring(self, _job: Job) -> None:
        """There may be a run to claim. The handler of `run.queued` jobs."""
        self.hear()

    def hear(self) -> None:
        """There may be a run to claim, of this very process. Sooner than its job is claimed."""
        self._doorbell.set()

    async def room(self) -> None:
        """Return once a run could begin here."""
        while self._draining or not self._slots.free:
            self._has_room.clear()
            await self._has_room.wait()

    def _on_room(self) -> None:
        self._has_room.set()
        self._doorbell.set()

    def observe(self, event: CallStarted | CallEnded | CallRefused) -> None:
        """Pass a model call on to the run it belongs to, if that runs here."""
        run_id = event.context.run_id
        if run_id is not None and (found := self._running.get(run_id)) is not None:
            found[0].observe(event)

    def tags_of(self, run_id: str) -> tuple[str, ...]:
        """What the model calls of a run are counted under; nothing of one that is not here.

        A run's agent calls the gateway of the server that carries it out.
        """
        found = self._running.get(run_id)
        return () if found is None else found[0].claim.run.plan.tags

    # --- working ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and carry out until cancelled. Call `drain` first for an orderly stop."""
        while True:
            self._doorbell.clear()
            if not await self._claim_one():
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._doorbell.wait()
                except TimeoutError:
                    pass

    async def _claim_one(self) -> bool:
        async with self._claiming:
            if self._draining or not self._slots.free:
                return False
            try:
                claim = await self._next()
            except Unavailable as error:
                log.warning("No run can be claimed.", reason=error.error_code)
                return False
            if claim is not None:
                if self._one_job is not None:
                    self._draining = True
                self._take_up(claim)
            return claim is not None

    async def _next(self) -> Claim | None:
        if self._one_job is not None:
            return await self._one_job.claim(self._claims)
        return await self._claims.next()

    def _take_up(self, claim: Claim) -> None:
        execution, slot = self._execution(claim), self._slots.take()
        task = asyncio.create_task(self._carry_out(execution, slot), name=f"run {claim.run.id}")
        self._running[claim.run.id] = (execution, task)
        self._idle.clear()

    async def _carry_out(self, execution: Execution, slot: Slot) -> None:
        claim = execution.claim
        started = asyncio.get_running_loop().time()
        ending: Ending | None = None
        with structlog.contextvars.bound_contextvars(
            run_id=claim.run.id, session_id=claim.run.session_id, principal=claim.run.key_id
        ):
            self._observer.began(claim)
            log.info("A run starts.", epoch=claim.epoch)
            try:
                ending = await execution.run(slot)
            except Exception:
                log.exception("A run could not be carried out.")
                ending = await self._give_up(claim)
            finally:
                del self._running[claim.run.id]
                if not self._running:
                    self._idle.set()
                slot.end()
                seconds = asyncio.get_running_loop().time() - started
                self._observer.ended(claim, ending, seconds)
                log.info("A run ended.", state=ending.state if ending else "abandoned")

    async def _give_up(self, claim: Claim) -> Ending | None:
        ending = Ending(
            "failed",
            error_code="internal_error",
            error_message="The server failed to carry out the task.",
        )
        try:
            await self._claims.give_up(claim, ending)
        except Exception:
            log.exception("A run was abandoned.")
            return None
        return ending

    # --- watching -----------------------------------------------------------------------------

    async def watch(self) -> None:
        """Renew this instance's lease and take over from dead ones, until cancelled."""
        period = self._instances.lease / 3
        while True:
            try:
                await self._beat()
            except Unavailable as error:
                log.warning("The lease cannot be renewed.", reason=error.error_code)
            await asyncio.sleep(period)

    async def _beat(self) -> None:
        if not await self._instances.renew():
            # Others have taken over: what still runs here must not go on spending.
            log.error("This server was taken for dead; its runs are abandoned.")
            for execution, _ in list(self._running.values()):
                execution.stop(None)
            await self._instances.register()
        for instance_id in await self._instances.dead():
            if runs := await self._claims.take_over(instance_id):
                log.warning(
                    "Runs of a dead server were ended or given back.",
                    instance=instance_id,
                    runs=runs,
                )
                self._doorbell.set()
        if runs := await self._claims.take_over_strays():
            log.warning(
                "Runs of servers that nobody knows any more were ended or given back.", runs=runs
            )
            self._doorbell.set()
        async with self._claiming:
            if runs := await self._claims.end_forgotten(list(self._running)):
                log.error("Runs that nobody carried out were ended or given back.", runs=runs)
                self._doorbell.set()
        await self._claims.expire_queued()

    # --- stopping -----------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Claim no more, give the running `timeout` seconds to end, then interrupt the rest."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._claimed()
                self._give_back_waiting()
                await self._idle.wait()
        except TimeoutError:
            log.warning("Runs are interrupted by the stop.", runs=len(self._running))
        await self.interrupt()

    def _give_back_waiting(self) -> None:
        """Who waits for a person would wait the stop out: another server can ask as well."""
        for execution, _ in list(self._running.values()):
            if execution.waiting and execution.claim.session.resumes:
                execution.stop(_STOPPED)

    async def _claimed(self) -> None:
        """Wait for a claim that is on its way: it will be carried out."""
        async with self._claiming:
            pass

    async def interrupt(self) -> None:
        """Interrupt what runs and wait, for a bounded time, until it has been written down."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._claimed()
        tasks = []
        for execution, task in list(self._running.values()):
            execution.stop(_STOPPED)
            tasks.append(task)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=STOP_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
