"""Events as the SDK's models have them, pages of history, previews."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from anthropic.types.beta.sessions import (
    BetaManagedAgentsSessionEvent,
    BetaManagedAgentsStreamSessionEvents,
)

from stationmaster.events import Event
from stationmaster.events.pages import PAGE_BYTES
from stationmaster.http.routes.managed.event_view import SHOWN, event_view
from stationmaster.http.routes.managed.history import Wanted, page_of
from stationmaster.http.routes.managed.money import budget_json, cents
from stationmaster.http.routes.managed.query import millis, since, until
from stationmaster.http.routes.managed.stream import Previews
from stationmaster.kernel.errors import Invalid
from stationmaster.sessions.session import SessionEvent
from tests.support.sdk import check_json

TEXT = [{"type": "text", "text": "Hello."}]
THREAD = {"agent_name": "helper", "session_thread_id": "sthr_1"}
USE = {"name": "bash", "input": {"command": "ls"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "hi"}

STORED: list[tuple[str, dict[str, Any]]] = [
    ("user.message", {"content": [*TEXT, PNG, {"type": "document", "source": PLAIN}]}),
    ("user.interrupt", {}),
    ("user.tool_confirmation", {"result": "deny", "tool_use_id": "sevt_1", "deny_message": "No."}),
    ("user.tool_confirmation", {"result": "allow", "tool_use_id": "sevt_1"}),
    ("user.custom_tool_result", {"custom_tool_use_id": "sevt_1", "content": TEXT}),
    ("user.custom_tool_result", {"custom_tool_use_id": "sevt_1", "is_error": True}),
    ("user.tool_result", {"tool_use_id": "sevt_1", "content": TEXT}),
    ("user.tool_result", {"tool_use_id": "sevt_1", "is_error": True}),
    ("agent.message", {"content": TEXT}),
    ("agent.thinking", {"text": "secret thoughts"}),
    ("agent.tool_use", {**USE, "evaluated_permission": "ask"}),
    ("agent.tool_use", {**USE, "session_thread_id": "sthr_1"}),
    (
        "agent.tool_result",
        {"tool_use_id": "toolu_1", "tool_use_event_id": "sevt_1", "content": [*TEXT, PNG]},
    ),
    ("agent.tool_result", {"tool_use_event_id": "sevt_1", "content": "ok", "is_error": False}),
    ("agent.tool_result", {"tool_use_event_id": "sevt_1", "content": [{"type": "odd", "x": 1}]}),
    ("agent.mcp_tool_use", {**USE, "mcp_server_name": "docs"}),
    (
        "agent.mcp_tool_result",
        {"tool_use_id": "toolu_1", "tool_use_event_id": "sevt_1", "content": ""},
    ),
    ("agent.custom_tool_use", USE),
    ("agent.thread_message_sent", {"content": TEXT, "to_session_thread_id": "sthr_1"}),
    ("agent.thread_message_received", {"content": TEXT, "from_session_thread_id": "sthr_1"}),
    ("agent.thread_context_compacted", {}),
    *(
        ("session.error", {"error": {"code": code, "message": "No.", "mcp_server_name": "x"}})
        for code in (
            "agent_error",
            "budget_exceeded",
            "upstream_error",
            "max_turns",
            "mcp_connection_failed",
        )
    ),
    ("session.status_running", {}),
    ("session.status_rescheduled", {}),
    *(
        ("session.status_idle", {"stop_reason": reason})
        for reason in (
            {"type": "end_turn"},
            {"type": "retries_exhausted"},
            {"type": "budget_reached"},
            {"type": "requires_action", "event_ids": ["sevt_1"]},
        )
    ),
    ("session.status_terminated", {}),
    ("session.deleted", {}),
    ("session.updated", {"title": "New", "budget": 25_000_000}),
    ("session.updated", {"budget": None}),
    ("session.updated", {"metadata": {"a": "b"}}),
    ("session.usage", {"usage": {"input_tokens": 1, "cache_write_tokens": 5}, "cost": 1}),
    ("session.thread_created", THREAD),
    ("session.thread_status_running", THREAD),
    ("session.thread_status_rescheduled", THREAD),
    ("session.thread_status_idle", {**THREAD, "stop_reason": {"type": "end_turn"}}),
    ("session.thread_status_terminated", THREAD),
    ("span.model_request_start", {}),
    (
        "span.model_request_end",
        {
            "model_request_start_id": "sevt_1",
            "outcome": "complete",
            "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3},
        },
    ),
]


def stored(kind: str, data: dict[str, Any], seq: int = 1, at: int | None = 5000) -> SessionEvent:
    event = Event("sesn_1", seq, 5000, kind, 1, {**data, "run_id": "run_1", "id": f"sevt_{seq}"})
    return SessionEvent(f"sevt_{seq}", event, at)


def test_every_type_that_is_shown_is_tried_here() -> None:
    assert {kind for kind, _ in STORED} == SHOWN


@pytest.mark.parametrize(("kind", "data"), STORED)
def test_an_event_is_exactly_of_its_model(kind: str, data: dict[str, Any]) -> None:
    shown = json.loads(json.dumps(event_view(stored(kind, data))))
    assert (shown["id"], shown["type"]) == ("sevt_1", kind)
    assert shown["processed_at"] == "1970-01-01T00:00:05.000Z"
    for union in (BetaManagedAgentsSessionEvent, BetaManagedAgentsStreamSessionEvents):
        found = check_json(union, shown)
        assert found.type == kind
    assert "run_id" not in shown


@pytest.mark.parametrize("kind", [kind for kind, _ in STORED if kind.startswith("user.")])
def test_what_waits_has_not_been_processed(kind: str) -> None:
    data = next(data for other, data in STORED if other == kind)
    shown = event_view(stored(kind, data, at=None))
    assert shown is not None
    assert shown["processed_at"] is None
    check_json(BetaManagedAgentsSessionEvent, shown)


@pytest.mark.parametrize("kind", ["run.queued", "run.ended", "session.created", "whatever"])
def test_what_is_ours_is_not_shown(kind: str) -> None:
    assert event_view(stored(kind, {})) is None


def test_usage_and_budgets_are_in_the_apis_units() -> None:
    usage = {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_tokens": 3,
        "cache_write_tokens": 10,
        "cache_write_1h_tokens": 4,
    }
    data = {"usage": usage, "cost": 10_001, "budget": 1_500_000}
    shown = event_view(stored("session.usage", data))
    assert shown is not None
    assert shown["usage"] == {
        "input_tokens": 1,
        "output_tokens": 2,
        "cache_read_input_tokens": 3,
        "cache_creation": {"ephemeral_1h_input_tokens": 4, "ephemeral_5m_input_tokens": 6},
        "list_cost": {"amount": "2", "currency": "USD"},
    }
    assert shown["budget"] == budget_json(1_500_000)
    assert budget_json(1_500_000)["max_list_cost"]["amount"] == "150"


@pytest.mark.parametrize(("amount", "said"), [(0, "0"), (1, "1"), (10_000, "1"), (10_001, "2")])
def test_cents_are_rounded_up(amount: int, said: str) -> None:
    assert cents(amount) == said


# --- history ------------------------------------------------------------------------------------


class Book:
    """A stream of `size` events: every third is ours, the others alternate."""

    def __init__(self, size: int) -> None:
        kinds = ("run.noted", "agent.message", "user.message")
        self.events = [
            stored(kinds[seq % 3], {"content": TEXT}, seq, seq * 1000) for seq in range(1, size + 1)
        ]
        self.read = 0

    async def page(
        self, *, after: int = 0, before: int | None = None, limit: int
    ) -> Sequence[SessionEvent]:
        self.read += limit
        if before is not None:
            return self.events[max(0, before - 1 - limit) : before - 1]
        return self.events[after : after + limit]

    def shown(self, *types: str) -> list[str]:
        wanted = types or ("agent.message", "user.message")
        return [event.id for event in self.events if event.event.type in wanted]

    async def walk(self, **wanted: Any) -> list[str]:
        found: list[str] = []
        page: str | None = None
        for _ in range(1000):
            got = await page_of(self.page, len(self.events), Wanted(page=page, **wanted))
            assert len(got.data) <= wanted["limit"]
            found += [item["id"] for item in got.data]
            page = got.next_page
            if page is None:
                return found
        raise AssertionError("The pages do not end.")


@pytest.mark.parametrize("size", [0, 1, 2, 99, 100, 101, 1300])
@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_leave_nothing_out_and_repeat_nothing(
    size: int, limit: int, order: str
) -> None:
    if size > 600 and limit == 1:
        size = 600
    book = Book(size)
    found = await book.walk(limit=limit, order=order)
    assert found == (book.shown() if order == "asc" else book.shown()[::-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_types_and_times_are_filtered(order: str) -> None:
    book = Book(700)
    found = await book.walk(limit=50, order=order, types=frozenset({"user.message"}))
    assert sorted(found) == sorted(book.shown("user.message"))
    found = await book.walk(limit=50, order=order, since=10_000, until=12_000)
    assert sorted(found) == ["sevt_10", "sevt_11"]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_is_bounded_by_bytes_and_has_one_event_at_least(order: str) -> None:
    book = Book(0)
    for seq in range(1, 21):
        each = stored("agent.message", {"content": TEXT}, seq)
        size = PAGE_BYTES + 1 if seq == 8 else PAGE_BYTES // 3
        book.events.append(replace(each, event=replace(each.event, size=size)))
    pages: list[list[str]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        wanted = Wanted(limit=100, page=cursor, order=order)  # type: ignore[arg-type]
        got = await page_of(book.page, len(book.events), wanted)
        pages.append([item["id"] for item in got.data])
        cursor = got.next_page
    whole = [each.id for each in book.events]
    assert [id_ for page in pages for id_ in page] == (whole if order == "asc" else whole[::-1])
    assert ["sevt_8"] in pages
    assert max(len(page) for page in pages) == 3


async def test_what_is_rare_does_not_make_one_page_read_everything() -> None:
    book = Book(25_000)
    wanted = Wanted(limit=10, types=frozenset({"session.deleted"}))
    got = await page_of(book.page, 25_000, wanted)
    assert (got.data, book.read) == ([], 10_000)
    assert got.next_page is not None
    assert await book.walk(limit=10, types=frozenset({"session.deleted"})) == []


@pytest.mark.parametrize("page", ["x", "-1", "12", "9" * 17, "1.5", "\u0664"])
async def test_a_cursor_that_is_none_is_refused(page: str) -> None:
    book = Book(10)
    for order in ("asc", "desc"):
        with pytest.raises(Invalid) as caught:
            await page_of(book.page, 10, Wanted(limit=1, page=page, order=order))
        assert caught.value.param == "page"


# --- times --------------------------------------------------------------------------------------


def test_times_are_read_as_the_sdk_writes_them() -> None:
    assert millis("1970-01-01T00:00:05Z", "x") == 5000
    assert millis("1970-01-01T01:00:05.250+01:00", "x") == 5250
    assert millis("1970-01-01T00:00:05", "x") == 5000
    assert millis("", "x") is None
    assert since("1970-01-01T00:00:05Z", "1970-01-01T00:00:05Z") == 5001
    assert until("1970-01-01T00:00:05Z", "1970-01-01T00:00:05Z") == 4999
    assert since(None, None) is None
    for wrong in ("soon", "5", "2026-13-01T00:00:00Z"):
        with pytest.raises(Invalid):
            millis(wrong, "x")


# --- previews -----------------------------------------------------------------------------------


def frames(raw: list[bytes]) -> list[Any]:
    found = []
    for frame in raw:
        head, data = frame.decode().strip().split("\n")
        item = json.loads(data.removeprefix("data: "))
        assert head == f"event: {item['type']}"
        check_json(BetaManagedAgentsStreamSessionEvents, item)
        found.append(item)
    return found


def test_a_preview_begins_once_and_adds_pieces() -> None:
    previews = Previews(frozenset({"agent.message", "agent.thinking"}))
    piece = {"event_id": "sevt_1", "kind": "text", "text": "He"}
    first, second = frames(previews.of(piece))
    assert first["event"] == {"type": "agent.message", "id": "sevt_1"}
    assert second["event_id"] == "sevt_1"
    assert second["delta"]["content"] == {"type": "text", "text": "He"}
    (third,) = frames(previews.of({**piece, "text": "llo"}))
    assert third["type"] == "event_delta"
    previews.over(stored("agent.message", {"content": TEXT}))
    assert len(previews.of(piece)) == 2
    previews.over(stored("session.status_idle", {"stop_reason": {"type": "end_turn"}}, seq=9))
    assert len(previews.of(piece)) == 2  # what an interrupt cut off is not remembered for ever


def test_thinking_is_announced_but_never_told() -> None:
    previews = Previews(frozenset({"agent.thinking"}))
    thought = {"event_id": "sevt_2", "kind": "thinking", "text": "secret"}
    (only,) = frames(previews.of(thought))
    assert only["type"] == "event_start"
    assert previews.of(thought) == []
    assert previews.of({"event_id": "sevt_3", "kind": "text", "text": "x"}) == []


def test_who_asked_for_no_previews_gets_none() -> None:
    previews = Previews(frozenset())
    assert previews.of({"event_id": "sevt_1", "kind": "text", "text": "x"}) == []
    assert previews.of({"kind": "text", "text": "x"}) == []
