"""Short ways to carry a run out, and to do something meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from stationmaster.agents.base import (
    LaunchSpec,
)
from stationmaster.agents.scripted import (
    Call,
    ScriptedAgent,
    Step,
)
from stationmaster.agents.scripted.agent import ScriptedLive
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.executor import Execution, Timers
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.storage import Database
from tests.support.core import TIMERS, Core

BEGIN = ["run.queued", "user.message", "run.started", "session.status_running"]
READY = [*BEGIN, "run.agent_ready"]
END = ["run.artifacts", "session.status_idle", "run.ended"]
FAILED = ["run.artifacts", "session.error", "session.status_idle", "run.ended"]


async def claimed(core: Core, **options: Any) -> Claim:
    await core.start(**options)
    claim = await core.claims.next()
    assert claim is not None
    return claim


async def carry_out(
    core: Core, *steps: Step, timers: Timers = TIMERS, **options: Any
) -> tuple[Run, Ending | None]:
    """Run a script to its end; return the checked run."""
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = steps
    claim = await claimed(core, **options)
    async with asyncio.timeout(60):
        ending = await core.execution(claim, timers=timers).run()
    return await ended(core, claim, ending)


async def ended(core: Core, claim: Claim, ending: Ending | None) -> tuple[Run, Ending | None]:
    run = await core.checked(claim.run)
    assert core.agent.alive() == 0
    if ending is not None:
        assert run.state.state == ending.state
    assert core.bus.listeners(f"run:{run.id}") == 0
    return run, ending


class Reached:
    """A step that tells when the script has come to it, and then waits."""

    def __init__(self) -> None:
        self.here = asyncio.Event()
        self.go_on = asyncio.Event()

    @property
    def step(self) -> Call:
        return Call(self._wait)

    async def _wait(self, _spec: LaunchSpec) -> None:
        self.here.set()
        await self.go_on.wait()


async def meanwhile(
    core: Core,
    *steps: Step,
    reached: Reached,
    do: Callable[[Execution], Awaitable[object] | None],
    database: Database | None = None,
) -> tuple[Run, Ending | None]:
    """Run a script, and `do` something once it has reached its step."""
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = steps
    claim = await claimed(core)
    execution = core.execution(claim, database=database)
    async with asyncio.timeout(60):
        running = asyncio.create_task(execution.run())
        await reached.here.wait()
        if (work := do(execution)) is not None:
            await work
        ending = await running
    return await ended(core, claim, ending)


class Slow(ScriptedAgent):
    """Never comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = False

    async def launch(self, spec: LaunchSpec) -> ScriptedLive:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return await super().launch(spec)
