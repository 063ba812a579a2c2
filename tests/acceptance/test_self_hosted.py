"""Self-hosted environments: the official worker elsewhere, the real agent here."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.http.hosting import Hosted, hosted
from tests.http.managed import ASK, TOOLSET, Talk, said, text, types
from tests.support import node
from tests.support.environment_worker import WorkerProcess
from tests.support.sdk import check, sdk
from tests.support.server import ADMIN_KEY, ServerProcess
from tests.support.wire_upstream import (
    Json,
    Reply,
    Text,
    Tool,
    WireUpstream,
    result_text,
    tool_results,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

LEASE = 4  # seconds; a worker says every two that it is there
PATIENCE = 90.0

BUILD = (
    Tool("bash", {"command": "pwd; echo made > made.txt; export WORD=kept"}),
    Tool("bash", {"command": "echo $WORD; false"}),
    Tool("write", {"file_path": "sub/notes.txt", "content": "one\ntwo\n"}),
    Tool("edit", {"file_path": "sub/notes.txt", "old_string": "two", "new_string": "three"}),
    Tool("read", {"file_path": "sub/notes.txt"}),
    Tool("glob", {"pattern": "**/*.txt"}),
    Tool("grep", {"pattern": "thr.e", "path": "sub"}),
)
SLOW = Tool("bash", {"command": "echo begun >> begun.txt; sleep 4; echo finished"})
ENDLESS = Tool("bash", {"command": "echo begun >> begun.txt; sleep 600"})
MARK = Tool("bash", {"command": "echo mark >> mark.txt"})
PLANS = {"build": BUILD, "slow": (SLOW,), "endless": (ENDLESS,), "mark": (MARK,)}


def turn_of(request: Json) -> tuple[str, list[Json]]:
    """What this turn is about, and the results of its tools."""
    results: list[Json] = []
    for message in reversed(request["messages"]):
        if message["role"] != "user":
            continue
        if found := tool_results({"messages": [message]}):
            results = found + results
            continue
        content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        words = " ".join(str(block.get("text", "")) for block in blocks)
        for name in PLANS:
            if f"Please {name}" in words:
                return name, results
    return "", results


def scripted(request: Json) -> Reply:
    name, results = turn_of(request)
    if not name or not request.get("tools"):
        return Reply((Text("A title"),))
    # Where the agent's history had a call already that its server was lost with, it is made again.
    done = [each for each in results if not result_text(each).startswith("[Tool call interrupted")]
    plan = PLANS[name]
    if len(done) < len(plan):
        return Reply((plan[len(done)],))
    # The agent adds reminders of its own to what a tool has given.
    told = (result_text(each).partition("<system-reminder>")[0].strip() for each in done)
    return Reply((Text("\n---\n".join(told)),))


@asynccontextmanager
async def serving(
    directory: Path, *, lease: int = LEASE
) -> AsyncIterator[tuple[ServerProcess, WireUpstream, Hosted]]:
    async with WireUpstream(scripted) as upstream:
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-server-key-for-tests",
            "ANTHROPIC_BASE_URL": upstream.url,
            "WORK_LEASE_TIME": f"{lease}s",
        }
        async with (
            ServerProcess(directory, env) as server,
            sdk(server.url, ADMIN_KEY) as client,
        ):
            yield server, upstream, await hosted(client)


def worker(there: Hosted, server: ServerProcess, directory: Path) -> WorkerProcess:
    return WorkerProcess(directory, server.url, there.id, there.key)


async def until(condition: Callable[[], Any], *, or_show: WorkerProcess | None = None) -> Any:
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := condition()):
                await asyncio.sleep(0.1)
            return found
    except TimeoutError:
        raise AssertionError("" if or_show is None else or_show.output[-4000:]) from None


async def through(session: Talk, words: str) -> list[Any]:
    """Say it; all that happens until the turn is over."""
    found: list[Any] = []
    async with session.stream() as stream:
        await session.send(text(words))
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                found.append(check(event))
                if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                    return found
    raise AssertionError(types(found))


async def last_words(session: Talk) -> str:
    """What the agent has said last, once its turn is over."""
    async with asyncio.timeout(PATIENCE):
        while (await session.shown()).status != "idle" or not said(await session.events()):
            await asyncio.sleep(0.1)
    return said((await session.events())[-12:])


def results_of(events: list[Any]) -> list[Any]:
    return [event for event in events if event.type == "user.tool_result"]


async def test_tools_run_where_the_worker_is(scratch: Path) -> None:
    async with serving(scratch) as (server, upstream, there):
        session = await there.talk(TOOLSET)
        async with worker(there, server, scratch / "elsewhere" / "w1") as one:
            events = await through(session, "Please build.")
            told = said(events).split("\n---\n")
            assert told[0] == str(one.directory)
            assert told[1] == "kept", "the shell stays"
            assert [event.is_error for event in results_of(events)] == [False, True] + [False] * 5
            assert told[4] == "one\nthree"
            assert {Path(line).name for line in told[5].split()} == {"made.txt", "notes.txt"}
            assert told[6].endswith("2:three")
            assert (one.directory / "made.txt").read_text() == "made\n"
            assert (one.directory / "sub" / "notes.txt").read_text() == "one\nthree\n"

        found = {path.name for path in (server.directory / "data").rglob("*")}
        assert found.isdisjoint({"made.txt", "notes.txt", "sub"}), "nothing of it on the server"
        agents = [call.body for call in upstream.calls if call.body.get("tools")]
        names = {tool["name"] for body in agents for tool in body["tools"]}
        assert names == {"bash", "read", "write", "edit", "glob", "grep"}, "none of the agent's own"
        assert there.key not in server.output
        assert "sessions_token" not in server.output


async def test_a_call_that_is_asked_about_runs_once_it_is_allowed(scratch: Path) -> None:
    async with serving(scratch) as (server, _, there):
        session = await there.talk(ASK)
        async with worker(there, server, scratch / "elsewhere" / "w1") as one:
            for word in ("deny", "allow"):
                async with session.stream() as stream:
                    await session.send(text("Please mark."))
                    asked = await session.until_idle(stream)
                    [use] = asked[-1].stop_reason.event_ids
                    await session.send(
                        {"type": "user.tool_confirmation", "tool_use_id": use, "result": word}
                    )
                    async with asyncio.timeout(PATIENCE):
                        async for event in stream:
                            if event.type == "session.status_idle" and (
                                event.stop_reason.type == "end_turn"
                            ):
                                break
                there_now = (one.directory / "mark.txt").exists()
                assert there_now == (word == "allow"), one.output[-4000:]
            assert (one.directory / "mark.txt").read_text() == "mark\n"


async def test_a_worker_is_killed_in_the_middle_of_a_tool(scratch: Path) -> None:
    async with serving(scratch) as (server, _, there):
        session = await there.talk(TOOLSET)
        async with worker(there, server, scratch / "elsewhere" / "w1") as one:
            await session.send(text("Please endless."))
            await until((one.directory / "begun.txt").exists, or_show=one)
            await one.kill()
        async with worker(there, server, scratch / "elsewhere" / "w2") as two:
            words = await last_words(session)
            assert "not known" in words, two.output[-4000:]
            assert (one.directory / "begun.txt").read_text() == "begun\n"
            assert not (two.directory / "begun.txt").exists(), "nobody does it again by himself"
            events = await through(session, "Please mark.")
            assert [event.is_error for event in results_of(events)] == [False]
            assert (two.directory / "mark.txt").read_text() == "mark\n"
        kept = await session.events()
        uses = [event.id for event in kept if event.type == "agent.tool_use"]
        assert [event.tool_use_id for event in results_of(kept)] == uses
        [item] = [check(each) async for each in there.client.beta.environments.work.list(there.id)]
        assert item.data.id == session.id


async def test_the_server_is_killed_in_the_middle_of_a_tool(scratch: Path) -> None:
    async with serving(scratch) as (server, _, there):
        session = await there.talk(TOOLSET)
        async with worker(there, server, scratch / "elsewhere" / "w1") as one:
            await session.send(text("Please slow."))
            await until((one.directory / "begun.txt").exists, or_show=one)
            await server.kill()
            await server.start()
            words = await last_words(session)
            assert words.strip(), one.output[-4000:]
            # The worker was there all the time, unless it took its lease for lost meanwhile.
            assert "finished" in words or "not known" in words
            assert (one.directory / "begun.txt").read_text() == "begun\n", "done once"


async def test_two_workers_have_one_session_each(scratch: Path) -> None:
    async with serving(scratch) as (server, _, there):
        work = there.client.beta.environments.work
        sessions = [await there.talk(TOOLSET) for _ in range(2)]
        async with (
            worker(there, server, scratch / "elsewhere" / "w1") as one,
            worker(there, server, scratch / "elsewhere" / "w2") as two,
        ):
            await asyncio.gather(*(through(session, "Please mark.") for session in sessions))
            marks = [(each.directory / "mark.txt").read_text() for each in (one, two)]
            assert marks == ["mark\n", "mark\n"]
            stats = check(await work.stats(there.id))
            assert (stats.depth, stats.pending) == (0, 0)
            items = [check(each) async for each in work.list(there.id)]
            assert {item.state for item in items} == {"active"}

            await work.stop(items[0].id, environment_id=there.id)

            async def states() -> list[str]:
                return sorted([item.state async for item in work.list(there.id)])

            async with asyncio.timeout(PATIENCE):
                while await states() != ["active", "stopped"]:
                    await asyncio.sleep(0.1)
            assert socket.gethostname() not in str(items), "workers are counted, and not named"


async def test_the_typescript_sdk(scratch: Path) -> None:
    project = scratch / "node"
    await node.prepared(project)
    async with serving(scratch, lease=120) as (server, _, _):  # it sends one heartbeat
        env = {"BASE_URL": server.url, "API_KEY": ADMIN_KEY}
        told = await node.run(project, "node", "out/drive.js", "selfHosted", env=env)
    assert "selfHosted: ok" in told.splitlines()
