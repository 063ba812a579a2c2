"""What is kept of a conversation, on SQLite and on PostgreSQL."""

import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.responses import Conversation, Responses
from stationmaster.responses import responses as module
from stationmaster.responses.tables import kept_responses
from stationmaster.storage import Database
from stationmaster.storage.sealing import Sealer
from tests.support.core import ALICE, principal

BOB = principal("bob")
DAY = 86_400.0
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def responses(database: Database, clock: ManualClock, *keys: bytes) -> Responses:
    return Responses(database, clock, Sealer(keys or (OLD,)), lifetime=10 * DAY)


def item(text: str) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"role": "user", "content": text}).encode())


def reply(response_id: str, text: str) -> bytes:
    return json.dumps({"id": response_id, "output": [{"said": text}]}).encode()


async def keep(kept: Responses, name: str, after: Conversation | None = None) -> Conversation:
    said = [item(f"ask {name}")]
    await kept.keep(ALICE, name, items=said, response=reply(name, name), after=after)
    return await kept.get(ALICE, name)


def words(found: Conversation) -> list[Any]:
    return [json.loads(bytes(each)) for each in found.items()]


async def test_a_conversation_is_what_was_said_in_order(
    database: Database, clock: ManualClock
) -> None:
    kept = responses(database, clock)
    first = await keep(kept, "a")
    second = await keep(kept, "b", first)
    other = await keep(kept, "c", first)  # another way on from the same turn
    assert words(second) == [
        {"role": "user", "content": "ask a"},
        {"said": "a"},
        {"role": "user", "content": "ask b"},
        {"said": "b"},
    ]
    assert words(other)[:2] == words(first)
    assert len(other.rows) == 2
    with pytest.raises(NotFound):
        await kept.get(BOB, "b")


async def test_a_turn_lives_as_long_as_those_after_it(
    database: Database, clock: ManualClock
) -> None:
    kept = responses(database, clock)
    first = await keep(kept, "a")
    clock.advance(9 * DAY)
    await keep(kept, "b", first)
    clock.advance(9 * DAY)
    assert await kept.sweep() == 0
    assert len(words(await kept.get(ALICE, "b"))) == 4
    clock.advance(2 * DAY)
    with pytest.raises(NotFound):
        await kept.get(ALICE, "a")
    assert await kept.sweep() == 2
    assert await kept.sweep() == 0


async def test_what_is_deleted_is_the_end_of_what_came_of_it(
    database: Database, clock: ManualClock
) -> None:
    kept = responses(database, clock)
    first = await keep(kept, "a")
    await keep(kept, "b", first)
    with pytest.raises(NotFound):
        await kept.delete(BOB, "a")
    await kept.delete(ALICE, "a")
    for name in ("a", "b"):
        with pytest.raises(NotFound):
            await kept.get(ALICE, name)
    with pytest.raises(NotFound):
        await kept.delete(ALICE, "a")


async def test_an_id_of_an_earlier_turn_overwrites_nothing(
    database: Database, clock: ManualClock
) -> None:
    kept = responses(database, clock)
    first = await keep(kept, "a")
    with pytest.raises(Conflict):
        await kept.keep(ALICE, "a", items=[], response=reply("a", "other"), after=first)
    assert words(await kept.get(ALICE, "a")) == words(first)


async def test_a_conversation_has_an_end(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TURNS", 2)
    kept = responses(database, clock)
    second = await keep(kept, "b", await keep(kept, "a"))
    with pytest.raises(Invalid):
        await keep(kept, "c", second)


async def test_rows_are_sealed_and_sealed_anew(database: Database, clock: ManualClock) -> None:
    kept = responses(database, clock)
    await keep(kept, "a", await keep(kept, "b"))
    rows = await database.read(lambda tx: tx.execute(select(kept_responses)).all())
    assert not any("ask" in row.sealed for row in rows)
    both = responses(database, clock, NEW, OLD)
    assert await both.reseal() == 2
    assert await both.reseal() == 0
    assert len(words(await responses(database, clock, NEW).get(ALICE, "a"))) == 4
    with pytest.raises(NotFound):
        await kept.get(ALICE, "a")
