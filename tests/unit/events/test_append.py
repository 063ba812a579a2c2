"""Appending: numbers without gaps, fences, and data as wild as it comes."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.events import EventLog, Fenced, NewEvent
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.text import scrub
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database, Transaction
from tests.unit.events.support import OWNER, append, make_stream

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


async def test_events_are_numbered_from_one_without_gaps(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    first = await append(log, database, stream, "a", "b")
    second = await append(log, database, stream, "c")
    assert [event.seq for event in first + second] == [1, 2, 3]
    assert await log.read(stream) == first + second
    assert await log.head(stream) == 3


async def test_nothing_to_append_is_nothing(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    assert await append(log, database, stream) == []
    assert await log.head(stream) == 0


async def test_forty_writers_on_four_streams_leave_no_gap(
    log: EventLog, database: Database
) -> None:
    streams = [await make_stream(log, database) for _ in range(4)]

    async def write(writer: int) -> None:
        for turn in range(5):
            names = [f"{writer}.{turn}.{number}" for number in range(1 + turn % 3)]
            await append(log, database, streams[(writer + turn) % 4], *names)

    await asyncio.gather(*(write(writer) for writer in range(40)))
    names: list[str] = []
    for stream in streams:
        events = await log.read(stream)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) == await log.head(stream)
        names += [event.type for event in events]
    assert len(names) == len(set(names)) == 40 * (1 + 2 + 3 + 1 + 2)


async def test_a_verb_that_fails_leaves_no_event_and_no_gap(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)

    def verb(tx: Transaction) -> None:
        log.append(tx, stream, [NewEvent("lost")])
        raise NotFound

    with pytest.raises(NotFound):
        await database.write(verb)
    assert [event.seq for event in await append(log, database, stream, "kept")] == [1]


async def test_an_older_epoch_writes_nothing(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    old = await database.write(lambda tx: log.fence(tx, stream))
    await append(log, database, stream, "by the old", epoch=old)
    new = await database.write(lambda tx: log.fence(tx, stream))
    assert new == old + 1
    for epoch in (old, old - 1, new + 1):
        with pytest.raises(Fenced):
            await append(log, database, stream, "too late", epoch=epoch)
    await append(log, database, stream, "by the new", epoch=new)
    await append(log, database, stream, "by anyone")
    types = [event.type for event in await log.read(stream)]
    assert types == ["by the old", "by the new", "by anyone"]


async def test_a_fence_in_the_same_moment_lets_one_side_win(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)
    epoch = await database.write(lambda tx: log.fence(tx, stream))

    async def write(name: str) -> str | None:
        try:
            await append(log, database, stream, name, epoch=epoch)
        except Fenced:
            return None
        return name

    fence = database.write(lambda tx: log.fence(tx, stream))
    *answers, _ = await asyncio.gather(*(write(f"e{n}") for n in range(20)), fence)
    assert {e.type for e in await log.read(stream)} == {a for a in answers if a is not None}
    assert await write("after the fence") is None


async def test_a_stream_that_is_not_there(log: EventLog, database: Database) -> None:
    with pytest.raises(NotFound):
        await append(log, database, "sesn_none", "a", epoch=1)
    with pytest.raises(NotFound):
        await append(log, database, "sesn_none", "a")
    with pytest.raises(NotFound):
        await database.write(lambda tx: log.fence(tx, "sesn_none"))
    with pytest.raises(NotFound):
        await log.head("sesn_none")
    assert await log.read("sesn_none") == []


async def test_a_stream_is_made_once(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await database.write(lambda tx: log.create(tx, stream, "session", OWNER))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.dictionaries(st.text(), JSON, max_size=4))
async def test_any_json_comes_back_as_it_went_in(
    log: EventLog, database: Database, data: dict[str, Any]
) -> None:
    stream = await make_stream(log, database)
    await database.write(lambda tx: log.append(tx, stream, [NewEvent("wild", data)]))
    (event,) = await log.read(stream)
    assert event.data == data


async def test_nul_and_scrubbed_surrogates_and_huge_payloads(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)
    data = {
        "nul": "a\0b",
        "surrogate": scrub("a\ud800b"),
        "astral": "\U0001f682",
        "huge": "x" * 5_000_000,
        "deep": [[[[[[[[[[1]]]]]]]]]],
    }
    await database.write(lambda tx: log.append(tx, stream, [NewEvent("wild", data)]))
    (event,) = await log.read(stream)
    assert event.data == data
    assert event.data["surrogate"] == "a?b"


async def test_a_lone_surrogate_that_was_not_scrubbed_leaves_nothing(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)
    with pytest.raises(Exception, match="surrogates"):
        await database.write(
            lambda tx: log.append(tx, stream, [NewEvent("wild", {"text": "\ud800"})])
        )
    assert await log.head(stream) == 0


async def test_the_time_of_an_event_is_the_clocks(
    log: EventLog, database: Database, clock: ManualClock
) -> None:
    stream = await make_stream(log, database)
    (first,) = await append(log, database, stream, "a")
    clock.advance(-3600)  # wall clocks step back
    (second,) = await append(log, database, stream, "b")
    assert (second.seq, second.at) == (2, first.at - 3_600_000)


async def test_appends_are_counted_once_durable(database: Database) -> None:
    counts: list[int] = []
    log = EventLog(database, MemoryBus(), ManualClock(), on_append=counts.append)
    stream = await make_stream(log, database)
    await append(log, database, stream, "a", "b", "c")

    def failing(tx: Transaction) -> None:
        log.append(tx, stream, [NewEvent("d")])
        raise NotFound

    with pytest.raises(NotFound):
        await database.write(failing)
    assert counts == [3]
