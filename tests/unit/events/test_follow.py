"""Following: every event once and in order, whatever happens to wake-ups and readers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from stationmaster.events import Event, EventLog, Live, NewEvent, Overflow
from stationmaster.events import log as module
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.unit.events.support import append, make_stream

IDLE = 0.01  # seconds; the tests below do not depend on how long it is


class DeafBus(MemoryBus):
    """Loses every message."""

    def publish(self, topic: str, message: object) -> None:
        pass


async def _read_on(
    log: EventLog, stream: str, count: int, *, after: int = 0, idle: float = 30
) -> list[Event]:
    """Follow until `count` events have come."""
    found: list[Event] = []
    if count == 0:
        return found
    async with aclosing(log.follow(stream, after=after, idle=idle)) as items:
        async for item in items:
            if isinstance(item, Event):
                found.append(item)
                if len(found) == count:
                    break
    return found


async def test_followers_see_everything_once_while_many_write(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)
    await append(log, database, stream, *(f"before {number}" for number in range(20)))
    total = 20 + 40 * 5

    async def write(writer: int) -> None:
        for turn in range(5):
            await append(log, database, stream, f"{writer}.{turn}")

    async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
        early = [tasks.create_task(_read_on(log, stream, total)) for _ in range(5)]
        for writer in range(40):
            tasks.create_task(write(writer))
        late = [tasks.create_task(_read_on(log, stream, total)) for _ in range(5)]
    book = await log.read(stream, limit=1000)
    assert [event.seq for event in book] == list(range(1, total + 1))
    for reader in early + late:
        assert reader.result() == book


async def test_a_reader_resumes_at_every_index(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    for number in range(30):
        await append(log, database, stream, f"e{number}")
    book = await log.read(stream)
    for cut in range(31):
        before = await _read_on(log, stream, cut)
        assert before + await _read_on(log, stream, 30 - cut, after=cut) == book


async def test_a_cut_while_events_come_in_leaves_no_gap_and_no_repeat(
    log: EventLog, database: Database
) -> None:
    stream = await make_stream(log, database)

    async def write() -> None:
        for number in range(60):
            await append(log, database, stream, f"e{number}")

    async def read() -> list[Event]:
        found: list[Event] = []
        while len(found) < 60:
            found += await _read_on(log, stream, 1 + len(found) % 3, after=len(found))
        return found

    async with asyncio.timeout(60):
        _, found = await asyncio.gather(write(), read())
    assert found[:60] == await log.read(stream)


async def test_lost_wake_ups_cost_polling_only(database: Database, clock: ManualClock) -> None:
    log = EventLog(database, DeafBus(), clock)
    stream = await make_stream(log, database)
    reader = asyncio.create_task(_read_on(log, stream, 10, idle=IDLE))
    for number in range(10):
        await append(log, database, stream, f"e{number}")
    async with asyncio.timeout(30):
        assert await reader == await log.read(stream)


async def test_idle_followers_are_told_so(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    async with aclosing(log.follow(stream, idle=IDLE)) as items:
        assert [await anext(items), await anext(items)] == [None, None]


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 2, 1), (0, 0, 1, 2, 1)])
async def test_announcements_out_of_order_or_twice_are_mended(
    database: Database, clock: ManualClock, order: tuple[int, ...]
) -> None:
    bus = MemoryBus()
    quiet = EventLog(database, DeafBus(), clock)  # commits without announcing
    log = EventLog(database, bus, clock)
    stream = await make_stream(log, database)
    async with aclosing(log.follow(stream, idle=30)) as items:
        first = asyncio.create_task(_next(items))
        while not bus.listeners(stream):
            await asyncio.sleep(0)
        await append(log, database, stream, "caught up")
        async with asyncio.timeout(30):
            assert (await first).seq == 1
        batches = [await append(quiet, database, stream, f"a{n}", f"b{n}") for n in range(3)]
        for index in order:
            bus.publish(stream, batches[index])
        async with asyncio.timeout(30):
            found = [await _next(items) for _ in range(6)]
        assert found == [event for batch in batches for event in batch]
        await append(log, database, stream, "last")
        async with asyncio.timeout(30):
            assert (await _next(items)).type == "last"


async def _next(items: AsyncIterator[Event | Live | Overflow | None]) -> Event:
    async for item in items:
        if isinstance(item, Event):
            return item
    raise AssertionError("the iterator ended")


async def test_a_slow_reader_is_dropped_and_resumes(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READER_CAPACITY", 5)
    dropped: list[int] = []
    bus = MemoryBus()
    log = EventLog(database, bus, clock, on_drop=lambda: dropped.append(1))
    stream = await make_stream(log, database)
    seen: list[Event] = []
    overflow = None
    await append(log, database, stream, "first")
    async with aclosing(log.follow(stream, idle=IDLE)) as items:
        async for item in items:
            if isinstance(item, Event):
                seen.append(item)
            elif item is None and len(seen) == 1:  # it has caught up; now it dawdles
                for number in range(20):
                    await append(log, database, stream, f"e{number}")
            elif isinstance(item, Overflow):
                overflow = item
    assert overflow == Overflow(1)
    assert dropped == [1]
    assert bus.listeners(stream) == 0
    rest = await _read_on(log, stream, 20, after=overflow.after)
    assert seen + rest == await log.read(stream)


async def test_a_reader_far_behind_is_not_dropped_while_it_catches_up(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READER_CAPACITY", 2)
    monkeypatch.setattr(module, "PAGE", 7)
    monkeypatch.setattr(EventLog.read, "__kwdefaults__", {"after": 0, "limit": 7})
    log = EventLog(database, MemoryBus(), clock)
    stream = await make_stream(log, database)
    await append(log, database, stream, *(f"e{number}" for number in range(50)))
    seen: list[Event] = []
    async with aclosing(log.follow(stream, idle=30)) as items:
        async for item in items:
            assert isinstance(item, Event), "dropped while reading the log"
            seen.append(item)
            if len(seen) in {3, 10, 30}:  # more news than its queue holds
                for number in range(6):
                    await append(log, database, stream, f"late {number}")
            if len(seen) == 50 + 18:
                break
    assert seen == await log.read(stream, limit=1000)


async def test_live_news_passes_between_and_is_not_kept(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    await append(log, database, stream, "first")
    async with aclosing(log.follow(stream, idle=30)) as items:
        assert (await _next(items)).type == "first"
        log.pass_on(stream, Live("agent.delta", {"text": "he"}))
        await append(log, database, stream, "second")
        log.pass_on(stream, Live("agent.delta", {"text": "y"}))
        async with asyncio.timeout(30):
            got = [await anext(items) for _ in range(3)]
    assert [item.type for item in got if item is not None and not isinstance(item, Overflow)] == [
        "agent.delta",
        "second",
        "agent.delta",
    ]
    assert [event.type for event in await log.read(stream)] == ["first", "second"]


@pytest.mark.parametrize("after", [-1, 4, 2**62])
async def test_a_cursor_outside_of_the_stream_is_invalid(
    log: EventLog, database: Database, bus: MemoryBus, after: int
) -> None:
    stream = await make_stream(log, database)
    await append(log, database, stream, "a", "b", "c")
    with pytest.raises(Invalid) as caught:
        await _read_on(log, stream, 1, after=after)
    assert caught.value.error_code == "cursor_out_of_range"
    assert bus.listeners(stream) == 0


async def test_a_stream_that_is_not_there_cannot_be_followed(log: EventLog, bus: MemoryBus) -> None:
    with pytest.raises(NotFound):
        await _read_on(log, "sesn_none", 1)
    assert bus.listeners("sesn_none") == 0


async def test_who_stops_reading_stops_listening_at_once(
    log: EventLog, database: Database, bus: MemoryBus
) -> None:
    stream = await make_stream(log, database)
    await append(log, database, stream, "a", "b")
    items = log.follow(stream)
    assert (await _next(items)).seq == 1
    assert bus.listeners(stream) == 1
    await items.aclose()
    assert bus.listeners(stream) == 0


async def test_a_page_is_bounded(log: EventLog, database: Database) -> None:
    stream = await make_stream(log, database)
    new = [NewEvent("many") for _ in range(module.PAGE + 10)]
    await database.write(lambda tx: log.append(tx, stream, new))
    assert len(await log.read(stream)) == module.PAGE
    assert [e.seq for e in await log.read(stream, after=5, limit=2)] == [6, 7]
    assert len(await _read_on(log, stream, module.PAGE + 10)) == module.PAGE + 10


async def test_a_reader_that_may_have_missed_something_reads_the_log(
    log: EventLog, database: Database, clock: ManualClock
) -> None:
    bus = DeafBus()
    deaf = EventLog(database, bus, clock)
    stream = await make_stream(log, database)
    async with aclosing(deaf.follow(stream, idle=3600)) as items:
        for number in range(3):
            written = await append(log, database, stream, f"e{number}")
            bus.miss(stream)
            assert [await anext(items)] == written


async def test_looking_in_vain_is_silence_and_what_waits_comes_before_what_is_read(
    log: EventLog, database: Database, clock: ManualClock, bus: MemoryBus
) -> None:
    stream = await make_stream(log, database)
    async with aclosing(log.follow(stream, idle=0.05)) as items:
        assert await anext(items) is None

        async def nudge() -> None:
            while True:
                bus.miss(stream)
                await asyncio.sleep(0)

        nudging = asyncio.create_task(nudge())
        assert await anext(items) is None, "a transport must hear that it is alive"
        nudging.cancel()
        piece = Live("agent.delta", {"text": "x"})
        log.pass_on(stream, piece)
        quiet = EventLog(database, DeafBus(), clock)
        await append(quiet, database, stream, "agent.message")
        bus.miss(stream)
        found = [item async for item in _items(items, 2)]
        assert found[0] == piece
        assert isinstance(found[1], Event)


async def _items(items: AsyncIterator[object], count: int) -> AsyncIterator[object]:
    async for item in items:
        if item is not None:
            yield item
            count -= 1
        if not count:
            return
