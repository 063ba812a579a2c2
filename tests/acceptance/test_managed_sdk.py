"""Anthropic's official SDKs, unmodified, against a real server with the real agent.

The model behind it plays by the words of the message. Every reply and every event that the Python
SDK sees is checked against the SDK's own models; the TypeScript SDK's calls are typed, compiled.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import beta_async_tool

from tests.http.managed import ASK, MODEL, TOOLSET, WEATHER, Talk, said, talk, text, types
from tests.http.test_managed_sessions import png
from tests.support import node
from tests.support.sdk import check, sdk
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import (
    Json,
    Reply,
    Text,
    Thought,
    Tool,
    Usage,
    WireUpstream,
    result_text,
    tool_results,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]


TRIGGERS = (
    "delegate",
    "mounted",
    "bash",
    "weather",
    "linger",
    "remember",
    "hello",
    "Look.",
    "I am Kim",
)


def prompt_of(request: Json) -> tuple[str, list[Json]]:
    """What was asked last, and the results of tools since."""
    results: list[Json] = []
    for message in reversed(request["messages"]):
        if message["role"] != "user":
            continue
        found = tool_results({"messages": [message]})
        if found:
            results = found + results
            continue
        content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        said_here = [str(block.get("text", "")) for block in blocks]
        # The agent adds reminders of its own, which name its tools; and where it goes on after a
        # crash, a note that asks for nothing new.
        words = " ".join(part for part in said_here if "<system-reminder>" not in part)
        if any(trigger in words for trigger in TRIGGERS):
            return words, results
    return "", results


def offered(request: Json, name: str) -> str:
    """The name under which the model is offered a tool."""
    names = [str(tool["name"]) for tool in request.get("tools", ())]
    return next((found for found in names if found.endswith(name)), name)


def scripted(request: Json) -> Reply:
    """The model: it does what the message says."""
    prompt, results = prompt_of(request)
    asked_of = Usage(200, 20, 100, 50)
    if "mounted" in prompt:
        if results:
            files, _, _ = result_text(results[-1]).partition("<system-reminder>")
            return Reply((Text(f"It says: {files.strip()}"),), asked_of)
        command = {"command": "cat /mnt/session/uploads/* /workspace/data/*", "description": "Look"}
        return Reply((Tool("Bash", command),), asked_of)
    if "bash" in prompt:
        # Where the CLI's history had the call already, it calls it cut, and we ask for it again.
        if results and not result_text(results[-1]).startswith("[Tool call interrupted"):
            return Reply((Text(f"Bash said: {result_text(results[-1])}"),), asked_of)
        command = {"command": "echo from-bash", "description": "Say it"}
        return Reply((Thought("Bash it is."), Tool("Bash", command)), asked_of)
    if "weather" in prompt:
        if results:
            return Reply((Text(f"It says: {result_text(results[-1])}"),), asked_of)
        return Reply((Tool(offered(request, "weather"), {"city": "Oslo"}),), asked_of)
    if "delegate" in prompt:
        if results:
            return Reply((Text(f"The helper said: {result_text(results[-1])}"),), asked_of)
        work = {"subagent_type": "helper", "description": "Greet", "prompt": "Say hello."}
        return Reply((Tool(offered(request, "Agent"), work),), asked_of)
    if "linger" in prompt:
        return Reply((Text("One moment, please, I am thinking about it."),), hang_after=4)
    if "remember" in prompt:
        known = "I am Kim" in str(request["messages"])
        return Reply((Text("You are Kim." if known else "I do not know you."),), asked_of)
    return Reply((Text("Hello there, my friend."),), asked_of)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[ServerProcess, WireUpstream]]:
    async with WireUpstream(scripted) as upstream:
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
        }
        async with ServerProcess(directory, env) as server:
            yield server, upstream


async def test_a_conversation_with_the_real_agent(scratch: Path) -> None:
    async with serving(scratch) as (server, upstream), sdk(server.url, ADMIN_KEY) as client:
        session = await talk(client, TOOLSET)
        events = await session.say(text("Say hello."), event_deltas=["agent.message"])
        assert said(events) == "Hello there, my friend."
        pieces = [event.delta.content.text for event in events if event.type == "event_delta"]
        assert "".join(pieces) == "Hello there, my friend."
        assert len(pieces) > 1
        assert {"span.model_request_start", "span.model_request_end"} <= set(types(events))
        ends = [event for event in events if event.type == "span.model_request_end"]
        assert all(event.model_usage.output_tokens for event in ends if not event.is_error)

        events = await session.say(text("Use bash."))
        assert said(events).startswith("Bash said: from-bash")
        assert "agent.thinking" in types(events)
        picture: Any = {"type": "base64", "media_type": "image/png", "data": png()}
        look: Any = [{"type": "text", "text": "Look."}, {"type": "image", "source": picture}]
        await session.say({"type": "user.message", "content": look})
        assert png() in str(upstream.calls[-1].body)

        shown = await session.shown()
        assert shown.status == "idle"
        assert shown.usage.input_tokens >= 200
        assert int(shown.usage.list_cost.amount) >= 1
        kept = await session.events()
        assert [event.id for event in kept] == list(dict.fromkeys(event.id for event in kept))
        await client.beta.sessions.delete(session.id)
        await server.only_warm_agents_left()


async def test_confirmations_interrupts_and_custom_tools(scratch: Path) -> None:
    async with serving(scratch) as (server, _), sdk(server.url, ADMIN_KEY) as client:
        session = await talk(client, ASK, WEATHER)
        for result, outcome in (("allow", "from-bash"), ("deny", "Not now.")):
            asked = await session.say(text("Use bash."))
            [use] = asked[-1].stop_reason.event_ids
            word: Any = {"type": "user.tool_confirmation", "tool_use_id": use, "result": result}
            if result == "deny":
                word["deny_message"] = "Not now."
            assert outcome in said(await session.say(word))

        async with session.stream(event_deltas=["agent.message"]) as stream:
            await session.send(text("linger"))
            async for event in stream:
                if check(event).type == "event_delta":
                    break
            begun = asyncio.get_running_loop().time()
            await session.send({"type": "user.interrupt"})
            stopped = await session.until_idle(stream)
            assert asyncio.get_running_loop().time() - begun < 30  # a bound for the hung, no timing
        assert "user.interrupt" in types(stopped)
        assert said(await session.say(text("Say hello."))) == "Hello there, my friend."

        @beta_async_tool
        async def weather(city: str) -> str:
            """Tells the weather."""
            return f"Rain in {city}."

        await session.send(text("Ask for the weather."))
        runner = client.beta.sessions.events.tool_runner(session.id, tools=[weather], max_idle=1)
        # Calls of the agent's own tools are none of the runner's: it says so, and posts nothing.
        posted = [call.name async for call in runner if call.posted]
        assert posted == ["weather"]
        assert said(await session.events()).rpartition("It says: ")[2].startswith("Rain in Oslo.")


async def test_a_sub_agent_is_a_thread(scratch: Path) -> None:
    async with serving(scratch) as (server, _), sdk(server.url, ADMIN_KEY) as client:
        helper = await client.beta.agents.create(
            name="helper", model=MODEL, description="Greets people.", system="You greet."
        )
        others: Any = {"type": "coordinator", "agents": [helper.id]}
        session = await talk(client, TOOLSET, multiagent=others)
        events = await session.say(text("Please delegate."))
        assert said(events).startswith("The helper said: ")
        assert "Hello there, my friend." in said(events)
        created = next(event for event in events if event.type == "session.thread_created")
        assert created.agent_name == "helper"
        threads = client.beta.sessions.threads
        own, theirs = [check(item) async for item in threads.list(session.id)]
        assert theirs.id == created.session_thread_id
        assert (own.parent_thread_id, theirs.parent_thread_id) == (None, own.id)
        listed = threads.events.list(theirs.id, session_id=session.id)
        assert said([check(event) async for event in listed]) == "Hello there, my friend."


async def test_a_session_goes_on_after_its_server_was_killed(scratch: Path) -> None:
    async with serving(scratch) as (server, _), sdk(server.url, ADMIN_KEY) as client:
        session = await talk(client, TOOLSET)
        await session.say(text("I am Kim."))
        before = [event.id for event in await session.events()]
        await server.kill()
        await server.start()
        session = Talk(client, session.id)
        assert [event.id for event in await session.events()] == before
        assert said(await session.say(text("Do you remember me?"))) == "You are Kim."


async def test_mounted_files_are_there_and_outlive_the_server(scratch: Path) -> None:
    async with serving(scratch) as (server, upstream), sdk(server.url, ADMIN_KEY) as client:
        files, resources = client.beta.files, client.beta.sessions.resources
        first = await files.upload(file=("a.txt", b"first words\n", "text/plain"))
        second = await files.upload(file=("b.txt", b"second words\n", "text/plain"))
        third = await files.upload(file=("c.txt", b"third words\n", "text/plain"))
        agent = await client.beta.agents.create(name="a", model=MODEL, tools=[TOOLSET])
        environment = await client.beta.environments.create(name="e")
        made = check(
            await client.beta.sessions.create(
                agent=agent.id,
                environment_id=environment.id,
                resources=[
                    {"type": "file", "file_id": first.id},
                    {"type": "file", "file_id": second.id, "mount_path": "/workspace/data/b.txt"},
                ],
            )
        )
        session = Talk(client, made.id)
        heard = said(await session.say(text("Show what is mounted.")))
        assert heard == "It says: first words\nsecond words"
        assert "data/b.txt" in str(upstream.calls[-1].body["system"])

        path = "/workspace/data/c.txt"
        check(await resources.add(made.id, type="file", file_id=third.id, mount_path=path))
        await files.delete(third.id)
        await server.kill()
        await server.start()
        session = Talk(client, made.id)
        heard = said(await session.say(text("Show again what is mounted.")))
        assert heard == "It says: first words\nsecond words\nthird words"
        [_, mounted] = made.resources
        assert mounted.type == "file"
        check(await resources.delete(mounted.id, session_id=made.id))
        heard = said(await session.say(text("And now what is mounted?")))
        assert heard == "It says: first words\nthird words"


async def test_a_call_that_waits_survives_its_server(scratch: Path) -> None:
    async with serving(scratch) as (server, _), sdk(server.url, ADMIN_KEY) as client:
        session = await talk(client, ASK)
        asked = await session.say(text("Use bash."))
        [use] = asked[-1].stop_reason.event_ids
        await server.kill()
        await server.start()
        word: Any = {"type": "user.tool_confirmation", "tool_use_id": use, "result": "allow"}
        await session.send(word)
        async with asyncio.timeout(60):
            while "Bash said: from-bash" not in said(await session.events()):
                await asyncio.sleep(0.2)
        with pytest.raises(anthropic.ConflictError):
            await session.send(word)
        uses = [event for event in await session.events() if event.type == "agent.tool_use"]
        assert [event.id for event in uses] == [use]


async def test_the_typescript_sdk(scratch: Path) -> None:
    project = scratch / "node"
    await node.prepared(project)
    async with serving(scratch) as (server, _):
        env = {"BASE_URL": server.url, "API_KEY": ADMIN_KEY, "PICTURE": png(40)}
        scenarios = (
            *("definitions", "files", "resources", "conversation", "interrupt", "threads"),
            *("confirmation", "runner", "absent"),
        )
        told = await node.run(project, "node", "out/drive.js", *scenarios, env=env)
    assert [line for line in told.splitlines() if line.endswith(": ok")] == [
        f"{name}: ok" for name in scenarios
    ]
