"""Launching processes for `pool` with all that goes with them, and clearing it all away again."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from stationmaster.agents.base import Agent, LaunchSpec, LiveAgent
from stationmaster.agents.slots import LateSink, Seat, SlotPlaces, SlotTokens, Source
from stationmaster.kernel.errors import StationmasterError
from stationmaster.kernel.ids import new_id

log = structlog.get_logger(__name__)

USUAL_BYTES = 210 * 1024**2  # of a process that nobody has measured yet


@dataclass(slots=True, eq=False)
class Process:
    """One process. `slot` is set where its directories are the pool's and no session's yet."""

    kind: str
    slot: str | None
    live: LiveAgent
    token_id: str
    token: str
    workspace: Path
    home: Path
    since: float
    sink: LateSink | None
    own_login: bool
    session: str | None = None
    memory: int = USUAL_BYTES

    def seat(self, source: Source) -> Seat:
        """As its user sees it."""
        return Seat(
            live=self.live,
            token_id=self.token_id,
            token=self.token,
            workspace=self.workspace,
            home=self.home,
            source=source,
        )


class Launching:
    """Makes processes and ends them. `now` is a monotonic clock in seconds."""

    def __init__(
        self, agent: Agent, tokens: SlotTokens, places: SlotPlaces, now: Callable[[], float]
    ) -> None:
        self._agent = agent
        self._tokens = tokens
        self._places = places
        self._now = now
        self._ending: set[asyncio.Task[None]] = set()

    async def launch(self, spec: LaunchSpec, *, in_slot: bool) -> Process:
        """Launch; with `in_slot` in directories of the pool's. If cancelled, nothing is left."""
        slot = new_id("slot") if in_slot else None
        token_id, token = await self._tokens.issue()
        given = spec.transcripts
        sink = None if given is None else LateSink()
        if sink is not None and given is not None and not isinstance(given, LateSink):
            sink.bind(given)
        try:
            spec = replace(spec, token=token, transcripts=sink)
            if slot is not None:
                # To its end: a directory made after a cancellation would be nobody's.
                workspace, home = await _to_its_end(asyncio.to_thread(self._places.make, slot))
                spec = replace(spec, workspace=workspace, home=home, directory=None, owned=None)
            live = await self._agent.launch(spec)
        except BaseException:
            self._spawn(self._give_back(token_id, slot))
            raise
        return Process(
            kind=kind_of(spec),
            slot=slot,
            live=live,
            token_id=token_id,
            token=token,
            workspace=spec.workspace,
            home=spec.home,
            since=self._now(),
            sink=sink,
            own_login=spec.own_login,
        )

    async def adopt(self, process: Process) -> None:
        """Its directories are no longer the pool's. Where that fails, it is ended."""
        if process.slot is None:
            return
        try:
            await asyncio.to_thread(self._places.adopt, process.slot)
        except BaseException:
            self.end_soon(process)
            raise
        process.slot = None

    async def discard(self, process: Process) -> None:
        """Delete the directories of an ended process that a session had adopted after all."""
        await asyncio.to_thread(self._places.discard, process.workspace.name)

    # --- ending -------------------------------------------------------------------------------

    def end_soon(self, process: Process) -> "asyncio.Task[None]":
        """Begin to end it; `settled` waits for it."""
        return self._spawn(self._close(process))

    async def end(self, process: Process) -> None:
        """End it and return when it is gone. It goes on where the caller is cancelled."""
        await asyncio.shield(self.end_soon(process))

    async def settled(self) -> None:
        """Wait until all that is being ended is gone."""
        while self._ending:
            await asyncio.wait(self._ending)

    async def _close(self, process: Process) -> None:
        await process.live.close()
        await self._give_back(process.token_id, process.slot)

    async def _give_back(self, token_id: str, slot: str | None) -> None:
        try:
            await self._tokens.revoke(token_id)
        except StationmasterError as error:
            # It has no rights unless its run goes on, and the run's end takes those.
            log.warning("An agent's token could not be revoked.", reason=error.error_code)
        if slot is not None:
            await asyncio.to_thread(self._places.discard, slot)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("An agent's process could not be cleared away.", exc_info=error)


def template(spec: LaunchSpec) -> LaunchSpec:
    """What of a spec is bound at launch, for a session that is not known yet."""
    nowhere = Path("/")
    return replace(
        spec,
        session_id="warm",
        token="",
        workspace=nowhere,
        home=nowhere,
        directory=None,
        owned=None,
        resume=None,
        resume_at=None,
        agent_session_id=None,
        transcripts=None if spec.transcripts is None else LateSink(),
    )


def kind_of(spec: LaunchSpec) -> str:
    """Equal where a process launched for one serves the other, whatever its history and place."""
    directory = None if spec.directory == spec.workspace else spec.directory
    owned = None if spec.owned == spec.workspace else spec.owned
    plain = replace(
        spec, directory=directory, owned=owned, resume=None, resume_at=None, agent_session_id=None
    )
    return plain.launch_key() + ("" if spec.transcripts is None else "+kept")


async def _to_its_end(work: Coroutine[Any, Any, tuple[Path, Path]]) -> tuple[Path, Path]:
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
