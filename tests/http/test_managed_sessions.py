"""Sessions and their events through Anthropic's own SDK, with an agent that plays scripts."""

import asyncio
import base64
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import beta_async_tool

from stationmaster.agents.base import AgentHistoryMissing
from stationmaster.agents.scripted import Fail, Say, UseTool, WaitFor
from stationmaster.agents.scripted.script import Delegate, Output, Think
from tests.http.conftest import ADMIN, STRANGER, House, Open
from tests.http.managed import (
    ASK,
    MODEL,
    PATIENCE,
    TOOLSET,
    WEATHER,
    Talk,
    by_words,
    said,
    talk,
    text,
    types,
)
from tests.support.sdk import check, sdk

NOBODY = "sesn_01jd3k00000000000000000000"
NOTHING = "sevt_01jd3k00000000000000000000"


@pytest.fixture
async def client(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with sdk(house.url, ADMIN) as made:
        yield made


def png(side: int = 1) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0"))
    return base64.b64encode(raw + chunk(b"IEND", b"")).decode()


def image(data: str | None = None, media_type: str = "image/png") -> Any:
    source = {"type": "base64", "media_type": media_type, "data": png() if data is None else data}
    return {"type": "image", "source": source}


# --- sessions -----------------------------------------------------------------------------------


async def test_a_session_from_its_making_to_its_end(client: anthropic.AsyncAnthropic) -> None:
    sessions = client.beta.sessions
    agent = await client.beta.agents.create(name="a", model=MODEL, tools=[TOOLSET, WEATHER])
    environment = await client.beta.environments.create(name="e")
    made = check(
        await sessions.create(
            agent={"type": "agent", "id": agent.id, "version": 1},
            environment_id=environment.id,
            title="First",
            metadata={"a": "b"},
            budget={"type": "limit", "max_list_cost": {"amount": "250", "currency": "USD"}},
        )
    )
    assert (made.status, made.title, made.metadata) == ("idle", "First", {"a": "b"})
    assert made.agent.id == agent.id
    assert made.budget is not None
    assert made.budget.max_list_cost.amount == "250"
    assert made.environment_id == environment.id
    assert (made.resources, made.vault_ids, made.outcome_evaluations) == ([], [], [])
    assert check(await sessions.retrieve(made.id)).agent == made.agent

    changed = check(
        await sessions.update(
            made.id, title="Second", metadata={"a": None, "c": "d"}, agent={"tools": [TOOLSET]}
        )
    )
    assert (changed.title, changed.metadata) == ("Second", {"c": "d"})
    assert [tool.type for tool in changed.agent.tools] == ["agent_toolset_20260401"]
    assert check(await sessions.update(made.id, budget=None)).budget is None
    assert len((await client.beta.agents.retrieve(agent.id)).tools) == 2
    updates = [
        check(event) async for event in sessions.events.list(made.id, types=["session.updated"])
    ]
    assert len(updates) == 2

    archived = check(await sessions.archive(made.id))
    assert archived.archived_at is not None
    assert [item async for item in sessions.list()] == []
    assert [item.id async for item in sessions.list(include_archived=True)] == [made.id]
    gone = check(await sessions.delete(made.id))
    assert (gone.id, gone.type) == (made.id, "session_deleted")
    with pytest.raises(anthropic.NotFoundError):
        await sessions.retrieve(made.id)


async def test_an_agents_version_is_kept_and_may_be_overridden(
    client: anthropic.AsyncAnthropic,
) -> None:
    agent = await client.beta.agents.create(name="a", model=MODEL, system="One.")
    environment = await client.beta.environments.create(name="e")
    create = client.beta.sessions.create
    first = await create(agent=agent.id, environment_id=environment.id)
    await client.beta.agents.update(agent.id, system="Two.")
    assert (await client.beta.sessions.retrieve(first.id)).agent.system == "One."
    second = await create(agent=agent.id, environment_id=environment.id)
    assert (second.agent.version, second.agent.system) == (2, "Two.")
    third = check(
        await create(
            agent={"type": "agent_with_overrides", "id": agent.id, "system": "Three."},
            environment_id=environment.id,
        )
    )
    assert (third.agent.version, third.agent.system) == (2, "Three.")
    listed = client.beta.sessions.list(agent_id=agent.id, agent_version=2)
    assert {item.id async for item in listed} == {second.id, third.id}


async def test_sessions_are_listed_in_pages_and_filtered(
    client: anthropic.AsyncAnthropic,
) -> None:
    agent = await client.beta.agents.create(name="a", model=MODEL)
    environment = await client.beta.environments.create(name="e")
    made = [
        await client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
        for _ in range(5)
    ]
    ids, found = [item.id for item in made], client.beta.sessions.list
    assert [check(item).id async for item in found(limit=2)] == ids[::-1]
    assert [item.id async for item in found(limit=2, order="asc")] == ids
    assert [item.id async for item in found(statuses=["running"])] == []
    assert len([item async for item in found(statuses=["running", "idle"])]) == 5
    assert [item async for item in found(created_at_lt=made[0].created_at)] == []
    assert len([item async for item in found(created_at_gte=made[0].created_at)]) == 5
    assert [item async for item in found(deployment_id="depl_1")] == []


@pytest.mark.parametrize("end", ["archive", "delete"])
async def test_the_end_of_a_session_ends_its_idle_process(open_house: Open, end: str) -> None:
    async with open_house(AGENT_POOL_SIZE="0") as house, sdk(house.url, ADMIN) as client:
        house.agent.script = (Say("Done."),)
        session, pool = await talk(client), house.application.pool
        await session.say(text("Go."))
        async with asyncio.timeout(PATIENCE):
            while session.id not in pool.idle():
                await asyncio.sleep(0.01)
        assert house.agent.alive() == 1
        await getattr(client.beta.sessions, end)(session.id)
        assert pool.idle() == []
        assert house.agent.alive() == 0


# --- conversation -------------------------------------------------------------------------------


async def test_a_turn_as_it_happens_and_as_it_is_kept(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Think("Hm."), Say("Hello you there."), UseTool("Bash", {"command": "ls"}))
    session = await talk(client, TOOLSET)
    previews = ["agent.message", "agent.thinking"]
    events = await session.say(text("Hi."), event_deltas=previews)
    assert said(events) == "Hello you there."
    assert types(events)[:2] == ["user.message", "session.status_running"]
    assert events[-1].stop_reason.type == "end_turn"
    use = next(event for event in events if event.type == "agent.tool_use")
    result = next(event for event in events if event.type == "agent.tool_result")
    assert (use.name, use.input, use.evaluated_permission) == ("bash", {"command": "ls"}, "allow")
    assert result.tool_use_id == use.id

    message = next(event for event in events if event.type == "agent.message")
    pieces = [event for event in events if event.type == "event_delta"]
    assert {piece.event_id for piece in pieces} == {message.id}
    written = "".join(piece.delta.content.text for piece in pieces)
    assert written.replace(" ", "") == "Helloyouthere."
    starts = [event.event for event in events if event.type == "event_start"]
    assert ("agent.message", message.id) in [(start.type, start.id) for start in starts]

    kept = await session.events()
    assert [event.id for event in kept] == [event.id for event in events if hasattr(event, "id")]
    assert (await session.events(order="desc"))[0].id == kept[-1].id
    only = await session.events(types=["agent.message", "user.message"], limit=1)
    assert types(only) == ["user.message", "agent.message"]
    shown = await session.shown()
    assert shown.status == "idle"
    assert shown.stats.active_seconds is not None


async def test_first_events_begin_a_turn_at_once(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Say("Done."),)
    agent = await client.beta.agents.create(name="a", model=MODEL)
    environment = await client.beta.environments.create(name="e")
    made = check(
        await client.beta.sessions.create(
            agent=agent.id, environment_id=environment.id, initial_events=[text("Go.")]
        )
    )
    session = Talk(client, made.id)
    async with asyncio.timeout(PATIENCE):
        while "session.status_idle" not in types(kept := await session.events()):
            await asyncio.sleep(0.05)
    assert said(kept) == "Done."


async def test_messages_to_a_session_at_work_wait_for_their_turn(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    gate = WaitFor()
    by_words(
        house.agent,
        {"one": (gate, Say("First.")), "two": (Say("Second."),), "three": (Say("Third."),)},
    )
    session = await talk(client)
    async with session.stream() as stream:
        sent = await session.send(text("one"))
        assert sent.data[0].processed_at is not None
        waiting = (await session.send(text("two"), text("three"))).data
        assert [event.processed_at for event in waiting] == [None, None]
        gate.event.set()
        turns = [await session.until_idle(stream) for _ in range(3)]
    assert [said(turn) for turn in turns] == ["First.", "Second.", "Third."]
    kept = [event for event in await session.events() if event.type == "user.message"]
    assert all(event.processed_at is not None for event in kept)
    assert [event.id for event in kept[1:]] == [event.id for event in waiting]


async def test_an_interrupt_ends_the_turn_and_the_session_goes_on(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    by_words(house.agent, {"wait": (Say("Waiting."), WaitFor()), "go": (Say("Gone on."),)})
    session = await talk(client)
    async with session.stream() as stream:
        await session.send(text("wait"))
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if event.type == "agent.message":
                    break
        await session.send({"type": "user.interrupt"})
        stopped = await session.until_idle(stream)
    assert "user.interrupt" in types(stopped)
    assert said(await session.say(text("go"))) == "Gone on."
    await session.send({"type": "user.interrupt"})  # without a turn it changes nothing
    assert (await session.shown()).status == "idle"


async def test_images_documents_and_stored_files_reach_the_agent(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    seen: list[Any] = []

    def script(_spec: object, content: Any) -> Any:
        seen.extend(content)
        return (Say("Seen."),)

    house.agent.script = script
    picture = await client.beta.files.upload(file=("p.png", base64.b64decode(png()), "image/png"))
    notes = await client.beta.files.upload(file=("n.txt", b"Some notes.", "text/plain"))
    session = await talk(client)
    content = [
        {"type": "text", "text": "Look."},
        image(),
        {"type": "image", "source": {"type": "file", "file_id": picture.id}},
        {"type": "document", "source": {"type": "file", "file_id": notes.id}, "title": "Notes"},
    ]
    await session.say({"type": "user.message", "content": content})
    assert [block["type"] for block in seen] == ["text", "image", "image", "document"]
    assert seen[1]["source"] == seen[2]["source"]
    assert seen[3]["source"]["data"] == "Some notes."


async def test_stored_files_that_cannot_be_said(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    upload = client.beta.files.upload
    large = await upload(file=("l.pdf", b"%PDF-" + b"x" * 9 * 1024**2, "application/pdf"))
    raw = await upload(file=("r.txt", b"\xff\xfe", "text/plain"))
    sound = await upload(file=("s.mp3", b"ID3", "audio/mpeg"))
    session = await talk(client)

    def of(kind: str, *files: Any) -> Any:
        sources = [{"type": "file", "file_id": file.id} for file in files]
        content = [{"type": kind, "source": source} for source in sources]
        return {"type": "user.message", "content": content}

    for event, status, place in (
        (of("document", large, large), 413, 1),
        (of("document", raw), 400, 0),
        (of("document", sound), 400, 0),
        (of("image", sound), 400, 0),
    ):
        answer = await house.client.post(
            f"/v1/sessions/{session.id}/events", json={"events": [event]}
        )
        kind = "request_too_large" if status == 413 else "invalid_request_error"
        error = check_error(answer, status, kind)
        assert error["details"]["param"].startswith(f"events.0.content.{place}.source")
    assert await session.events() == []


# --- tools --------------------------------------------------------------------------------------


async def test_a_call_waits_for_a_persons_word(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (UseTool("Bash", {"command": "ls"}), Say("Done."))
    session = await talk(client, ASK)
    for result, more in (("allow", {}), ("deny", {"deny_message": "Not today."})):
        asked = await session.say(text("Go."))
        reason = asked[-1].stop_reason
        assert reason.type == "requires_action"
        use = next(event for event in asked if event.type == "agent.tool_use")
        assert (reason.event_ids, use.evaluated_permission) == ([use.id], "ask")
        waiting = (await house.client.get("/v1/approvals", params={"state": "pending"})).json()
        assert [item["event_id"] for item in waiting["approvals"]] == [use.id]

        word: Any = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": result}
        done = await session.say({**word, **more})
        assert done[-1].stop_reason.type == "end_turn"
        answer = next(event for event in done if event.type == "user.tool_confirmation")
        assert (answer.result, answer.deny_message) == (result, more.get("deny_message"))
        outcome = next(event for event in done if event.type == "agent.tool_result")
        assert bool(outcome.is_error) == (result == "deny")
        with pytest.raises(anthropic.ConflictError) as caught:
            await session.send(word)
        assert caught.value.error_code == "already_answered"


async def test_a_custom_tool_is_the_clients(client: anthropic.AsyncAnthropic, house: House) -> None:
    house.agent.script = (UseTool("weather", {"city": "Oslo"}), Say("Thanks."))
    session = await talk(client, WEATHER)
    asked = await session.say(text("Go."))
    use = next(event for event in asked if event.type == "agent.custom_tool_use")
    assert (use.name, use.input) == ("weather", {"city": "Oslo"})
    assert asked[-1].stop_reason.event_ids == [use.id]
    answer: Any = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": use.id,
        "content": [{"type": "text", "text": "Rain."}, image()],
    }
    done = await session.say(answer)
    assert said(done) == "Thanks."
    kept = types(await session.events())
    assert kept.count("user.custom_tool_result") == 1
    assert "agent.tool_result" not in [*types(done), *kept], "its result is the client's"
    assert await session.events(types=["agent.tool_result"]) == []
    with pytest.raises(anthropic.ConflictError) as caught:
        await session.send(answer)
    assert caught.value.error_code == "already_answered"


async def test_the_sdks_own_runner_runs_custom_tools(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (
        UseTool("weather", {"city": "Oslo"}),
        UseTool("weather", {"city": "Rome"}),
        Say("Thanks."),
    )

    @beta_async_tool
    async def weather(city: str) -> str:
        """Tells the weather."""
        if city == "Rome":
            raise RuntimeError("No such city.")
        return f"Rain in {city}."

    session = await talk(client, WEATHER)
    await session.send(text("Go."))
    calls = []
    async with asyncio.timeout(PATIENCE):
        runner = client.beta.sessions.events.tool_runner(session.id, tools=[weather], max_idle=0.5)
        async for call in runner:
            calls.append((call.name, call.is_error, call.posted))
    assert calls == [("weather", False, True), ("weather", True, True)]
    kept = await session.events()
    assert types(kept).count("user.custom_tool_result") == 2
    assert said(kept) == "Thanks."


async def test_sub_agents_are_threads_with_streams_of_their_own(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Delegate("helper", (Say("Helping."),), "Help."), Say("Helped."))
    helper = await client.beta.agents.create(name="helper", model=MODEL, description="Helps.")
    session = await talk(client, TOOLSET, multiagent={"type": "coordinator", "agents": [helper.id]})
    events = await session.say(text("Go."))
    created = next(event for event in events if event.type == "session.thread_created")
    assert created.agent_name == "helper"
    assert "session.thread_status_idle" in types(events)
    threads = client.beta.sessions.threads
    found = [check(item) async for item in threads.list(session.id, limit=1)]
    assert [item.parent_thread_id for item in found] == [None, found[0].id]
    assert found[1].id == created.session_thread_id
    assert check(await threads.retrieve(found[1].id, session_id=session.id)) == found[1]
    inner = [check(item) async for item in threads.events.list(found[1].id, session_id=session.id)]
    assert said(inner) == "Helping."
    assert said(events) == "Helped."
    with pytest.raises(anthropic.NotFoundError):
        await threads.retrieve("sthr_01jd3k00000000000000000000", session_id=session.id)
    archived = check(await threads.archive(found[1].id, session_id=session.id))
    assert archived.archived_at is not None
    assert await threads.archive(found[1].id, session_id=session.id) == archived
    assert check(await threads.retrieve(found[1].id, session_id=session.id)) == archived
    inner = [check(item) async for item in threads.events.list(found[1].id, session_id=session.id)]
    assert said(inner) == "Helping."
    with pytest.raises(anthropic.BadRequestError) as refused:
        await threads.archive(found[0].id, session_id=session.id)
    assert refused.value.error_code == "unsupported"
    with pytest.raises(anthropic.NotFoundError):
        await threads.archive("sthr_01jd3k00000000000000000000", session_id=session.id)


async def test_a_thread_at_work_is_not_archived(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    gate = WaitFor()
    house.agent.script = (Delegate("helper", (Say("Helping."), gate), "Help."), Say("Helped."))
    helper = await client.beta.agents.create(name="helper", model=MODEL, description="Helps.")
    session = await talk(client, TOOLSET, multiagent={"type": "coordinator", "agents": [helper.id]})
    threads = client.beta.sessions.threads
    async with session.stream() as stream:
        await session.send(text("Go."))
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if event.type == "session.thread_created":
                    break
        theirs = event.session_thread_id
        with pytest.raises(anthropic.ConflictError):
            await threads.archive(theirs, session_id=session.id)
        # A sub-agent cannot be interrupted alone; the session's own thread is all of it.
        with pytest.raises(anthropic.BadRequestError) as refused:
            await session.send({"type": "user.interrupt", "session_thread_id": theirs})
        assert refused.value.error_code == "unsupported"
        own = (await threads.list(session.id)).data[0]
        await session.send({"type": "user.interrupt", "session_thread_id": own.id})
        stopped = await session.until_idle(stream)
    assert "user.interrupt" in types(stopped)
    check(await threads.archive(theirs, session_id=session.id))


# --- what is ours -----------------------------------------------------------------------------


async def test_an_output_schema_and_the_turns(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    by_words(
        house.agent,
        {
            "good": (Output({"answer": 42}),),
            "bad": (Say("No."),),
            "none": (Say("Hm."),),
        },
    )
    session = await talk(client)
    for words in ("good", "bad"):
        await session.say({**text(words), "output_schema": schema})
    await session.say(text("none"))
    path = f"/v1/sessions/{session.id}/turns"
    first = (await house.client.get(path, params={"limit": 2})).json()
    rest = (await house.client.get(path, params={"page": first["next_page"]})).json()
    none, bad, good = list[Any](first["data"] + rest["data"])
    assert rest["next_page"] is None
    assert (good["state"], good["structured_output"]) == ("completed", {"answer": 42})
    assert (bad["state"], bad["error"]["code"]) == ("failed", "output_invalid")
    assert (none["state"], none["structured_output"], none["result"]) == ("completed", None, "Hm.")
    answer = await house.client.post(f"/v1/sessions/{session.id}/fork", json={"run_id": good["id"]})
    assert check_status(answer, 200)["id"] != session.id
    wrong = await house.client.post(
        f"/v1/sessions/{session.id}/events",
        json={"events": [{**text("x"), "output_schema": {"type": "rocket"}}]},
    )
    error = check_error(wrong, 400, "invalid_request_error")
    assert error["details"]["param"].startswith("events.0.output_schema")


def check_status(answer: httpx.Response, status: int) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_rules_decide_before_anybody_is_asked(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    by_words(
        house.agent,
        {
            "status": (UseTool("Bash", {"command": "git status"}), Say("Done.")),
            "push": (UseTool("Bash", {"command": "git push"}), Say("Done.")),
        },
    )
    agent = await client.beta.agents.create(name="a", model=MODEL, tools=[ASK])
    environment = await client.beta.environments.create(name="e")
    body = {
        "agent": agent.id,
        "environment_id": environment.id,
        "on_crash": "interrupt",
        "rules": [
            {"tool": "bash", "pattern": "git status", "action": "allow"},
            {"tool": "bash", "pattern": "git push*", "action": "deny"},
        ],
    }
    made = check_status(await house.client.post("/v1/sessions", json=body), 200)
    session = Talk(client, made["id"])
    for words, permission in (("status", "allow"), ("push", "deny")):
        events = await session.say(text(words))
        assert events[-1].stop_reason.type == "end_turn"
        [use] = [event for event in events if event.type == "agent.tool_use"]
        assert use.evaluated_permission == permission
    wrong = {**body, "rules": [{"tool": "bash", "action": "perhaps"}]}
    check_error(await house.client.post("/v1/sessions", json=wrong), 400, "invalid_request_error")


async def test_an_agents_own_rules_and_policies_hold_in_its_sessions(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    by_words(
        house.agent,
        {
            "status": (UseTool("Bash", {"command": "git status"}), Say("Done.")),
            "push": (UseTool("Bash", {"command": "git push"}), Say("Done.")),
            "read": (UseTool("Read", {"file_path": "a"}), Say("Done.")),
        },
    )
    rules = [
        {"tool": "bash", "pattern": "git status", "action": "allow"},
        {"tool": "bash", "pattern": "git push*", "action": "deny"},
    ]
    policies: Any = {
        **TOOLSET,
        "default_config": {"permission_policy": {"type": "always_ask"}},
        "configs": [{"name": "read", "permission_policy": {"type": "always_allow"}}],
    }
    extra = {"rules": rules}
    agent = await client.beta.agents.create(
        name="a", model=MODEL, tools=[policies], extra_body=extra
    )
    assert agent.to_dict()["rules"] == rules
    cleared = await client.beta.agents.update(agent.id, version=1, extra_body={"rules": []})
    assert cleared.version == 2
    assert check(cleared).tools == agent.tools
    environment = await client.beta.environments.create(name="e")
    for version, found in ((1, ("allow", "deny", "allow")), (2, ("ask", "ask", "allow"))):
        made = await client.beta.sessions.create(
            agent={"type": "agent", "id": agent.id, "version": version},
            environment_id=environment.id,
        )
        for words, permission in zip(("status", "push", "read"), found, strict=True):
            session = Talk(client, made.id)
            events = await session.say(text(words))
            [use] = [event for event in events if event.type == "agent.tool_use"]
            assert use.evaluated_permission == permission, (version, words)
            if permission == "ask":
                word = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "deny"}
                await session.say(word)


# --- streams ------------------------------------------------------------------------------------


async def test_a_stream_begins_with_what_comes_next(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Say("Again."),)
    session = await talk(client)
    before = await session.say(text("one"))
    after = await session.say(text("two"))
    assert not {event.id for event in before} & {event.id for event in after}
    assert [event.id for event in await session.events()] == [
        event.id for event in [*before, *after]
    ]


async def test_a_stream_resumes_at_every_number(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    house.agent.script = (Say("One."), UseTool("Bash", {"command": "ls"}), Say("Two."))
    session = await talk(client, TOOLSET)
    whole = await session.say(text("Go."))
    kept = [event.id for event in await session.events()]
    assert [event.id for event in whole] == kept
    numbered = await numbers(house, session.id, 0, kept[-1])
    assert [event_id for _, event_id in numbered] == kept
    for place, (number, _) in enumerate(numbered[:-1]):
        rest = await numbers(house, session.id, number, kept[-1])
        assert [event_id for _, event_id in rest] == kept[place + 1 :]


async def numbers(house: House, session_id: str, after: int, last: str) -> list[tuple[int, str]]:
    """The numbers and ids of events that follow one, up to the last."""
    found: list[tuple[int, str]] = []
    path = f"/v1/sessions/{session_id}/events/stream"
    headers = {"last-event-id": str(after)}
    async with (
        asyncio.timeout(PATIENCE),
        house.client.stream("GET", path, headers=headers) as answer,
    ):
        number = 0
        async for line in answer.aiter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: ") and '"sevt_' in line:
                event_id = line.split('"id":"')[1].split('"')[0]
                found.append((number, event_id))
                if event_id == last:
                    return found
    raise AssertionError(found)


async def test_a_stream_ends_with_its_session(client: anthropic.AsyncAnthropic) -> None:
    session = await talk(client)
    async with session.stream() as stream:
        await client.beta.sessions.delete(session.id)
        async with asyncio.timeout(PATIENCE):
            assert types([check(event) async for event in stream]) == ["session.deleted"]


async def test_a_silent_stream_is_kept_alive_and_ends_when_the_server_stops(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    session = await talk(client)
    async with session.stream() as stream:
        house.services.stopping.set()
        async with asyncio.timeout(PATIENCE):
            assert [event async for event in stream] == []
    path = f"/v1/sessions/{session.id}/events/stream"
    answer = await house.client.get(path)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("event: ping\n")


# --- refusals -----------------------------------------------------------------------------------


def check_error(answer: httpx.Response, status: int, kind: str, code: str | None = None) -> Any:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["request-id"]
    if code is not None:
        assert body["error"]["details"]["error_code"] == code
    return body["error"]


@pytest.mark.parametrize(
    ("event", "status", "param"),
    [
        ({"type": "user.nonsense"}, 400, "events.0"),
        ({}, 400, "events.0"),
        ("hello", 400, "events.0"),
        ({**text("x"), "extra": 1}, 400, "events.0.extra"),
        ({"type": "user.message"}, 400, "events.0.content"),
        ({"type": "user.message", "content": []}, 400, "events.0.content"),
        ({"type": "user.message", "content": "hi"}, 400, "events.0.content"),
        ({"type": "user.message", "content": [{"type": "text"}]}, 400, "events.0.content.0.text"),
        ({"type": "user.message", "content": [{"type": "song"}]}, 400, "events.0.content.0.type"),
        (
            {"type": "user.message", "content": [image("bm90IGFuIGltYWdl")]},
            400,
            "events.0.content.0.source.data",
        ),
        (
            {"type": "user.message", "content": [image("!")]},
            400,
            "events.0.content.0.source.data",
        ),
        (
            {"type": "user.message", "content": [image(media_type="image/tiff")]},
            400,
            "events.0.content.0.source.media_type",
        ),
        (
            {"type": "user.message", "content": [image("A" * 7_200_000)]},
            413,
            "events.0.content.0.source.data",
        ),
        (
            {"type": "user.message", "content": [image(png(9000))]},
            413,
            "events.0.content.0.source.data",
        ),
        (
            {
                "type": "user.message",
                "content": [{"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}],
            },
            400,
            "events.0.content.0.source.type",
        ),
        (
            {
                "type": "user.message",
                "content": [{"type": "image", "source": {"type": "file", "file_id": "file_none"}}],
            },
            400,
            "events.0.content.0.source.file_id",
        ),
        (
            {"type": "user.tool_confirmation", "tool_use_id": NOTHING, "result": "allow"},
            400,
            None,
        ),
        (
            {"type": "user.tool_confirmation", "tool_use_id": NOTHING, "result": "perhaps"},
            400,
            "events.0.result",
        ),
        (
            {
                "type": "user.tool_confirmation",
                "tool_use_id": NOTHING,
                "result": "allow",
                "deny_message": "x",
            },
            400,
            "events.0.deny_message",
        ),
        ({"type": "user.custom_tool_result", "custom_tool_use_id": NOTHING}, 400, None),
        (
            {"type": "user.interrupt", "session_thread_id": "sthr_1"},
            400,
            "events.0.session_thread_id",
        ),
        ({"type": "user.define_outcome", "description": "x"}, 400, "events.0.type"),
        ({"type": "user.tool_result", "tool_use_id": NOTHING}, 400, None),
        ({"type": "system.message", "content": []}, 400, "events.0.type"),
    ],
)
async def test_a_wrong_event_is_named_and_nothing_is_taken(
    client: anthropic.AsyncAnthropic, house: House, event: Any, status: int, param: str | None
) -> None:
    session = await talk(client)
    path = f"/v1/sessions/{session.id}/events"
    for events in ([event], [event, text("good")]):
        answer = await house.client.post(path, json={"events": events})
        kind = "request_too_large" if status == 413 else "invalid_request_error"
        error = check_error(answer, status, kind)
        if param is not None:
            assert error["details"]["param"] == param
    assert await session.events() == []
    assert (await session.shown()).status == "idle"


async def test_one_wrong_event_undoes_those_before_it(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    session = await talk(client)
    wrong: Any = {"type": "user.tool_confirmation", "tool_use_id": NOTHING, "result": "allow"}
    with pytest.raises(anthropic.BadRequestError) as caught:
        await session.send(text("good"), wrong)
    assert caught.value.error_code == "unknown_tool_use"
    assert await session.events() == []


@pytest.mark.parametrize("events", [[], [text("x")] * 51, None, "x", {}])
async def test_how_many_events_there_may_be(
    client: anthropic.AsyncAnthropic, house: House, events: Any
) -> None:
    session = await talk(client)
    answer = await house.client.post(f"/v1/sessions/{session.id}/events", json={"events": events})
    assert check_error(answer, 400, "invalid_request_error")["details"]["param"] == "events"


async def test_what_an_archived_session_still_does(client: anthropic.AsyncAnthropic) -> None:
    session = await talk(client)
    await client.beta.sessions.archive(session.id)
    for attempt in (
        session.send(text("x")),
        session.send({"type": "user.interrupt"}),
        client.beta.sessions.update(session.id, title="x"),
    ):
        with pytest.raises(anthropic.ConflictError) as caught:
            await attempt
        assert caught.value.error_code == "session_archived"
        assert caught.value.response.headers["x-should-retry"] == "false"
    assert (await session.shown()).archived_at is not None
    assert [item async for item in client.beta.sessions.threads.list(session.id)]


async def test_what_a_terminated_session_still_does(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    lost = AgentHistoryMissing("Gone.", code="agent_history_missing")
    house.agent.script = (Fail(lost),)
    session, file = await talk(client), ("a.txt", b"x", "text/plain")
    file_id = (await client.beta.files.upload(file=file)).id
    events = await session.say(text("Go."))
    assert events[-1].type == "session.status_terminated"
    assert "session.error" in types(events)
    assert (await session.shown()).status == "terminated"
    for attempt in (
        session.send(text("x")),
        session.send({"type": "user.interrupt"}),
        client.beta.sessions.update(session.id, title="x"),
        client.beta.sessions.resources.add(session.id, type="file", file_id=file_id),
    ):
        with pytest.raises(anthropic.ConflictError) as caught:
            await attempt
        assert caught.value.error_code == "session_terminated"
    assert types(await session.events())[-1] == "session.status_terminated"
    listed = client.beta.sessions.list(statuses=["terminated"])
    assert [item.id async for item in listed] == [session.id]
    await client.beta.sessions.archive(session.id)
    await client.beta.sessions.delete(session.id)


async def test_a_session_at_work_is_neither_archived_nor_deleted(
    client: anthropic.AsyncAnthropic, house: House
) -> None:
    gate = WaitFor()
    house.agent.script = (gate, Say("Done."))
    session = await talk(client)
    async with session.stream() as stream:
        await session.send(text("x"))
        for attempt in (
            client.beta.sessions.archive(session.id),
            client.beta.sessions.delete(session.id),
            client.beta.sessions.update(session.id, agent={"tools": []}),
        ):
            with pytest.raises(anthropic.ConflictError) as caught:
                await attempt
            assert caught.value.error_code == "session_busy"
        gate.event.set()
        await session.until_idle(stream)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"vault_ids": ["vlt_1"]}, "vault_ids"),
        ({"title": "x" * 2000}, "title"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"budget": {"type": "limit"}}, "budget.max_list_cost"),
        (
            {"budget": {"type": "limit", "max_list_cost": {"amount": "1.5", "currency": "USD"}}},
            "budget.max_list_cost.amount",
        ),
        (
            {"budget": {"type": "limit", "max_list_cost": {"amount": "1", "currency": "EUR"}}},
            "budget.max_list_cost.currency",
        ),
        ({"initial_events": [{"type": "user.interrupt"}]}, "initial_events.0.type"),
        ({"agent": {"type": "robot", "id": "x"}}, "agent.type"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_wrong_session_is_named_and_not_made(
    client: anthropic.AsyncAnthropic, house: House, fields: Any, param: str
) -> None:
    agent = await client.beta.agents.create(name="a", model=MODEL)
    environment = await client.beta.environments.create(name="e")
    body = {"agent": agent.id, "environment_id": environment.id, **fields}
    answer = await house.client.post("/v1/sessions", json=body)
    assert answer.status_code in {400, 413}
    error = check_error(answer, answer.status_code, answer.json()["error"]["type"])
    assert error["details"]["param"] == param
    assert [item async for item in client.beta.sessions.list()] == []


async def test_what_is_archived_begins_no_session(client: anthropic.AsyncAnthropic) -> None:
    agent = await client.beta.agents.create(name="a", model=MODEL)
    environment = await client.beta.environments.create(name="e")
    create = client.beta.sessions.create
    for agent_id, environment_id in (
        ("agent_01jd3k00000000000000000000", environment.id),
        (agent.id, "env_01jd3k00000000000000000000"),
    ):
        with pytest.raises(anthropic.NotFoundError):
            await create(agent=agent_id, environment_id=environment_id)
    await client.beta.environments.archive(environment.id)
    with pytest.raises(anthropic.BadRequestError) as refused:
        await create(agent=agent.id, environment_id=environment.id)
    assert refused.value.error_code == "environment_archived"
    await client.beta.agents.archive(agent.id)
    other = await client.beta.environments.create(name="o")
    with pytest.raises(anthropic.ConflictError) as caught:
        await create(agent=agent.id, environment_id=other.id)
    assert caught.value.error_code == "agent_archived"


async def test_what_is_not_there_or_anothers_is_not_found(
    client: anthropic.AsyncAnthropic, house: House, stranger: dict[str, str]
) -> None:
    session = await talk(client)
    async with sdk(house.url, STRANGER) as other:
        for who, session_id in ((client, NOBODY), (client, "nonsense"), (other, session.id)):
            sessions = who.beta.sessions
            for attempt in (
                sessions.retrieve(session_id),
                sessions.update(session_id, title="x"),
                sessions.archive(session_id),
                sessions.delete(session_id),
                sessions.events.send(session_id, events=[text("x")]),
                sessions.events.list(session_id),
                sessions.events.stream(session_id),
                sessions.threads.list(session_id),
                sessions.threads.events.list("sthr_1", session_id=session_id),
                sessions.resources.list(session_id),
                sessions.resources.add(session_id, file_id="file_1", type="file"),
            ):
                with pytest.raises(anthropic.NotFoundError) as caught:
                    await attempt
                assert caught.value.type == "not_found_error"
        assert [item async for item in other.beta.sessions.list()] == []
    assert (await session.shown()).title is None


async def test_a_task_is_no_session(client: anthropic.AsyncAnthropic, house: House) -> None:
    task_id = await house.submit()
    await house.ended(task_id)
    session_id = (await house.task(task_id))["session_id"]
    assert [item async for item in client.beta.sessions.list(include_archived=True)] == []
    with pytest.raises(anthropic.NotFoundError):
        await client.beta.sessions.retrieve(session_id)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/sessions/x/y", 404, "not_found_error"),
        ("GET", "/v1/agents/x/y/z", 404, "not_found_error"),
        ("PUT", "/v1/sessions", 405, "invalid_request_error"),
        ("DELETE", "/v1/agents", 405, "invalid_request_error"),
        ("GET", "/v1/vaults", 404, "not_found_error"),
        ("POST", "/v1/deployments/x/run", 404, "not_found_error"),
        ("GET", "/v1/memory_stores", 404, "not_found_error"),
        ("GET", "/v1/environments/env_1/work", 404, "not_found_error"),
        ("GET", "/v1/sessions?bogus=1", 400, "invalid_request_error"),
        ("GET", "/v1/sessions?limit=0", 400, "invalid_request_error"),
        ("GET", "/v1/sessions?limit=2&limit=3", 400, "invalid_request_error"),
        ("GET", "/v1/sessions?statuses[]=busy", 400, "invalid_request_error"),
        ("GET", "/v1/sessions?page=nonsense", 400, "invalid_request_error"),
        ("GET", "/v1/sessions?created_at[gt]=soon", 400, "invalid_request_error"),
        ("GET", "/v1/agents?page=env_1", 400, "invalid_request_error"),
    ],
)
async def test_refusals_have_anthropics_shape(
    house: House, method: str, path: str, status: int, kind: str
) -> None:
    check_error(await house.client.request(method, path), status, kind)
    without = await house.client.request(method, path, headers=house.as_key(None))
    assert without.status_code in {401, 404, 405}
    check_error(without, without.status_code, without.json()["error"]["type"])


@pytest.mark.parametrize(
    ("body", "media_type", "code"),
    [
        (b"{", "application/json", "invalid_json"),
        (b"[" * 5000, "application/json", "invalid_json"),
        (b'{"agent": "a", "agent": "b"}', "application/json", "invalid_json"),
        (b"{}", "text/plain", "unsupported_media_type"),
        (b"[]", "application/json", "validation_failed"),
    ],
)
async def test_a_body_that_is_none_is_refused(
    house: House, body: bytes, media_type: str, code: str
) -> None:
    headers = {"content-type": media_type}
    answer = await house.client.post("/v1/sessions", content=body, headers=headers)
    check_error(answer, 400, "invalid_request_error", code)


async def test_a_key_without_the_right_is_refused(house: House) -> None:
    made = await house.client.post(
        "/api/admin/keys", json={"name": "poor", "permissions": ["read:usage"]}
    )
    async with sdk(house.url, made.json()["key"]) as poor:
        for attempt in (
            poor.beta.agents.create(name="a", model=MODEL),
            poor.beta.environments.create(name="e"),
            poor.beta.sessions.list(),
            poor.beta.sessions.retrieve(NOBODY),
            poor.beta.sessions.events.send(NOBODY, events=[text("x")]),
            poor.beta.sessions.events.stream(NOBODY),
            poor.beta.files.list(),
        ):
            with pytest.raises(anthropic.PermissionDeniedError):
                await attempt
