"""Starting, reading and listing runs."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from stationmaster.jobs.tables import jobs
from stationmaster.kernel.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from stationmaster.kernel.ids import new_id
from stationmaster.kernel.principal import Owner
from stationmaster.sessions.runs.options import RunOptions
from stationmaster.sessions.tables import runs, sessions
from stationmaster.storage import Database, Transaction
from tests.support.core import ALICE, Core, limited, principal


def _workspaces(core: Core) -> list[Path]:
    return sorted((core.directory / "workspaces" / "sessions").glob("*"))


async def test_a_started_run_is_queued_with_all_that_belongs_to_it(core: Core) -> None:
    run = await core.start("Write a program.", max_cost=500)
    assert (run.state.state, run.owner, run.key_id) == ("queued", ALICE.owner, ALICE.key_id)
    assert await core.checked(run) == run
    book = await core.book(run)
    assert [event.type for event in book] == ["run.queued", "user.message"]
    assert book[1].data["content"] == [{"type": "text", "text": "Write a program."}]
    budget = await core.database.read(lambda tx: core.budgets.get(tx, "run", run.id))
    assert budget is not None
    assert budget.limit == 500
    (job,) = await core.database.read(lambda tx: tx.execute(select(jobs)).all())
    assert (job.kind, job.payload) == ("run.queued", {"run_id": run.id})
    assert [path.name for path in _workspaces(core)] == [run.session_id]


async def test_the_queue_is_bounded_and_leaves_no_files(core: Core) -> None:
    small = core.beside(limits=limited(max_queue=3))
    for _ in range(3):
        await small.start()
    with pytest.raises(Unavailable) as caught:
        await small.start()
    assert (caught.value.error_code, caught.value.retry_after) == ("queue_full", 5.0)
    assert len(_workspaces(core)) == 3
    await small.claims.next()
    await small.start()  # one has left the queue


async def test_a_queue_that_fills_up_meanwhile_leaves_no_files(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = core.beside(limits=limited(max_queue=1))
    await small.start()

    async def nobody_waits() -> Any:
        return type("Depth", (), {"queued": 0})

    monkeypatch.setattr(small.runs, "depth", nobody_waits)
    with pytest.raises(Unavailable):
        await small.start()
    assert len(_workspaces(core)) == 1


async def test_a_stopping_server_takes_no_more(core: Core) -> None:
    core.runs.close_admission("The server is stopping.")
    with pytest.raises(Unavailable, match="stopping") as caught:
        await core.start()
    assert caught.value.error_code == "shutting_down"


async def test_who_may_not_start_tasks(core: Core) -> None:
    reader = replace(ALICE, scopes=frozenset({"read:*"}))
    with pytest.raises(Denied):
        await core.start(by=reader)
    run = await core.start()
    writer = replace(ALICE, scopes=frozenset({"write:*"}))
    with pytest.raises(Denied):
        await core.runs.get(writer, run.id)
    with pytest.raises(Denied):
        await core.runs.cancel(reader, run.id)


@pytest.mark.parametrize("directory", ["../..", "/etc", "a/../../b", "-x\0"])
async def test_a_working_directory_outside_leaves_nothing(core: Core, directory: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        await core.start(working_directory=directory)
    assert _workspaces(core) == []
    assert await core.database.read(lambda tx: tx.execute(select(runs)).all()) == []


async def test_a_caller_that_goes_away_leaves_a_whole_run(core: Core) -> None:
    starting = asyncio.create_task(core.start())
    prepared = core.directory / "workspaces" / "sessions"
    async with asyncio.timeout(30):
        while not prepared.exists() or not list(prepared.iterdir()):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        while not (found := await core.runs.list(ALICE, limit=10)).items:
            await asyncio.sleep(0)
    (run,) = found.items
    assert [path.name for path in _workspaces(core)] == [run.session_id]
    await core.checked(run)


async def test_a_caller_that_goes_away_from_a_refused_run_leaves_nothing(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def refuse(_verb: object) -> None:
        writing.set()
        await go_on.wait()
        raise Conflict

    monkeypatch.setattr(core.database, "write", refuse)
    starting = asyncio.create_task(core.start())
    await writing.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    go_on.set()
    async with asyncio.timeout(30):
        while _workspaces(core):
            await asyncio.sleep(0)


async def test_the_files_of_a_run_that_may_exist_are_kept(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = core.database.write

    async def lose_the_answer(verb: Any) -> Any:
        await real(verb)
        raise Unavailable(code="commit_unknown")

    monkeypatch.setattr(core.database, "write", lose_the_answer)
    with pytest.raises(Unavailable):
        await core.start()
    (run,) = (await core.runs.list(ALICE, limit=10)).items
    assert [path.name for path in _workspaces(core)] == [run.session_id]


async def test_a_session_has_one_unfinished_run_whatever_the_code_does(
    core: Core, database: Database
) -> None:
    run = await core.start()

    def copy(tx: Transaction, state: str) -> None:
        row = tx.execute(select(runs).where(runs.c.id == run.id)).one()._asdict()
        tx.execute(insert(runs), row | {"id": new_id("run"), "state": state})

    for state in ("queued", "running"):
        with pytest.raises(Exception, match=r"(?i)unique"):
            await database.write(lambda tx, state=state: copy(tx, state))  # type: ignore[misc]
    await database.write(lambda tx: copy(tx, "completed"))


# --- reading ----------------------------------------------------------------------------------

STRANGERS = [Owner("org_default", "proj_other"), Owner("org_other", "proj_default")]


@pytest.mark.parametrize("owner", STRANGERS)
async def test_another_owners_run_is_not_there(core: Core, owner: Owner) -> None:
    run = await core.start()
    stranger = principal("stranger", owner)
    with pytest.raises(NotFound):
        await core.runs.get(stranger, run.id)
    with pytest.raises(NotFound):
        await core.runs.cancel(stranger, run.id)
    with pytest.raises(NotFound):
        await core.runs.events(stranger, run.id, after=0, limit=10)
    with pytest.raises(NotFound):
        await core.runs.place(stranger, run.id)
    with pytest.raises(NotFound):
        await anext(core.runs.follow(stranger, run.id, after=0, idle=1))
    with pytest.raises(NotFound):
        await core.runs.wait(stranger, run.id)
    assert (await core.runs.list(stranger, limit=10)).items == []
    assert await core.types(run) == ["run.queued", "user.message"]


@pytest.mark.parametrize("run_id", ["", "run_", "-run", "run_../x", "run_" + "0" * 26, "a\0b"])
async def test_ids_that_are_not_there(core: Core, run_id: str) -> None:
    for verb in (core.runs.get, core.runs.cancel, core.runs.wait):
        with pytest.raises(NotFound):
            await verb(ALICE, run_id)


async def test_a_list_is_paged_and_filtered(core: Core) -> None:
    made = [(await core.start(f"{number}")).id for number in range(5)]
    cancelled = await core.runs.cancel(ALICE, made[2])
    seen: list[str] = []
    after = None
    while True:
        page = await core.runs.list(ALICE, limit=2, after=after)
        seen += [run.id for run in page.items]
        after = page.next_cursor
        if after is None:
            break
    assert seen == sorted(made, reverse=True)
    assert (await core.runs.list(ALICE, limit=5, state="cancelled")).items == [cancelled]
    assert len((await core.runs.list(ALICE, limit=5, state="queued")).items) == 4
    with pytest.raises(Invalid):
        await core.runs.list(ALICE, limit=5, state="unknown")
    with pytest.raises(NotFound):
        await core.runs.list(ALICE, limit=5, after="run_x")


async def test_events_by_page_and_beyond_the_end(core: Core) -> None:
    run = await core.start()
    assert [e.seq for e in await core.runs.events(ALICE, run.id, after=1, limit=10)] == [2]
    assert await core.runs.events(ALICE, run.id, after=2, limit=10) == []
    with pytest.raises(Invalid) as caught:
        await core.runs.events(ALICE, run.id, after=3, limit=10)
    assert caught.value.error_code == "cursor_out_of_range"


async def test_following_ends_with_the_run_and_stops_listening(core: Core) -> None:
    run = await core.start()

    async def follow(after: int = 0) -> list[int]:
        items = core.runs.follow(ALICE, run.id, after=after, idle=30)
        return [item.seq async for item in items if item is not None and hasattr(item, "seq")]

    following = asyncio.create_task(follow())
    while not core.bus.listeners(run.session_id):
        await asyncio.sleep(0)
    await core.runs.cancel(ALICE, run.id)
    async with asyncio.timeout(30):
        assert await following == [event.seq for event in await core.book(run)]
    assert core.bus.listeners(run.session_id) == 0
    head = len(await core.book(run))
    assert await follow(after=head) == []  # it has ended: nothing to wait for
    assert await follow(after=head - 1) == [head]
    with pytest.raises(Invalid):
        await follow(after=head + 1)


async def test_waiting_returns_the_ended_run(core: Core) -> None:
    run = await core.start()
    waiting = asyncio.create_task(core.runs.wait(ALICE, run.id))
    while not core.bus.listeners(run.session_id):
        await asyncio.sleep(0)
    await core.runs.cancel(ALICE, run.id)
    async with asyncio.timeout(30):
        assert (await waiting).state.state == "cancelled"
        assert (await core.runs.wait(ALICE, run.id)).state.state == "cancelled"


async def test_a_shared_workspace_gives_each_run_a_directory(core: Core) -> None:
    first, second = [await core.start(workspace="team") for _ in range(2)]
    places = [(await core.runs.place(ALICE, run.id))[1] for run in (first, second)]
    assert places[0].workspace == places[1].workspace
    assert places[0].scope != places[1].scope
    rows = await core.database.read(lambda tx: tx.execute(select(sessions.c.scope)).scalars().all())
    assert sorted(rows) == sorted(str(place.scope) for place in places)


async def test_a_workspaces_name_is_checked(core: Core) -> None:
    with pytest.raises(Invalid):
        await core.runs.start(ALICE, RunOptions(prompt="x", workspace="../other"))
