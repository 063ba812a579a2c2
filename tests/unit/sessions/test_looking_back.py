"""What a resumed agent is told of the calls that it has made."""

from typing import Any

from stationmaster.events import Event
from stationmaster.sessions.runs.recovery import Recovery, note, unseen

SESSION = "sesn_01jd3k00000000000000000000"


def call(number: int, *, stream: str = SESSION) -> Event:
    data = {"id": f"sevt_{number}", "tool_use_id": f"toolu_{number}", "name": "bash"}
    return Event(
        stream, number, 1, "agent.tool_use", 1, {**data, "input": {"command": f"do {number}"}}
    )


def result(number: int, content: Any = "done") -> Event:
    data = {"tool_use_event_id": f"sevt_{number}", "content": content}
    return Event(SESSION, number + 50, 1, "agent.tool_result", 1, data)


def said_by_agent(*numbers: int) -> dict[str, Any]:
    blocks = [{"type": "tool_use", "id": f"toolu_{number}"} for number in numbers]
    return {"type": "assistant", "message": {"role": "assistant", "content": blocks}}


def test_a_finished_call_that_the_history_lacks_is_told_with_its_result() -> None:
    recovery = Recovery(finished=[(call(1), result(1)), (call(2), result(2, "forty-two"))])
    missing = unseen(recovery, [said_by_agent(1)], SESSION)
    assert [event.data["id"] for event, _ in missing] == ["sevt_2"]
    [block] = note(recovery, missing)
    assert "do not make them again" in block["text"]
    assert "do 2" in block["text"]
    assert "forty-two" in block["text"]
    assert "do 1" not in block["text"]


def test_what_the_history_has_is_not_told_again() -> None:
    recovery = Recovery(finished=[(call(1), result(1))])
    assert unseen(recovery, [said_by_agent(1)], SESSION) == []
    assert "bash" not in note(recovery)[0]["text"]


def test_a_sub_agents_calls_are_its_own() -> None:
    recovery = Recovery(finished=[(call(1, stream="sthr_1"), result(1))])
    assert unseen(recovery, [], SESSION) == []


def test_broken_entries_hide_nothing() -> None:
    recovery = Recovery(finished=[(call(1), result(1, [{"type": "text", "text": "one"}, 5]))])
    entries: list[dict[str, Any]] = [
        {}, {"message": None}, {"message": {"content": "text"}}, {"message": {"content": [5]}},
    ]  # fmt: skip
    missing = unseen(recovery, entries, SESSION)
    assert len(missing) == 1
    assert "one" in note(recovery, missing)[0]["text"]
