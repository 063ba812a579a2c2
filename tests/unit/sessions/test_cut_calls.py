"""A call that a crash cuts, at each point of its life: what the book and the agent hear of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stationmaster.agents.scripted import Say, UseTool
from stationmaster.sessions.approvals import Decision
from stationmaster.sessions.calls import DENIED, EXPIRED, Answer, Asked, answer, tell
from stationmaster.sessions.inputs import CustomToolResult, Interrupt
from stationmaster.sessions.runs.journal import Journal
from stationmaster.sessions.runs.recovery import UNKNOWN
from stationmaster.sessions.runs.turn import plan_turn
from stationmaster.sessions.session import Session
from stationmaster.sessions.threads import Opened
from stationmaster.storage import Transaction
from stationmaster.transcripts import HistoryKey
from tests.support.core import ALICE, LEASE, Core
from tests.unit.sessions.talking import ASKING, WAIT_S, Talk, nothing_is_held, say
from tests.unit.sessions.test_recovery import prompts

CALL = "sevt_cut"
WEATHER = {
    "type": "custom",
    "name": "weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
}


@asynccontextmanager
async def attempt(core: Core) -> AsyncIterator[Journal]:
    """The turn on a server that dies at the end of the block."""
    dead = core.beside()
    await dead.instances.register()
    claim = await dead.claims.next()
    assert claim is not None
    planned = await plan_turn(claim, core.database, dead.seats)
    journal = Journal(core.database, core.events, core.records, claim, core.clock)
    writing = asyncio.create_task(journal.run())
    planned.write_down(journal)
    await dead.seats.take(claim, planned.wanted)
    yield journal
    async with asyncio.timeout(WAIT_S):
        await journal.flush()
    writing.cancel()
    core.clock.advance(LEASE + 1)
    assert await core.claims.take_over(dead.instances.id) == 1
    await dead.pool.aclose()


def make(journal: Journal, permission: str, *, custom: bool = False) -> None:
    """The agent's call, as a recorder writes it down."""
    data: dict[str, Any] = {"tool_use_id": "toolu_cut", "input": {"command": "deploy"}}
    if not custom:
        data["evaluated_permission"] = permission
    name, kind = ("weather", "custom_tool") if custom else ("bash", "confirmation")
    asks = None
    if permission == "ask":
        asks = Asked(CALL, "toolu_cut", kind, name, data["input"], patience=600.0)  # type: ignore[arg-type]
    event_type = "agent.custom_tool_use" if custom else "agent.tool_use"
    journal.add(event_type, asks=asks, id=CALL, name=name, **data)


async def decide(core: Core, allow: bool, message: str | None = None) -> None:
    [approval] = (await core.approvals.list(ALICE, limit=10)).items
    await core.approvals.decide(ALICE, approval.id, Decision(allow, message))


async def expire(core: Core, session: Session) -> None:
    nobody = Answer("expired", message=EXPIRED)

    def verb(tx: Transaction) -> None:
        found = core.records.sessions.get(tx, session.id)
        answer(tx, found, CALL, "confirmation", nobody, by=None, now=core.clock.now())

    await core.database.write(verb)


async def told(core: Core) -> None:
    await core.database.write(lambda tx: tell(tx, CALL))


async def cut(talk: Talk, core: Core, session: Session, moment: str) -> None:
    """Bring the call to this point of its life."""
    async with attempt(core) as journal:
        permission = {"allowed": "allow", "denied by a rule": "deny"}.get(moment, "ask")
        make(journal, permission, custom=moment.startswith("custom"))
        await journal.flush()
        if "said no" in moment:
            await decide(core, False, "Not on a Friday.")
        elif "said yes" in moment:
            await decide(core, True)
        elif "answered" in moment:
            await talk.send(session, CustomToolResult(CALL, [{"type": "text", "text": "Rain."}]))
        elif "expired" in moment:
            await expire(core, session)
        if moment.endswith("told"):
            await told(core)


def outcomes(book: list[Any]) -> list[tuple[Any, Any, Any]]:
    """Of the call: content, whether an error, and the outcome, of each result that it has."""
    return [
        (each.data["content"], each.data["is_error"], each.data.get("outcome"))
        for each in book
        if each.type == "agent.tool_result" and each.data["tool_use_event_id"] == CALL
    ]


@pytest.mark.parametrize("crashes", [1, 2])
@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ("allowed", (UNKNOWN, "unknown")),
        ("said yes and told", (UNKNOWN, "unknown")),
        ("denied by a rule", (DENIED, "denied")),
        ("said no and told", ("Not on a Friday.", "denied")),
        ("expired and told", (EXPIRED, "denied")),
    ],
)
async def test_what_is_over_is_in_the_book_once_and_told_until_it_is_heard(
    talk: Talk, core: Core, moment: str, wanted: tuple[str, str], crashes: int
) -> None:
    words, outcome = wanted
    session = await talk.create(say("go"), tools=[ASKING])
    await cut(talk, core, session, moment)
    for _ in range(crashes - 1):
        async with attempt(core):
            pass
    talk.script(Say("I will look first."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    assert outcomes(await talk.book(session)) == [(words, True, outcome)]
    [prompt] = await prompts(core, now)
    assert prompt.startswith("go")
    assert '{"command":"deploy"}' in prompt
    denied = outcome == "denied"
    assert ("were denied, and did not happen" in prompt) == denied
    assert ("whether they took effect is not known" in prompt) == (not denied)
    assert (words in prompt) == denied
    await nothing_is_held(core)
    await core.pool.aclose()


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ("said yes", ("ok", False, None)),
        ("said no", ("Not on a Friday.", True, None)),
        ("custom answered", ("Rain.", False, None)),
        ("custom answered and told", ("Rain.", False, None)),
    ],
)
@pytest.mark.parametrize("crashes", [1, 2])
async def test_an_answer_that_nobody_has_heard_is_good_for_the_same_call(
    talk: Talk, core: Core, moment: str, wanted: Any, crashes: int
) -> None:
    tool = "weather" if moment.startswith("custom") else "Bash"
    session = await talk.create(say("go"), tools=[ASKING, WEATHER])
    await cut(talk, core, session, moment)
    for _ in range(crashes - 1):
        async with attempt(core):
            pass
    talk.script(UseTool(tool, {"command": "deploy"}), Say("Done."))
    async with core.working(core.worker(1)):
        await talk.ended(session)
    book = await talk.book(session)
    [(content, is_error, outcome)] = outcomes(book)
    assert wanted[0] in str(content)
    assert (is_error, outcome) == wanted[1:]
    assert len([e for e in book if e.type.endswith("tool_use")]) == 1, "it is the same call"
    [approval] = (await core.approvals.list(ALICE, limit=10)).items
    assert approval.event_id == CALL
    await core.pool.aclose()


async def test_what_the_history_has_is_not_said_again(talk: Talk, core: Core) -> None:
    session = await talk.create(say("go"), tools=[ASKING])
    async with attempt(core) as journal:
        make(journal, "allow")
    history = (await talk.now(session)).state.history
    assert history is not None
    entry: dict[str, Any] = {"type": "user", "uuid": "4d0d1f6e-0000-4000-8000-000000000001"}
    entry |= {"message": {"role": "user", "content": "go"}}
    key = HistoryKey(session.id, history, None)
    await core.transcripts.append(session.owner, key, [entry], guard=lambda _tx: None)
    talk.script(Say("I will look first."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    first, told = await prompts(core, now)
    assert first == "go"
    assert told.startswith("The server that you were running on was lost")
    await core.pool.aclose()


async def test_a_finished_call_that_the_history_lacks_is_told_and_not_made_again(
    talk: Talk, core: Core
) -> None:
    session = await talk.create(say("go"), tools=[ASKING])
    async with attempt(core) as journal:
        make(journal, "allow")
        result: dict[str, Any] = {
            "tool_use_event_id": CALL,
            "tool_use_id": "toolu_cut",
            "is_error": False,
        }
        journal.add("agent.tool_result", id="sevt_done", content="It is " + "x" * 9000, **result)
    talk.script(Say("Then I am done."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    [(_, is_error, outcome)] = outcomes(await talk.book(session))
    assert (is_error, outcome) == (False, None)
    [prompt] = await prompts(core, now)
    assert "do not make them again" in prompt
    assert '{"command":"deploy"}' in prompt
    assert "result: It is xxx" in prompt
    assert len(prompt) < 2000
    await core.pool.aclose()


async def test_a_call_of_a_sub_agent_has_its_outcome_in_the_sub_agents_stream(
    talk: Talk, core: Core
) -> None:
    session = await talk.create(say("go"), tools=[ASKING])
    thread = Opened("sthr_01jd3k00000000000000000000", "helper", "toolu_helper")
    async with attempt(core) as journal:
        journal.open_thread(thread)
        call: dict[str, Any] = {"id": CALL, "name": "bash", "tool_use_id": "toolu_cut"}
        call |= {"input": {"command": "deploy"}, "evaluated_permission": "allow"}
        journal.add("agent.tool_use", stream=thread.id, **call)
    talk.script(Say("I will look first."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    assert outcomes(await talk.book(session)) == []
    assert outcomes(await core.events.read(thread.id)) == [(UNKNOWN, True, "unknown")]
    [prompt] = await prompts(core, now)
    assert '{"command":"deploy"}' in prompt
    await core.pool.aclose()


async def test_what_an_earlier_turn_left_is_that_turns_own(talk: Talk, core: Core) -> None:
    """Also where the message of the later one was there before."""
    session = await talk.create(say("one"), say("two"), tools=[ASKING])
    async with attempt(core) as journal:
        make(journal, "allow")
    await talk.send(session, Interrupt())
    async with attempt(core):
        pass
    talk.script(Say("Done."))
    async with core.working(core.worker(1)):
        now = await talk.ended(session, 2)
    assert (await prompts(core, now))[-1] == "two"
    resumed = [e.data["unknown"] for e in await talk.book(session) if e.type == "run.resumed"]
    assert resumed == [[]]
    await core.pool.aclose()


async def test_an_answer_is_for_the_same_call_alone(talk: Talk, core: Core) -> None:
    session = await talk.create(say("go"), tools=[ASKING])
    await cut(talk, core, session, "said yes")
    talk.script(UseTool("Bash", {"command": "deploy --all"}), Say("Done."))
    async with core.working(core.worker(1)):
        [other] = await talk.asked(session)
        assert other != CALL
        await core.approvals.decide(ALICE, await _id_of(core, other), Decision(False))
        await talk.ended(session)
    await core.pool.aclose()


async def _id_of(core: Core, event_id: str) -> str:
    found = (await core.approvals.list(ALICE, limit=10)).items
    return next(each.id for each in found if each.event_id == event_id)


async def test_an_answer_is_good_for_one_call(talk: Talk, core: Core) -> None:
    session = await talk.create(say("go"), tools=[ASKING])
    await cut(talk, core, session, "said yes")
    again = UseTool("Bash", {"command": "deploy"})
    talk.script(again, again, Say("Done."))
    async with core.working(core.worker(1)):
        [second] = await talk.asked(session)
        assert second != CALL
        assert outcomes(await talk.book(session)) == [("ok", False, None)]
        await core.approvals.decide(ALICE, await _id_of(core, second), Decision(False))
        await talk.ended(session)
    await core.pool.aclose()
