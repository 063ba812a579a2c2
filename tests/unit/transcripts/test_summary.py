"""The SDK's summary of a conversation, over entries that somebody hostile has written."""

from typing import Any

import pytest

from stationmaster.transcripts import HistoryKey, Transcripts
from stationmaster.transcripts.summary import LONGEST_PROMPT, MAX_BYTES, fold
from tests.support.histories import conversation
from tests.unit.transcripts.conftest import ALICE, SESSION

KEY = HistoryKey(SESSION, "history")
# Much of this takes the SDK's patterns as long as it is, squared.
SLOW = "<command-name>" * LONGEST_PROMPT


def prompt(content: Any) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": content}}


def test_it_is_what_the_sdk_makes_of_the_entries() -> None:
    history, entries = conversation(turns=2)
    data = fold(None, HistoryKey(SESSION, history), entries)
    assert (data["first_prompt"], data["cwd"]) == ("Question 0?", "/workspace")


@pytest.mark.parametrize(
    "content",
    [SLOW + "</command-name>", [{"type": "text", "text": SLOW + "</command-name>"}]],
    ids=["text", "blocks"],
)
def test_only_the_beginning_of_a_prompt_is_searched(content: Any) -> None:
    data = fold(None, KEY, [prompt(content)])
    assert "command_fallback" not in data
    assert len(data["first_prompt"]) <= LONGEST_PROMPT


def test_only_so_many_blocks_are_searched() -> None:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": ""}] * 1000
    assert "first_prompt" not in fold(None, KEY, [prompt([*blocks, *prompt("late")["message"]])])


def test_what_would_make_it_large_is_left_out() -> None:
    before = fold(None, KEY, [{"type": "x", "customTitle": "short"}])
    after = fold(before, KEY, [{"type": "x", "customTitle": "t" * MAX_BYTES}])
    assert after == before
    assert fold(None, KEY, [{"type": "x", "customTitle": "t" * MAX_BYTES}]) is None


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "user", "timestamp": "0001-01-01T00:00:00"},
        {"type": "user", "timestamp": {"not": "one"}},
        {"type": "user", "message": "text"},
        prompt(7),
        prompt([7, None, {"type": "text", "text": 7}, {"text": "x"}]),
        {"type": ["list"], "tag": {}},
        {"type": "tag", "tag": "half \ud800"},
    ],
    ids=str,
)
async def test_entries_of_no_sense_are_kept_all_the_same(
    transcripts: Transcripts, entry: dict[str, Any]
) -> None:
    await transcripts.append(ALICE, KEY, [{"type": "x", "customTitle": "kept"}])
    await transcripts.append(ALICE, KEY, [entry])
    assert await transcripts.load(ALICE, KEY) == [{"type": "x", "customTitle": "kept"}, entry]
    [(_, _, data)] = await transcripts.summaries(ALICE, SESSION)
    assert data["custom_title"] == "kept"


async def test_a_copy_without_a_title_is_not_searched_for_one(transcripts: Transcripts) -> None:
    history, entries = conversation(turns=1)
    entries[0]["message"]["content"][0]["text"] = SLOW * 100
    key = HistoryKey("sesn_large", history)
    room = Transcripts(transcripts._database, transcripts._clock, max_size=10**9)
    await room.append(ALICE, key, entries)
    fork = await room.copy(ALICE, key)
    assert fork.entries[-1]["customTitle"] == "Fork"
