"""Requests for a higher spend limit."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from stationmaster.budgets import Definitions, SpendRequests, Terms
from stationmaster.budgets.requests import KEPT_MS, stream_of
from stationmaster.budgets.tables import budgets as table
from stationmaster.events import EventLog
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound
from stationmaster.kernel.principal import Owner, Principal
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.support.databases import Databases

OWNER = Owner("org_1", "proj_1")
ADMIN = Principal("key", "key_a", OWNER, "key_a", frozenset({"*"}))
ADA = Principal("user", "user_ada", OWNER, "user_ada", frozenset({"read:*"}), user_id="user_ada")
BOB = replace(ADA, id="user_bob", key_id="user_bob", user_id="user_bob")
DOLLAR = 1_000_000
UNKNOWN = "slir_01jd3k00000000000000000000"


@pytest.fixture
def requests(
    database: Database, clock: ManualClock, definitions: Definitions, events: EventLog
) -> SpendRequests:
    return SpendRequests(database, clock, definitions, events=events)


def server(
    databases: Databases, url: str, clock: ManualClock, definitions: Definitions
) -> SpendRequests:
    database = databases.open(url)
    events = EventLog(database, MemoryBus(), clock)
    return SpendRequests(database, clock, definitions, events=events)


async def test_asking_twice_is_asking_once(requests: SpendRequests) -> None:
    asked = await requests.ask(ADA, "month")
    assert await requests.ask(ADA, "month") == asked
    daily = await requests.ask(ADA, "day")
    other = await requests.ask(BOB, "month")
    listed = await requests.list(ADMIN, limit=10)
    assert listed.items == [other, daily, asked]
    assert (asked.status, asked.user_id, asked.period) == ("pending", "user_ada", "month")


async def test_at_the_same_time_too(
    databases: Databases, clock: ManualClock, definitions: Definitions
) -> None:
    url = databases.url()
    servers = [server(databases, url, clock, definitions) for _ in range(2)]
    asked = await asyncio.gather(*(server.ask(ADA, "week") for server in servers * 8))
    assert len(set(asked)) == 1


async def test_an_approval_sets_the_limit_of_the_period(
    requests: SpendRequests, definitions: Definitions, clock: ManualClock
) -> None:
    asked = await requests.ask(ADA, "month")
    found, budget = await requests.approve(ADMIN, asked.id, 20 * DOLLAR)
    assert (found.status, found.resolved_by) == ("approved", "key_a")
    assert found.resolved_at == clock.now()
    assert budget.terms.subject_id == "user_ada"
    assert (budget.terms.limit, budget.terms.period) == (20 * DOLLAR, "month")
    assert (budget.terms.mode, budget.terms.unit) == ("hard", "usd")
    again = await requests.ask(ADA, "month")  # the one before is resolved
    assert again.id != asked.id
    _, raised = await requests.approve(ADMIN, again.id, 30 * DOLLAR)
    assert (raised.id, raised.terms.limit) == (budget.id, 30 * DOLLAR)
    third = await requests.ask(ADA, "month")
    _, daily = await requests.approve(ADMIN, third.id, DOLLAR, period="day")
    assert (daily.terms.period, daily.terms.limit) == ("day", DOLLAR)
    assert len((await definitions.list(ADMIN, subject_kind="user")).items) == 2


async def test_every_limit_of_the_kind_is_raised_and_no_other(
    requests: SpendRequests, definitions: Definitions, database: Database
) -> None:
    for terms in (
        Terms("user", "user_ada", "usd", 1, "month"),
        Terms("user", "user_ada", "usd", 2, "month"),
        Terms("user", "user_ada", "usd", 3, "month", "soft"),
        Terms("user", "user_ada", "usd", 4, "total"),
        Terms("user", "user_ada", "tokens", 5, "month"),
        Terms("user", "user_bob", "usd", 6, "month"),
    ):
        await definitions.create(ADMIN, terms)
    await requests.approve(ADMIN, (await requests.ask(ADA, "month")).id, 99)
    query = select(table.c.limit).order_by(table.c.limit)
    left = [3, 4, 5, 6, 99, 99]  # of the first two of them, the second too
    assert await database.read(lambda tx: list(tx.execute(query).scalars())) == left


async def test_it_is_decided_once(requests: SpendRequests) -> None:
    asked = await requests.ask(ADA, "month")
    denied = await requests.deny(ADMIN, asked.id)
    assert denied.status == "denied"
    assert await requests.deny(ADMIN, asked.id) == denied
    with pytest.raises(Invalid) as late:
        await requests.approve(ADMIN, asked.id, DOLLAR)
    assert late.value.error_code == "request_resolved"
    asked = await requests.ask(ADA, "month")
    await requests.approve(ADMIN, asked.id, DOLLAR)
    for deciding in (requests.deny(ADMIN, asked.id), requests.approve(ADMIN, asked.id, 2)):
        with pytest.raises(Invalid):
            await deciding


async def test_of_two_who_decide_at_once_one_does(
    databases: Databases, clock: ManualClock, definitions: Definitions
) -> None:
    url = databases.url()
    servers = [server(databases, url, clock, definitions) for _ in range(2)]
    asked = await servers[0].ask(ADA, "month")
    told = await asyncio.gather(
        *(server.approve(ADMIN, asked.id, DOLLAR) for server in servers), return_exceptions=True
    )
    assert sorted(isinstance(each, Invalid) for each in told) == [False, True]


async def test_what_cannot_be_set_leaves_the_request(
    requests: SpendRequests, definitions: Definitions
) -> None:
    asked = await requests.ask(ADA, "month")
    for amount in (-1, 10**15 + 1):
        with pytest.raises(Invalid):
            await requests.approve(ADMIN, asked.id, amount)
    for limit in range(10):
        await definitions.create(ADMIN, Terms("user", "user_ada", "usd", limit, "day"))
    with pytest.raises(Conflict):
        await requests.approve(ADMIN, asked.id, DOLLAR)
    assert await requests.get(ADMIN, asked.id) == asked


async def test_only_users_ask_and_only_managers_decide(requests: SpendRequests) -> None:
    run = replace(ADA, kind="run", run_id="run_1")
    for nobody in (ADMIN, run):
        with pytest.raises(Invalid) as refused:
            await requests.ask(nobody, "month")
        assert refused.value.error_code == "not_a_user"
    asked = await requests.ask(ADA, "month")
    for scopes in ({"read:*", "write:*"}, {"admin:organization"}, {"admin:budgets", "read:*"}):
        caller = replace(ADMIN, scopes=frozenset(scopes))
        for verb in (
            requests.approve(caller, asked.id, DOLLAR),
            requests.deny(caller, asked.id),
        ):
            with pytest.raises(Denied):
                await verb
    with pytest.raises(Denied):
        await requests.list(replace(ADMIN, scopes=frozenset({"read:*"})), limit=10)


async def test_another_organisations_is_not_there(requests: SpendRequests) -> None:
    asked = await requests.ask(ADA, "month")
    stranger = replace(ADMIN, owner=Owner("org_2", "proj_2"))
    assert (await requests.list(stranger, limit=10)).items == []
    for wrong in (asked.id, UNKNOWN, "x", "bud_01jd3k00000000000000000000"):
        for verb in (
            requests.get(stranger, wrong),
            requests.deny(stranger, wrong),
            requests.approve(stranger, wrong, DOLLAR),
        ):
            with pytest.raises(NotFound):
                await verb
    assert await requests.get(ADMIN, asked.id) == asked


async def test_the_list_is_sought_and_walked(requests: SpendRequests) -> None:
    ids = []
    for who, period in ((ADA, "day"), (BOB, "day"), (ADA, "week"), (ADA, "month")):
        ids.append((await requests.ask(who, period)).id)  # type: ignore[arg-type]
    await requests.deny(ADMIN, ids[0])
    first = await requests.list(ADMIN, limit=3)
    assert [each.id for each in first.items] == ids[:0:-1]
    rest = await requests.list(ADMIN, limit=3, after=first.next_cursor)
    assert ([each.id for each in rest.items], rest.next_cursor) == ([ids[0]], None)
    of_ada = await requests.list(ADMIN, limit=10, user_ids=["user_ada"], statuses=["pending"])
    assert [each.id for each in of_ada.items] == [ids[3], ids[2]]
    with pytest.raises(Invalid):
        await requests.list(ADMIN, limit=10, statuses=["open"])


async def test_what_was_decided_long_ago_goes(requests: SpendRequests, clock: ManualClock) -> None:
    waiting = await requests.ask(ADA, "month")
    decided = await requests.deny(ADMIN, (await requests.ask(BOB, "month")).id)
    clock.advance(KEPT_MS / 1000)
    assert await requests.sweep() == 0
    clock.advance(0.001)
    assert await requests.sweep() == 1
    assert (await requests.list(ADMIN, limit=10)).items == [waiting]
    with pytest.raises(NotFound):
        await requests.get(ADMIN, decided.id)


async def test_each_step_is_in_the_book_once(requests: SpendRequests, events: EventLog) -> None:
    asked = await requests.ask(ADA, "month")
    await requests.ask(ADA, "month")  # is the one before
    with pytest.raises(Invalid):
        await requests.approve(ADMIN, asked.id, -1)
    _, budget = await requests.approve(ADMIN, asked.id, DOLLAR, period="week")
    other = await requests.ask(BOB, "day")
    await requests.deny(ADMIN, other.id)
    await requests.deny(ADMIN, other.id)
    told = await events.read(stream_of(OWNER.organization_id), after=0, limit=10)
    assert [(each.type, each.data["request_id"], each.data["status"]) for each in told] == [
        ("spend_request.created", asked.id, "pending"),
        ("spend_request.approved", asked.id, "approved"),
        ("spend_request.created", other.id, "pending"),
        ("spend_request.denied", other.id, "denied"),
    ]
    assert told[0].data["user_id"] == "user_ada"
    assert told[0].data["resolved_by"] is None
    assert told[1].data["resolved_by"] == "key_a"
    granted = {"id": budget.id, "limit": DOLLAR, "period": "week"}
    assert told[1].data["budget"] == granted
    assert await events.owner_of(told[0].stream_id, "spend_requests") == OWNER


async def test_what_the_book_does_not_take_has_not_happened(
    requests: SpendRequests, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await requests.ask(ADA, "month")

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("no room in the book")

    monkeypatch.setattr(events, "append", full)
    for step in (
        requests.ask(BOB, "month"),
        requests.approve(ADMIN, asked.id, DOLLAR),
        requests.deny(ADMIN, asked.id),
    ):
        with pytest.raises(RuntimeError):
            await step
    assert (await requests.list(ADMIN, limit=10)).items == [asked]
