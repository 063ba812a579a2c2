"""The verbs on sessions: who may see and change what, and that an error changes nothing."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.base import LaunchSpec, ToolCall
from stationmaster.agents.scripted import Call, Delegate, Say, ScriptedAgent, WaitFor
from stationmaster.budgets import LedgerEntry, Refused, Reserved, Usage
from stationmaster.gateway.ports import CallRefused
from stationmaster.jobs import Job
from stationmaster.kernel.errors import (
    Conflict,
    Denied,
    Invalid,
    NotFound,
    StationmasterError,
    TooLarge,
    Unavailable,
)
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.inputs import Interrupt, ToolConfirmation, UserMessage
from stationmaster.sessions.runs import executor
from stationmaster.sessions.runs.files import Upload
from stationmaster.sessions.runs.gate import Gate
from stationmaster.sessions.runs.workspace import UploadedFile
from stationmaster.sessions.session import (
    SessionEvent,
    SessionFilter,
    SessionPatch,
    SessionRequest,
)
from tests.support.core import ALICE, Core, limited, principal
from tests.unit.sessions.talking import ASKING, Talk, agent_fields, nothing_is_held, say

STRANGER = principal("mallory", Owner("org_default", "proj_other"))
EVERYTHING = SessionFilter(include_archived=True)


async def test_a_session_as_it_begins(core: Core) -> None:
    agent = await core.agents.create(ALICE, agent_fields(system="Be kind."))
    environment = await core.environments.create(ALICE, {"name": "box"})
    wanted = SessionRequest(agent.id, environment.id, "T", {"a": "b"}, budget=5_000_000)
    session = await core.sessions.create(ALICE, wanted)
    assert (session.state.status, session.state.stop_reason) == ("idle", None)
    assert (session.agent_id, session.agent_version) == (agent.id, 1)
    assert session.environment_id == environment.id
    assert session.state.agent == agent.snapshot()
    assert session.on_crash == "resume"
    budget = await core.database.read(lambda tx: core.budgets.get(tx, "session", session.id))
    assert budget is not None
    assert budget.limit == 5_000_000
    assert await core.sessions.get(ALICE, session.id) == session


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"title": "x" * 3000}, TooLarge),
        ({"title": 5}, Invalid),
        ({"metadata": {"a": 1}}, Invalid),
        ({"budget": -1}, Invalid),
        ({"budget": True}, Invalid),
        ({"on_crash": "panic"}, Invalid),
        ({"rules": ({"tool": "bash"},)}, Invalid),
        ({"environment_id": new_id("env")}, NotFound),
        ({"agent": new_id("agent")}, NotFound),
        ({"agent": {"type": "agent", "id": "x"}}, NotFound),
        ({"agent": {"type": "agent", "id": 7}}, Invalid),
    ],
)
async def test_what_no_session_is_made_of(
    core: Core, changes: dict[str, Any], error: type[StationmasterError]
) -> None:
    agent = await core.agents.create(ALICE, agent_fields())
    request = replace(SessionRequest(agent.id), **changes)
    with pytest.raises(error):
        await core.sessions.create(ALICE, request, [say("hello")])
    assert (await core.sessions.list(ALICE, EVERYTHING, limit=5)).items == []
    assert (await core.runs.depth()).queued == 0


async def test_first_messages_may_be_messages_alone(core: Core, talk: Talk) -> None:
    with pytest.raises(Invalid):
        await talk.create(Interrupt())
    with pytest.raises(Invalid):
        await talk.create(UserMessage([]))
    assert (await core.sessions.list(ALICE, EVERYTHING, limit=5)).items == []


async def test_scopes(core: Core, talk: Talk) -> None:
    session = await talk.create()
    reader = replace(ALICE, scopes=frozenset({"read:sessions"}))
    assert await core.sessions.get(reader, session.id) == session
    nobody = replace(ALICE, scopes=frozenset({"read:tasks"}))
    for work in (
        core.sessions.get(nobody, session.id),
        core.sessions.send(reader, session.id, [say("no")]),
        core.sessions.archive(reader, session.id),
        core.sessions.delete(reader, session.id),
        core.sessions.update(reader, session.id, SessionPatch({})),
        core.sessions.fork(reader, session.id),
        core.approvals.list(reader, limit=1),
    ):
        with pytest.raises(Denied):
            await work


async def test_another_owners_session_is_not_there(core: Core, talk: Talk) -> None:
    session = await talk.create(say("mine"))
    sessions = core.sessions
    assert (await sessions.list(STRANGER, EVERYTHING, limit=5)).items == []
    for work in (
        sessions.get(STRANGER, session.id),
        sessions.update(STRANGER, session.id, SessionPatch({"title": "theirs"})),
        sessions.archive(STRANGER, session.id),
        sessions.delete(STRANGER, session.id),
        sessions.send(STRANGER, session.id, [say("hello")]),
        sessions.fork(STRANGER, session.id),
        sessions.events(STRANGER, session.id, limit=1),
        sessions.head(STRANGER, session.id),
        sessions.threads(STRANGER, session.id),
        anext(sessions.follow(STRANGER, session.id, after=0, idle=1.0)),
    ):
        with pytest.raises(NotFound):
            await work
    with pytest.raises(NotFound):
        await sessions.get(ALICE, "sesn_unknown")
    task = await core.start()
    with pytest.raises(NotFound):
        await sessions.get(ALICE, task.session_id)
    assert [run.id for run in (await core.runs.list(ALICE, limit=9)).items] == [task.id]


async def test_lists(core: Core, talk: Talk) -> None:
    agent = await core.agents.create(ALICE, agent_fields())
    made = [await core.sessions.create(ALICE, SessionRequest(agent.id)) for _ in range(2)]
    core.clock.advance(10)
    made.append(await talk.create(say("go")))
    await core.sessions.archive(ALICE, made[0].id)

    async def ids(**wanted: Any) -> set[int]:
        found = await core.sessions.list(ALICE, SessionFilter(**wanted), limit=9)
        order = [each.id for each in made]
        return {order.index(each.id) for each in found.items}

    assert await ids() == {1, 2}
    assert await ids(include_archived=True) == {0, 1, 2}
    assert await ids(agent_id=agent.id) == {1}
    assert await ids(agent_id=agent.id, agent_version=2) == set()
    assert await ids(statuses=("running",)) == {2}
    assert await ids(statuses=("idle", "terminated")) == {1}
    assert await ids(created_from=made[2].created_at) == {2}
    assert await ids(created_to=made[1].created_at) == {1}
    for order in ("asc", "desc"):
        wanted = SessionFilter(include_archived=True, order=order)
        seen: list[str] = []
        after = None
        while True:
            page = await core.sessions.list(ALICE, wanted, limit=2, after=after)
            seen += [each.id for each in page.items]
            if (after := page.next_cursor) is None:
                break
        assert seen == sorted((each.id for each in made), reverse=order == "desc")


async def test_changes(core: Core, talk: Talk) -> None:
    session = await talk.create(title="Old", metadata={"a": "1", "b": "2"}, budget=100)
    fields = {"title": None, "metadata": {"a": None, "c": "3"}, "budget": 200}
    changed = await core.sessions.update(ALICE, session.id, SessionPatch(fields))
    assert changed.state.title is None
    assert changed.state.metadata == {"b": "2", "c": "3"}
    budget = await core.database.read(lambda tx: core.budgets.get(tx, "session", session.id))
    assert budget is not None
    assert budget.limit == 200
    same = await core.sessions.update(ALICE, session.id, SessionPatch({"budget": 200}))
    assert (await talk.types(same)).count("session.updated") == 1
    none = await core.sessions.update(ALICE, session.id, SessionPatch({"budget": None}))
    assert none.state.budget is None
    for wrong in ({"colour": "red"}, {"agent": {"system": "no"}}, {"metadata": 7}):
        with pytest.raises(Invalid):
            await core.sessions.update(ALICE, session.id, SessionPatch(wrong))
    await talk.send(session, say("go"))
    patch = SessionPatch({"agent": {"tools": [ASKING]}})
    with pytest.raises(Conflict):
        await core.sessions.update(ALICE, session.id, patch)
    await talk.now(session)


async def test_an_archived_session_can_be_read_and_no_more(core: Core, talk: Talk) -> None:
    session = await talk.create(say("go"))
    with pytest.raises(Conflict) as caught:
        await core.sessions.archive(ALICE, session.id)
    assert caught.value.error_code == "session_busy"
    await talk.send(session, Interrupt())
    archived = await core.sessions.archive(ALICE, session.id)
    assert archived.state.archived_at is not None
    assert await core.sessions.archive(ALICE, session.id) == archived
    for work in (
        talk.send(session, say("hello?")),
        talk.send(session, Interrupt()),
        talk.send(session, ToolConfirmation("sevt_x", True)),
        core.sessions.update(ALICE, session.id, SessionPatch({"title": "no"})),
    ):
        with pytest.raises(Conflict) as caught:
            await work
        assert caught.value.error_code == "session_archived"
    assert await talk.now(session) == archived


async def test_a_deleted_session_leaves_nothing_but_its_ledger(core: Core, talk: Talk) -> None:
    talk.script(Delegate("digger", [Say("Gold.")]), Say("a secret"))
    session = await talk.create(say("go"))
    with pytest.raises(Conflict):
        await core.sessions.delete(ALICE, session.id)
    async with core.working(core.worker(1)):
        now = await talk.ended(session)
    threads = await core.sessions.threads(ALICE, session.id)
    await core.pool.drop(session.id)
    follower = core.sessions.follow(ALICE, session.id, after=0, idle=5.0)
    async with aclosing(follower), asyncio.timeout(30):
        await anext(follower)
        await core.sessions.delete(ALICE, session.id)
        seen = [item async for item in follower]
    assert isinstance(seen[-1], SessionEvent)
    assert seen[-1].event.type == "session.deleted", "and nothing follows"
    for work in (core.sessions.get(ALICE, session.id), core.sessions.delete(ALICE, session.id)):
        with pytest.raises(NotFound):
            await work
    assert (await core.sessions.list(ALICE, EVERYTHING, limit=5)).items == []
    job = Job("job_1", "session.deleted", {"session_id": session.id}, 1)
    for _ in range(2):  # a job may be done twice
        await core.sessions.clear(job)
    for thread in threads:
        assert await core.events.read(thread.stream_id) == []
    assert await core.transcripts.histories(session.owner, session.id) == []
    assert not await asyncio.to_thread(Path(now.directory).exists)


@pytest.mark.parametrize("end", ["archive", "delete"])
async def test_a_process_ends_whose_session_another_server_has_ended(
    core: Core, talk: Talk, end: str
) -> None:
    talk.script(Say("Done."))
    ended, stays = [await talk.create(say("go")) for _ in range(2)]
    async with core.working(core.worker(2)):
        for session in (ended, stays):
            await talk.ended(session)
    assert sorted(core.pool.idle()) == sorted([ended.id, stays.id])
    await getattr(core.beside().sessions, end)(ALICE, ended.id)
    await core.seats.let_go_ended()
    assert core.pool.idle() == [stays.id]
    await core.pool.aclose()


async def test_files_to_begin_with(core: Core, talk: Talk) -> None:
    agent = await core.agents.create(ALICE, agent_fields())
    files = [UploadedFile("notes/a.txt", BytesIO(b"words"))]
    session = await core.sessions.create(
        ALICE, SessionRequest(agent.id), [say("read")], Upload(files=files)
    )
    async with core.working(core.worker(1)):
        await talk.ended(session)
    assert isinstance(core.agent, ScriptedAgent)
    [spec] = core.agent.launched
    assert await asyncio.to_thread((spec.workspace / "notes/a.txt").read_bytes) == b"words"
    await core.pool.aclose()
    request = SessionRequest(new_id("agent"))
    with pytest.raises(NotFound):
        await core.sessions.create(ALICE, request, (), Upload(files=files))
    left = await asyncio.to_thread(
        lambda: list((core.directory / "workspaces" / "sessions").iterdir())
    )
    assert len(left) == 1, "a session that is refused leaves no files"


async def test_a_budget_that_is_used_up(core: Core, talk: Talk) -> None:
    session = await talk.create(say("go"), budget=100)
    here = asyncio.Event()

    async def reached(_spec: LaunchSpec) -> None:
        here.set()

    talk.script(Call(reached), WaitFor())
    worker = core.worker(1)
    async with core.working(worker):
        await here.wait()
        run = await core.get(str((await talk.now(session)).state.run_id))
        first = core.context(run)
        assert isinstance(await core.budgets.reserve(first, 90), Reserved)
        entry = LedgerEntry(first, core.clock.now(), Usage(10, 5, 8, 0, 6), 80, "complete", 1)
        assert await core.budgets.settle(entry)
        second = core.context(run)
        refused = await core.budgets.reserve(second, 50)
        assert isinstance(refused, Refused)
        assert refused.subject_kind == "session"
        worker.observe(CallRefused(second, refused))
        now = await talk.ended(session)
    assert now.state.stop_reason == {"type": "budget_reached"}
    assert (now.state.cost, now.state.usage["output_tokens"]) == (80, 5)
    [usage] = [e.data for e in await talk.book(session) if e.type == "session.usage"]
    assert (usage["cost"], usage["usage"]["input_tokens"]) == (80, 10)
    writes = ("cache_write_tokens", "cache_write_1h_tokens")
    assert [usage["usage"][name] for name in writes] == [8, 6]
    assert [now.state.usage[name] for name in writes] == [8, 6]
    await nothing_is_held(core)
    await core.pool.aclose()


# --- reading ----------------------------------------------------------------------------------


async def test_a_follower_sees_each_event_once_over_many_turns(core: Core, talk: Talk) -> None:
    session = await talk.create(say("one"), say("two"))
    seen: list[SessionEvent] = []

    async def follow() -> None:
        items = core.sessions.follow(ALICE, session.id, after=0, idle=5.0)
        async with aclosing(items):
            async for item in items:
                if isinstance(item, SessionEvent):
                    seen.append(item)
                    if sum(each.event.type == "run.ended" for each in seen) == 2:
                        return

    async with core.working(core.worker(1)), asyncio.timeout(30):
        await follow()
    queued = [each for each in seen if each.event.type == "user.message"]
    first, *rest = queued
    assert first.processed_at is not None
    assert [each.processed_at is None for each in rest] in ([True, False], [False])
    order = [each.event.seq for each in seen if each.event.type != "user.message"]
    assert order == sorted(set(order))
    page = await core.sessions.events(ALICE, session.id, limit=1000)
    assert {each.id for each in page} == {each.id for each in seen}
    assert len({each.id for each in page}) == len(page), "each has an id of its own"
    head = await core.sessions.head(ALICE, session.id)
    assert head == page[-1].event.seq
    for after in (-1, head + 1):
        with pytest.raises(Invalid):
            await core.sessions.events(ALICE, session.id, after=after, limit=1)
    await core.pool.aclose()


# --- limits -----------------------------------------------------------------------------------


async def test_no_more_are_let_in_than_may_wait(core: Core) -> None:
    """However many come at once, and by however many servers."""
    small = limited(max_queue=3)
    servers = [core.beside(limits=small) for _ in range(3)]
    talks = [Talk(each) for each in servers]
    made = [await talks[number % 3].create() for number in range(6)]
    work = [talks[number % 3].send(each, say("go")) for number, each in enumerate(made)]
    work += [server.start() for server in servers]  # type: ignore[misc]
    answers = await asyncio.gather(*work, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, Unavailable)]
    assert len(refused) == len(work) - 3
    assert (await core.runs.depth()).queued == 3
    for session in made:
        await talks[0].now(session)


async def test_a_server_that_stops_takes_no_more(core: Core, talk: Talk) -> None:
    session = await talk.create()
    core.sessions.close_admission("The server is shutting down.")
    for work in (
        talk.send(session, say("late")),
        talk.create(),
        core.sessions.fork(ALICE, session.id),
    ):
        with pytest.raises(Unavailable):
            await work
    assert len(await talk.send(session, Interrupt())) == 1, "what ends something is still taken"


# --- calls at once ----------------------------------------------------------------------------


async def test_calls_that_come_together_are_asked_together(
    core: Core, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates: list[Gate] = []

    class Kept(Gate):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            gates.append(self)

    monkeypatch.setattr(executor, "Gate", Kept)
    permissions: list[Any] = []

    async def both(_spec: LaunchSpec) -> None:
        calls = [ToolCall(f"toolu_{n}", "Bash", {"command": f"ls {n}"}) for n in range(2)]
        permissions.extend(await asyncio.gather(*(gates[0].permit(call) for call in calls)))

    talk.script(Call(both), Say("Done."))
    session = await talk.create(say("go"), tools=[ASKING])
    async with core.working(core.worker(1)):
        asked = await talk.asked(session, 2)
        calls = [e.data for e in await talk.book(session) if e.type == "agent.tool_use"]
        commands = {call["id"]: call["input"]["command"] for call in calls}
        first, second = sorted(asked, key=commands.__getitem__)
        await talk.send(session, ToolConfirmation(first, True))
        assert await talk.asked(session, 1) == [second], "the rest is named again"
        await talk.send(session, ToolConfirmation(second, False, "No."))
        await talk.ended(session)
    assert [type(each).__name__ for each in permissions] == ["Allow", "Deny"]
    stops = [e.data for e in await talk.book(session) if e.type == "session.status_idle"]
    assert [len(each["stop_reason"].get("event_ids", [])) for each in stops] == [2, 1, 0]
    await core.pool.aclose()
