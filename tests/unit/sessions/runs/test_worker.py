"""A worker: as many runs as it has slots, none lost, whatever becomes of them."""

import asyncio
from collections.abc import Callable

import pytest
import structlog

from stationmaster.agents.base import AgentExited, LaunchSpec
from stationmaster.agents.scripted import Call, Fail, Finish, Say, ScriptedAgent, Step
from stationmaster.gateway.ports import CallStarted
from stationmaster.jobs import Job, Runner
from stationmaster.kernel.errors import Unavailable
from stationmaster.sessions.runs import worker as module
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.executor import Execution
from stationmaster.sessions.runs.record import Run
from stationmaster.sessions.runs.runs import QUEUED_JOB
from stationmaster.sessions.runs.worker import Worker
from tests.support.core import ALICE, LEASE, Core, Seen, principal


class Gate:
    """A step at which runs wait until it is opened, counting who is there."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self._open = asyncio.Event()
        self._changed = asyncio.Condition()

    async def wait(self, _spec: LaunchSpec) -> None:
        async with self._changed:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._changed.notify_all()
        try:
            await self._open.wait()
        finally:
            self.inside -= 1

    async def reached_by(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.inside >= count)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll often: no doorbell rings here unless a test rings it."""
    monkeypatch.setattr(module, "POLL_S", 0.01)


async def _all_ended(core: Core, runs: list[Run]) -> list[str]:
    async with asyncio.timeout(60):
        for run in runs:
            await core.runs.wait(ALICE, run.id)
    return [(await core.checked(run)).state.state for run in runs]


async def test_as_many_at_once_as_there_are_slots(core: Core, gate: Gate, seen: Seen) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    runs = [await core.start(by=principal(str(number % 4))) for number in range(10)]
    async with core.working(core.worker(3, seen)) as worker:
        await gate.reached_by(3)
        assert worker.active == core.agent.alive() == 3
        depth = await core.runs.depth()
        assert (depth.queued, depth.running) == (7, 3)
        gate.open()
        assert await _all_ended(core, runs) == ["completed"] * 10
    assert gate.most == seen.most == 3
    assert seen.began_runs == [run_id for run_id in seen.began_runs if run_id]
    assert sorted(seen.began_runs) == sorted(run_id for run_id, _ in seen.ended_runs)
    assert (worker.active, core.agent.alive(), seen.at_work) == (0, 0, 0)


async def test_no_slot_is_lost_whatever_becomes_of_runs(core: Core, seen: Seen) -> None:
    endings: dict[str, Step] = {
        "success": Say("Done."),
        "max_turns": Finish("max_turns"),
        "exit": Fail(AgentExited()),
        "fault": Call(_raise),
        "no execution": Say("never said"),
    }

    def script(_spec: LaunchSpec, content: object) -> list[Step]:
        assert isinstance(content, list)
        return [endings[content[0]["text"]]]

    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = script

    def execution(claim: Claim) -> Execution:
        made = core.execution(claim)
        if claim.run.plan.prompt == "no execution":
            made.run = _raise  # type: ignore[method-assign, assignment]
        return made

    runs = [await core.start(name) for name in endings for _ in range(2)]
    async with core.working(core.worker(2, seen, execution=execution)) as worker:
        with structlog.testing.capture_logs():
            states = await _all_ended(core, runs)
        assert states == ["completed"] * 2 + ["failed"] * 8
        again = await core.start("success")
        assert await _all_ended(core, [again]) == ["completed"]
    assert (worker.active, seen.at_work, seen.most) == (0, 0, 2)


async def _raise(*_: object) -> None:
    raise ValueError("broken")


async def test_a_cancelled_run_makes_room_for_the_next(core: Core, gate: Gate) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    async with core.working(core.worker(1)):
        first = await core.start()
        await gate.reached_by(1)
        second = await core.start()
        await core.runs.cancel(ALICE, first.id)
        assert await _all_ended(core, [first]) == ["cancelled"]
        await gate.reached_by(1)
        gate.open()
        assert await _all_ended(core, [second]) == ["completed"]


async def test_the_doorbell_wakes_a_worker(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 3600)
    worker = core.worker(1)
    handlers = {QUEUED_JOB: worker.ring}
    runner = Runner(core.database, core.bus, core.clock, handlers, instance_id=core.instances.id)
    async with core.working(worker), asyncio.timeout(60):
        while worker._doorbell.is_set():
            await asyncio.sleep(0)
        runs = [await core.start() for _ in range(3)]  # more than it has slots
        assert await runner.drain() == 3
        assert await _all_ended(core, runs) == ["completed"] * 3


async def test_a_worker_survives_the_database_being_away(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = core.claims.next, asyncio.Event()

    async def refuse() -> None:
        refused.set()
        raise Unavailable

    monkeypatch.setattr(core.claims, "next", refuse)
    run = await core.start()
    async with core.working(core.worker(1)), asyncio.timeout(60):
        await refused.wait()
        monkeypatch.setattr(core.claims, "next", real)
        assert await _all_ended(core, [run]) == ["completed"]


async def test_calls_go_to_the_run_they_belong_to(core: Core, gate: Gate) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    runs = [await core.start() for _ in range(2)]
    monkey = core.worker(2)
    async with core.working(monkey) as worker:
        await gate.reached_by(2)
        worker.observe(CallStarted(core.context(runs[1])))
        stranger = core.context(await core.beside().start())
        worker.observe(CallStarted(stranger))  # a run of another worker: not ours to write
        while "span.model_request_start" not in await core.types(runs[1]):
            await asyncio.sleep(0)
        assert "span.model_request_start" not in await core.types(runs[0])
        for execution, _ in worker._running.values():
            execution._spans._none.set()
        gate.open()
        await _all_ended(core, runs)


# --- watching ---------------------------------------------------------------------------------


async def test_a_worker_takes_over_from_a_dead_one_and_expires_the_queue(core: Core) -> None:
    dead = core.beside()
    await dead.instances.register()
    lost = await core.start()
    claim = await dead.claims.next()
    assert claim is not None
    await dead.seat(claim)
    core.clock.advance(LEASE + 1)
    await core.instances.register()
    worker = core.worker(1)
    with structlog.testing.capture_logs() as lines:
        await worker._beat()
    assert (await core.checked(lost)).state.state == "interrupted"
    assert [line["runs"] for line in lines if line["event"].startswith("Runs of a dead")] == [1]
    old = await core.start()
    core.clock.advance(601)
    await worker._beat()
    assert (await core.checked(old)).state.state == "timed_out"


async def test_a_worker_taken_for_dead_stops_its_runs_and_enters_again(
    core: Core, gate: Gate, seen: Seen
) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    await core.instances.register()
    run = await core.start()
    async with core.working(core.worker(1, seen)) as worker, asyncio.timeout(60):
        await gate.reached_by(1)
        core.clock.advance(LEASE + 1)
        assert await core.beside().claims.take_over(core.instances.id) == 1
        with structlog.testing.capture_logs():
            await worker._beat()
            await worker._idle.wait()
        assert seen.ended_runs == [(run.id, None)]
        assert core.agent.alive() == 0
        assert (await core.checked(run)).state.state == "interrupted"
        assert await core.instances.renew()
        gate.open()
        again = await core.start()
        assert await _all_ended(core, [again]) == ["completed"]


async def test_a_claim_whose_answer_was_lost_is_found_by_the_next_beat(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.instances.register()
    real, lost = core.claims.next, asyncio.Event()

    async def lose() -> None:
        await real()
        lost.set()
        raise Unavailable(code="commit_unknown")

    run = await core.start()
    monkeypatch.setattr(core.claims, "next", lose)
    async with core.working(core.worker(1)) as worker, asyncio.timeout(60):
        await lost.wait()
        monkeypatch.setattr(core.claims, "next", real)
        assert (await core.checked(run)).state.state == "running"
        with structlog.testing.capture_logs():
            await worker._beat()
        assert await _all_ended(core, [run]) == ["completed"]


async def test_a_beat_does_not_touch_runs_at_work(core: Core, gate: Gate) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    await core.instances.register()
    runs = [await core.start() for _ in range(6)]
    async with core.working(core.worker(3)) as worker, asyncio.timeout(60):
        beats = asyncio.create_task(_beat_on(worker))
        await gate.reached_by(3)
        gate.open()
        assert await _all_ended(core, runs) == ["completed"] * 6
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)


async def _beat_on(worker: Worker) -> None:
    while True:
        await worker._beat()
        await asyncio.sleep(0)


async def test_watching_goes_on_while_the_database_is_away(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.instances.lease = 0.003
    refused: list[None] = []
    real = core.instances.renew
    await core.instances.register()
    renewed = asyncio.Event()

    async def renew() -> bool:
        if len(refused) < 3:
            refused.append(None)
            raise Unavailable
        renewed.set()
        return await real()

    monkeypatch.setattr(core.instances, "renew", renew)
    watching = asyncio.create_task(core.worker(1).watch())
    async with asyncio.timeout(60):
        await renewed.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


# --- stopping ---------------------------------------------------------------------------------


async def test_draining_lets_runs_end_and_claims_no_more(core: Core, gate: Gate) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    first = await core.start()
    async with core.working(core.worker(2)) as worker:
        await gate.reached_by(1)
        draining = asyncio.create_task(worker.drain(60))
        await asyncio.sleep(0)
        second = await core.start()
        await worker.ring(Job("job_1", QUEUED_JOB, {}, 1))
        gate.open()
        async with asyncio.timeout(60):
            await draining
        assert (await core.checked(first)).state.state == "completed"
        assert (await core.checked(second)).state.state == "queued"


async def test_draining_interrupts_what_takes_too_long(core: Core, gate: Gate) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait),)
    runs = [await core.start() for _ in range(2)]
    async with core.working(core.worker(2)) as worker:
        await gate.reached_by(2)
        with structlog.testing.capture_logs():
            await worker.drain(0.01)
        for run in runs:
            now = await core.checked(run)
            assert now.state.state == "interrupted"
            assert now.state.error is not None
            assert now.state.error["code"] == "shutting_down"
        assert (worker.active, core.agent.alive()) == (0, 0)


@pytest.mark.parametrize(
    ("how", "state"),
    [("drain", "completed"), ("drain in no time", "interrupted"), ("interrupt", "interrupted")],
)
async def test_a_claim_on_its_way_while_stopping_is_not_lost(
    core: Core, monkeypatch: pytest.MonkeyPatch, gate: Gate, how: str, state: str
) -> None:
    assert isinstance(core.agent, ScriptedAgent)
    core.agent.script = (Call(gate.wait), Say("Done."))
    real: Callable[[], object] = core.claims.next
    claiming, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> object:
        claiming.set()
        await go_on.wait()
        return await real()  # type: ignore[misc]

    run = await core.start()
    monkeypatch.setattr(core.claims, "next", slow)
    async with core.working(core.worker(1)) as worker, asyncio.timeout(60):
        await claiming.wait()
        if how == "drain":
            gate.open()
        stop = {"drain": 60.0, "drain in no time": 0.05}.get(how)
        stopping = asyncio.create_task(worker.interrupt() if stop is None else worker.drain(stop))
        for _ in range(10):  # let it come as far as it will
            await asyncio.sleep(0)
        go_on.set()
        with structlog.testing.capture_logs():
            await stopping
        assert (await core.checked(run)).state.state == state
        assert worker.active == 0
