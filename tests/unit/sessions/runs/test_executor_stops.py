"""Runs that end before their agent does, and what surrounds them failing."""

import asyncio

import pytest

from stationmaster.agents.scripted import (
    Say,
    ScriptedAgent,
    Step,
    WaitFor,
    WriteFile,
)
from stationmaster.budgets import Refused
from stationmaster.gateway.ports import CallRefused
from stationmaster.sessions.runs import executor as executor_module
from stationmaster.sessions.runs.executor import Execution
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.storage import Database
from tests.support.core import ALICE, LEASE, Core
from tests.support.faulty import FaultyDatabase
from tests.unit.sessions.runs.carrying import (
    END,
    READY,
    Reached,
    Slow,
    claimed,
    ended,
    meanwhile,
)

# --- stopped from outside ---------------------------------------------------------------------


async def test_a_cancelled_run_ends_and_keeps_what_came_before(core: Core) -> None:
    reached = Reached()
    run, _ = await meanwhile(
        core,
        WriteFile("half.txt", "half"),
        reached.step,
        reached=reached,
        do=lambda execution: core.runs.cancel(ALICE, execution.claim.run.id),
    )
    assert (run.state.state, run.state.error) == ("cancelled", None)
    assert run.state.cancel_requested
    assert [item["path"] for item in run.state.artifacts["items"]] == ["half.txt"]
    types = await core.types(run)
    types.remove("run.cancel_requested")  # it is written by another hand, at any moment
    assert types == [*READY, "agent.tool_use", "agent.tool_result", *END]


async def test_a_cancellation_whose_wake_up_is_lost_is_seen_by_polling(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "CONTROL_POLL_S", 0.01)
    elsewhere = core.beside()  # its bus does not reach this server
    reached = Reached()
    run, _ = await meanwhile(
        core,
        reached.step,
        reached=reached,
        do=lambda execution: elsewhere.runs.cancel(ALICE, execution.claim.run.id),
    )
    assert run.state.state == "cancelled"


async def test_a_run_cancelled_before_its_worker_began(core: Core) -> None:
    claim = await claimed(core)
    await core.runs.cancel(ALICE, claim.run.id)
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (WaitFor(),)
    async with asyncio.timeout(60):
        ending = await core.execution(claim).run()
    run, _ = await ended(core, claim, ending)
    assert run.state.state == "cancelled"


async def test_a_refused_call_ends_the_run_for_its_cost(core: Core) -> None:
    reached = Reached()

    def refuse(execution: Execution) -> None:
        context = core.context(execution.claim.run)
        execution.observe(CallRefused(context, Refused(10, 0, 2_500_000, "run", "x")))

    run, _ = await meanwhile(core, reached.step, reached=reached, do=refuse)
    assert run.state.state == "cost_exceeded"
    assert run.state.error is not None
    assert run.state.error["code"] == "budget_exceeded"
    assert "$2.5" in run.state.error["message"]


async def test_a_stopping_server_interrupts(core: Core) -> None:
    reached = Reached()
    stop = Ending("interrupted", error_code="shutting_down", error_message="The server stops.")
    run, _ = await meanwhile(
        core, reached.step, reached=reached, do=lambda execution: execution.stop(stop)
    )
    assert run.state.state == "interrupted"
    assert run.state.error == {"code": "shutting_down", "message": "The server stops."}


async def test_the_first_reason_to_stop_counts(core: Core) -> None:
    reached = Reached()

    def stop_twice(execution: Execution) -> None:
        execution.stop(Ending("interrupted"))
        execution.stop(Ending("failed"))

    run, _ = await meanwhile(core, reached.step, reached=reached, do=stop_twice)
    assert run.state.state == "interrupted"


async def test_stopping_while_the_agent_starts_leaves_nothing(core: Core) -> None:
    slow = Slow()
    beside = core.beside(agent=slow)
    claim = await claimed(beside)
    execution = beside.execution(claim)
    running = asyncio.create_task(execution.run())
    while not (beside.directory / "state" / "homes").exists():
        await asyncio.sleep(0)
    execution.stop(Ending("interrupted"))
    async with asyncio.timeout(60):
        run, _ = await ended(beside, claim, await running)
    assert run.state.state == "interrupted"


async def test_a_cancelled_executor_closes_its_agent_and_leaves_the_end_to_others(
    core: Core,
) -> None:
    reached = Reached()
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (reached.step,)
    claim = await claimed(core)
    running = asyncio.create_task(core.execution(claim).run())
    await reached.here.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert core.agent.alive() == 0
    assert (await core.checked(claim.run)).state.state == "running"


# --- taken over -------------------------------------------------------------------------------


async def _take_over(core: Core) -> None:
    core.clock.advance(LEASE + 1)
    assert await core.beside().claims.take_over(core.instances.id) == 1


@pytest.mark.parametrize("how", ["told", "finds out by writing", "finds out at the end"])
async def test_a_run_that_was_taken_over_is_left_to_the_other(core: Core, how: str) -> None:
    await core.instances.register()
    reached = Reached()

    async def take_over(execution: Execution) -> None:
        while "agent.message" not in await core.types(execution.claim.run):
            await asyncio.sleep(0)
        await _take_over(core)
        if how == "told":
            execution.stop(None)
        else:
            reached.go_on.set()

    last: list[Step] = [Say("too late"), WaitFor()] if how == "finds out by writing" else []
    run, ending = await meanwhile(
        core, Say("in time"), reached.step, *last, reached=reached, do=take_over
    )
    assert ending is None
    assert run.state.state == "interrupted"
    types = await core.types(run)
    assert types.count("agent.message") == 1
    assert types[-1] == "run.ended"


# --- the database -----------------------------------------------------------------------------


async def test_a_database_that_is_away_for_a_while_loses_nothing(
    core: Core, database: Database
) -> None:
    faulty, reached = FaultyDatabase(database), Reached()

    async def go_away(_execution: Execution) -> None:
        faulty.away = True
        reached.go_on.set()
        while faulty.refused < 3:
            await asyncio.sleep(0.001)
        faulty.away = False

    run, _ = await meanwhile(
        core,
        Say("before"),
        reached.step,
        Say("while it is away"),
        Say("after"),
        reached=reached,
        do=go_away,
        database=faulty,
    )
    assert run.state.state == "completed"
    assert await core.types(run) == [*READY, *["agent.message"] * 3, *END]


async def test_a_lost_answer_to_a_commit_repeats_no_event(core: Core, database: Database) -> None:
    faulty, reached = FaultyDatabase(database), Reached()

    async def lose(_execution: Execution) -> None:
        faulty.lose_answers = 2
        reached.go_on.set()

    run, _ = await meanwhile(
        core,
        Say("the same"),
        reached.step,
        Say("the same"),
        Say("the same"),
        reached=reached,
        do=lose,
        database=faulty,
    )
    assert faulty.lose_answers == 0
    assert run.state.state == "completed"
    assert await core.types(run) == [*READY, *["agent.message"] * 3, *END]


async def test_events_that_cannot_be_written_fail_the_run(core: Core, database: Database) -> None:
    faulty, reached = FaultyDatabase(database), Reached()

    async def break_it(execution: Execution) -> None:
        faulty.failure = ValueError("broken")
        reached.go_on.set()
        await asyncio.wait([execution._stop])
        faulty.failure = None

    run, _ = await meanwhile(
        core, reached.step, Say("lost"), WaitFor(), reached=reached, do=break_it, database=faulty
    )
    assert run.state.state == "failed"
    assert run.state.error is not None
    assert run.state.error["code"] == "internal_error"
