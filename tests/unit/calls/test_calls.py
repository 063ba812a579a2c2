"""Calls that are kept, on SQLite and on PostgreSQL: taken down, read, forgotten."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from stationmaster.calls import Calls, Pattern, Policy, Said, Sought, Writer
from stationmaster.calls import writer as writing
from stationmaster.calls.tables import kept_calls
from stationmaster.gateway.assembly import assembled
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Denied, Invalid, NotFound, Unavailable
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.storage import Database
from stationmaster.storage.sealing import Sealer
from tests.support.core import ALICE, OWNER

DAY = 86_400.0
ADMIN = Principal("key", "key_admin", OWNER, "key_admin", frozenset({"*"}))
ELSEWHERE = Owner("org_other", "proj_other")
OTHER = Principal("key", "key_other", ELSEWHERE, "key_other", frozenset({"*"}))
OLD, NEW = b"o" * 32, b"n" * 32
ON = Policy(enabled=True)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def calls(database: Database, clock: ManualClock) -> Calls:
    return Calls(database, clock, Sealer((OLD,)))


class Taking:
    """A writer, and what became of what it was given."""

    def __init__(self, calls: Calls) -> None:
        self.results: Counter[str] = Counter()
        self.writer = Writer(
            calls,
            Sealer((OLD,)),
            scrub=lambda text: text,
            assemble=assembled,
            counted=lambda result: self.results.update([result]),
        )


def said(number: int, clock: ManualClock, **more: Any) -> Said:
    fields: dict[str, Any] = {
        "id": f"call_{number:04}",
        "owner": OWNER,
        "key_id": "key_a",
        "user_id": None,
        "session_id": None,
        "run_id": None,
        "operation": "messages",
        "provider": "anthropic",
        "model": "haiku",
        "outcome": "complete",
        "at": clock.now(),
        "request": json.dumps({"ask": f"{number} bob@example.org"}).encode(),
        "answer": json.dumps({"told": f"{number} amy@example.org"}).encode(),
        "stream": False,
    }
    return Said(**(fields | more))


async def kept(calls: Calls, *given: Said) -> Taking:
    taking = Taking(calls)
    for each in given:
        taking.writer.keep(each)
    await taking.writer.flush()
    return taking


async def test_nothing_is_wanted_until_a_project_says_so(calls: Calls, clock: ManualClock) -> None:
    taking = Taking(calls)
    assert not taking.writer.wants(OWNER, of_run=False)
    assert await calls.policy(ADMIN, OWNER.project_id) == Policy()
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    assert taking.writer.wants(OWNER, of_run=False)
    assert not taking.writer.wants(OWNER, of_run=True)
    assert not taking.writer.wants(ELSEWHERE, of_run=False)
    await calls.set_policy(ADMIN, OWNER.project_id, replace(ON, agent_calls=True))
    assert taking.writer.wants(OWNER, of_run=True)
    await calls.set_policy(ADMIN, OWNER.project_id, Policy())
    assert not taking.writer.wants(OWNER, of_run=False)
    # What was under way then is not kept either.
    taking.writer.keep(said(1, clock))
    assert await taking.writer.flush() == 0


async def test_another_server_learns_of_it(database: Database, clock: ManualClock) -> None:
    here, there = (Calls(database, clock, Sealer((OLD,))) for _ in range(2))
    own = replace(ON, patterns=(Pattern("a", "b+"),), retention_days=3)
    await here.set_policy(ADMIN, OWNER.project_id, own)
    await there.read_policies()
    assert there.enabled == {OWNER.project_id: own}
    await here.set_policy(ADMIN, OWNER.project_id, Policy())
    await there.read_policies()
    assert there.enabled == {}


async def test_what_was_said_is_kept_redacted_and_sealed(
    database: Database, calls: Calls, clock: ManualClock
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    taking = await kept(calls, said(1, clock))
    assert taking.results == {"kept": 1}
    found = await calls.get(ADMIN, "call_0001")
    assert found.request == {"ask": "1 [email]"}
    assert found.answer == {"told": "1 [email]"}
    assert (found.model, found.outcome, found.left_out) == ("haiku", "complete", ())
    stored = await database.read(lambda tx: tx.execute(select(kept_calls.c.sealed)).scalar_one())
    assert "ask" not in stored


async def test_only_who_may_sees_them_and_only_his_project(
    calls: Calls, clock: ManualClock
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    await kept(calls, said(1, clock))
    for attempt in (
        lambda who: calls.get(who, "call_0001"),
        lambda who: calls.delete(who, "call_0001"),
    ):
        with pytest.raises(Denied):
            await attempt(ALICE)
        with pytest.raises(NotFound):
            await attempt(OTHER)
    for denied in (calls.list(ALICE, Sought(), limit=5, after=None), calls.clear(ALICE)):
        with pytest.raises(Denied):
            await denied
    assert (await calls.list(OTHER, Sought(), limit=5, after=None)).items == []
    assert await calls.clear(OTHER) == 0
    for refused in (
        calls.policy(ALICE, OWNER.project_id),
        calls.set_policy(ALICE, OWNER.project_id, ON),
    ):
        with pytest.raises(Denied):
            await refused
    assert (await calls.get(ADMIN, "call_0001")).id == "call_0001"


async def test_a_tenant_cannot_take_over_anothers_policy(calls: Calls) -> None:
    """The route asks first whose project it is; the verb holds even without it."""
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    await calls.set_policy(OTHER, OWNER.project_id, Policy(enabled=True, agent_calls=True))
    await calls.read_policies()
    assert calls.enabled == {OWNER.project_id: ON}


async def test_they_are_listed_newest_first_by_pages_and_filters(
    calls: Calls, clock: ManualClock
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    given = []
    for number in range(7):
        clock.advance(1 if number % 2 else 0)  # two at each time
        model = "opus" if number == 3 else "haiku"
        given.append(said(number, clock, model=model, session_id=f"s{number % 2}"))
    await kept(calls, *given)
    seen, after = [], None
    while True:
        page = await calls.list(ADMIN, Sought(), limit=2, after=after)
        seen += [call.id for call in page.items]
        assert all(call.request is None for call in page.items)
        if (after := page.next_cursor) is None:
            break
    assert seen == [f"call_{number:04}" for number in reversed(range(7))]
    for sought, count in (
        (Sought(model="opus"), 1),
        (Sought(session_id="s0"), 4),
        (Sought(key_id="key_b"), 0),
        (Sought(since=given[3].at), 4),
        (Sought(until=given[3].at), 3),
    ):
        assert len((await calls.list(ADMIN, sought, limit=50, after=None)).items) == count
    with pytest.raises(Invalid):
        await calls.list(ADMIN, Sought(), limit=5, after="nonsense")


async def test_they_are_gone_after_their_time_and_swept(
    database: Database, calls: Calls, clock: ManualClock
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, replace(ON, retention_days=10))
    await kept(calls, said(1, clock))
    clock.advance(9 * DAY)
    await kept(calls, said(2, clock))
    assert await calls.sweep() == 0
    clock.advance(1 * DAY)
    with pytest.raises(NotFound):
        await calls.get(ADMIN, "call_0001")
    page = await calls.list(ADMIN, Sought(), limit=5, after=None)
    assert [call.id for call in page.items] == ["call_0002"]
    assert await calls.sweep() == 1
    # A shorter time is for what is there too, and goes on where nothing more is kept.
    await calls.set_policy(ADMIN, OWNER.project_id, Policy(retention_days=1))
    with pytest.raises(NotFound):
        await calls.get(ADMIN, "call_0002")
    assert await calls.sweep() == 1
    assert await calls.sweep() == 0
    assert await database.read(lambda tx: tx.execute(select(kept_calls)).all()) == []


async def test_one_is_forgotten_or_all(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    await kept(calls, *(said(number, clock) for number in range(4)))
    await calls.delete(ADMIN, "call_0002")
    with pytest.raises(NotFound):
        await calls.delete(ADMIN, "call_0002")
    assert await calls.clear(ADMIN) == 3
    assert await calls.clear(ADMIN) == 0


async def test_only_what_is_wanted_is_kept(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, replace(ON, requests=False))
    await kept(calls, said(1, clock))
    found = await calls.get(ADMIN, "call_0001")
    assert found.request is None
    assert found.answer == {"told": "1 [email]"}
    assert found.left_out == (("request", "not_wanted"),)


async def test_what_is_too_large_is_left_out_by_name(
    calls: Calls, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_PARSED", 1_000)
    monkeypatch.setattr(writing, "MAX_KEPT", 500)
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    long, longer = json.dumps(["a " * 300]).encode(), json.dumps(["a " * 600]).encode()
    await kept(
        calls,
        said(1, clock, request=long, answer=longer),
        said(2, clock, answer=b"data: {}\n\n", stream=True, whole=False),
    )
    first, second = [await calls.get(ADMIN, f"call_000{n}") for n in (1, 2)]
    assert dict(first.left_out) == {"request": "too_large", "answer": "too_large"}
    assert dict(second.left_out) == {"answer": "too_large"}


async def test_an_error_page_is_kept_as_text(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    page = b"<h1>Bad gateway</h1> ask root@example.org \xff"
    await kept(calls, said(1, clock, answer=page, outcome="error"), said(2, clock, answer=b""))
    assert (await calls.get(ADMIN, "call_0001")).answer == "<h1>Bad gateway</h1> ask [email] \ufffd"
    assert (await calls.get(ADMIN, "call_0002")).answer is None


async def test_vectors_are_not_kept(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    answer = json.dumps({"data": [{"embedding": [0.1] * 9}] * 2, "model": "m"}).encode()
    await kept(calls, said(1, clock, operation="embeddings", answer=answer))
    assert (await calls.get(ADMIN, "call_0001")).answer == {"data": "[2 vectors]", "model": "m"}


async def test_what_cannot_be_looked_through_is_not_kept(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    taking = Taking(calls)

    def broken(_text: str) -> str:
        raise RuntimeError("no")

    taking.writer._scrub = broken
    taking.writer.keep(said(1, clock))
    assert await taking.writer.flush() == 0
    assert taking.results == {"failed": 1}
    assert (await calls.list(ADMIN, Sought(), limit=5, after=None)).items == []


@pytest.mark.parametrize("bound", ["MAX_WAITING", "MAX_WAITING_BYTES"])
async def test_a_full_queue_drops_and_says_so(
    calls: Calls, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    size = said(0, clock).size
    monkeypatch.setattr(writing, bound, 3 if bound == "MAX_WAITING" else 3 * size)
    taking = Taking(calls)
    for number in range(5):
        taking.writer.keep(said(number, clock))
    assert taking.results == {"dropped": 2}
    assert await taking.writer.flush() == 3
    taking.writer.keep(said(9, clock))  # there is room again
    assert await taking.writer.flush() == 1


@asynccontextmanager
async def away(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int]]:
    """While the block lasts, nothing can be written. Counts who tried."""
    tried: list[int] = []

    async def insert(rows: Any) -> None:
        tried.append(len(rows))
        raise Unavailable("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr(calls, "insert", insert)
        yield tried


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_they_wait_while_the_database_is_away(
    calls: Calls, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "AGAIN_S", 0.01)
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    taking = Taking(calls)
    running = asyncio.create_task(taking.writer.run())
    async with away(calls, monkeypatch) as tried:
        for number in range(3):
            taking.writer.keep(said(number, clock))
        await until(lambda: len(tried) > 2)
        assert taking.results == {}
    await until(lambda: taking.results == {"kept": 3})
    # What waits when the server stops is written.
    taking.writer.keep(said(8, clock))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert taking.results == {"kept": 4}
    assert len((await calls.list(ADMIN, Sought(), limit=50, after=None)).items) == 4


async def test_writing_twice_keeps_one(calls: Calls, clock: ManualClock) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    await kept(calls, said(1, clock))
    await kept(calls, said(1, clock))
    assert len((await calls.list(ADMIN, Sought(), limit=5, after=None)).items) == 1


async def test_they_are_sealed_anew_under_a_new_key(
    database: Database, calls: Calls, clock: ManualClock
) -> None:
    await calls.set_policy(ADMIN, OWNER.project_id, ON)
    await kept(calls, *(said(number, clock) for number in range(3)))
    assert await Calls(database, clock, Sealer((NEW, OLD))).reseal() == 3
    only_new = Calls(database, clock, Sealer((NEW,)))
    assert await only_new.reseal() == 0
    assert (await only_new.get(ADMIN, "call_0001")).request == {"ask": "1 [email]"}
    with pytest.raises(NotFound):
        await calls.get(ADMIN, "call_0001")
