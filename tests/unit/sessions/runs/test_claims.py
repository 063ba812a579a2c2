"""Claiming fairly, cancelling, expiring, and taking over from the dead."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import func, select

from stationmaster.budgets import LedgerEntry, Reserved, Usage
from stationmaster.budgets.tables import holds
from stationmaster.events import Fenced, NewEvent
from stationmaster.http.task_view import execution_log
from stationmaster.jobs import Job, Runner
from stationmaster.kernel.errors import Unauthenticated
from stationmaster.sessions.runs.claims import Claim
from stationmaster.sessions.runs.seats import Wanted
from stationmaster.sessions.runs.settlement import Ending
from stationmaster.storage import Transaction
from tests.support.core import ALICE, LEASE, QUEUE_TIMEOUT, Core, principal

DONE = Ending("completed", result="done")


async def _claim(core: Core) -> Claim:
    claim = await core.claims.next()
    assert claim is not None
    return claim


@pytest.fixture
async def with_key(core: Core) -> Core:
    """With a key that a run's token can stand for."""
    await core.keys.bootstrap(admin="operators-key-0123456789", given=[])
    return core


# --- claiming ---------------------------------------------------------------------------------


async def test_a_claim_gives_all_that_a_worker_needs(with_key: Core) -> None:
    core = with_key
    key = await core.resolver.resolve("operators-key-0123456789")
    run = await core.start(by=key)
    claim = await _claim(core)
    assert claim.run.id == run.id
    assert (claim.run.state.state, claim.run.state.epoch) == ("running", claim.epoch)
    assert claim.place == (await core.runs.place(key, run.id))[1]
    token = await core.resolver.resolve(await core.seat(claim))
    assert (token.kind, token.run_id, token.key_id) == ("run", run.id, key.id)
    assert (await core.checked(run)) == claim.run
    assert await core.types(run) == [
        "run.queued",
        "user.message",
        "run.started",
        "session.status_running",
    ]
    assert await core.claims.next() is None


async def test_turns_are_fair_between_keys(core: Core) -> None:
    order = [principal(name) for name in ("greedy", "greedy", "greedy", "modest", "greedy", "late")]
    for by in order:
        await core.start(by=by)
        core.clock.advance(1)
    served = []
    for _ in order:
        claim = await _claim(core)
        served.append(claim.run.key_id.removeprefix("key_"))
        core.clock.advance(1)
    # First who has nothing at work, in the order they came; then whose turn is longest ago.
    assert served == ["greedy", "modest", "late", "greedy", "greedy", "greedy"]


async def test_with_nothing_at_work_the_one_served_longest_ago_is_next(core: Core) -> None:
    for name in ("a", "a", "b", "b"):
        await core.start(by=principal(name))
    served = []
    for _ in range(4):
        claim = await _claim(core)
        served.append(claim.run.key_id)
        core.clock.advance(1)
        await core.claims.give_up(claim, DONE)
    assert served == ["key_a", "key_b", "key_a", "key_b"]


async def test_nothing_is_claimed_twice(core: Core) -> None:
    started = {(await core.start(by=principal(str(number % 3)))).id for number in range(12)}
    cores = [core, core.beside(), core.beside()]
    claimed: list[str] = []

    async def claim_on(each: Core) -> None:
        while len(claimed) < len(started):
            if (claim := await each.claims.next()) is not None:
                claimed.append(claim.run.id)

    async with asyncio.timeout(60):
        await asyncio.gather(*(claim_on(cores[number % 3]) for number in range(6)))
    assert Counter(claimed) == Counter(started)


async def test_a_late_writer_is_fenced(core: Core) -> None:
    await core.start()
    claim = await _claim(core)
    await core.database.write(lambda tx: core.events.fence(tx, claim.run.session_id))

    def write(tx: Transaction) -> None:
        run = core.records.lock(tx, claim.run.id)
        core.records.apply(tx, run, [NewEvent("agent.message")], epoch=claim.epoch)

    with pytest.raises(Fenced):
        await core.database.write(write)
    with pytest.raises(Fenced):
        await core.claims.give_up(claim, DONE)
    assert (await core.checked(claim.run)).state.state == "running"


async def test_giving_up_ends_a_run_once(core: Core) -> None:
    run = await core.start()
    claim = await _claim(core)
    await core.claims.give_up(claim, Ending("failed", error_code="internal_error"))
    await core.claims.give_up(claim, DONE)
    now = await core.checked(run)
    assert now.state.state == "failed"
    assert now.state.error == {"code": "internal_error", "message": ""}


# --- cancelling -------------------------------------------------------------------------------


async def test_a_queued_run_is_cancelled_at_once_and_never_claimed(core: Core) -> None:
    run = await core.start()
    cancelled = await core.runs.cancel(ALICE, run.id)
    assert cancelled.state.state == "cancelled"
    assert await core.checked(run) == cancelled
    assert await core.claims.next() is None
    assert await core.runs.cancel(ALICE, run.id) == cancelled


async def test_a_running_run_is_asked_once(core: Core) -> None:
    run = await core.start()
    await _claim(core)
    wake = core.bus.subscribe(f"run:{run.id}")
    asked = await asyncio.gather(*(core.runs.cancel(ALICE, run.id) for _ in range(5)))
    assert all(answer.state.cancel_requested for answer in asked)
    assert {answer.state.state for answer in asked} == {"running"}
    assert (await core.types(run)).count("run.cancel_requested") == 1
    assert wake.take() == ["cancel"]
    await core.checked(run)


async def test_an_ended_run_stays_as_it_is(core: Core) -> None:
    run = await core.start()
    await core.claims.give_up(await _claim(core), DONE)
    before = await core.book(run)
    assert (await core.runs.cancel(ALICE, run.id)).state.state == "completed"
    assert await core.book(run) == before


async def test_a_cancel_and_a_claim_in_the_same_moment_leave_a_whole_run(core: Core) -> None:
    for _ in range(10):
        run = await core.start()
        claim, cancelled = await asyncio.gather(core.claims.next(), core.runs.cancel(ALICE, run.id))
        now = await core.checked(run)
        assert now.state.cancel_requested
        if claim is None:
            assert now.state.state == "cancelled"
        else:
            assert cancelled.state.state in {"running", "cancelled"}
            await core.claims.give_up(claim, Ending("cancelled"))
            await core.checked(run)


# --- expiring ---------------------------------------------------------------------------------


async def test_a_run_waits_only_so_long(core: Core) -> None:
    old = await core.start()
    core.clock.advance(QUEUE_TIMEOUT)
    young = await core.start()
    assert await core.claims.expire_queued() == 0
    core.clock.advance(0.001)
    assert await core.claims.expire_queued() == 1
    assert await core.claims.expire_queued() == 0
    now = await core.checked(old)
    assert now.state.state == "timed_out"
    assert now.state.error == {"code": "queue_timeout", "message": "No worker was free in time."}
    assert (await core.checked(young)).state.state == "queued"


async def test_a_run_at_work_does_not_expire(core: Core) -> None:
    await core.start()
    claim = await _claim(core)
    core.clock.advance(QUEUE_TIMEOUT * 2)
    assert await core.claims.expire_queued() == 0
    assert (await core.checked(claim.run)).state.state == "running"


# --- taking over ------------------------------------------------------------------------------


async def test_what_a_dead_server_ran_is_ended_once_and_settled(with_key: Core) -> None:
    dead, alive = with_key, with_key.beside()
    key = await dead.resolver.resolve("operators-key-0123456789")
    await dead.instances.register()
    started = [await dead.start(by=key, max_cost=1000) for _ in range(3)]
    claims = [await _claim(dead) for _ in range(2)]
    secrets = [await dead.seat(claim) for claim in claims]
    open_call = dead.context(claims[0].run)
    assert await dead.budgets.reserve(open_call, 700) == Reserved(700)
    settled = dead.context(claims[0].run)
    await dead.budgets.reserve(settled, 100)
    usage = Usage(10, 20, 30, 40)
    await dead.budgets.settle(LedgerEntry(settled, 0, usage, 50, "complete", 1))

    assert await alive.instances.dead() == []
    assert await alive.claims.take_over(dead.instances.id) == 0, "it lives"
    dead.clock.advance(LEASE + 1)
    assert await alive.instances.dead() == [dead.instances.id]
    ended = await asyncio.gather(
        *(alive.claims.take_over(dead.instances.id) for _ in range(5)),
        alive.beside().claims.take_over(dead.instances.id),
    )
    assert sorted(ended) == [0, 0, 0, 0, 0, 2]
    first = await alive.checked(claims[0].run)
    assert first.state.state == "interrupted"
    assert first.state.error is not None
    assert first.state.error["code"] == "worker_lost"
    assert (first.state.cost, first.state.model_calls) == (750, 2)
    assert first.state.usage["cache_read_tokens"] == 40
    assert (await alive.checked(claims[1].run)).state.state == "interrupted"
    (waiting,) = [r for r in started if r.id not in {c.run.id for c in claims}]
    assert (await alive.checked(waiting)).state.state == "queued"
    count = select(func.count()).select_from(holds)
    assert await alive.database.read(lambda tx: tx.execute(count).scalar()) == 0
    for secret in secrets:
        with pytest.raises(Unauthenticated):
            await alive.resolver.resolve(secret)
    # It was not dead, and goes on.
    assert not await dead.instances.renew()
    with pytest.raises(Fenced):
        await dead.database.write(
            lambda tx: dead.events.append(
                tx, claims[0].run.session_id, [NewEvent("late")], epoch=claims[0].epoch
            )
        )
    await dead.claims.give_up(claims[0], DONE)  # it has ended already: nothing happens
    assert await alive.checked(claims[0].run) == first
    assert not await dead.budgets.settle(LedgerEntry(open_call, 0, usage, 1, "complete", 1))


async def test_jobs_of_a_dead_server_are_done_by_others(core: Core) -> None:
    await core.instances.register()
    await core.start()
    begun = asyncio.Event()

    async def hang(_job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    def runner(of: Core, handler: object) -> Runner:
        return Runner(
            of.database,
            of.bus,
            of.clock,
            {"run.queued": handler},  # type: ignore[dict-item]
            instance_id=of.instances.id,
        )

    dying = asyncio.create_task(runner(core, hang).drain())
    await begun.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    other = core.beside()
    core.clock.advance(LEASE + 1)
    await other.claims.take_over(core.instances.id)
    done: list[Job] = []

    async def keep(job: Job) -> None:
        done.append(job)

    assert await runner(other, keep).drain() == 1
    assert [job.kind for job in done] == ["run.queued"]


async def test_an_orderly_stop_leaves_no_job_behind(core: Core) -> None:
    await core.instances.register()
    await core.start()
    begun = asyncio.Event()

    async def hang(_job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    cut = Runner(
        core.database,
        core.bus,
        core.clock,
        {"run.queued": hang},
        instance_id=core.instances.id,
    )
    draining = asyncio.create_task(cut.drain())
    await begun.wait()
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    await core.claims.resign()
    done: list[Job] = []

    async def keep(job: Job) -> None:
        done.append(job)

    after = Runner(
        core.database, core.bus, core.clock, {"run.queued": keep}, instance_id="ins_next"
    )
    assert await after.drain() == 1
    core.clock.advance(LEASE + 1)
    assert await core.beside().instances.dead() == []


@pytest.mark.parametrize("left", ["run", "hold"])
async def test_who_leaves_something_unfinished_stays_to_be_found(core: Core, left: str) -> None:
    await core.instances.register()
    run = await core.start()
    claim = await _claim(core)
    if left == "hold":
        await core.budgets.reserve(core.context(run), 5)
        await core.claims.give_up(claim, DONE)
    await core.claims.resign()
    core.clock.advance(LEASE + 1)
    other = core.beside()
    assert await other.instances.dead() == [core.instances.id]
    assert await other.claims.take_over(core.instances.id) == (left == "run")
    await other.checked(run)


async def test_a_claim_whose_answer_was_lost_is_given_back_once_and_then_ended(
    core: Core,
) -> None:
    kept_run, lost_run = await core.start(), await core.start()
    kept, lost = await _claim(core), await _claim(core)
    other = core.beside()
    foreign = await other.start()
    await _claim(other)
    assert {kept.run.id, lost.run.id} == {kept_run.id, lost_run.id}
    assert await core.claims.end_forgotten([kept.run.id]) == 1
    assert await core.claims.end_forgotten([kept.run.id]) == 0
    assert (await core.checked(lost.run)).state.state == "queued"
    assert (await core.checked(kept.run)).state.state == "running"
    assert (await core.checked(foreign)).state.state == "running"
    assert (await _claim(core)).run.id == lost.run.id
    assert await core.claims.end_forgotten([kept.run.id]) == 1
    now = await core.checked(lost.run)
    assert (now.state.state, now.state.lost) == ("interrupted", 1)


async def _lost_with(core: Core) -> None:
    """The server that has claimed dies, and another finds it."""
    core.clock.advance(LEASE + 1)
    other = core.beside()
    taken = await asyncio.gather(*(other.claims.take_over(core.instances.id) for _ in range(3)))
    assert sum(taken) == 1
    await other.instances.register()


async def test_a_task_that_no_agent_has_begun_goes_to_another_worker(core: Core) -> None:
    await core.instances.register()
    run = await core.start()
    first = await _claim(core)
    await _lost_with(core)
    assert (await core.checked(run)).state.state == "queued"
    second = await _claim(core.beside())
    # Who was taken for dead goes on, and comes to nothing: no rights, no event, no end.
    with pytest.raises(Fenced):
        await core.seats.take(first, Wanted())
    assert core.agent.alive() == 0
    with pytest.raises(Fenced):
        await core.claims.give_up(first, DONE)
    await core.seat(second)
    await core.claims.give_up(second, DONE)
    assert (await core.checked(run)).state.state == "completed"
    log, _ = execution_log(run.id, await core.book(run))
    shown = [entry.action for entry in log]
    assert shown == ["queued", "started", "requeued", "started", "ended"]


@pytest.mark.parametrize("trace", ["token", "agent", "call", "slot"])
async def test_a_task_that_an_agent_may_have_begun_is_not_done_again(
    core: Core, trace: str
) -> None:
    await core.instances.register()
    run = await core.start()
    claim = await _claim(core)
    if trace == "token":
        await core.seat(claim)
    elif trace == "agent":  # whose process has ended already
        ready = NewEvent("run.agent_ready", {"run_id": run.id, "agent": {"name": "x"}})
        await core.database.write(
            lambda tx: core.records.apply(
                tx, core.records.lock(tx, run.id), [ready], epoch=claim.epoch
            )
        )
    elif trace == "call":
        await core.budgets.reserve(core.context(run), 5)
    else:
        seat = await core.seats.take(claim, Wanted())
        await core.seats.leave(claim, seat, keep=False)
    await _lost_with(core)
    now = await core.checked(run)
    assert now.state.error is not None
    assert (now.state.state, now.state.error["code"]) == ("interrupted", "worker_lost")
