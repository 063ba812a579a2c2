"""Processes that are there before they are needed, and stay until the next turn.

    launching ──▶ warm ──take──▶ busy ──keep──▶ idle ──take──▶ busy …
                    │              │              │
                    └──────────────┴───drop───────┴──▶ ended

A process serves one session, from its first turn to its end; none ever goes back to being warm.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from stationmaster.agents.base import Agent, AgentUnavailable, LaunchSpec
from stationmaster.agents.launching import USUAL_BYTES, Launching, Process, kind_of, template
from stationmaster.agents.slots import (
    PoolLimits,
    PoolStats,
    Seat,
    SlotPlaces,
    SlotTokens,
    Source,
)
from stationmaster.kernel.errors import Conflict, Invalid, StationmasterError

log = structlog.get_logger(__name__)

TICK_S = 1.0  # how late an idle process is ended, or a dead one replaced
MEASURE_S = 5.0  # between two looks at the process table for memory
SETTLE_S = 0.5  # after a launch or a take: the turn that begins needs the processor more
BACK_OFF_S = 1.0  # after a first failure; doubles with each
MAX_BACK_OFF_S = 300.0
WORTH_KEEPING = 2  # takes of a kind until it is kept warm: most prompts are used once
MOST_REMEMBERED = 1000  # kinds that have not been worth it yet


@dataclass(slots=True)
class _Kind:
    template: LaunchSpec
    used_at: float
    wanted: int = 0
    failures: int = 0
    retry_at: float = 0.0
    launch: "asyncio.Task[None] | None" = None
    awaited: bool = False  # by one who will take what is being launched

    @property
    def worth(self) -> bool:
        return self.wanted >= WORTH_KEEPING


class Pool:
    """The processes of one server.

    `on_take` is told where each taken process came from. `now` is a monotonic clock in seconds.
    Nothing is launched ahead unless `run` runs, or `tend` is called.
    """

    def __init__(
        self,
        agent: Agent,
        tokens: SlotTokens,
        places: SlotPlaces,
        limits: PoolLimits,
        *,
        on_take: Callable[[Source], None] = lambda _source: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launching = Launching(agent, tokens, places, now)
        self._limits = limits
        self._on_take = on_take
        self._now = now
        self._kinds: OrderedDict[str, _Kind] = OrderedDict()  # the last is the last used
        self._warm: list[Process] = []  # the last has waited least
        self._idle: dict[str, Process] = {}
        self._busy: dict[str, Process] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}  # by session
        self._taking: set[str] = set()
        self._waited_for = 0  # launches that a session waits for
        self._calm_at = 0.0
        self._measure_at = 0.0
        self._wake = asyncio.Event()
        self._draining = False

    # --- for a session's turns ----------------------------------------------------------------

    async def take(self, session_id: str, spec: LaunchSpec, *, fresh: bool) -> Seat:
        """A process for the session's next turn: its own, else a warm one, else a launch.

        The spec's `token` does not matter: the process has its own, without rights until it is
        bound. Where the session's own process lives and was launched as `spec` says, `resume`,
        `resume_at` and `agent_session_id` do not matter either; else they are used to launch.
        Its history goes to the `transcripts` of the take that it was last taken with.

        `fresh` says that the session has neither workspace nor history yet. Then `workspace`,
        `home`, `directory`, `owned`, `resume` and `agent_session_id` of the spec are not used: the
        process is in directories of the pool's, which are the session's from now on. Write down
        where they are, and `live.agent_session_id`, in the transaction that begins the turn. Both
        directories have the same name.

        End each take with `keep` or `drop`. Raises `Conflict` where the session has a process in
        use, `Unavailable`, and what `Agent.launch` raises. If cancelled, nothing is left running.
        """
        if self._draining:
            raise AgentUnavailable("The server is stopping.", code="agent_stopping")
        if session_id in self._busy or session_id in self._taking:
            raise Conflict("The session's agent is at work.", code="agent_busy")
        self._taking.add(session_id)
        try:
            process, source = await self._find(session_id, spec, fresh=fresh)
        finally:
            self._taking.discard(session_id)
        assert process.session in {None, session_id}, "a process of another session"
        process.session = session_id
        if process.sink is not None and spec.transcripts is not None:
            process.sink.bind(spec.transcripts)
        self._busy[session_id] = process
        self._calm_at = self._now() + SETTLE_S
        self._wake.set()
        self._on_take(source)
        return process.seat(source)

    async def keep(self, session_id: str, seat: Seat) -> None:
        """The turn has `Finished` and its run has ended: let the process wait for the next turn.

        What its turns have left running is ended first, and itself where it is dead or must not
        wait. A seat that was dropped is left alone.
        """
        process = self._busy.get(session_id)
        if process is None or process.token_id != seat.token_id:
            return
        may_wait = not (self._draining or process.own_login) and self._limits.idle > 0
        if may_wait and not process.live.ended:
            # What a turn has left running would work on without a run that pays for it.
            await process.live.settle()
        if self._busy.get(session_id) is not process:
            return  # dropped meanwhile
        del self._busy[session_id]
        if not may_wait or self._draining or process.live.ended:
            await asyncio.shield(self._close(process))
            return
        process.since = self._now()
        self._idle[session_id] = process
        self._wake.set()

    async def drop(self, session_id: str, *, discard: bool = False) -> None:
        """End the session's process, whatever it does, and return when it is gone. Idempotent.

        With `discard`, what a fresh take made was never written down: its directories go too.
        """
        process = self._busy.pop(session_id, None) or self._idle.pop(session_id, None)
        if process is not None:
            await asyncio.shield(self._close(process))
            if discard:
                await self._launching.discard(process)

    def expect(self, spec: LaunchSpec) -> None:
        """A session of this kind will soon have its first turn: launch one for it meanwhile.

        Of the spec only what a launch binds matters. Does nothing where none is kept warm.
        """
        if self._poolable(spec) and not self._draining:
            self._want(spec, weight=WORTH_KEEPING)
            self._wake.set()

    def idle(self) -> list[str]:
        """The sessions whose process waits for their next turn."""
        return list(self._idle)

    def stats(self) -> PoolStats:
        """How many there are."""
        ahead = sum(kind.launch is not None for kind in self._kinds.values())
        return PoolStats(
            warm=len(self._warm),
            idle=len(self._idle),
            busy=len(self._busy),
            launching=self._waited_for + ahead,
            kinds=sum(kind.worth for kind in self._kinds.values()),
            memory=sum(each.memory for each in self._waiting()),
        )

    def _waiting(self) -> list[Process]:
        return [*self._warm, *self._idle.values()]

    # --- taking -------------------------------------------------------------------------------

    async def _find(
        self, session_id: str, spec: LaunchSpec, *, fresh: bool
    ) -> tuple[Process, Source]:
        # Gone before the next one starts: two of a session would work in the same files.
        if (ending := self._ending.get(session_id)) is not None:
            await asyncio.wait({ending})
        own = self._idle.pop(session_id, None)
        if own is not None:
            if own.kind == kind_of(spec) and not own.live.ended:
                return own, "kept"
            await self._launching.end(own)
        if not fresh:
            return await self._launch_for(spec, fresh=False), "cold"
        if self._poolable(spec):
            kind = self._want(spec, weight=1)
            if (warm := await self._take_warm(kind, spec)) is not None:
                return warm, "warm"
        bound = replace(template(spec), session_id=session_id, transcripts=spec.transcripts)
        return await self._launch_for(bound, fresh=True), "cold"

    def _poolable(self, spec: LaunchSpec) -> bool:
        # A login of its own would lie in the home of a process that nobody watches over.
        return self._limits.size > 0 and self._limits.kinds > 0 and not spec.own_login

    def _want(self, spec: LaunchSpec, *, weight: int) -> str:
        bound = template(spec)
        key = kind_of(bound)
        kind = self._kinds.setdefault(key, _Kind(bound, self._now()))
        kind.used_at = self._now()
        kind.wanted = min(kind.wanted + weight, WORTH_KEEPING)
        self._kinds.move_to_end(key)
        return key

    async def _take_warm(self, key: str, spec: LaunchSpec) -> Process | None:
        process = self._pick(key)
        kind = self._kinds[key]
        if process is None and kind.launch is not None and not kind.awaited:
            kind.awaited = True
            try:
                await asyncio.wait({kind.launch})
            finally:
                kind.awaited = False
            process = self._pick(key)
        if process is None:
            return None
        kind.failures = 0
        await self._launching.adopt(process)
        return process

    def _pick(self, key: str) -> Process | None:
        for process in self._warm:
            if process.kind == key and not process.live.ended:
                self._warm.remove(process)
                return process
        return None

    async def _launch_for(self, spec: LaunchSpec, *, fresh: bool) -> Process:
        self._waited_for += 1
        try:
            process = await self._launching.launch(spec, in_slot=fresh)
            await self._launching.adopt(process)
            return process
        finally:
            self._waited_for -= 1

    # --- in the background --------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the pool as its limits say, until cancelled."""
        while True:
            self._wake.clear()
            await self.tend()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    async def tend(self) -> None:
        """Once: bury the dead, end who waits too long or holds too much, launch what is wanted."""
        self._bury()
        self._retire()
        self._forget()
        await self._measure()
        self._refill()

    def _bury(self) -> None:
        for process in self._waiting():
            if process.live.ended:
                self._end(process)
                if process.session is None and (kind := self._kinds.get(process.kind)) is not None:
                    self._failed(kind, "An agent died while it was waiting.")

    def _retire(self) -> None:
        now = self._now()
        for process in list(self._idle.values()):
            if now - process.since >= self._limits.idle:
                self._end(process)

    def _forget(self) -> None:
        """Drop the kinds that nobody wants any more, with what is warm of them."""
        worth = sum(kind.worth for kind in self._kinds.values())
        once = len(self._kinds) - worth
        for key, kind in list(self._kinds.items()):
            old = self._now() - kind.used_at >= self._limits.unused
            many = worth > self._limits.kinds if kind.worth else once > MOST_REMEMBERED
            if (old or many) and kind.launch is None:
                del self._kinds[key]
                worth -= kind.worth
                once -= not kind.worth
        for process in list(self._warm):
            if process.kind not in self._kinds:
                self._end(process)

    async def _measure(self) -> None:
        """End those that have waited longest while all together hold more than they may."""
        if self._now() >= self._measure_at:
            self._measure_at = self._now() + MEASURE_S
            for process in self._waiting():
                process.memory = await asyncio.to_thread(process.live.memory)
        waiting = sorted(self._waiting(), key=lambda each: each.since, reverse=True)
        held = sum(each.memory for each in waiting)
        while waiting and held > self._limits.memory:
            process = waiting.pop()
            held -= process.memory
            self._end(process)

    def _end(self, process: Process) -> None:
        """End one that waits."""
        if process.session is None:
            self._warm.remove(process)
        else:
            del self._idle[process.session]
        self._close(process)

    def _close(self, process: Process) -> "asyncio.Task[None]":
        """Begin to end one; its session's next take waits for that."""
        ending = self._launching.end_soon(process)
        if (session_id := process.session) is not None:
            self._ending[session_id] = ending
            ending.add_done_callback(lambda done: self._closed(session_id, done))
        return ending

    def _closed(self, session_id: str, ending: "asyncio.Task[None]") -> None:
        if self._ending.get(session_id) is ending:
            del self._ending[session_id]

    def _refill(self) -> None:
        """One launch at a time, and none while a session waits for its own."""
        under_way = self._waited_for or any(kind.launch for kind in self._kinds.values())
        if self._draining or under_way or self._now() < self._calm_at:
            return
        waiting = self._waiting()
        next_one = max([each.memory for each in waiting], default=USUAL_BYTES)
        if sum(each.memory for each in waiting) + next_one > self._limits.memory:
            return
        for key, kind in reversed(self._kinds.items()):
            there = sum(each.kind == key for each in self._warm)
            if kind.worth and there < self._limits.size and self._now() >= kind.retry_at:
                kind.launch = asyncio.create_task(self._launch_ahead(kind), name="warm agent")
                return

    async def _launch_ahead(self, kind: _Kind) -> None:
        try:
            self._warm.append(
                await self._launching.launch(replace(kind.template, ahead=True), in_slot=True)
            )
        except Invalid as error:
            # It will never start. Who asks for it is told so by a launch of their own.
            kind.wanted = 0
            log.info("An agent that cannot be launched is not kept warm.", reason=error.message)
        except StationmasterError as error:
            self._failed(kind, error.message)
        except Exception:
            log.exception("An agent could not be launched ahead.")
            self._failed(kind, "A fault of the server's own.")
        finally:
            kind.launch = None
            self._calm_at = self._now() + SETTLE_S
            self._wake.set()

    def _failed(self, kind: _Kind, reason: str) -> None:
        pause = min(BACK_OFF_S * 2**kind.failures, MAX_BACK_OFF_S)
        kind.failures = min(kind.failures + 1, 30)
        kind.retry_at = self._now() + pause
        log.warning("An agent cannot be kept warm for now.", reason=reason, again_in_s=pause)

    # --- the end ------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Launch no more and end all that wait; those at work end at their `keep` or `drop`."""
        self._draining = True
        launches = [kind.launch for kind in self._kinds.values() if kind.launch is not None]
        for launch in launches:
            launch.cancel()
        await asyncio.gather(*launches, return_exceptions=True)
        for kind in self._kinds.values():
            kind.launch = None  # of one that was cut before it began
        for process in self._waiting():
            self._end(process)
        await self._launching.settled()

    async def aclose(self) -> None:
        """End all, those at work too, and return when they are gone. Idempotent."""
        self._draining = True
        for process in self._busy.values():
            self._launching.end_soon(process)
        self._busy.clear()
        await self.drain()
