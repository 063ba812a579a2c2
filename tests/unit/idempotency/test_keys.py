"""What becomes of a key, on SQLite and on PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import select

from stationmaster.idempotency import (
    Attempt,
    IdempotencyKeys,
    KeyInUse,
    KeyReused,
    Place,
    Reply,
    keys,
)
from stationmaster.idempotency.keys import LIFE_MS
from stationmaster.idempotency.tables import idempotency_keys
from stationmaster.jobs import Instances
from stationmaster.jobs.tables import jobs
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Invalid, Unavailable
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction, accompanied
from stationmaster.storage.sealing import Sealer
from tests.support.core import ALICE, principal
from tests.support.faulty import FaultyDatabase

LEASE = 10.0
REPLY = Reply(201, (("content-type", "application/json"),), b'{"key":"sm-secret"}')
PLACE = Place.of(ALICE, "/v1/tasks", "one")


class Server:
    """One of the servers that share a database."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self.database = database
        self.instances = Instances(database, clock, lease=LEASE)
        self.keys = IdempotencyKeys(database, clock, Sealer([b"x" * 32]), self.instances)

    async def begin(self, place: Place = PLACE, fingerprint: str = "same") -> Attempt:
        found = await self.keys.begin(place, fingerprint)
        assert isinstance(found, Attempt)
        return found

    async def work(self, attempt: Attempt) -> None:
        """Commit something, as a verb of the request would."""
        with accompanied(attempt.mark):
            await self.database.write(lambda tx: tx.execute(jobs.insert(), _job(attempt.id)))


def _job(name: str) -> dict[str, object]:
    return {
        "id": name,
        "kind": "x",
        "payload": {},
        "state": "waiting",
        "run_at": 0,
        "attempts": 0,
        "created_at": 0,
    }


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> Server:
    made = Server(database, clock)
    await made.instances.register()
    return made


async def other(server: Server, clock: ManualClock) -> Server:
    made = Server(server.database, clock)
    await made.instances.register()
    return made


async def test_what_was_answered_is_answered_again(server: Server) -> None:
    attempt = await server.begin()
    await server.work(attempt)
    await server.keys.finish(attempt, REPLY)
    assert await server.keys.begin(PLACE, "same") == REPLY


async def test_a_secret_that_is_shown_once_is_not_in_the_clear(server: Server) -> None:
    await server.keys.finish(await server.begin(), REPLY)
    rows = await server.database.read(lambda tx: tx.execute(select(idempotency_keys)).all())
    assert "sm-secret" not in repr(rows)


async def test_another_request_is_refused_by_name(server: Server) -> None:
    attempt = await server.begin()
    with pytest.raises(KeyReused):
        await server.keys.begin(PLACE, "other")
    await server.keys.finish(attempt, REPLY)
    with pytest.raises(KeyReused):
        await server.keys.begin(PLACE, "other")


async def test_of_many_at_once_one_runs(server: Server) -> None:
    found = await asyncio.gather(
        *(server.keys.begin(PLACE, "same") for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, Attempt) for each in found) == 1
    assert sum(isinstance(each, KeyInUse) for each in found) == 7


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(Place.of(principal("bob"), "/v1/tasks", "one"), id="another key"),
        pytest.param(
            Place.of(principal("alice", Owner("org_2", "proj_2")), "/v1/tasks", "one"),
            id="another organisation",
        ),
        pytest.param(Place.of(ALICE, "/v1/sessions", "one"), id="another path"),
        pytest.param(Place.of(ALICE, "/v1/tasks", "One"), id="another word"),
    ],
)
async def test_a_key_is_its_callers_own(server: Server, place: Place) -> None:
    await server.keys.finish(await server.begin(), REPLY)
    await server.begin(place, "other")


async def test_a_refused_request_leaves_its_key_free(server: Server) -> None:
    attempt = await server.begin()
    await server.work(attempt)  # a refusal may be on record
    await server.keys.release(attempt)
    await server.begin(fingerprint="other")


async def test_a_failure_that_did_nothing_leaves_the_key_free(server: Server) -> None:
    await server.keys.fail(await server.begin())
    await server.begin()


async def test_a_failure_after_a_commit_is_not_done_again(server: Server) -> None:
    attempt = await server.begin()
    await server.work(attempt)
    await server.keys.fail(attempt)
    with pytest.raises(Conflict) as refused:
        await server.keys.begin(PLACE, "same")
    assert refused.value.error_code == "idempotency_outcome_unknown"


async def test_what_is_undone_does_not_count_as_done(server: Server) -> None:
    attempt = await server.begin()

    def verb(_tx: Transaction) -> None:
        raise Invalid("no")

    with accompanied(attempt.mark), pytest.raises(Invalid):
        await server.database.write(verb)
    await server.keys.fail(attempt)
    await server.begin()


async def test_a_crash_before_any_commit_frees_the_key(server: Server, clock: ManualClock) -> None:
    dead = await other(server, clock)
    late = await dead.begin()
    with pytest.raises(KeyInUse):
        await server.keys.begin(PLACE, "same")
    clock.advance(LEASE + 1)
    attempt = await server.begin()
    # The one taken for dead lives after all: it must not answer for the other.
    await dead.keys.finish(late, REPLY)
    await dead.keys.fail(late)
    with pytest.raises(KeyInUse):
        await server.keys.begin(PLACE, "same")
    await server.keys.finish(attempt, REPLY)


async def test_a_crash_after_a_commit_is_not_done_again(server: Server, clock: ManualClock) -> None:
    dead = await other(server, clock)
    await dead.work(await dead.begin())
    with pytest.raises(KeyInUse):
        await server.keys.begin(PLACE, "same")
    clock.advance(LEASE + 1)
    with pytest.raises(Conflict) as refused:
        await server.keys.begin(PLACE, "same")
    assert refused.value.error_code == "idempotency_outcome_unknown"


@pytest.fixture
async def faulty(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> tuple[FaultyDatabase, Server]:
    """A server whose database goes away when told to, and which soon tells it again."""
    monkeypatch.setattr(keys, "AGAIN_S", 0.01)
    between = FaultyDatabase(database)
    made = Server(between, clock)
    await made.instances.register()
    return between, made


async def until_free(server: Server) -> Attempt | Reply:
    """What a client gets that comes again for as long as its key is in use."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await server.keys.begin(PLACE, "same")
            except KeyInUse:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["answered", "refused", "failed"])
async def test_an_end_that_the_database_does_not_take_is_told_again(
    faulty: tuple[FaultyDatabase, Server], end: str
) -> None:
    database, server = faulty
    attempt = await server.begin()
    database.away = True
    ending = {
        "answered": server.keys.finish(attempt, REPLY),
        "refused": server.keys.release(attempt),
        "failed": server.keys.fail(attempt),
    }
    with pytest.raises(Unavailable):
        await ending.pop(end)
    for other in ending.values():
        other.close()
    refused = database.refused
    while database.refused == refused:  # it is told again, and is still away
        await asyncio.sleep(0.01)
    database.away = False
    found = await until_free(server)
    assert (found == REPLY) is (end == "answered")


async def test_a_key_whose_taking_is_in_doubt_comes_free(
    faulty: tuple[FaultyDatabase, Server],
) -> None:
    database, server = faulty
    database.lose_answers = 1
    with pytest.raises(Unavailable):
        await server.begin()
    assert isinstance(await until_free(server), Attempt)


async def test_who_was_taken_for_dead_does_nothing_more(
    database: Database, server: Server, clock: ManualClock
) -> None:
    slow = await server.begin()
    clock.advance(LEASE + 1)
    other = Server(database, clock)
    await other.instances.register()
    successor = await other.begin()
    with pytest.raises(Unavailable):
        await server.work(slow)
    await other.work(successor)
    done = await database.read(lambda tx: tx.execute(select(jobs.c.id)).scalars().all())
    assert done == [successor.id]


async def test_what_a_request_leaves_behind_marks_nothing(server: Server) -> None:
    attempt = await server.begin()
    await server.keys.fail(attempt)
    again = await server.begin()
    await server.work(attempt)
    await server.keys.fail(again)
    await server.begin()


async def test_a_reply_without_its_body_is_told_by_name(server: Server) -> None:
    await server.keys.finish(await server.begin(), Reply(200, (), None))
    with pytest.raises(Conflict) as refused:
        await server.keys.begin(PLACE, "same")
    assert refused.value.error_code == "idempotency_reply_not_kept"


async def test_a_key_has_its_day(server: Server, clock: ManualClock) -> None:
    await server.keys.finish(await server.begin(), REPLY)
    clock.advance(LIFE_MS / 1000 - 1)
    assert await server.keys.sweep() == 0
    assert await server.keys.begin(PLACE, "same") == REPLY
    clock.advance(1)
    await server.begin(fingerprint="other")  # also before the sweep
    clock.advance(LIFE_MS / 1000)
    assert await server.keys.sweep() == 1
    assert await server.keys.sweep() == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\nb", "\x7f"], ids=ascii)
def test_a_key_must_be_one(key: str) -> None:
    with pytest.raises(Invalid):
        Place.of(ALICE, "/v1/tasks", key)


def test_the_longest_key_is_one() -> None:
    assert Place.of(ALICE, "/v1/tasks", "x" * 255).key
