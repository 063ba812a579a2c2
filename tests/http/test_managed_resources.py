"""Files mounted into sessions, through Anthropic's own SDK."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from stationmaster.agents.base import LaunchSpec
from stationmaster.agents.scripted import Say, WaitFor
from tests.http.conftest import ADMIN, STRANGER, House, Open
from tests.http.managed import MODEL, Talk, said, talk, text
from tests.support.sdk import check, sdk

GONE = "file_01jd3k00000000000000000000"
NOBODY = "sesrsc_01jd3k00000000000000000000"
WORDS = b"Some words."


@pytest.fixture
async def house(open_house: Open) -> AsyncIterator[House]:
    """With nothing launched ahead: the last agent launched is the one at work."""
    async with open_house(AGENT_POOL_SIZE="0") as opened:
        yield opened


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


async def stored(client: anthropic.AsyncAnthropic, content: bytes = WORDS) -> str:
    return (await client.beta.files.upload(file=("words.txt", content, "text/plain"))).id


async def begun(client: anthropic.AsyncAnthropic, *resources: Any) -> Any:
    agent = await client.beta.agents.create(name="a", model=MODEL, system="Be brief.")
    environment = await client.beta.environments.create(name="e")
    return check(
        await client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, resources=list(resources)
        )
    )


def launched(house: House) -> LaunchSpec:
    """How the agent was started last."""
    return house.agent.launched[-1]


def files_of(workspace: Path) -> dict[str, bytes]:
    found = (path for path in workspace.rglob("*") if path.is_file())
    return {str(path.relative_to(workspace)): path.read_bytes() for path in found}


async def test_a_session_begins_with_files(client: anthropic.AsyncAnthropic, house: House) -> None:
    house.agent.script = (Say("Read."),)
    file_id = await stored(client)
    made = await begun(
        client,
        {"type": "file", "file_id": file_id},
        {"type": "file", "file_id": file_id, "mount_path": "/workspace/data/./words.txt"},
    )
    usual = f"/mnt/session/uploads/{file_id}"
    assert [(each.type, each.file_id, each.mount_path) for each in made.resources] == [
        ("file", file_id, usual),
        ("file", file_id, "/workspace/data/words.txt"),
    ]
    # What the session has is a copy.
    await client.beta.files.delete(file_id)
    session = Talk(client, made.id)
    assert said(await session.say(text("Go."))) == "Read."
    spec = launched(house)
    found = await asyncio.to_thread(files_of, spec.workspace)
    assert found == {usual[1:]: WORDS, "data/words.txt": WORDS}
    mode = await asyncio.to_thread((spec.workspace / "data/words.txt").stat)
    assert mode.st_mode & 0o777 == 0o400
    assert spec.system_prompt is not None
    assert spec.system_prompt.startswith("Be brief.")
    assert "data/words.txt" in spec.system_prompt
    assert (await session.shown()).resources == made.resources


async def test_files_are_mounted_listed_and_taken_out(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Say("Done."),)
    session, resources = await talk(client), client.beta.sessions.resources
    await session.say(text("One."))
    assert launched(house).system_prompt is None
    first, second = [
        check(
            await resources.add(
                session.id,
                type="file",
                file_id=await stored(client, name.encode()),
                mount_path=f"/project/{name}.txt",
            )
        )
        for name in ("a", "b")
    ]
    assert first.mount_path == "/project/a.txt"
    assert [check(each) async for each in resources.list(session.id, limit=1)] == [first, second]
    assert check(await resources.retrieve(second.id, session_id=session.id)) == second
    workspace = launched(house).workspace
    assert await asyncio.to_thread(files_of, workspace) == {"a.txt": b"a", "b.txt": b"b"}
    with pytest.raises(anthropic.BadRequestError) as refused:
        await resources.update(first.id, session_id=session.id, authorization_token="x")
    assert refused.value.error_code == "unsupported"

    gone = check(await resources.delete(first.id, session_id=session.id))
    assert (gone.id, gone.type) == (first.id, "session_resource_deleted")
    assert await asyncio.to_thread(files_of, workspace) == {"b.txt": b"b"}
    await session.say(text("Two."))
    told = launched(house).system_prompt
    assert told is not None
    assert "b.txt" in told
    assert "a.txt" not in told
    assert (await session.shown()).resources == [second]
    for attempt in (
        resources.retrieve(first.id, session_id=session.id),
        resources.delete(first.id, session_id=session.id),
        resources.retrieve(NOBODY, session_id=session.id),
        resources.update(NOBODY, session_id=session.id, authorization_token="x"),
    ):
        with pytest.raises(anthropic.NotFoundError):
            await attempt


async def test_a_file_comes_while_the_agent_is_at_work(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    gate = WaitFor()
    house.agent.script = (Say("Begun."), gate, Say("Done."))
    session = await talk(client)
    async with session.stream() as stream:
        await session.send(text("Go."))
        async for event in stream:
            if event.type == "agent.message":
                break
        await client.beta.sessions.resources.add(
            session.id, type="file", file_id=await stored(client), mount_path="/workspace/late.txt"
        )
        found = await asyncio.to_thread(files_of, launched(house).workspace)
        assert found == {"late.txt": WORDS}
        gate.event.set()
        await session.until_idle(stream)


async def test_a_fork_has_the_files_too(client: anthropic.AsyncAnthropic, house: House) -> None:
    house.agent.script = (Say("Done."),)
    made = await begun(client, {"type": "file", "file_id": await stored(client)})
    await Talk(client, made.id).say(text("Go."))
    answer = await house.client.post(f"/v1/sessions/{made.id}/fork", json={})
    fork = Talk(client, answer.json()["id"])
    assert (await fork.shown()).resources == made.resources
    await client.beta.sessions.delete(made.id)
    await fork.say(text("Go on."))
    found = await asyncio.to_thread(files_of, launched(house).workspace)
    assert found == {made.resources[0].mount_path[1:]: WORDS}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({"file_id": GONE}, (404, "file_not_found", "file_id")),
        ({"file_id": "../../etc/passwd"}, (404, "not_found", "file_id")),
        ({"file_id": 5}, (400, "validation_failed", "file_id")),
        ({}, (400, "validation_failed", "file_id")),
        ({"mount_path": "/etc/passwd"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "/workspace"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "/workspace/"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "/workspace/../x"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "/mnt/session/../../x"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "/workspacex/y"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": "words.txt"}, (400, "mount_path_invalid", "mount_path")),
        ({"mount_path": ""}, (400, "invalid_request", "mount_path")),
        ({"mount_path": "/workspace/\0"}, (400, "invalid_request", "mount_path")),
        ({"mount_path": "/workspace/" + "x" * 300}, (400, "mount_path_invalid", "mount_path")),
        ({"mode": "rw"}, (400, "validation_failed", "mode")),
        ({"type": "github_repository", "url": "https://x/y"}, (400, "unsupported", "type")),
        ({"type": "memory_store", "memory_store_id": "m"}, (400, "unsupported", "type")),
        ({"type": "directory"}, (400, "validation_failed", None)),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else str(value[0]),
)
async def test_what_cannot_be_mounted_is_named_and_changes_nothing(
    client: anthropic.AsyncAnthropic,
    house: House,
    resource: dict[str, Any],
    expected: tuple[int, str, str | None],
) -> None:
    status, code, param = expected
    session = await talk(client)
    body = {"type": "file", **resource}
    if "file_id" not in resource and resource and body["type"] == "file":
        body["file_id"] = await stored(client)
    whole = {**(await _wants(client)), "resources": [body]}
    for path, sent, at in (
        (f"/v1/sessions/{session.id}/resources", body, ""),
        ("/v1/sessions", whole, "resources.0."),
    ):
        answer = await house.client.post(path, json=sent)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["details"]["error_code"] == code
        if param is not None:
            assert error["details"]["param"] == f"{at}{param}"
    assert (await session.shown()).resources == []
    assert [item.id async for item in client.beta.sessions.list()] == [session.id]
    places = house.settings.workspace_dir / "sessions"
    assert await asyncio.to_thread(lambda: list(places.glob("sesn_*"))) == []


async def _wants(client: anthropic.AsyncAnthropic) -> dict[str, str]:
    agent = await client.beta.agents.create(name="b", model=MODEL)
    environment = await client.beta.environments.create(name="b")
    return {"agent": agent.id, "environment_id": environment.id}


async def test_what_is_taken_or_closed_takes_no_file(client: anthropic.AsyncAnthropic) -> None:
    session, file_id = await talk(client), await stored(client)
    add = client.beta.sessions.resources.add
    await add(session.id, type="file", file_id=file_id, mount_path="/workspace/a")
    for taken in ("/workspace/a", "/project/a", "/workspace/a/b"):
        with pytest.raises(anthropic.ConflictError) as caught:
            await add(session.id, type="file", file_id=file_id, mount_path=taken)
        assert caught.value.error_code == "mount_path_taken"
    with pytest.raises(anthropic.ConflictError):
        await begun(client, *[{"type": "file", "file_id": file_id}] * 2)
    [resource] = (await session.shown()).resources
    await client.beta.sessions.archive(session.id)
    for attempt in (
        add(session.id, type="file", file_id=file_id),
        client.beta.sessions.resources.delete(resource.id, session_id=session.id),
    ):
        with pytest.raises(anthropic.ConflictError) as caught:
            await attempt
        assert caught.value.error_code == "session_archived"


async def test_links_lead_nowhere(
    client: anthropic.AsyncAnthropic, house: House, tmp_path: Path
) -> None:
    house.agent.script = (Say("Done."),)
    session, outside = await talk(client), tmp_path / "outside"
    await session.say(text("Go."))
    workspace = launched(house).workspace
    await asyncio.to_thread(outside.mkdir)
    await asyncio.to_thread((workspace / "way").symlink_to, outside)
    resources = client.beta.sessions.resources
    file_id = await stored(client)
    with pytest.raises(anthropic.ConflictError):
        await resources.add(
            session.id, type="file", file_id=file_id, mount_path="/workspace/way/words.txt"
        )
    made = await resources.add(
        session.id, type="file", file_id=file_id, mount_path="/workspace/in/words.txt"
    )
    # The agent puts a link in the place of the directory: what is outside stays.
    (outside / "words.txt").write_bytes(b"theirs")
    (workspace / "in" / "words.txt").unlink()
    (workspace / "in").rmdir()
    (workspace / "in").symlink_to(outside)
    await resources.delete(made.id, session_id=session.id)
    assert (outside / "words.txt").read_bytes() == b"theirs"


async def test_files_count_against_the_workspace(open_house: Open) -> None:
    async with open_house(WORKSPACE_QUOTA="1MB") as house, sdk(house.url, ADMIN) as client:
        house.agent.script = (Say("Done."),)
        large = await stored(client, b"x" * 600_000)
        first = {"type": "file", "file_id": large, "mount_path": "/workspace/a"}
        with pytest.raises(anthropic.APIStatusError) as caught:
            await begun(client, first, {**first, "mount_path": "/workspace/b"})
        assert caught.value.status_code == 413
        session = Talk(client, (await begun(client, first)).id)
        await session.say(text("Go."))
        workspace = launched(house).workspace
        small = await stored(client, b"x" * 300_000)
        await asyncio.to_thread((workspace / "theirs").write_bytes, b"x" * 300_000)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.beta.sessions.resources.add(session.id, type="file", file_id=small)
        assert caught.value.status_code == 413
        assert set(await asyncio.to_thread(files_of, workspace)) == {"a", "theirs"}
        assert [item.id async for item in client.beta.sessions.list()] == [session.id]


async def test_anothers_files_and_sessions_are_not_there(
    client: anthropic.AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    mine, session = await stored(client), await talk(client)
    made = await client.beta.sessions.resources.add(session.id, type="file", file_id=mine)
    async with sdk(house.url, STRANGER) as other:
        theirs, resources = await talk(other), other.beta.sessions.resources
        for attempt in (
            resources.add(theirs.id, type="file", file_id=mine),
            begun(other, {"type": "file", "file_id": mine}),
            resources.add(session.id, type="file", file_id=await stored(other)),
            resources.list(session.id),
            resources.retrieve(made.id, session_id=session.id),
            resources.retrieve(made.id, session_id=theirs.id),
            resources.delete(made.id, session_id=session.id),
        ):
            with pytest.raises(anthropic.NotFoundError) as caught:
                await attempt
            assert caught.value.type == "not_found_error"


async def test_a_key_that_may_read_no_files_mounts_none(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    body = {"name": "narrow", "permissions": ["read:sessions", "write:sessions"]}
    key = (await house.client.post("/api/admin/keys", json=body)).json()
    session, file_id = await talk(client), await stored(client)
    answer = await house.client.post(
        f"/v1/sessions/{session.id}/resources",
        json={"type": "file", "file_id": file_id},
        headers=house.as_key(key["key"]),
    )
    assert answer.status_code == 403
    assert (await session.shown()).resources == []
