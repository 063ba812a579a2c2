"""Batches from their making to their results, on SQLite and on PostgreSQL."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from stationmaster.batches import Answer, Batch, Batches, Counts, Executor, Item
from stationmaster.batches.batch import NewRequest, Operation
from stationmaster.batches.batches import AT_ONCE, ENTERING_MS, LIFE_MS, MAX_OPEN
from stationmaster.batches.desk import Desk
from stationmaster.batches.executor import LOST, MAX_ATTEMPTS, MAX_DELAY_S
from stationmaster.batches.tables import batch_requests, batches
from stationmaster.jobs import Instances, Outbox
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import (
    BudgetExceeded,
    Conflict,
    Denied,
    Exhausted,
    NotFound,
    StationmasterError,
    Unavailable,
    Upstream,
)
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.support.core import ALICE, principal

LEASE = 10.0
RETENTION = 29 * 86_400.0
STRANGER = principal("mallory", Owner("org_2", "proj_2"))
OK = Answer(200, b'{\n "id": "msg_1"\n}')

Play = Callable[[dict[str, Any]], Answer]


class Provider:
    """A `Caller` that answers as `play` says, when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.call_ids: list[str] = []
        self.under_way = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        self.began = asyncio.Event()
        self.play: Play = lambda _body: OK

    async def call(
        self,
        principal: Principal,
        operation: Operation,
        raw: bytes,
        headers: Sequence[tuple[str, str]],
        *,
        call_id: str,
    ) -> Answer:
        body = json.loads(raw)
        self.asked.append(body["name"])
        self.call_ids.append(call_id)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.began.set()
        try:
            await self.open.wait()
            return self.play(body)
        finally:
            self.under_way -= 1

    def error(self, operation: Operation, error: Exception) -> Answer:
        code = error.error_code if isinstance(error, StationmasterError) else "internal_error"
        return Answer(400, json.dumps({"code": code}).encode())


class Server:
    """One of the servers that share a database."""

    def __init__(self, database: Database, clock: ManualClock, *, slots: int = 3) -> None:
        self.database = database
        self.clock = clock
        self.instances = Instances(database, clock, lease=LEASE)
        self.batches = Batches(database, clock, Outbox(MemoryBus(), clock), retention=RETENTION)
        self.desk = Desk(database, clock, self.instances)
        self.provider = Provider()
        self.busy = False
        self.known: Principal | None = ALICE

        async def principal_of(key_id: str, owner: Owner) -> Principal | None:
            return self.known

        self.executor = Executor(
            self.desk, self.provider, principal_of, slots=slots, busy=lambda _own: self.busy
        )

    async def make(self, *names: str, by: Principal = ALICE) -> Batch:
        requests = [NewRequest(name, json.dumps({"name": name})) for name in names]
        return await self.batches.create(by, "messages", requests)

    async def work(self) -> None:
        """Until nothing is due."""
        while True:
            await self.executor.tend()
            await self.executor.fill()
            if not self.executor._running:
                return
            await asyncio.wait(set(self.executor._running))

    async def get(self, batch: Batch) -> Batch:
        return await self.batches.get(ALICE, batch.id)

    async def results(self, batch: Batch) -> list[Item]:
        pages = await self.batches.results(ALICE, batch.id)
        return [item async for page in pages for item in page]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> Server:
    made = Server(database, clock)
    await made.instances.register()
    return made


async def test_a_batch_is_made_and_its_results_read(server: Server) -> None:
    batch = await server.make("a", "b", "c", "d")
    assert (batch.state, batch.counts) == ("in_progress", Counts(4, 0, 0, 0, 0))
    await server.work()
    ended = await server.get(batch)
    assert (ended.state, ended.counts) == ("ended", Counts(0, 4, 0, 0, 0))
    assert ended.ended_at == server.clock.now()
    items = await server.results(batch)
    assert [item.custom_id for item in items] == ["a", "b", "c", "d"]
    assert {item.reply for item in items} == {'{"id":"msg_1"}'}  # one line, whatever came


async def test_making_one_rings_by_a_job(server: Server) -> None:
    batch = await server.make("a")
    found = await server.database.read(lambda tx: tx.execute(select(jobs)).all())
    assert [(job.kind, job.payload) for job in found] == [("batch.queued", {"batch_id": batch.id})]


async def test_a_request_that_fails_fails_alone(server: Server) -> None:
    server.provider.play = lambda body: Answer(400, b'{"no":1}') if body["name"] == "b" else OK
    batch = await server.make("a", "b", "c")
    await server.work()
    assert (await server.get(batch)).counts == Counts(0, 2, 1, 0, 0)
    assert [item.outcome for item in await server.results(batch)] == [
        "succeeded",
        "errored",
        "succeeded",
    ]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Upstream("down"), id="provider"),
        pytest.param(Unavailable("down"), id="database"),
        pytest.param(Exhausted("slow", retry_after=1.0), id="rate limit"),
    ],
)
async def test_what_passes_is_waited_for(server: Server, error: StationmasterError) -> None:
    def fails(_body: Any) -> Answer:
        raise error

    server.provider.play = fails
    batch = await server.make("a")
    await server.work()
    assert server.provider.asked == ["a"]  # not at once again
    server.provider.play = lambda _body: OK
    server.clock.advance(MAX_DELAY_S)
    await server.work()
    assert (await server.get(batch)).counts.succeeded == 1


async def test_a_provider_that_refuses_for_now_is_asked_later(server: Server) -> None:
    server.provider.play = lambda _body: Answer(529, b'{"busy":1}')
    batch = await server.make("a")
    for _ in range(MAX_ATTEMPTS):
        await server.work()
        server.clock.advance(MAX_DELAY_S)
    assert len(server.provider.asked) == MAX_ATTEMPTS
    attempts = range(1, MAX_ATTEMPTS + 1)
    assert server.provider.call_ids == [f"{batch.id}:0:{attempt}" for attempt in attempts]
    (item,) = await server.results(batch)
    assert (item.outcome, item.status, item.reply) == ("errored", 529, '{"busy":1}')


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(BudgetExceeded("empty"), id="budget"),
        pytest.param(Denied("no"), id="denied"),
        pytest.param(Upstream("lost", code=LOST), id="billed"),
        pytest.param(Exhausted("never"), id="never"),
        pytest.param(RuntimeError("bug"), id="bug"),
    ],
)
async def test_what_does_not_pass_is_asked_once(server: Server, error: Exception) -> None:
    def fails(_body: Any) -> Answer:
        raise error

    server.provider.play = fails
    batch = await server.make("a")
    await server.work()
    server.clock.advance(MAX_DELAY_S)
    await server.work()
    assert server.provider.asked == ["a"]
    assert (await server.get(batch)).counts == Counts(0, 0, 1, 0, 0)


async def test_an_answer_that_is_no_json_is_an_error(server: Server) -> None:
    server.provider.play = lambda _body: Answer(200, b"<html>")
    batch = await server.make("a")
    await server.work()
    assert [item.reply for item in await server.results(batch)] == ['{"code": "answer_lost"}']


async def test_a_batch_ends_with_the_key_that_made_it(server: Server) -> None:
    server.known = None
    batch = await server.make("a")
    await server.work()
    assert server.provider.asked == []
    assert [item.reply for item in await server.results(batch)] == ['{"code": "invalid_api_key"}']


async def test_nothing_is_begun_while_others_need_the_provider(server: Server) -> None:
    batch = await server.make("a")
    server.busy = True
    await server.work()
    assert server.provider.asked == []
    server.busy = False
    await server.work()
    assert (await server.get(batch)).state == "ended"


async def test_batches_take_turns(server: Server, clock: ManualClock) -> None:
    await server.make("a1", "a2", "a3")
    await server.make("b1", "b2")
    order = []
    while (taken := await server.desk.take()) is not None:
        order.append(json.loads(taken.body)["name"])
        clock.advance(0.001)
    assert order == ["a1", "b1", "a2", "b2", "a3"]


async def test_two_servers_never_make_the_same_request(server: Server, clock: ManualClock) -> None:
    other = Server(server.database, clock)
    await other.instances.register()
    names = [f"r{number}" for number in range(40)]
    batch = await server.make(*names)
    while (await server.get(batch)).state != "ended":
        await asyncio.gather(server.work(), other.work())
    assert sorted(server.provider.asked + other.provider.asked) == sorted(names)


async def test_what_a_dead_server_was_making_is_not_made_again(
    server: Server, clock: ManualClock
) -> None:
    batch = await server.make("a", "b")
    dead = Server(server.database, clock, slots=1)
    await dead.instances.register()
    lost = await dead.desk.take()
    assert lost is not None
    await server.work()
    assert (await server.get(batch)).counts == Counts(1, 1, 0, 0, 0)
    clock.advance(LEASE + 1)
    await server.work()
    assert server.provider.asked == ["b"]
    assert (await server.get(batch)).counts == Counts(0, 1, 1, 0, 0)
    # It was not dead after all: what it brings is too late.
    await dead.desk.put_away(lost, OK)
    await dead.desk.put_back(lost, delay=0)
    assert (await server.get(batch)).counts == Counts(0, 1, 1, 0, 0)
    assert [item.reply for item in await server.results(batch)] == [
        '{"code": "answer_lost"}',
        '{"id":"msg_1"}',
    ]


async def test_cancelling_finishes_what_is_under_way(server: Server) -> None:
    server.provider.open.clear()
    batch = await server.make("a", "b", "c", "d", "e")
    await server.executor.fill()
    while server.provider.under_way < 3:
        await asyncio.sleep(0)
    canceling = await server.batches.cancel(ALICE, batch.id)
    assert (canceling.state, canceling.counts) == ("canceling", Counts(3, 0, 0, 2, 0))
    assert (await server.batches.cancel(ALICE, batch.id)).state == "canceling"
    server.provider.open.set()
    await server.work()
    ended = await server.get(batch)
    assert (ended.state, ended.counts) == ("ended", Counts(0, 3, 0, 2, 0))
    assert server.provider.most == 3  # there are no more slots
    with pytest.raises(Conflict):
        await server.batches.cancel(ALICE, batch.id)


async def test_cancelling_ends_at_once_where_nothing_is_under_way(server: Server) -> None:
    batch = await server.make("a", "b")
    assert (await server.batches.cancel(ALICE, batch.id)).state == "ended"
    await server.work()
    assert server.provider.asked == []


async def test_what_is_put_back_into_a_cancelled_batch_is_cancelled(server: Server) -> None:
    batch = await server.make("a")
    taken = await server.desk.take()
    assert taken is not None
    await server.batches.cancel(ALICE, batch.id)
    await server.desk.put_back(taken, delay=5)
    ended = await server.get(batch)
    assert (ended.state, ended.counts.canceled) == ("ended", 1)


async def test_after_a_day_the_rest_expires(server: Server, clock: ManualClock) -> None:
    batch = await server.make("a", "b")
    taken = await server.desk.take()
    assert taken is not None
    clock.advance(LIFE_MS / 1000)
    await server.work()
    assert server.provider.asked == []
    assert (await server.get(batch)).counts == Counts(1, 0, 0, 0, 1)
    await server.desk.put_away(taken, OK)
    ended = await server.get(batch)
    assert (ended.state, ended.counts) == ("ended", Counts(0, 1, 0, 0, 1))


async def test_results_are_kept_for_their_time(server: Server, clock: ManualClock) -> None:
    batch = await server.make("a")
    await server.work()
    clock.advance(RETENTION)
    await server.batches.sweep()
    assert len(await server.results(batch)) == 1
    clock.advance(1)
    assert await server.batches.sweep() == 1
    archived = await server.get(batch)
    assert (archived.archived_at, archived.counts.succeeded) == (clock.now(), 1)
    with pytest.raises(NotFound):
        await server.batches.results(ALICE, batch.id)
    assert await server.batches.sweep() == 0


async def test_what_is_asked_is_not_kept_once_it_is_answered(server: Server) -> None:
    await server.make("a", "b")
    await server.work()
    bodies = await server.database.read(
        lambda tx: tx.execute(select(batch_requests.c.body)).scalars().all()
    )
    assert set(bodies) == {""}


async def test_a_large_batch_comes_in_in_pieces(server: Server) -> None:
    names = [f"r{number}" for number in range(AT_ONCE * 2 + 1)]
    batch = await server.make(*names)
    await server.batches.cancel(ALICE, batch.id)
    assert [item.custom_id for item in await server.results(batch)] == names


async def test_a_batch_that_did_not_come_in_whole_is_none(
    server: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cut(*_: object) -> None:
        return None

    monkeypatch.setattr(server.batches, "_discard", cut)
    twice = [NewRequest("a", "{}"), NewRequest("a", "{}")]
    with pytest.raises(Exception, match=r"UNIQUE|unique"):
        await server.batches.create(ALICE, "messages", twice)
    monkeypatch.undo()
    assert (await server.batches.list(ALICE, ["messages"], limit=10)).items == []
    assert await server.desk.take() is None
    clock.advance(ENTERING_MS / 1000 + 1)
    assert await server.batches.sweep() == 1
    left = await server.database.read(
        lambda tx: tx.execute(select(func.count()).select_from(batches)).scalar_one()
    )
    assert left == 0


async def test_batches_of_others_are_not_there(server: Server) -> None:
    batch = await server.make("a")
    for verb in (server.batches.get, server.batches.cancel, server.batches.delete):
        with pytest.raises(NotFound):
            await verb(STRANGER, batch.id)
    assert (await server.batches.list(STRANGER, ["messages"], limit=10)).items == []


async def test_a_run_makes_none(server: Server) -> None:
    run = replace(ALICE, kind="run", run_id="run_1")
    with pytest.raises(Denied):
        await server.make("a", by=run)


async def test_deleting_needs_an_end(server: Server) -> None:
    batch = await server.make("a")
    with pytest.raises(Conflict):
        await server.batches.delete(ALICE, batch.id)
    await server.work()
    await server.batches.delete(ALICE, batch.id)
    with pytest.raises(NotFound):
        await server.get(batch)


async def test_lists_go_both_ways(server: Server) -> None:
    made = [(await server.make("a")).id for _ in range(5)]
    newest = sorted(made, reverse=True)
    page = await server.batches.list(ALICE, ["messages"], limit=2)
    assert [batch.id for batch in page.items] == newest[:2]
    after = await server.batches.list(ALICE, ["messages"], limit=2, after=page.next_cursor)
    assert [batch.id for batch in after.items] == newest[2:4]
    before = await server.batches.list(ALICE, ["messages"], limit=2, before=newest[3])
    assert [batch.id for batch in before.items] == newest[1:3]
    assert before.next_cursor is not None


async def test_open_batches_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stationmaster.batches.batches.MAX_OPEN", 2)
    assert MAX_OPEN > 2
    for _ in range(2):
        await server.make("a")
    with pytest.raises(Exhausted):
        await server.make("a")
    await server.work()
    await server.make("a")


async def test_a_server_that_stops_lets_the_calls_under_way_end(server: Server) -> None:
    server.provider.open.clear()
    batch = await server.make("a", "b", "c", "d")
    await server.executor.fill()
    while server.provider.under_way < 3:
        await asyncio.sleep(0)
    draining = asyncio.create_task(server.executor.drain(30))
    await asyncio.sleep(0)
    server.provider.open.set()
    await draining
    await server.executor.fill()
    assert (await server.get(batch)).counts == Counts(1, 3, 0, 0, 0)
