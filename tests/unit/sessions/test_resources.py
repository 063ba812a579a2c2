"""Stored files in a session's workspace: kept, counted, and there after a server is lost."""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from stationmaster.agents.scripted import Call, Say, ScriptedAgent, WaitFor
from stationmaster.files import StoredFile
from stationmaster.files.files import NewFile
from stationmaster.kernel.errors import Conflict, Invalid, NotFound
from stationmaster.sessions.mounts import MAX_RESOURCES, check_free, place_of_mount
from stationmaster.sessions.session import Mount
from tests.support.core import ALICE, Core
from tests.unit.sessions.talking import Talk, say


@pytest.fixture
def talk(core: Core) -> Talk:
    return Talk(core)


async def stored(core: Core, content: bytes = b"words") -> StoredFile:
    who = ALICE
    return await core.stored_files.upload(who, NewFile("w.txt", "text/plain", BytesIO(content)))


def workspace(core: Core) -> Path:
    assert isinstance(core.agent, ScriptedAgent)
    return core.agent.launched[-1].workspace


def places(core: Core) -> list[Path]:
    root = core.directory / "workspaces" / "sessions"
    return list(root.iterdir()) if root.exists() else []


async def test_what_is_mounted_stands_in_the_book(core: Core, talk: Talk) -> None:
    file = await stored(core)
    session = await talk.create(resources=(Mount(file.id, "/workspace/a"),))
    [first] = (await talk.now(session)).state.resources
    second = await core.resources.add(ALICE, session.id, Mount(file.id))
    assert (await talk.now(session)).state.resources == (first, second)
    await core.resources.remove(ALICE, session.id, first["id"])
    assert await core.resources.list(ALICE, session.id) == (second,)
    assert await core.resources.get(ALICE, session.id, second["id"]) == second
    assert (await talk.now(session)).state.resources == (second,)


async def test_another_server_has_the_files_too(core: Core, talk: Talk) -> None:
    talk.script(Say("Done."))
    file = await stored(core)
    session = await talk.create(resources=(Mount(file.id, "/workspace/a"),))
    await core.resources.add(ALICE, session.id, Mount(file.id, "/workspace/b"))
    other = core.beside()
    await core.stored_files.delete(ALICE, file.id)
    await talk.send(session, say("Go."))
    async with other.working(other.worker(1)):
        await talk.ended(session)
    assert await asyncio.to_thread((workspace(other) / "a").read_bytes) == b"words"
    assert await asyncio.to_thread((workspace(other) / "b").read_bytes) == b"words"


async def test_a_first_file_before_a_turn_and_while_it_begins(core: Core, talk: Talk) -> None:
    file = await stored(core)
    talk.script(Say("Done."))
    waits = await talk.create(say("Go."))
    await core.resources.add(ALICE, waits.id, Mount(file.id, "/workspace/a"))
    async with core.working(core.worker(1)):
        await talk.ended(waits)
    assert await asyncio.to_thread((workspace(core) / "a").read_bytes) == b"words"

    begins = await talk.create(say("Go."))
    claim = await core.claims.next()
    assert claim is not None
    with pytest.raises(Conflict) as caught:
        await core.resources.add(ALICE, begins.id, Mount(file.id))
    assert caught.value.error_code == "session_busy"
    assert (await talk.now(begins)).state.resources == ()
    assert [path.name for path in await asyncio.to_thread(places, core)] == [waits.id]


async def test_an_agent_that_waits_is_launched_anew_to_be_told(core: Core, talk: Talk) -> None:
    talk.script(Say("Done."))
    session = await talk.create(say("One."))
    async with core.working(core.worker(1)):
        await talk.ended(session)
        await core.resources.add(ALICE, session.id, Mount((await stored(core)).id))
        await talk.send(session, say("Two."))
        await talk.ended(session, 2)
    assert isinstance(core.agent, ScriptedAgent)
    first, second = core.agent.launched
    assert first.system_prompt is None
    assert second.system_prompt is not None
    assert second.resume is not None


async def test_what_is_refused_leaves_what_was_there(core: Core, talk: Talk) -> None:
    gate, here = WaitFor(), asyncio.Event()

    async def reached(_spec: Any) -> None:
        here.set()

    talk.script(Call(reached), gate, Say("Done."))
    session = await talk.create(say("Go."))
    async with core.working(core.worker(1)):
        await here.wait()
        held = workspace(core) / "held"
        await asyncio.to_thread(held.write_bytes, b"theirs" * 10)
        too_large = await stored(core, b"x" * 2**20)
        with pytest.raises(Invalid) as caught:
            await core.resources.add(ALICE, session.id, Mount(too_large.id, "/workspace/held"))
        assert caught.value.error_code == "workspace_too_large"
        assert await asyncio.to_thread(held.read_bytes) == b"theirs" * 10
        gate.event.set()
        await talk.ended(session)
    with pytest.raises(NotFound):
        await core.resources.remove(ALICE, session.id, "sesrsc_01jd3k00000000000000000000")


def test_no_file_lies_below_another() -> None:
    there = [{"path": "a/b", "mount_path": "/workspace/a/b"}]
    check_free(there, {"path": "a/bc"}, "mount_path")
    for path in ("a", "a/b", "a/b/c"):
        with pytest.raises(Conflict):
            check_free(there, {"path": path}, "mount_path")
    many = [{"path": str(n), "mount_path": str(n)} for n in range(MAX_RESOURCES)]
    with pytest.raises(Conflict) as caught:
        check_free(many, {"path": "more"}, "mount_path")
    assert caught.value.error_code == "too_many_resources"


@pytest.mark.parametrize(
    ("wanted", "seen", "path"),
    [
        (None, "/mnt/session/uploads/file_1", "mnt/session/uploads/file_1"),
        ("/workspace/a//./b", "/workspace/a/b", "a/b"),
        ("/project/a", "/project/a", "a"),
        ("/mnt/session/in/a", "/mnt/session/in/a", "mnt/session/in/a"),
    ],
)
def test_where_a_file_goes(wanted: str | None, seen: str, path: str) -> None:
    assert place_of_mount(Mount("file_1", wanted), "mount_path") == (seen, path)
