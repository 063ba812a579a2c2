"""Appending to histories: order, repetition, bounds, owners."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Invalid, TooLarge
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.storage import Database, Transaction
from stationmaster.transcripts import History, HistoryKey, Transcripts
from tests.unit.transcripts.conftest import ALICE, MAX_SIZE, SESSION

KEY = HistoryKey(SESSION, "history")


def entry(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "user", "uuid": f"uuid-{number}", "number": number, **more}


async def only(transcripts: Transcripts) -> History:
    (history,) = await transcripts.histories(ALICE, SESSION)
    return history


async def test_what_is_appended_comes_back_in_order(transcripts: Transcripts) -> None:
    entries = [entry(number) for number in range(1200)]
    for start in range(0, 1200, 400):
        await transcripts.append(ALICE, KEY, entries[start : start + 400])
    assert await transcripts.load(ALICE, KEY) == entries


@pytest.mark.parametrize(
    "odd",
    [
        "nul \0 in it",
        "half \ud800 a pair",
        "\u2028 separators \x85",
        12345678901234567890123456789,
        1e300,
        {"": [None, True, {"deep": [[]]}]},
    ],
    ids=repr,
)
async def test_anything_that_is_json_comes_back_the_same(
    transcripts: Transcripts, odd: Any
) -> None:
    await transcripts.append(ALICE, KEY, [entry(1, odd=odd, customTitle=odd)])
    assert await transcripts.load(ALICE, KEY) == [entry(1, odd=odd, customTitle=odd)]


async def test_a_batch_that_comes_again_counts_once(transcripts: Transcripts) -> None:
    batch = [entry(1), entry(2), entry(1)]
    await transcripts.append(ALICE, KEY, batch)
    before = await only(transcripts)
    await transcripts.append(ALICE, KEY, batch)
    await transcripts.append(ALICE, KEY, [entry(2), entry(3)])
    assert await transcripts.load(ALICE, KEY) == [entry(1), entry(2), entry(3)]
    assert (await only(transcripts)).entries == before.entries + 1


async def test_entries_without_a_usable_uuid_all_count(transcripts: Transcripts) -> None:
    odd: list[dict[str, Any]] = [
        {"type": "mode"},
        {"type": "mode", "uuid": 7},
        {"type": "mode", "uuid": "x" * 65},
    ]
    await transcripts.append(ALICE, KEY, odd)
    await transcripts.append(ALICE, KEY, odd)
    assert await transcripts.load(ALICE, KEY) == odd + odd


async def test_the_same_uuid_in_another_transcript_is_another_entry(
    transcripts: Transcripts,
) -> None:
    keys = [KEY, HistoryKey(SESSION, "other"), HistoryKey(SESSION, "history", "subagents/agent-1")]
    for key in keys:
        await transcripts.append(ALICE, key, [entry(1)])
    assert [await transcripts.load(ALICE, key) for key in keys] == [[entry(1)]] * 3


async def test_appends_at_once_are_all_there_and_each_stays_whole(
    transcripts: Transcripts,
) -> None:
    batches = [[entry(10 * batch + each) for each in range(10)] for batch in range(8)]
    await asyncio.gather(*(transcripts.append(ALICE, KEY, batch) for batch in batches))
    found = await transcripts.load(ALICE, KEY)
    assert found is not None
    numbers = [each["number"] for each in found]
    assert sorted(numbers) == list(range(80))
    for start in range(0, 80, 10):
        first = numbers[start]
        assert numbers[start : start + 10] == list(range(first, first + 10))


async def test_another_owner_finds_nothing_and_may_use_the_same_names(
    transcripts: Transcripts,
) -> None:
    await transcripts.append(ALICE, KEY, [entry(1)])
    for stranger in (Owner("org_a", "proj_b"), Owner("org_b", "proj_a")):
        assert await transcripts.load(stranger, KEY) is None
        assert await transcripts.histories(stranger, SESSION) == []
        await transcripts.delete(stranger, KEY)
        await transcripts.append(stranger, KEY, [entry(2)])
        assert await transcripts.load(stranger, KEY) == [entry(2)]
    assert await transcripts.load(ALICE, KEY) == [entry(1)]


async def test_a_refusing_guard_leaves_nothing(transcripts: Transcripts) -> None:
    def refuse(_tx: Transaction) -> None:
        raise Invalid("Not yours.")

    with pytest.raises(Invalid):
        await transcripts.append(ALICE, KEY, [entry(1)], guard=refuse)
    assert await transcripts.load(ALICE, KEY) is None


# --- bounds -----------------------------------------------------------------------------------


def large(number: int) -> dict[str, Any]:
    return entry(number, text="x" * (MAX_SIZE // 3))


async def test_a_history_over_the_bound_is_closed_and_stays_a_beginning(
    transcripts: Transcripts,
) -> None:
    await transcripts.append(ALICE, KEY, [large(1)])
    await transcripts.append(ALICE, KEY, [large(2)])
    for attempt in ([large(3)], [large(3)], [entry(4)]):
        with pytest.raises(TooLarge) as caught:
            await transcripts.append(ALICE, KEY, attempt)
        assert caught.value.error_code == "transcript_full"
    assert await transcripts.load(ALICE, KEY) == [large(1), large(2)]
    assert (await only(transcripts)).closed


async def test_the_bound_is_of_the_session_with_its_sub_agents(transcripts: Transcripts) -> None:
    sub = HistoryKey(SESSION, "history", "subagents/agent-1")
    await transcripts.append(ALICE, sub, [large(1), large(2)])
    with pytest.raises(TooLarge):
        await transcripts.append(ALICE, KEY, [large(1)])
    await transcripts.append(ALICE, HistoryKey("sesn_2", "history"), [large(1)])


async def test_an_entry_too_large_for_any_session_closes_the_history(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster.transcripts.history.MAX_ENTRY_BYTES", 1000)
    transcripts = Transcripts(database, clock, max_size=10**9)
    await transcripts.append(ALICE, KEY, [entry(1)])
    with pytest.raises(TooLarge):
        await transcripts.append(ALICE, KEY, [entry(2), entry(3, text="x" * 1000), entry(4)])
    assert await transcripts.load(ALICE, KEY) == [entry(1)]
    assert (await only(transcripts)).closed


async def test_the_size_is_what_is_stored(transcripts: Transcripts) -> None:
    entries = [entry(number, text="ü" * number) for number in range(5)]
    await transcripts.append(ALICE, KEY, entries)
    stored = [json.dumps(each, separators=(",", ":")) for each in entries]
    assert (await only(transcripts)).size == sum(map(len, stored))


@pytest.mark.parametrize("bad", ["text", None, 7, {"type": {1, 2}}, {"a": object()}])
async def test_what_is_not_an_entry_is_refused_whole(transcripts: Transcripts, bad: Any) -> None:
    with pytest.raises(Invalid) as caught:
        await transcripts.append(ALICE, KEY, [entry(1), bad])
    assert caught.value.error_code == "transcript_entry"
    assert await transcripts.load(ALICE, KEY) is None


async def test_an_entry_nested_without_end_is_refused(transcripts: Transcripts) -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"in": nested}
    with pytest.raises(Invalid):
        await transcripts.append(ALICE, KEY, [{"type": "user", **nested}])


@pytest.mark.parametrize(
    "names",
    [
        ("", "h"),
        ("sesn_1", ""),
        ("sesn_1", "../h"),
        ("sesn_1", "h", ""),
        ("sesn_1", "h", "/etc/passwd"),
        ("sesn_1", "h", "subagents/../../x"),
        ("sesn_1", "h", "subagents//x"),
        ("sesn_1", "h", "sub\\x"),
        ("sesn_1", "h", "sub\0x"),
        ("sesn_1", "h" * 256),
        ("s" * 256, "h"),
        ("sesn_1", "h", "a/" * 300 + "a"),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(Invalid) as caught:
        HistoryKey(*names)
    assert caught.value.error_code == "transcript_name"


# --- any order of verbs -----------------------------------------------------------------------

_BATCHES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), max_size=8)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=_BATCHES)
async def test_any_batches_leave_each_entry_once_where_it_came_first(
    transcripts: Transcripts, batches: list[list[int]]
) -> None:
    key = HistoryKey(new_id("sesn"), "history")
    for batch in batches:
        await transcripts.append(ALICE, key, [entry(number) for number in batch])
    expected = list(dict.fromkeys(number for batch in batches for number in batch))
    found = await transcripts.load(ALICE, key)
    assert found == ([entry(number) for number in expected] or None)
