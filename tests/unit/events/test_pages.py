"""Pages: bounded by number and by bytes, forwards and backwards, with nothing left out."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.events import Event, EventLog, NewEvent, pages
from stationmaster.events import log as module
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from tests.unit.events.support import make_stream

MOST = 1000  # bytes of a page here


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", MOST)


async def fill(log: EventLog, database: Database, texts: list[str]) -> str:
    stream = await make_stream(log, database)
    await say(log, database, stream, texts)
    return stream


async def say(log: EventLog, database: Database, stream: str, texts: list[str]) -> None:
    new = [NewEvent("said", {"text": text}) for text in texts]
    await database.write(lambda tx: log.append(tx, stream, new))


def check(page: list[Event], limit: int, following: Event | None) -> None:
    """Within its bounds, and not smaller than it must be."""
    sizes = [each.size for each in page]
    assert sizes == [len(msgspec.json.encode(each.data)) for each in page]
    assert len(page) <= limit
    assert sum(sizes) <= MOST or len(page) == 1
    if following is not None and len(page) < limit:
        assert sum(sizes) + len(msgspec.json.encode(following.data)) > MOST


@given(
    texts=st.lists(
        st.sampled_from(["", "a" * 100, "ä" * 200, "🚂" * 240, "b" * 985, "c" * 5000]), max_size=12
    ),
    limit=st.integers(1, 14),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_pages_leave_nothing_out(
    log: EventLog, database: Database, texts: list[str], limit: int
) -> None:
    stream = await fill(log, database, texts)
    forwards: list[Event] = []
    while page := await log.read(stream, after=len(forwards), limit=limit):
        forwards += page
        rest = await log.read(stream, after=len(forwards), limit=1)
        check(page, limit, rest[0] if rest else None)
    assert [each.data["text"] for each in forwards] == texts
    assert [each.seq for each in forwards] == list(range(1, len(texts) + 1))
    backwards: list[Event] = []
    before = len(texts) + 1
    while page := await log.read_before(stream, before=before, limit=limit):
        backwards = page + backwards
        before = page[0].seq
        check(page, limit, forwards[before - 2] if before > 1 else None)
    assert backwards == forwards


async def test_one_stream_is_not_measured_by_another(log: EventLog, database: Database) -> None:
    await fill(log, database, ["x" * 900] * 3)
    stream = await fill(log, database, ["y" * 300] * 3)
    await fill(log, database, ["z" * 900] * 3)
    assert [each.seq for each in await log.read(stream)] == [1, 2, 3]
    assert [each.seq for each in await log.read_before(stream, before=4)] == [1, 2, 3]


async def test_a_large_batch_does_not_wait_in_memory_and_comes_all_the_same(
    log: EventLog, database: Database, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIVE_BYTES", 100)
    stream = await fill(log, database, ["first"])
    watch = bus.subscribe(stream)
    items = log.follow(stream, after=1)
    texts = [["small"], ["a" * 400, "b" * 400, "c" * 400], ["after"]]

    async def write() -> None:
        for each in texts:
            await say(log, database, stream, each)

    try:
        reading = anext(items)
        found = []
        await write()
        found.append(await reading)
        while len(found) < 5:
            found.append(await anext(items))
    finally:
        await items.aclose()
    said = [each.data["text"] for each in found if isinstance(each, Event)]
    assert said == [text for each in texts for text in each]
    assert [len(batch) for batch in watch.take()] == [1, 0, 1]
