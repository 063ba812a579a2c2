"""Copies of histories, deletion, and what an agent is given."""

from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from stationmaster.events import EventLog, Fenced
from stationmaster.kernel.clock import ManualClock
from stationmaster.kernel.errors import Conflict, Invalid, NotFound, TooLarge
from stationmaster.kernel.principal import Owner
from stationmaster.live.bus import MemoryBus
from stationmaster.storage import Database
from stationmaster.transcripts import Fork, HistoryKey, SessionSink, Transcripts
from tests.support.histories import conversation
from tests.unit.transcripts.conftest import ALICE, MAX_SIZE, SESSION

STRANGER = Owner("org_b", "proj_b")


def texts(entries: Any) -> list[str]:
    return [each["message"]["content"][0]["text"] for each in entries if "message" in each]


@pytest.fixture
async def history(transcripts: Transcripts) -> tuple[HistoryKey, list[dict[str, Any]]]:
    """A conversation of three turns, with a sub-agent's transcript."""
    name, entries = conversation(turns=3)
    key = HistoryKey(SESSION, name)
    await transcripts.append(ALICE, key, entries)
    await transcripts.append(ALICE, HistoryKey(SESSION, name, "subagents/agent-1"), entries[:1])
    return key, entries


async def test_a_copy_ends_at_the_turn_and_has_ids_of_its_own(
    transcripts: Transcripts,
    database: Database,
    history: tuple[HistoryKey, list[dict[str, Any]]],
) -> None:
    key, entries = history
    fork = await transcripts.copy(ALICE, key, up_to=entries[3]["uuid"], title="Another way")
    await database.write(lambda tx: transcripts.put(tx, ALICE, "sesn_2", fork))
    copied = await transcripts.load(ALICE, HistoryKey("sesn_2", fork.history_id))
    assert copied is not None
    assert texts(copied) == texts(entries)[:4]
    assert {each["sessionId"] for each in copied} == {fork.history_id} != {key.history_id}
    uuids = [each["uuid"] for each in copied]
    assert len({*uuids, *(each["uuid"] for each in entries)}) == len(uuids) + len(entries)
    parents = [each.get("parentUuid") for each in copied if "message" in each]
    assert parents == [None, *uuids[:3]]
    assert copied[-1]["customTitle"] == "Another way"
    assert await transcripts.load(ALICE, key) == entries


async def test_a_copy_goes_with_its_callers_transaction(
    transcripts: Transcripts,
    database: Database,
    history: tuple[HistoryKey, list[dict[str, Any]]],
) -> None:
    key, _ = history
    fork = await transcripts.copy(ALICE, key)

    def verb(tx: Any) -> None:
        transcripts.put(tx, ALICE, "sesn_2", fork)
        raise Conflict

    with pytest.raises(Conflict):
        await database.write(verb)
    assert await transcripts.histories(ALICE, "sesn_2") == []


async def test_what_is_not_there_cannot_be_copied(
    transcripts: Transcripts, history: tuple[HistoryKey, list[dict[str, Any]]]
) -> None:
    key, _ = history
    with pytest.raises(NotFound) as caught:
        await transcripts.copy(STRANGER, key)
    assert caught.value.error_code == "transcript_not_found"
    with pytest.raises(NotFound) as caught:
        await transcripts.copy(ALICE, key, up_to=str(uuid4()))
    assert caught.value.error_code == "transcript_position_not_found"


def _ring(entries: list[dict[str, Any]]) -> None:
    entries[0] |= {"type": "progress", "parentUuid": entries[1]["uuid"]}
    entries[1] |= {"type": "progress"}


def _odd_parents(entries: list[dict[str, Any]]) -> None:
    entries[1]["parentUuid"] = {"not": "an id"}


def _nothing_but_progress(entries: list[dict[str, Any]]) -> None:
    for each in entries:
        each["type"] = "progress"


@pytest.mark.parametrize("spoil", [_ring, _odd_parents, _nothing_but_progress])
async def test_a_history_that_an_agent_has_spoilt_is_refused(
    transcripts: Transcripts, spoil: Any
) -> None:
    name, entries = conversation(turns=2)
    spoil(entries)
    key = HistoryKey(SESSION, name)
    await transcripts.append(ALICE, key, entries)
    with pytest.raises(Invalid) as caught:
        await transcripts.copy(ALICE, key)
    assert caught.value.error_code == "transcript_broken"


async def test_a_copy_over_the_bound_is_refused(
    transcripts: Transcripts, database: Database
) -> None:
    entry = {"type": "user", "uuid": str(uuid4()), "text": "x" * MAX_SIZE}
    with pytest.raises(TooLarge):
        await database.write(
            lambda tx: transcripts.put(tx, ALICE, SESSION, Fork(str(uuid4()), (entry,)))
        )
    assert await transcripts.histories(ALICE, SESSION) == []


async def test_deletion_goes_with_the_session_and_touches_no_other(
    transcripts: Transcripts,
    database: Database,
    history: tuple[HistoryKey, list[dict[str, Any]]],
) -> None:
    key, entries = history
    beside = HistoryKey("sesn_2", key.history_id)
    await transcripts.append(ALICE, beside, entries)
    for owner in (STRANGER, ALICE, ALICE):
        await database.write(partial(transcripts.delete_session, owner=owner, session_id=SESSION))
    assert await transcripts.histories(ALICE, SESSION) == []
    assert await transcripts.load(ALICE, key) is None
    assert await transcripts.load(ALICE, beside) == entries
    await transcripts.append(ALICE, key, entries[:1])  # uuids that were there before
    assert await transcripts.load(ALICE, key) == entries[:1]


# --- an agent's sink --------------------------------------------------------------------------


async def test_an_agent_reads_back_what_it_wrote(transcripts: Transcripts) -> None:
    name, entries = conversation(turns=1)
    sink = SessionSink(transcripts, ALICE, SESSION)
    assert await sink.load(name, None) is None
    await sink.append(name, None, entries)
    await sink.append(name, "subagents/agent-1", entries[:1])
    assert await sink.load(name, None) == entries
    assert await sink.load(name, "subagents/agent-1") == entries[:1]
    assert await sink.subpaths(name) == ["subagents/agent-1"]
    assert await sink.subpaths("another") == []


async def test_a_history_whose_end_is_lost_is_not_gone_on_with(transcripts: Transcripts) -> None:
    name, entries = conversation(turns=1)
    sink = SessionSink(transcripts, ALICE, SESSION)
    await sink.append(name, None, entries)
    with pytest.raises(TooLarge):
        await sink.append(name, "subagents/agent-1", [{"type": "user", "text": "x" * MAX_SIZE}])
    with pytest.raises(Conflict) as caught:
        await sink.load(name, None)
    assert caught.value.error_code == "transcript_full"


async def test_a_worker_that_has_lost_the_session_writes_no_more(
    transcripts: Transcripts, database: Database, clock: ManualClock
) -> None:
    events = EventLog(database, MemoryBus(), clock)
    await database.write(lambda tx: events.create(tx, SESSION, "session", ALICE))
    epoch = await database.write(lambda tx: events.fence(tx, SESSION))
    name, entries = conversation(turns=1)
    old = SessionSink(transcripts, ALICE, SESSION, lambda tx: events.check(tx, SESSION, epoch))
    await old.append(name, None, entries[:1])
    newer = await database.write(lambda tx: events.fence(tx, SESSION))
    with pytest.raises(Fenced):
        await old.append(name, None, entries[1:])
    new = SessionSink(transcripts, ALICE, SESSION, lambda tx: events.check(tx, SESSION, newer))
    await new.append(name, None, entries)
    assert await new.load(name, None) == entries
